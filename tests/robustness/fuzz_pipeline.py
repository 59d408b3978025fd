"""Bad and odd inputs of pipelines of texts, images and audio: their constructor, examples, queries and arguments."""

# ruff: noqa: E501 (tables of cases)

import collections
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
import torch
from datasets import Dataset, DatasetDict, IterableDataset
from fuzz_values import ODD, Case, Group, are_equal, equals, is_answer, refused, without
from helpers.builders import (
    build_backbone,
    build_reasoner,
    build_tokenizer,
    compose,
    make_examples,
    make_pipeline,
    make_texts,
)
from helpers.media_backbones import RATE, make_media, make_media_examples, processor_of, shared_media, to_png
from PIL import Image
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from transformers_tart import SupportSet, TartClassificationPipeline, TartForSequenceClassification


TEXTS = make_texts(4, seed=3)
EXAMPLES = make_examples()
LONG = " ".join(make_texts(30_000, max_words=20))[:1_000_000]
COLUMNS = {name: [row[name] for row in EXAMPLES] for name in ("text", "label")}
# odd values that are no text, nor many of them
NO_TEXTS = without(
    "empty text", "text", "NUL", "surrogate", "long text", "empty list", "numpy empty", "empty DataFrame", "tuple"
)


class Text(str):
    """A string of a kind of its own."""


class Rows(torch.utils.data.Dataset):
    """A torch dataset of texts."""

    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, index: int) -> str:
        return TEXTS[index]


def failing(items: list, error: type[Exception] = KeyError) -> Iterator:
    """Yield items, and then fail."""
    yield from items
    raise error("the user's own")


def endless() -> Iterator[str]:
    """Yield texts for ever."""
    while True:
        yield from TEXTS


def raises_own(attempt: Any) -> bool:
    """Whether an attempt ends with the error of the user's generator."""
    try:
        attempt()
    except KeyError as err:
        return "the user's own" in str(err)
    return False


def relabeled(*labels: Any, count: int = 12) -> list[dict[str, Any]]:
    """Examples under these labels in turn."""
    return [{**row, "label": labels[i % len(labels)]} for i, row in enumerate(make_examples(count))]


def query_cases(classify: TartClassificationPipeline, expected: list) -> Iterator[Case]:
    """Inputs of a call."""

    def call(inputs: Any) -> Any:
        found = classify(inputs)
        return found if isinstance(found, (list, dict)) else list(found)

    yield from refused("query", call, NO_TEXTS, "input|text|column")
    for key, value in ODD.items():
        if key not in ("empty text", "text", "NUL", "surrogate", "long text"):
            yield Case(f"list with: {key}", lambda v=value: call(["w1", v]), mention="Input 1")
            is_empty = key in ("empty list", "numpy empty")  # a column without rows
            check = equals([]) if is_empty else None
            yield Case(f"dict of: {key}", lambda v=value: call({"text": v}), check, mention="The input|Input 0|column")
        if key not in ("empty text", "text", "NUL", "surrogate", "long text", "None", "nan", "NA", "NaT"):
            yield Case(f"pair of: {key}", lambda v=value: call([{"text": "w1", "text_pair": v}]), mention="Input 0")
    yield from refused(
        "queries", call, "0", "input|column|text",
        pairs_as_tuples=[("w1", "w2")], nested=[["w1"], ["w2"]], other_key={"sentence": "w1"}, no_pair={"text_pair": "w1"},
        several_texts=[{"text": TEXTS}], splits=DatasetDict(),
        split=DatasetDict({"train": Dataset.from_dict({"text": TEXTS})}), frame=pandas.DataFrame({"body": TEXTS}),
        arrow=pyarrow.table({"body": TEXTS}), dataset=Dataset.from_dict({"body": TEXTS}),
        missing=pandas.DataFrame({"text": ["w1", None]}), missing_series=pandas.Series(["w1", float("nan")]),
        twice=pandas.DataFrame([["w1", "w2"]], columns=["text", "text"]), bytes_array=numpy.array([b"w1"]),
        matrix=numpy.array([["w1", "w2"]]), file=io.BytesIO(b"w1"), arrow_null=pyarrow.array(["w1", None]),
        set_of_texts=set(TEXTS), grouped=pandas.DataFrame({"text": TEXTS}).groupby("text"), ints=range(3),
    )  # fmt: skip
    yield Case("file object of lines", lambda: call(io.StringIO("\n".join(TEXTS))), is_answer, may_refuse=True)
    whole: dict[str, Any] = {
        "tuple": tuple(TEXTS), "deque": collections.deque(TEXTS), "array": numpy.array(TEXTS),
        "objects": numpy.array(TEXTS, dtype=object), "Series": pandas.Series(TEXTS, index=[7, 7, 8, 9]),
        "Index": pandas.Index(TEXTS), "category": pandas.Series(TEXTS, dtype="category"),
        "frame": pandas.DataFrame({"id": 1, "text": TEXTS}), "arrow array": pyarrow.array(TEXTS),
        "chunked": pyarrow.chunked_array([TEXTS]), "arrow table": pyarrow.table({"text": TEXTS}),
        "dataset": Dataset.from_dict({"text": TEXTS}), "column": Dataset.from_dict({"text": TEXTS})["text"],
        "values": dict(enumerate(TEXTS)).values(), "own strings": [Text(t) for t in TEXTS], "torch dataset": Rows(),
        "numpy strings": [numpy.str_(t) for t in TEXTS], "dicts": [{"text": t} for t in TEXTS],
        "columns": {"text": TEXTS}, "labeled": [{"text": t, "label": "ham", "id": 1} for t in TEXTS],
        "pairs of None": [{"text": t, "text_pair": None} for t in TEXTS],
        "key dataset": KeyDataset(Dataset.from_dict({"a": TEXTS}), "a"), "generator": iter(TEXTS), "map": map(str, TEXTS),
        "stream": Dataset.from_dict({"text": TEXTS}).to_iterable_dataset(), "ordered": collections.OrderedDict.fromkeys(TEXTS).keys(),
    }  # fmt: skip
    for name, inputs in whole.items():
        yield Case(f"queries as {name}", lambda i=inputs: call(i), equals(expected))
    single = {"own string": Text(TEXTS[0]), "numpy": numpy.str_(TEXTS[0]), "array": numpy.array(TEXTS[0])}
    for name, text in {**single, "mapping": collections.UserDict(text=TEXTS[0])}.items():
        yield Case(f"query as {name}", lambda t=text: call(t), equals(expected[0]))
    for name, odd, clean in (
        ("surrogate", "w1 \ud800 w2", "w1 \ufffd w2"), ("pair of surrogates", "\ud83d\ude00", "\U0001f600"),
        ("half pair in a dict", {"text": "w1", "text_pair": "\udfff"}, {"text": "w1", "text_pair": "\ufffd"}),
        ("megabyte", LONG, " ".join(LONG.split()[:64])), ("one word of a megabyte", "x" * 10**6, "x"),
        ("spaces", " " * 10**6 + "w1", "w1"),
    ):  # fmt: skip
        yield Case(name, lambda o=odd: call(["w1", o]), lambda found, c=clean: are_equal(found, call(["w1", c])))
    yield Case("many megabytes", lambda: call([LONG] * 3), lambda f: are_equal(f, [f[0]] * 3) and is_answer(f))
    for text in ("", " ", "\0", "\0" * 100, "w1\0w2", "\u202ew1", "\U0010ffff", "<pad>", "<s></s>", "e\u0301" * 1000):
        yield Case(f"text {text[:6]!r}", lambda t=text: call([t, "w1"])[0], is_answer)
    for name, nothing in {"list": [], "tuple": (), "array": numpy.array([]), "frame": pandas.DataFrame({"text": []}),
                          "arrow": pyarrow.array([]), "iterator": iter([]), "dataset": Dataset.from_dict({"text": []}),
                          "Series": pandas.Series([], dtype=str)}.items():  # fmt: skip
        yield Case(f"no queries: {name}", lambda n=nothing: call(n), equals([]))
    yield Case("failing generator", lambda: raises_own(lambda: call(failing(TEXTS))), bool)
    yield Case(
        "half of an endless generator", lambda: [next(r) for r in [classify(endless())] for _ in range(40)], is_answer
    )
    yield Case(
        "abandoned generator",
        lambda: next(classify(failing(TEXTS * 9), batch_size=1)),
        equals(expected[0]),
        may_refuse=True,
    )
    stopped = IterableDataset.from_generator(lambda: failing([{"text": "w1"}], ValueError))
    yield Case("failing stream", lambda: call(stopped), mention="user's own")


def example_cases(classify: TartClassificationPipeline, expected: list) -> Iterator[Case]:
    """Examples of a call, and those that are stored."""

    def call(examples: Any) -> Any:
        return classify(TEXTS, examples=examples)

    def store(examples: Any) -> None:
        support = classify.model.support
        try:
            classify.set_examples(examples)
        finally:
            assert classify.model.support is support, "the support set is another"

    one = without("None", "empty list", "numpy empty", "empty DataFrame")
    yield from refused("examples", call, one, "example|column|text|support")
    yield from refused("set_examples", store, one, "example|column|text|support")
    empty = {
        "frame": pandas.DataFrame({"text": [], "label": []}),
        "tuple": (),
        "mapping": {},
        "arrow": pyarrow.table({}),
    }
    yield from refused("no examples", call, "empty list, numpy empty, empty DataFrame", "example", **empty)
    for key, value in ODD.items():
        if key not in ("text", "NUL", "surrogate", "long text", "enum"):
            half = [value if i % 2 else "x" for i in range(12)]
            yield Case(f"mixed labels: {key}", lambda h=half: call(relabeled(*h)), mention="label")
            labels = [value, value, "a", "b"] * 3
            yield Case(f"column of labels: {key}", lambda v=labels: call({**COLUMNS, "label": v}), mention="label")
            yield Case(
                f"labels are: {key}", lambda v=value: call({**COLUMNS, "label": v}), mention="label|length|column"
            )
        if key not in ("empty text", "text", "NUL", "surrogate", "long text"):
            yield Case(
                f"example text: {key}",
                lambda v=value: call([*EXAMPLES, {"text": v, "label": "ham"}]),
                mention="example 12",
            )
            yield Case(f"texts are: {key}", lambda v=value: call({**COLUMNS, "text": v}), mention="text|length|column")
        yield Case(f"example: {key}", lambda v=value: call([*EXAMPLES, v]), mention="Example 12")
    yield from refused(
        "examples", call, "-1", "example|label|column|length|embeddings are equal",
        one_class=relabeled("ham"), unequal={**COLUMNS, "label": ["a"]}, extra=[{**EXAMPLES[0], "x": 1}],
        halves=relabeled(0, 1, 0.5), huge=relabeled(0, 10**400, float("inf")), blank=relabeled("a", " "),
        ignored=relabeled(0, -100), nested=[EXAMPLES], numbered={"text": {0: "a"}, "label": {0: 1}},
        columns_of_one={"text": ["w1"], "label": ["a"]}, arrays=numpy.array([["w1", "a"], ["w2", "b"]]),
        keys=[{1: "w1", 2: "a"}], mixed_keys=[{"text": "w1", "label": "a"}, {1: 2}], not_a_key=[{None: 1, "text": "a"}],
        split=DatasetDict({"dev": Dataset.from_list(EXAMPLES)}), nan=relabeled("a", float("nan")), tensors=relabeled(torch.zeros(2)),
        same_name=relabeled("a", "a"), complex=relabeled(0, 1j), support=classify.model.support.embeddings,
        one_text=[{"text": "w1", "label": "a"}, {"text": "w1", "label": "b"}], failing=failing(EXAMPLES, ValueError) and 3,
    )  # fmt: skip
    yield Case("failing generator of examples", lambda: raises_own(lambda: call(failing(EXAMPLES))), bool)
    yield Case("failing generator to store", lambda: raises_own(lambda: store(failing(EXAMPLES))), bool)
    clean: dict[str, Any] = {
        "columns": COLUMNS, "frame": pandas.DataFrame(COLUMNS), "arrow": pyarrow.table(COLUMNS),
        "dataset": Dataset.from_list(EXAMPLES), "generator": iter(EXAMPLES), "tuple": tuple(EXAMPLES),
        "splits": DatasetDict({"train": Dataset.from_list(EXAMPLES)}), "pairs": [(r["text"], r["label"]) for r in EXAMPLES],
        "more keys": [{**r, "id": i} for i, r in enumerate(EXAMPLES)],
        "stream": Dataset.from_list(EXAMPLES).to_iterable_dataset(), "own dicts": [collections.UserDict(r) for r in EXAMPLES],
        "arrays": {name: numpy.array(values) for name, values in COLUMNS.items()}, "support": classify.model.support,
        "numpy labels": relabeled(numpy.str_("ham"), numpy.str_("spam")), "Series": {k: pandas.Series(v) for k, v in COLUMNS.items()},
    }  # fmt: skip
    for name, examples in clean.items():
        yield Case(f"examples as {name}", lambda e=examples: call(e), equals(expected))
    for name, pair in {"booleans": (False, True), "integers": (0, 1), "floats": (0.0, 1.0), "numpy": (numpy.int8(0), numpy.int64(1)),
                       "negative": (-1, 1), "huge": (0, 10**400), "tensors": (torch.tensor(0), torch.tensor(1)),
                       "surrogates": ("\ud800", "z"), "NUL": ("\0", "z"), "long": ("a" * 10**4, "b")}.items():  # fmt: skip
        found = lambda f: are_equal([row["score"] for row in f], [row["score"] for row in expected])  # noqa: E731
        yield Case(f"labels as {name}", lambda p=pair: call(relabeled(*p)), found, may_refuse=name in ("huge",))
    yield Case(
        "a class an example",
        lambda: call([{"text": t, "label": str(i)} for i, t in enumerate(make_texts(300, 5))]),
        is_answer,
    )
    yield Case("long examples", lambda: call([*EXAMPLES, {"text": LONG, "label": "ham"}]), is_answer)


def argument_cases(classify: TartClassificationPipeline, expected: list) -> Iterator[Case]:
    """Arguments of a call."""
    for name in ("top_k", "batch_size", "max_length", "function_to_apply"):
        allowed = {"top_k": ("None", "empty text"), "function_to_apply": ("None",)}.get(name, ("None",))
        yield from refused(name, lambda v, n=name: classify(TEXTS, **{n: v}), without("None", "1e400", *allowed), name)
    for name in ("truncation", "padding", "padding_side", "return_attention_mask", "verbose", "return_token_type_ids"):
        yield from refused(name, lambda v, n=name: classify(TEXTS, **{n: v}), without("None"), name)
    for name in ("add_special_tokens", "stride", "is_split_into_words", "split_special_tokens"):
        yield from refused(
            name, lambda v, n=name: classify(TEXTS, **{n: v}), without("0" if name == "stride" else ""), name
        )
    for name in ("return_tensors", "pad_to_multiple_of", "num_workers"):
        for key, value in ODD.items():
            yield Case(f"{name}: {key}", lambda n=name, v=value: classify(TEXTS, **{n: v}), equals(expected))
    for key, value in ODD.items():
        progress = functools.partial(classify, TEXTS, progress_bar=value)
        yield Case(f"progress_bar: {key}", progress, equals(expected), "progress_bar", may_refuse=True)
    for name in (
        "Examples",
        "return_all_scores",
        "temperature",
        "self",
        "support",
        "label_names",
        "text_pair",
    ):
        yield Case(f"unknown argument {name}", lambda n=name: classify(TEXTS, **{n: None}), mention=name)
    for name, value, clean in (("top_k", numpy.uint8(1), 1), ("top_k", 10**400, None), ("batch_size", numpy.int64(1), 1), ("batch_size", 10**400, None),
                               ("max_length", 10**400, None), ("max_length", numpy.int16(3), 3), ("function_to_apply", "SIGMOID", "sigmoid")):  # fmt: skip
        check = lambda f, n=name, c=clean: are_equal(f, classify(TEXTS, **{n: c}))  # noqa: E731
        yield Case(f"{name} as {type(value).__name__}", lambda n=name, v=value: classify(TEXTS, **{n: v}), check)


def constructor_cases(classify: TartClassificationPipeline, expected: list) -> Iterator[Case]:
    """Arguments of the constructor, alone and through `pipeline`."""
    model, tokenizer = classify.model, classify.tokenizer

    def make(**options: Any) -> Any:
        given = {"model": model, "tokenizer": tokenizer, **options}
        return pipeline("tart-classification", **given)(TEXTS)

    def construct(**options: Any) -> Any:
        return TartClassificationPipeline(**{"model": model, "tokenizer": tokenizer, **options})(TEXTS)

    for way, call in (("pipeline", make), ("class", construct)):
        taken = ("None", "empty text", "text", "NUL", "long text", "surrogate")
        yield from refused(
            f"{way} model",
            lambda v, c=call: c(model=v),
            without("None", "surrogate", "long text"),
            "model|backbone|nonsense|repo|hub",
        )
        yield from refused(
            f"{way} tokenizer", lambda v, c=call: c(tokenizer=v), without("None"), "tokenizer|nonsense|name"
        )
        yield from refused(f"{way} examples", lambda v, c=call: c(examples=v), without("None"), "example|column|text")
        yield from refused(f"{way} backbone", lambda v, c=call: c(backbone=v), without("None"), "backbone")
        yield from refused(
            f"{way} batch_size", lambda v, c=call: c(batch_size=v), without("None", "1e400"), "batch_size"
        )
        yield from refused(f"{way} device", lambda v, c=call: c(device=v), without("None", "-1", "0"), "device")
        yield from refused(
            f"{way} embedding_cache", lambda v, c=call: c(embedding_cache=v), without(*taken), "embedding_cache"
        )
        yield from refused(
            f"{way} top_k", lambda v, c=call: c(top_k=v), without("None", "1e400", "empty text"), "top_k"
        )
    yield from refused(
        "processor of images", lambda v: construct(image_processor=v), without("None"), "image_processor"
    )
    yield Case("unknown argument", lambda: construct(exampels=EXAMPLES), mention="exampels")
    yield Case("device that is not there", lambda: construct(device="cuda:9"), mention="device")
    yield Case(
        "tokenizer of more tokens",
        lambda: construct(tokenizer=_larger_tokenizer()),
        mention="vocabulary|token",
        may_refuse=False,
    )
    yield Case("cache in a file", lambda: construct(embedding_cache=__file__), mention=__file__)


def _larger_tokenizer() -> Any:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(TEXTS)
    return tokenizer


def media_cases(modality: str, classify: TartClassificationPipeline, expected: list) -> Iterator[Case]:
    """Inputs of images or audio."""
    items, one = make_media(modality, 3), make_media(modality, 1)[0]
    array = numpy.asarray(one)
    for key, value in ODD.items():
        if key not in ("empty list", "list", "nested list", "tuple", "list of None", "range", "set", "numpy empty"):
            yield Case(
                f"one: {key}",
                lambda v=value: classify(v),
                mention="input|column|no file|audio|image|device",
                check=_is_failed,
                may_refuse=True,
            )
        batch = functools.partial(classify, [items[0], value, items[2]])
        yield Case(
            f"among others: {key}",
            batch,
            lambda f: are_equal([f[0], f[2]], [expected[0], expected[2]]) and _is_failed(f[1]),
        )
    odd: dict[str, Any] = {
        "no file": "/nowhere/x.png", "folder": "/", "NaN": array.astype("float32") * float("nan"), "flat": array.reshape(-1)[:7],
        "deep": array[None, None, None, None], "complex": array.astype(complex), "broken file": b"\x89PNG\r\n\x1a\n" + b"x" * 50,
        "bytes cut off": to_png(Image.new("RGB", (40, 40)))[:60], "no address": "http://[", "address": "ftp://x/y",
        "data": "data:image/png;base64,%%%", "dict": {"bytes": None, "path": None}, "other dict": {"a": 1},
        "rate": {"array": array, "sampling_rate": -1}, "rate text": {"array": array, "sampling_rate": "x"}, "hidden": {"path": "\0"},
        "infinite": numpy.full(array.shape, numpy.inf, "float32"), "empty": array[:0], "device": "/dev/zero", "text objects": numpy.array(["a"]),
    }  # fmt: skip
    for key, value in odd.items():
        yield Case(
            f"bad: {key}",
            lambda v=value: classify([items[0], v, items[2]]),
            lambda f: are_equal(f[0], expected[0]) and _is_failed(f[1]),
        )
        examples = [*make_media_examples(modality), {modality: value, "label": "a"}]
        yield Case(f"bad example: {key}", lambda e=examples: classify(items, examples=e), mention="example 12|dict")
    yield from refused("examples", lambda v: classify(items, examples=v), without("None"), "example|column")
    for name in ("top_k", "batch_size", "function_to_apply"):
        values = without("None", "1e400", *(["empty text"] if name == "top_k" else []))
        yield from refused(name, lambda v, n=name: classify(items, **{n: v}), values, name)
    yield Case("numbers", lambda: classify(array.tolist()), mention="numpy.asarray")
    whole = {
        "tuple": tuple(items),
        "generator": iter(items),
        "objects": _objects(items),
        "column": pandas.Series(items),
    }
    for key, value in {**whole, "frame": pandas.DataFrame({modality: items})}.items():
        yield Case(f"many as {key}", lambda v=value: list(classify(v)), equals(expected))


def _objects(items: list) -> numpy.ndarray:
    found = numpy.empty(len(items), dtype=object)
    found[:] = items
    return found


def _is_failed(row: Any) -> bool:
    if isinstance(row, list):
        return all(map(_is_failed, row))
    return row["label"] is None and bool(row["error"])


def _prompt_cases(classify: TartClassificationPipeline) -> Iterator[Case]:
    """Inputs of a pipeline that writes its examples into a prompt."""
    yield from refused(
        "query",
        lambda v: list(classify([v])),
        without("empty text", "text", "NUL", "surrogate", "long text"),
        "Input 0",
    )
    yield Case("pair", lambda: classify({"text": "w1", "text_pair": "w2"}), mention="text_pair")
    for text in ("", "\0", "w1" * 100_000, "\ud800", "{text}", "Label:"):
        yield Case(f"text {text[:6]!r}", lambda t=text: classify([t]), is_answer)
    yield Case(
        "prompt that does not fit", lambda: classify("w1", examples=make_examples(200)), is_answer, may_refuse=True
    )
    yield Case(
        "stored support of another protocol",
        lambda: classify("w1", examples=make_pipeline().model.support),
        mention="protocol",
    )


def groups(folder: Path) -> Iterator[Group]:
    """The groups of cases."""
    model = TartForSequenceClassification.from_backbone(build_backbone("llama"), build_reasoner())
    classify = make_pipeline(model, examples=EXAMPLES)
    expected = classify(TEXTS)
    for cases in (query_cases, example_cases, argument_cases, constructor_cases):
        name = cases.__name__.removesuffix("_cases")
        yield Group(name, functools.partial(cases, classify, expected), lambda: classify(TEXTS))
    for modality, family in (("image", "vit"), ("audio", "wav2vec2")):
        argument = {"image": "image_processor", "audio": "feature_extractor"}[modality]
        options = {argument: processor_of(family), "examples": make_media_examples(modality)}
        media = pipeline("tart-classification", model=shared_media(family), **options)
        items = make_media(modality, 3)
        answers = media(items)
        good = functools.partial(media, items)
        yield Group(modality, functools.partial(media_cases, modality, media, answers), good)
    prompted = make_pipeline(compose(protocol="vanilla"), examples=make_examples(4))
    yield Group("prompt", functools.partial(_prompt_cases, prompted), lambda: prompted(TEXTS))


__all__ = ["RATE", "SupportSet", "groups"]
