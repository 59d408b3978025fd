"""Embeddings of inputs as arrays of numpy, in the views of a model."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from transformers_tart.checks.arguments import shorten
from transformers_tart.embeddings.text import Embedder
from transformers_tart.embeddings.views import split_views
from transformers_tart.inputs.examples import Examples
from transformers_tart.inputs.texts import parse_text


def embed_inputs(
    embedder: Embedder, processor: Any, inputs: Iterable[Any], view: str | None, **batching: Any
) -> np.ndarray:
    """Embed inputs: (n, dim) float32, the layers of a view, of the first, or of `"all"` side by side.

    Raises:
        ValueError: On the name of no view, with a protocol that reads inputs after examples, and on inputs that cannot
            be read.
    """
    names = [each.name for each in embedder.views]
    if view not in (None, "all", *names):
        raise ValueError(f'view is {shorten(view)}; it must be one of {names}, or "all".')
    if embedder.options.has_prompt:
        raise ValueError(
            f'With the protocol "{embedder.options.protocol}", inputs are read after a prompt of the examples; '
            'compose a model with protocol="stream" to embed them alone.'
        )
    items = list(inputs)
    if embedder.modality.is_tokenized:
        items = [parse_text(item, f"Input {i}") for i, item in enumerate(items)]
    if not items:
        return np.zeros((0, 0), dtype=np.float32)
    found = embedder.embed_examples(Examples(items, [], ()), processor, **batching).embeddings
    if view != "all":
        found = split_views(found, embedder.views)[0 if view is None else names.index(view)]
    return found.flatten(1).cpu().numpy()
