"""Times, profiles and peak memory of this package, beside the published procedure, measured in one run."""

# of the pairs, for the command's help, which does not import them
SUMMARIES = {
    "gpt2-reasoner": "the published head for each query on its own, and for all on one reading of the support set",
    "kernel-reasoner": "the published head for each query on its own, and the kernel reasoner",
    "vanilla": "the published protocol vanilla, a prompt at a time, and ours",
    "loo": "the published protocol loo, a prompt at a time, and ours",
    "stream-protocol": "the published protocol stream, a prompt at a time, and ours",
    "stream": "texts of 1 to 120 words one at a time, and in batches of similar length",
    "views": "the default views in place of naive, and one plain pass in place of ours: the ratio is their cost",
    "views-best": "the same for the best views",
}

__all__ = ["SUMMARIES"]
