"""The registry of views, the views of each kind of backbone, and the place of each view in an embedding."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad
from transformers import PreTrainedTokenizerBase

from transformers_tart.backbones.sentence_modules import SentenceEncoder
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.checks.arguments import shorten
from transformers_tart.checks.bounds import MAX_LAYERS
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.embeddings.energy import counts_frames
from transformers_tart.inputs.modality import AUDIO, Modality
from transformers_tart.inputs.texts import write_text
from transformers_tart.inputs.tokenization import encode
from transformers_tart.inputs.views import IN_CONTEXT_PROTOCOLS, View, as_views, single_view, take_view_arguments


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


def join_views(parts: Sequence[Tensor]) -> Tensor:
    """Join embeddings (n, layers, hidden) of each view to one tensor, narrow ones filled with 0."""
    width = max(part.shape[-1] for part in parts)
    return torch.cat([pad(part, (0, width - part.shape[-1])) for part in parts], dim=-2)


def normalized(embeddings: Tensor, views: Sequence[View]) -> Tensor:
    """Normalize and then truncate the embeddings (n, layers of all views, hidden) of the views that ask for it."""
    if not any(view.normalize or view.truncate_dim for view in views):
        return embeddings
    parts = zip(split_views(embeddings, views), views, strict=True)
    found = [(normalize(part, dim=-1) if view.normalize else part)[..., : view.truncate_dim] for part, view in parts]
    return found[0] if len(found) == 1 else join_views(found)


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
    View("one_word_described", 'This text: "{text}" is best described in one word as "', "last"),
    View("one_word_category", 'This text: "{text}" The category of this text, in one word: "', "last"),
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
# Read in one pass, whose two wordings are endings of one stem.
ONE_PROMPT = ("one_word", "one_word_final", "one_word_described", "one_word_described_final", "quoted")
# Views of each kind of backbone, chosen on train rows of real sets (hub_cards/tart-reasoner-kernel/views.md).
PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "causal": {
        "default": ONE_PROMPT,
        "plain": ("mean", "mean_final", "last", "last_final"),
        "best": (*ONE_PROMPT, "one_word_category", "one_word_category_final", "echo"),
    },
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


def _has_sentence(asked: Any) -> bool:
    """Return whether the view of a sentence encoder is among those that are asked for."""
    if asked is None or isinstance(asked, str):
        asked = PRESETS["sentence"].get(asked or "default", (asked,))
    return _names_sentence(asked)


def _names_sentence(asked: Any) -> bool:
    return isinstance(asked, (list, tuple)) and any(isinstance(each, str) and each == "sentence" for each in asked)


def compose_texts(
    embedding: Mapping[str, Any], modality: Modality, encoder: SentenceEncoder | None = None
) -> dict[str, Any]:
    """Return the options for the texts of a composition, which a sentence encoder sets where they are not given.

    Raises:
        ValueError: When options for texts are given for another modality, or a prompt by a name that there is not.
    """
    prompt, name = embedding["prompt"], embedding["prompt_name"]
    if prompt is not None and name is not None:
        raise ValueError(f"prompt and prompt_name, {shorten(name)}, are given; give one of them.")
    if not modality.is_tokenized:
        if prompt or name is not None:
            raise ValueError(f"A prompt is given, which is for texts, not for {modality}; leave it out.")
        return {}
    if encoder is None and name is not None:
        raise ValueError(
            f"prompt_name is {shorten(name)}, and the backbone is no sentence encoder with named prompts; give the "
            "text itself: prompt=..."
        )
    if prompt is None and encoder is not None:
        prompt = encoder.prompt(name)
    found = {"protocol": embedding["protocol"], "max_length": embedding["max_length"], "prompt": prompt or None}
    if encoder is not None:
        found |= {"max_length": found["max_length"] or encoder.max_length, "lower_case": encoder.lower_case}
    return found


def skip_prompt(
    views: Sequence[View], tokenizer: PreTrainedTokenizerBase, prompt: str, lower_case: bool = False
) -> tuple[View, ...]:
    """Return views of which those of a sentence encoder pool no token of the prompt, as the library counts them."""
    ids = encode(tokenizer, [str(write_text(prompt, None, lower_case))])["input_ids"][0]
    count = len(ids) - (ids[-1] in tokenizer.all_special_ids)
    return tuple(replace(view, skip=count) if view.name == "sentence" else view for view in views)


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
    asked, dim = embedding["views"], embedding.get("truncate_dim")
    given = take_view_arguments(dict(embedding), asked)
    has_prompt = embedding["protocol"] in IN_CONTEXT_PROTOCOLS
    if encoder is not None and not has_prompt and (given or _has_sentence(asked)):
        sentence = encoder.view(given)
        sentence = sentence if dim is None else replace(sentence, truncate_dim=dim)
    elif dim is not None:
        raise ValueError(
            "truncate_dim is for the view of a sentence encoder, and the backbone or the views have none; give a "
            "View(truncate_dim=...)."
        )
    else:
        sentence = None
    if given:
        return (sentence or single_view(given, -1 if projects else "all"),)
    kind = _kind_of(traits, modality, has_prompt, encoder is not None)
    views = choose_views("default" if asked is None else asked, kind, sentence)
    return (replace(views[0], layers=-1),) if projects and asked is None else views


def _kind_of(traits: BackboneTraits, modality: Modality, has_prompt: bool, is_sentence_encoder: bool) -> str:
    """Return the key of `PRESETS` for a backbone."""
    if not modality.is_tokenized:
        return "frames" if modality == AUDIO and counts_frames(traits.backbone) else str(modality)
    if has_prompt:
        return "prompt"
    if is_sentence_encoder:
        return "sentence"
    return "causal" if traits.is_causal else "masked"


def choose_task_views(asked: Any, config: TartBaseConfig, traits: BackboneTraits) -> tuple[View, ...]:
    """Return views that are asked for of a saved task; its own view `sentence` is the one of that name.

    Args:
        asked (`str` or `list`):
            As in [`choose_views`].
        config ([`TartBaseConfig`]), traits ([`BackboneTraits`]):
            The config of the task, and its backbone.

    Raises:
        ValueError: On a name as in [`choose_views`], and on `sentence` where the task does not describe it.
    """
    options = config.embedding_options
    sentence = next((view for view in options.views if view.name == "sentence"), None)
    if sentence is None and _names_sentence([asked] if isinstance(asked, str) else asked):
        raise ValueError(
            "The task does not describe the view 'sentence', which the repository of its backbone does; compose that "
            "again: from_backbone(..., views='sentence')."
        )
    return choose_views(asked, _kind_of(traits, config.modality, options.has_prompt, sentence is not None), sentence)
