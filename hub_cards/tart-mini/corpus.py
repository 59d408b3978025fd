"""From a folder of text shards to a tokenizer and packed rows of tokens.

A shard is a file `<name>.jsonl.xz` of rows {"text", "source"}; `heldout.jsonl.xz` is never trained on.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from datasets import Dataset, load_dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


HELD_OUT = "heldout.jsonl.xz"
END, PADDING = "<|endoftext|>", "<|padding|>"


def read_documents(folder: Path, exclude: Sequence[str] = (), seed: int = 0) -> Dataset:
    """The documents of all shards but the held-out one, in a random order.

    Args:
        folder (`Path`):
            Where the shards are.
        exclude (`list[str]`, *optional*):
            Sources to leave out.
        seed (`int`, *optional*, defaults to 0):
            Seed of the order.
    """
    shards = sorted(path for path in folder.glob("*.jsonl.xz") if path.name != HELD_OUT)
    if not shards:
        raise ValueError(f"{folder} holds no shard <name>.jsonl.xz.")
    documents = _load(shards)
    absent = set(exclude) - set(documents.unique("source"))
    if absent:
        raise ValueError(f"No document comes from {sorted(absent)}; check the names of the excluded sources.")
    dropped = sorted(set(exclude))  # a list, whose hash is the same in every process
    return documents.filter(lambda source: source not in dropped, input_columns="source").shuffle(seed=seed)


def read_held_out(folder: Path, exclude: Sequence[str] = ()) -> Dataset:
    """The held-out documents."""
    return _load([folder / HELD_OUT]).filter(lambda source: source not in exclude, input_columns="source")


def _load(paths: Sequence[Path]) -> Dataset:
    return load_dataset("json", data_files=[str(path) for path in paths], split="train")


def train_tokenizer(documents: Dataset, vocabulary_size: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE as GPT-NeoX has: any text is encoded without loss, up to Unicode composition (NFC)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents["text"], trainer, length=len(documents))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=PADDING,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def pack(documents: Dataset, tokenizer: PreTrainedTokenizerFast, length: int) -> Dataset:
    """Rows of `length` tokens, in torch format: the documents one after another, each begun by an end-of-text token.

    What is left over after every 10,000 documents is dropped.
    """

    def rows(texts: list[str]) -> dict[str, list[list[int]]]:
        stream = list(
            chain.from_iterable([tokenizer.bos_token_id, *ids] for ids in tokenizer(texts, verbose=False)["input_ids"])
        )
        whole = len(stream) // length * length
        return {"input_ids": [stream[start : start + length] for start in range(0, whole, length)]}

    packed = documents.map(
        rows, batched=True, batch_size=10_000, input_columns="text", remove_columns=documents.column_names
    )
    return packed.with_format("torch")


def windows(ids: Sequence[int], length: int) -> Iterator[Sequence[int]]:
    """Cut a document so that every token but the first is predicted once: neighbors share one token."""
    for start in range(0, max(len(ids) - 1, 1), length - 1):
        yield ids[start : start + length]
