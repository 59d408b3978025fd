"""Bad and odd arguments of composed models: loading, support sets and forward passes; and of `embed` and the cache."""

# ruff: noqa: E501 (tables of cases)

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch
from fuzz_values import ODD, Case, Group, are_equal, equals, is_likely, refused, without
from helpers.builders import (
    build_backbone,
    build_reasoner,
    build_tokenizer,
    compose,
    make_examples,
    make_pipeline,
    make_texts,
)

from transformers_tart import SupportSet, TartConfig, TartForSequenceClassification, TartReasoner, View
from transformers_tart.configuration_tart import EmbeddingOptions
from transformers_tart.embeddings import embed, encode_texts
from transformers_tart.embeddings.cache import EmbeddingCache


TEXTS = make_texts(4, seed=3)
EXAMPLES = make_examples()
LABELS = [0, 1] * 6
PATHS = ("text", "surrogate", "long text", "NUL", "empty text")


def from_backbone_cases(backbone: Any) -> Iterator[Case]:
    """Arguments of `from_backbone` and of the config that it makes."""
    make = TartForSequenceClassification.from_backbone
    yield from refused("name", lambda v: make(v), mention="backbone|nonsense")
    yield from refused("reasoner", lambda v: make(backbone, v), without("None"), "reasoner|nonsense")
    for name in ("protocol", "template", "pooling", "normalize", "layers", "max_length", "views", "truncate_dim"):
        values = {
            "layers": without("None", "0", "-1"),
            "max_length": without("None", "1e400"),
            "normalize": without("None", "0"),
        }.get(name, without("None"))
        mention = name.removesuffix("s")
        yield from refused(name, lambda v, n=name: make(backbone, build_reasoner(), **{n: v}), values, mention)
    texts = ("None", *PATHS)
    yield from refused("prompt", lambda v: make(backbone, build_reasoner(), prompt=v), without(*texts), "prompt")
    yield from refused(
        "prompt_name", lambda v: make(backbone, build_reasoner(), prompt_name=v), without("None"), "prompt"
    )
    for field in ("name", "template", "pooling", "layers", "normalize", "truncate_dim", "head", "skip"):
        allowed = {
            "name": ("None", "text"),
            "template": ("None",),
            "layers": ("0", "-1"),
            "normalize": ("0",),
            "truncate_dim": ("None",),
            "head": ("0",),
            "skip": ("0",),
        }.get(field, ())
        view = lambda v, f=field: make(backbone, build_reasoner(), views=[View(**{f: v})])  # noqa: E731
        yield from refused(f"{field} of a view", view, without(*allowed), field)
        fields = lambda v, f=field: make(backbone, build_reasoner(), views=[{f: v}])  # noqa: E731
        yield from refused(f"{field} of the fields of a view", fields, without(*allowed), field)
    yield from refused(
        "one of the views", lambda v: make(backbone, build_reasoner(), views=["mean", v]), mention="view"
    )
    for name in ("id2label", "label2id", "num_labels"):
        yield from refused(
            name, lambda v, n=name: make(backbone, build_reasoner(), **{n: v}), without("None"), f"{name}|names"
        )
    for name in ("dtype", "device_map", "torch_dtype", "attn_implementation", "nonsense", "token", "backbone"):
        yield Case(f"{name} of a loaded backbone", lambda n=name: make(backbone, **{n: "auto"}), mention=name)
    yield Case(
        "class of images", lambda: compose(reasoner="kernel", protocol="loo", template="no field"), mention="template"
    )
    yield Case(
        "layer that is not there", lambda: make_pipeline(make(backbone, build_reasoner(), layers=9)), mention="layers"
    )
    yield from refused("config", lambda v: TartForSequenceClassification(v), mention="config")
    yield from refused(
        "config backbone", lambda v: TartForSequenceClassification(TartConfig(), backbone=v), mention="backbone"
    )


def from_pretrained_cases(folder: str, backbone: str) -> Iterator[Case]:
    """Arguments of `from_pretrained`, and of the loading of a backbone by its name."""
    load, make = TartForSequenceClassification.from_pretrained, TartForSequenceClassification.from_backbone
    yield from refused("name", lambda v: load(v), mention="name|nonsense|backbone|repository|path")
    yield from refused(
        "reasoner name", lambda v: TartReasoner.from_pretrained(v), mention="name|nonsense|reasoner|path"
    )
    for way, call in (("task", functools.partial(load, folder)), ("backbone", functools.partial(make, backbone))):
        for name in (
            "dtype",
            "device_map",
            "attn_implementation",
            "revision",
            "subfolder",
            "use_safetensors",
            "variant",
        ):
            allowed = {"revision": ("None", "text"), "use_safetensors": ("None",)}.get(name, ("None",))
            if name == "dtype":
                allowed = ("None", "dtype")
            elif name == "device_map":
                allowed = ("None", "0", "-1")
            elif name == "subfolder":
                allowed = ("None", "empty text")
            yield from refused(
                f"{way} {name}",
                lambda v, c=call, n=name: c(**{n: v}),
                without(*allowed),
                f"{name}|nonsense|no TART|not a TART|Unrecognized",
            )
        for name in (
            "token",
            "cache_dir",
            "local_files_only",
            "force_download",
            "trust_remote_code",
            "max_memory",
            "quantization_config",
        ):
            for key, value in ODD.items():
                yield Case(
                    f"{way} {name}: {key}",
                    lambda c=call, n=name, v=value: c(**{n: v}),
                    lambda m: m is not None,
                    name,
                    may_refuse=True,
                )
        for name in ("nonsense", "support", "examples", "tokenizer"):
            yield Case(f"{way} unknown {name}", lambda c=call, n=name: c(**{n: 1}), mention=name)
    yield from refused("backbone", lambda v: load(folder, backbone=v), without("None"), "backbone|nonsense")
    yield from refused("config", lambda v: load(folder, config=v), without("None"), "config|nonsense")
    for name in ("protocol", "pooling", "layers", "max_length", "id2label", "num_labels", "views", "prompt"):
        allowed, mention = ("None", *(["empty text"] if name == "prompt" else [])), f"{name}|names|view"
        yield from refused(f"field {name}", lambda v, n=name: load(folder, **{n: v}), without(*allowed), mention)


def forward_cases(
    model: TartForSequenceClassification, batch: dict[str, torch.Tensor], expected: torch.Tensor
) -> Iterator[Case]:
    """Token ids, masks, labels and support sets of a forward pass."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    count, length = ids.shape

    def call(**changed: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(**{**batch, **changed}).logits

    yield from refused("input_ids", lambda v: call(input_ids=v), mention="input_ids")
    yield from refused("input_ids alone", lambda v: model(v), mention="input_ids")
    for name in ("attention_mask", "token_type_ids", "labels"):
        yield from refused(name, lambda v, n=name: call(**{n: v}), without("None"), name)
    yield from refused("support", lambda v: call(support=v), without("None"), "support")
    yield from refused("keyword", lambda v: call(nonsense=v), mention="nonsense")
    beyond, below, huge = ids.clone(), ids.clone(), ids.clone()
    beyond[0, 0], below[0, 0], huge[0, 0] = 99, -1, 2**40
    bad: dict[str, dict[str, Any]] = {
        "id beyond the vocabulary": {"input_ids": beyond}, "negative id": {"input_ids": below}, "huge id": {"input_ids": huge},
        "float ids": {"input_ids": ids.float()}, "bool ids": {"input_ids": ids.bool()}, "ids of a text": {"input_ids": ids[0]},
        "deep ids": {"input_ids": ids[None]}, "nested ids": {"input_ids": ids.tolist()}, "array": {"input_ids": ids.numpy()},
        "meta": {"input_ids": ids.to("meta")}, "meta mask": {"attention_mask": mask.to("meta")}, "complex": {"input_ids": ids.to(torch.complex64)},
        "zero mask": {"attention_mask": mask * 0}, "mask of another length": {"attention_mask": mask[:, :-1]},
        "mask of another count": {"attention_mask": mask[:-1]}, "deep mask": {"attention_mask": mask[:, None, None]},
        "negative mask": {"attention_mask": -mask}, "mask of twos": {"attention_mask": 2 * mask}, "NaN mask": {"attention_mask": mask * float("nan")},
        "half mask": {"attention_mask": mask * 0.5}, "additive mask": {"attention_mask": (1.0 - mask) * -1e9}, "text mask": {"attention_mask": "x"},
        "a row without tokens": {"attention_mask": torch.cat([mask[:-1], mask[-1:] * 0])}, "complex mask": {"attention_mask": mask * 1j},
        "labels beyond": {"labels": torch.full((count,), 2)}, "negative labels": {"labels": torch.full((count,), -1)},
        "labels of another count": {"labels": torch.zeros(count + 1, dtype=torch.long)}, "float labels": {"labels": torch.zeros(count)},
        "deep labels": {"labels": torch.zeros(count, 2, dtype=torch.long)}, "scalar label": {"labels": torch.tensor(0)}, "list of labels": {"labels": [0] * count},
        "bool labels": {"labels": torch.ones(count, dtype=torch.bool)}, "meta labels": {"labels": torch.zeros(count, dtype=torch.long, device="meta")},
        "types of another shape": {"token_type_ids": ids[:, :-1]}, "float types": {"token_type_ids": ids.float()},
        "support of another width": {"support": _support(3)}, "support of layers": {"support": _support(32, 7)}, "support twice": {"support": [model.support] * 2},
        "negative id under the mask": {"input_ids": ids.masked_fill(mask == 0, -100)}, "sparse ids": {"input_ids": ids.to_sparse()}, "no ids": {"input_ids": None},
    }  # fmt: skip
    for name, changed in bad.items():
        yield Case(name, lambda c=changed: call(**c), mention="|".join(changed) + "|token")
    left = {n: torch.stack([_left(t[i], mask[i]) for i in range(count)]) for n, t in batch.items()}
    spread = {n: torch.cat([t[:, :1], t[:, :1] * 0, t[:, 1:]], 1) for n, t in batch.items()}
    same: dict[str, dict[str, Any]] = {
        "padding on the left": left, "a hole in the mask": spread, "bool mask": {"attention_mask": mask.bool()},
        "float mask": {"attention_mask": mask.float()}, "int32": {"input_ids": ids.int()}, "uint8 mask": {"attention_mask": mask.to(torch.uint8)},
        "prepared": {"support": model.prepare_support()}, "stored": {"support": model.support}, "half mask of ones": {"attention_mask": mask.half()},
        "ignored labels": {"labels": torch.full((count,), -100)},
        "strides": {"input_ids": ids.repeat(1, 2)[:, :length]}, "int32 labels": {"labels": torch.zeros(count, dtype=torch.int32)},
    }  # fmt: skip
    for name, changed in same.items():
        yield Case(name, lambda c=changed: call(**c), equals(expected))
    empty = {name: tensor[:0] for name, tensor in batch.items()}
    yield Case(
        "empty batch",
        lambda: call(**empty),
        lambda f: tuple(f.shape) == (0, 2),
        may_refuse=True,
        mention="input_ids|empty",
    )
    yield Case("empty texts", lambda: call(**{n: t[:, :0] for n, t in batch.items()}), mention="token|input_ids|mask")
    long = {name: tensor.repeat(1, 500) for name, tensor in batch.items()}
    yield Case("longer than the context", lambda: call(**long), is_likely)
    yield Case("without a support set", lambda: compose()(**batch), mention="support")


def _left(row: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.cat([row[mask == 0], row[mask == 1]])


def _support(width: int, *layers: int) -> SupportSet:
    return SupportSet(torch.randn(12, *layers, width), torch.tensor(LABELS), ("ham", "spam"))


def support_cases(model: TartForSequenceClassification, tokenizer: Any, expected: torch.Tensor) -> Iterator[Case]:
    """Support sets: made, encoded, prepared and stored."""
    support = model.support
    assert support is not None
    for field in ("embeddings", "labels", "label_names"):
        yield from refused(
            f"SupportSet {field}",
            lambda v, f=field: replace(support, **{f: v}),
            without(),
            f"{field}|{field.split('_')[0]}",
        )
    for field in ("texts", "prompt", "options", "digest"):
        yield from refused(
            f"SupportSet {field}", lambda v, f=field: replace(support, **{f: v}), without("None"), field
        )
    vectors, labels, names = support.embeddings, support.labels, support.label_names
    bad: dict[str, dict[str, Any]] = {
        "one class": {"labels": labels * 0}, "label beyond": {"labels": labels + 1}, "negative label": {"labels": labels - 1},
        "int32": {"labels": labels.int()}, "floats": {"labels": labels.float()}, "NaN": {"embeddings": vectors * float("nan")},
        "integers": {"embeddings": vectors.long()}, "fewer": {"embeddings": vectors[:-1]}, "none": {"embeddings": vectors[:0], "labels": labels[:0]},
        "no width": {"embeddings": vectors[..., :0]}, "vector": {"embeddings": vectors.flatten()}, "one name": {"label_names": ("ham",)},
        "a name twice": {"label_names": ("ham", "ham")}, "names of numbers": {"label_names": (0, 1)}, "a name": {"label_names": "ab"},
        "meta": {"embeddings": vectors.to("meta")}, "meta labels": {"labels": labels.to("meta")}, "arrays": {"embeddings": vectors.numpy()},
        "complex": {"embeddings": vectors.to(torch.complex64)}, "deep labels": {"labels": labels[:, None]}, "fewer texts": {"texts": ("w1",)},
        "sparse": {"embeddings": vectors.to_sparse()}, "infinite": {"embeddings": vectors / 0}, "equal embeddings": {"embeddings": vectors[:1].expand_as(vectors)}, "texts of numbers": {"texts": tuple(LABELS)},
        "a set of names": {"label_names": {"ham", "spam"}}, "None among names": {"label_names": ("ham", None)},
    }  # fmt: skip
    for name, changed in bad.items():
        yield Case(
            f"SupportSet of {name}",
            lambda c=changed: replace(support, **c),
            mention="support|label|embedding|text|class",
        )
    yield Case("list of names", lambda: replace(support, label_names=list(names)).label_names, equals(names))

    def classify(given: SupportSet) -> torch.Tensor:
        with torch.no_grad():
            return model(**tokenizer("w1", return_tensors="pt"), support=given).logits

    for width in (3, 33):
        yield Case(f"support set of width {width}", lambda w=width: classify(_support(w)), mention="holds no prompt")
    for name, call in (("prepare_support", model.prepare_support), ("set_support", model.set_support)):
        yield from refused(name, call, without("None"), "support")
        options = support.options or EmbeddingOptions()
        views = tuple(replace(view, pooling="max") for view in options.views)
        other = replace(support, options=replace(options, views=views))
        yield Case(f"{name} of another pooling", lambda c=call, o=other: c(o), mention="pooling")
    yield from refused(
        "encode_support examples", lambda v: model.encode_support(v, tokenizer), mention="example|column|text"
    )
    yield from refused("encode_support tokenizer", lambda v: model.encode_support(EXAMPLES, v), mention="tokenizer")
    for name in ("batch_size", "seed", "keep_texts", "progress_bar"):
        allowed = {"batch_size": ("None", "1e400"), "seed": ("0", "-1"), "keep_texts": ("0",), "progress_bar": ("0",)}[
            name
        ]
        yield from refused(
            f"encode_support {name}",
            lambda v, n=name: model.encode_support(EXAMPLES, tokenizer, **{n: v}),
            without(*allowed),
            name,
        )
    yield from refused("save", lambda v: support.save(v), without(*PATHS), "path|file")


def embed_cases(backbone: Any, tokenizer: Any, expected: tuple, folder: Path) -> Iterator[Case]:
    """Arguments of `embed`, of `encode_texts` and of the embedding cache."""
    texts = [row["text"] for row in EXAMPLES]
    good = {
        "backbone": backbone,
        "tokenizer": tokenizer,
        "support_texts": texts,
        "support_labels": LABELS,
        "query_texts": TEXTS,
    }

    def call(**changed: Any) -> Any:
        return embed(**{**good, **changed})

    for name in good:
        yield from refused(
            name, lambda v, n=name: call(**{n: v}), mention=f"{name}|{name.split('_')[-1]}|column|no order"
        )
        if name.startswith(("support", "query")):
            prompt = lambda v, n=name: call(**{n: v}, protocol="loo")  # noqa: E731
            yield from refused(f"{name} of a prompt", prompt, mention=f"{name}|{name.split('_')[-1]}|column|no order")
    for name in ("protocol", "pooling", "normalize", "layers", "template", "label_names", "max_length", "max_characters",
                 "batch_size", "seed", "reference", "cache"):  # fmt: skip
        none = ("template", "label_names", "max_length", "max_characters", "batch_size", "cache")
        allowed = ("None",) if name in none else ()
        allowed += {"layers": ("0", "-1"), "seed": ("0", "-1"), "normalize": ("0",), "reference": ("0",)}.get(name, ())
        allowed += ("1e400",) if name in ("max_length", "max_characters", "batch_size") else ()
        yield from refused(name, lambda v, n=name: call(**{n: v}), without(*allowed), name)
        if name != "protocol":
            yield from refused(
                f"{name} of a prompt", lambda v, n=name: call(**{n: v}, protocol="vanilla"), without(*allowed), name
            )
    for name, changed in {
        "fewer labels": {"support_labels": LABELS[:-1]}, "no queries": {"query_texts": []}, "none": {"support_texts": [], "support_labels": []},
        "one text": {"query_texts": "w1"}, "string labels": {"support_labels": ["a", "b"] * 6}, "half labels": {"support_labels": [0.5] * 12},
        "negative labels": {"support_labels": [-1] * 12}, "huge labels": {"support_labels": [10**400] * 12}, "tuples": {"query_texts": [("a", 1)]},
        "template without text": {"template": "{label}", "protocol": "loo"}, "reference": {"reference": True, "pooling": "last"},
        "names of fewer classes": {"label_names": ["a"], "protocol": "loo"}, "layer 99": {"layers": 99}, "layer -99": {"layers": -99},
        "a triple": {"query_texts": [("w1", "w2", "w3")]}, "pair for a single": {"query_texts": [("w1", "w2")], "protocol": "loo"},
        "deep labels": {"support_labels": [[0], [1]] * 6}, "None labels": {"support_labels": [None] * 12}, "NaN": {"support_labels": [float("nan")] * 12},
    }.items():  # fmt: skip
        yield Case(name, lambda c=changed: call(**c), mention="label|text|template|layers|reference|pair")
    for name, changed in {
        "tuples": {"support_texts": tuple(texts), "query_texts": tuple(TEXTS)}, "tensor labels": {"support_labels": torch.tensor(LABELS)},
        "array labels": {"support_labels": numpy.array(LABELS)}, "array of texts": {"query_texts": numpy.array(TEXTS)},
        "numpy layer": {"layers": numpy.int64(-1)}, "large batch": {"batch_size": 10**400}, "bool labels": {"support_labels": [False, True] * 6},
        "generator": {"query_texts": iter(TEXTS)},
    }.items():  # fmt: skip
        yield Case(
            f"as {name}",
            lambda c=changed: call(**c),
            equals(expected),
            may_refuse=name == "generator",
            mention="query_texts",
        )
    for name in ("texts", "pooling", "layers", "max_length", "batch_size"):
        allowed = {"texts": (), "pooling": (), "layers": ("0", "-1")}.get(name, ("None", "1e400"))
        given = lambda v, n=name: encode_texts(**{"backbone": backbone, "tokenizer": tokenizer, "texts": TEXTS, n: v})  # noqa: E731
        yield from refused(
            f"encode_texts {name}",
            given,
            without("empty list", "numpy empty", *allowed) if name == "texts" else without(*allowed),
            f"{name.rstrip('s')}|column",
        )
    cache = EmbeddingCache(folder / "cache", backbone)
    odd = without(*PATHS)
    yield from refused("cache folder", lambda v: EmbeddingCache(v, backbone), odd, "folder")
    yield from refused("cache backbone", lambda v: EmbeddingCache(folder / "cache", v), mention="backbone")
    yield from refused(
        "cache setting",
        lambda v: EmbeddingCache(folder / "cache", backbone, layers=v),
        "bytes, set, object, tensor",
        "setting|layers|JSON",
    )
    yield Case("cache in a file", lambda: EmbeddingCache(__file__, backbone), mention=__file__)
    yield from refused("keys", lambda v: cache.get([v]), without("bytes"), "key")
    yield from refused("embeddings", lambda v: cache.put([b"k"], v), mention="embedding|key")
    yield Case("fewer keys", lambda: cache.put([b"k"], torch.zeros(2, 1, 4)), mention="1 keys for")
    yield Case("with a cache", lambda: [call(cache=cache), call(cache=cache)], equals([expected, expected]))


def groups(folder: Path) -> Iterator[Group]:
    """The groups of cases."""
    backbone, tokenizer = build_backbone("llama"), build_tokenizer()
    model = TartForSequenceClassification.from_backbone(build_backbone("llama"), build_reasoner())
    classify = make_pipeline(model, examples=EXAMPLES)
    batch = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
    batch.pop("token_type_ids", None)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return model(**batch).logits

    def vectors() -> torch.Tensor:
        return encode_texts(backbone, tokenizer, TEXTS)

    expected = logits()
    backbone.save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    task = TartForSequenceClassification.from_backbone(str(folder / "backbone"), build_reasoner())
    make_pipeline(task, examples=EXAMPLES).save_pretrained(folder / "task")
    names = str(folder / "task"), str(folder / "backbone")
    embedded = embed(backbone, tokenizer, [row["text"] for row in EXAMPLES], LABELS, TEXTS)
    yield Group("from_backbone", functools.partial(from_backbone_cases, backbone), vectors)
    yield Group("from_pretrained", functools.partial(from_pretrained_cases, *names), vectors)
    yield Group("forward", functools.partial(forward_cases, model, batch, expected), logits)
    yield Group("support", functools.partial(support_cases, model, tokenizer, expected), lambda: classify(TEXTS))
    yield Group("embed", functools.partial(embed_cases, backbone, tokenizer, embedded, folder), vectors)


__all__ = ["are_equal", "groups"]
