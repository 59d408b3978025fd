"""Summaries of the pairs for the command's help, which does not import the pairs."""

_PROTOCOL = "the published protocol {}, a prompt at a time, and ours"

SUMMARIES = {
    "gpt2-reasoner": "the published head for each query on its own, and for all on one reading of the support set",
    "kernel-reasoner": "the published head for each query on its own, and the kernel reasoner",
    "vanilla": _PROTOCOL.format("vanilla"),
    "loo": _PROTOCOL.format("loo"),
    "stream-protocol": _PROTOCOL.format("stream"),
    "stream": "texts of 1 to 120 words one at a time, and in batches of similar length",
}

__all__ = ["SUMMARIES"]
