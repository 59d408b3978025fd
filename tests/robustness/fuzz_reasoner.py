"""Bad and odd arguments of reasoners, configs, projections and of the conversion of published checkpoints."""

# ruff: noqa: E501 (tables of cases)

import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch
from fuzz_values import ODD, Case, Group, equals, is_likely, refused, without
from helpers.builders import build_reasoner, draw_task
from helpers.published import SIZES, published_state

from transformers_tart import TartConfig, TartReasoner, TartReasonerConfig
from transformers_tart.conversion import convert_reference_checkpoint
from transformers_tart.inputs.views import VIEW_ARGUMENTS
from transformers_tart.projection import WhitenedPCA


COUNTS = (
    "hidden_size", "num_hidden_layers", "intermediate_size", "num_softmax_heads", "head_dim", "num_attention_heads",
    "n_positions", "max_support", "num_orders", "max_classes", "num_components",
)  # fmt: skip


def reasoner_cases(reasoner: TartReasoner, task: tuple, expected: torch.Tensor) -> Iterator[Case]:
    """Embeddings, labels and states."""
    support, labels, queries, truth = task

    def call(**changed: Any) -> torch.Tensor:
        given = {"support_embeddings": support, "support_labels": labels, "query_embeddings": queries, **changed}
        with torch.no_grad():
            return reasoner(**given).logits

    state = reasoner.prepare(support, labels)
    for name in ("support_embeddings", "support_labels", "query_embeddings"):
        yield from refused(name, lambda v, n=name: call(**{n: v}), mention="support|query|embeddings|labels")
    yield from refused("query_labels", lambda v: call(query_labels=v), without("None"), "query labels|labels")
    yield from refused("num_labels", lambda v: call(num_labels=v), without("None"), "num_labels|classes")
    yield from refused("seed", lambda v: reasoner.prepare(support, labels, seed=v), without("0", "-1"), "seed")
    yield from refused("state", lambda v: reasoner.query(v, queries), mention="state")
    yield from refused("queries", lambda v: reasoner.query(state, v), mention="query")
    wrong: dict[str, dict[str, Any]] = {
        "NaN support": {"support_embeddings": support * float("nan")}, "infinite support": {"support_embeddings": support / 0},
        "NaN query": {"query_embeddings": queries * float("nan")}, "beyond float32": {"support_embeddings": support.double() * 1e300},
        "integers": {"support_embeddings": support.long()}, "booleans": {"support_embeddings": support > 0},
        "complex": {"support_embeddings": support.to(torch.complex64)}, "sparse": {"support_embeddings": support.to_sparse()},
        "meta": {"support_embeddings": support.to("meta")}, "meta labels": {"support_labels": labels.to("meta")}, "meta queries": {"query_embeddings": queries.to("meta")},
        "arrays": {"support_embeddings": support.numpy()}, "no batch": {"support_embeddings": support[0], "support_labels": labels[0]},
        "no width": {"support_embeddings": support[..., :0]}, "no examples": {"support_embeddings": support[:, :0], "support_labels": labels[:, :0]},
        "empty batch": {"support_embeddings": support[:0], "support_labels": labels[:0]}, "fewer labels": {"support_labels": labels[:, :-1]},
        "float labels": {"support_labels": labels.float()}, "bool labels": {"support_labels": labels.bool()}, "negative labels": {"support_labels": -labels},
        "huge label": {"support_labels": labels * 2**40}, "ids as labels": {"support_labels": labels * 10**6}, "one class": {"support_labels": labels * 0},
        "equal embeddings": {"support_embeddings": support[:, :1].expand_as(support)}, "other width": {"query_embeddings": queries[..., :-1]},
        "other batch": {"query_embeddings": queries.repeat(2, 1, 1)}, "flat queries": {"query_embeddings": queries[0]},
        "one class less": {"num_labels": 1}, "classes beyond": {"num_labels": 10**9}, "label of another count": {"query_labels": truth[:, :-1]},
        "truth beyond": {"query_labels": truth + 7}, "truth of floats": {"query_labels": truth.float()}, "an example": {"support_embeddings": support[:, :1], "support_labels": labels[:, :1]},
    }  # fmt: skip
    for name, changed in wrong.items():
        yield Case(name, lambda c=changed: call(**c), mention="support|quer|label|class|embeddings")
    for name, changed in {
        "float64": {"support_embeddings": support.double()}, "int32 labels": {"support_labels": labels.int()}, "uint8 labels": {"support_labels": labels.to(torch.uint8)},
        "numpy count": {"num_labels": numpy.int64(2)}, "ignored truth": {"query_labels": truth * 0 - 100}, "strides": {"query_embeddings": queries.mT.contiguous().mT},
    }.items():  # fmt: skip
        yield Case(name, lambda c=changed: call(**c), equals(expected))
    for scale in (1e-30, 1e-10, 1e10, 1e18, 1e30):
        both = {"support_embeddings": support * scale, "query_embeddings": queries * scale}
        yield Case(
            f"embeddings of size {scale}", lambda b=both: call(**b), is_likely, may_refuse=True, mention="embeddings"
        )
    yield Case("no queries", lambda: call(query_embeddings=queries[:, :0]), lambda f: tuple(f.shape) == (1, 0, 2))
    yield Case(
        "far queries", lambda: call(query_embeddings=queries * 1e15), is_likely, may_refuse=True, mention="quer"
    )
    yield Case("classes without examples", lambda: call(num_labels=9), is_likely)


def config_cases(good: torch.Tensor) -> Iterator[Case]:
    """Fields of configs, given and set, and what the conversion reads."""
    for name in COUNTS:
        none = ("None",) if name in ("num_hidden_layers", "intermediate_size", "max_classes") else ()
        zero = ("0",) if name in ("num_hidden_layers", "num_softmax_heads") else ()
        yield from refused(name, lambda v, n=name: TartReasonerConfig(**{n: v}), without(*none, *zero), name)
    for name in (
        "architecture",
        "projection",
        "layer_norm_eps",
        "initializer_range",
        "kernel_sharpness",
        "ridge_strengths",
    ):
        taken = {"projection": ("None",), "layer_norm_eps": ("0", "2.5"), "initializer_range": ("0", "2.5", "numpy number"),
                 "kernel_sharpness": ("None",), "ridge_strengths": ("None",)}.get(name, ())  # fmt: skip
        make = lambda v, n=name: TartReasoner(TartReasonerConfig(**{n: v}))  # noqa: E731
        yield from refused(name, make, without(*taken, "numpy number"), name)
    paths = ("empty text", "text", "NUL", "surrogate", "long text")
    for name in ("protocol", "pooling", "normalize", "layers", "max_length", "template", "views", "prompt", "lower_case",
                 "include_backbone", "has_support", "has_chosen_names", "reasoner_config", "text_config", "id2label",
                 "base_model_name_or_path", "base_model_revision", "base_model_subfolder"):  # fmt: skip
        flags = ("lower_case", "include_backbone", "has_support", "has_chosen_names")
        none = ("None",) if name not in ("protocol", *flags) else ()
        free = {"layers": ("0", "-1"), "normalize": ("0",), "max_length": ("1e400",), "prompt": paths,
                "base_model_name_or_path": ("text", "long text"), "base_model_revision": ("text", "long text"),
                "base_model_subfolder": ("text", "empty text")}.get(name, ())  # fmt: skip
        odd = without(*none, *free)
        if name.endswith("_config"):
            odd = without("None", "dict", "dict of None")
        mention = name.removeprefix("base_model_").removesuffix("s")
        yield from refused(f"TartConfig {name}", lambda v, n=name: TartConfig(**{n: v}), odd, mention)
        if not name.endswith("config") and name != "id2label":
            yield from refused(f"set {name}", lambda v, n=name: _set(n, v), odd, mention)
    yield from refused("n_components", WhitenedPCA, without("1e400"), mention="n_components")
    for name, x in {"vector": torch.zeros(3), "one": torch.zeros(1, 3), "NaN": torch.full((4, 3), torch.nan), "none": torch.zeros(0, 3),
                    "array": numpy.zeros((4, 3)), "meta": torch.zeros(4, 3, device="meta"),
                    "no width": torch.zeros(4, 0), "complex": torch.zeros(4, 3, dtype=torch.complex64)}.items():  # fmt: skip
        yield Case(f"fit {name}", lambda x=x: WhitenedPCA(2).fit(x), mention="embeddings|WhitenedPCA")
    fitted = WhitenedPCA(2).fit(torch.randn(8, 5))
    yield from refused("fit", lambda v: WhitenedPCA(2).fit(v), mention="embeddings|WhitenedPCA")
    yield from refused("transform", lambda v: fitted.transform(v), mention="embeddings|WhitenedPCA")
    yield Case("transform another width", lambda: fitted.transform(torch.zeros(3, 4)), mention="dimensions")
    yield Case("transform before fit", lambda: WhitenedPCA(2).transform(torch.zeros(3, 4)), mention="not fitted")
    yield Case(
        "equal rows",
        lambda: WhitenedPCA(2).fit(torch.ones(4, 3)).transform(torch.ones(4, 3)),
        equals(torch.zeros(4, 2)),
    )
    yield Case(
        "more components than rows",
        lambda: WhitenedPCA(9).fit(torch.randn(4, 3)).transform(torch.randn(2, 3)).shape,
        equals((2, 9)),
    )


def _set(name: str, value: Any) -> None:
    config = TartConfig(protocol="loo") if name == "template" else TartConfig()
    if name in VIEW_ARGUMENTS:
        name, value = "views", [replace(config.views[0], **{name: value})]
    before = getattr(config, name)
    try:
        setattr(config, name, value)
        config.validate()
    finally:
        setattr(config, name, before)


def conversion_cases(folder: Path) -> Iterator[Case]:
    """Checkpoints and their configs."""
    head = folder / "head.pt"
    torch.save(published_state(), head)
    yield from refused(
        "path", lambda v: convert_reference_checkpoint(v, SIZES), mention="path|checkpoint|nonsense|file|name"
    )
    yield from refused(
        "config", lambda v: convert_reference_checkpoint(head, v), mention="config|nonsense|file|name|path"
    )
    for name in ("n_dims", "n_positions", "n_embd", "n_head", "n_layer"):
        for key, value in ODD.items():
            call = lambda n=name, v=value: convert_reference_checkpoint(head, {**SIZES, n: v})  # noqa: E731
            yield Case(f"{name}: {key}", call, mention="n_|size|layers|heads|positions|components|heads")
        yield Case(
            f"without {name}",
            lambda n=name: convert_reference_checkpoint(head, {k: v for k, v in SIZES.items() if k != n}),
            mention=name,
        )
    for name, content in {
        "empty": b"",
        "text": b"hello",
        "zip": b"PK\x03\x04" + b"x" * 50,
        "JSON": json.dumps(SIZES).encode(),
    }.items():
        (folder / name).write_bytes(content)
        yield Case(f"{name} file", lambda n=name: convert_reference_checkpoint(folder / n, SIZES), mention=name)
    states: dict[str, Any] = {
        "list": [1], "number": 3, "NaN": {n: t * float("nan") for n, t in published_state().items()}, "nothing": {},
        "transposed": {n: t.mT if t.dim() == 2 else t for n, t in published_state().items()}, "more": published_state(**{"_backbone.x": torch.zeros(1)}),
        "integers": {n: t.long() for n, t in published_state().items()}, "keys": {3: torch.zeros(1)}, "numbers": dict.fromkeys(published_state(), 1.0),
    }  # fmt: skip
    for name, state in states.items():
        torch.save(state, folder / f"{name}.pt")
        yield Case(
            f"state of {name}",
            lambda n=name: convert_reference_checkpoint(folder / f"{n}.pt", SIZES),
            mention="checkpoint|weight|shape|head",
        )
    yield Case(
        "a good one", lambda: convert_reference_checkpoint(head, SIZES), lambda found: isinstance(found, TartReasoner)
    )


def groups(folder: Path) -> Iterator[Group]:
    """The groups of cases."""
    for architecture in ("kernel", "gpt2"):
        reasoner, task = build_reasoner(architecture), draw_task()

        def logits(reasoner: TartReasoner = reasoner, task: tuple = task) -> torch.Tensor:
            with torch.no_grad():
                return reasoner(*task[:3]).logits

        yield Group(architecture, functools.partial(reasoner_cases, reasoner, task, logits()), logits)
    yield Group("config", functools.partial(config_cases, logits()), logits)
    yield Group("conversion", functools.partial(conversion_cases, folder), logits)
