"""The registry of views, the views of each kind of backbone, and the place of each view in an embedding."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from transformers_tart.backbones.sentence_encoders import SentenceEncoder
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.checks.arguments import shorten
from transformers_tart.checks.bounds import MAX_LAYERS
from transformers_tart.embeddings.energy import counts_frames
from transformers_tart.inputs.modality import AUDIO, Modality
from transformers_tart.inputs.views import IN_CONTEXT_PROTOCOLS, VIEW_ARGUMENTS, View, as_views, single_view


def split_views(embeddings: Tensor, views: Sequence[View]) -> tuple[Tensor, ...]:
    """Split embeddings (..., layers of all views, hidden) into those (..., layers, hidden) of each view."""
    if len(views) == 1:
        return (embeddings,)
    return embeddings.split(layer_counts(tuple(views), embeddings.shape[-2]), dim=-2)


@lru_cache(maxsize=256)
def layer_counts(views: tuple[View, ...], total: int) -> tuple[int, ...]:
    """Return the number of layers of each view, of `total` layers together.

    With more hidden states no view has fewer layers, so that the sum determines each number.

    Raises:
        ValueError: When no backbone has so many.
    """
    for count in range(1, MAX_LAYERS + 2):
        counts = tuple(view.parts * len(view.layers_of(count)) for view in views)
        if sum(counts) == total and all(counts):
            return counts
        if sum(counts) > total:
            break
    raise ValueError(
        f"The embeddings have {total} layers, which the views {[view.name for view in views]} do not give."
    )


def normalized(embeddings: Tensor, views: Sequence[View]) -> Tensor:
    """Divide embeddings (n, layers of all views, hidden) of the views that ask for it by their Euclidean norms."""
    if not any(view.normalize for view in views):
        return embeddings
    parts = zip(split_views(embeddings, views), views, strict=True)
    found = [normalize(part, dim=-1) if view.normalize else part for part, view in parts]
    return found[0] if len(found) == 1 else torch.cat(found, dim=-2)


ONE_WORD = 'This text: "{text}" means in one word: "'
READINGS = (
    View("mean"),
    View("last", pooling="last"),
    View("max", pooling="max"),
    View("first", pooling="first"),
    View("second", pooling="second"),
    View("early_mean", pooling="early_mean"),
    View("energy", pooling="energy"),
    View("grid", pooling="grid"),
    View("one_word", ONE_WORD, "last"),
    View("one_word_topic", 'This text: "{text}" In one word, this text is about: "', "last"),
    View("one_word_kind", 'This text: "{text}" In one word, this is a kind of: "', "last"),
    View("quoted", 'This text: "{text}', "mean"),
    View("echo", "{text}\n{text}", "mean"),
)
# Readings by name with the layers that measurement favors, and with each choice of layers.
VIEWS: dict[str, View] = {
    **{view.name: view for view in READINGS if view.name},
    **{
        f"{view.name}_{suffix}": replace(view, name=f"{view.name}_{suffix}", layers=layers)
        for view in READINGS
        for suffix, layers in (("final", -1), ("late", "late"), ("all", "all"))
    },
    "sentence": View("sentence", None, "mean", -1, True),
}
# Views of each kind of backbone, chosen on train rows of real sets (hub_cards/tart-reasoner-kernel/views.md).
PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "causal": {"default": ("one_word", "quoted"), "plain": ("mean", "last"), "best": ("one_word", "quoted", "echo")},
    "prompt": {"default": ("mean_all",), "plain": ("mean_all",), "best": ("mean_all",)},
    "masked": dict.fromkeys(("default", "plain", "best"), ("mean", "early_mean")),
    "sentence": dict.fromkeys(("default", "plain", "best"), ("sentence", "mean", "early_mean")),
    "image": dict.fromkeys(("default", "plain", "best"), ("mean", "max")),
    "audio": dict.fromkeys(("default", "plain", "best"), ("mean", "max")),
    "frames": dict.fromkeys(("default", "plain", "best"), ("mean", "energy")),  # audio, read in frames
}


def choose_views(asked: Any, kind: str, sentence: View | None = None) -> tuple[View, ...]:
    """Return the views of a preset, of names in the registry, or of the user.

    Args:
        asked (`str`, `View` or `list`):
            `"default"`, `"plain"` or `"best"`, the name of a view, a [`View`], or a list of views and names.
        kind (`str`):
            Kind of backbone, a key of `PRESETS`.
        sentence ([`View`], *optional*):
            The embedding of a sentence encoder as its repository describes it, in place of that in the registry.

    Raises:
        ValueError: On the name of no view, or one of sentence encoders for another backbone.
    """
    presets = PRESETS.get(kind, PRESETS["image"])
    if isinstance(asked, str):
        asked = presets.get(asked, (asked,))
    asked = asked if isinstance(asked, (list, tuple)) else (asked,)
    known = VIEWS if sentence is None else {**VIEWS, "sentence": sentence}
    for name in asked:
        if isinstance(name, str) and name not in known:
            raise ValueError(
                f"views has {shorten(name)}; give one of {list(presets)}, a View, or names of {sorted(known)}."
            )
    return as_views([known[each] if isinstance(each, str) else each for each in asked])


def compose_views(
    embedding: Mapping[str, Any],
    traits: BackboneTraits,
    modality: Modality,
    projects: bool,
    encoder: SentenceEncoder | None = None,
) -> tuple[View, ...]:
    """Return the views of a composition: those that are asked for, or that of the arguments of version 0.1.

    Args:
        embedding (`dict`):
            Arguments of `from_backbone`, `None` where not given.
        traits ([`BackboneTraits`]), modality ([`Modality`]):
            The backbone, and what it reads.
        projects (`bool`):
            Whether the reasoner reads a few principal components; of the default it then gets the last layer of the
            first view.
        encoder ([`SentenceEncoder`], *optional*):
            Settings of a sentence encoder.
    """
    asked = embedding["views"]
    given = {name: embedding[name] for name in VIEW_ARGUMENTS if embedding[name] is not None}
    if asked is not None and given:
        raise ValueError(f"views and {sorted(given)} are given, which describe a view of their own; give one.")
    has_prompt = embedding["protocol"] in IN_CONTEXT_PROTOCOLS
    if encoder is not None and not has_prompt and (given or asked is None or "sentence" in asked):
        sentence = encoder.view(given)
    else:
        sentence = None
    if given:
        return (sentence or single_view(given, -1 if projects else "all"),)
    if not modality.is_tokenized:
        kind = "frames" if modality == AUDIO and counts_frames(traits.backbone) else str(modality)
    elif has_prompt:
        kind = "prompt"
    elif encoder is not None:
        kind = "sentence"
    else:
        kind = "causal" if traits.is_causal else "masked"
    views = choose_views("default" if asked is None else asked, kind, sentence)
    return (replace(views[0], layers=-1),) if projects and asked is None else views
