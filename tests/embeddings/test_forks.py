"""Forks: templates that differ after their last text, read in one pass as endings of one stem."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.builders import build_backbone, build_tokenizer
from helpers.caches import make_cache
from helpers.prompts_given import PHI3, build_long
from helpers.views_given import ENCODERS, READERS, TEXTS, embedder_of, examples_of, read_by_hand, read_texts
from torch import Tensor
from transformers import Phi3Config, Phi3Model

from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.embeddings.phrases import Reading
from transformers_tart.embeddings.prompts import Continuation
from transformers_tart.embeddings.text import Embedder
from transformers_tart.embeddings.views import split_views
from transformers_tart.inputs.views import View


CLOSE = {"atol": 1e-4, "rtol": 1e-4}
# Three wordings of which two begin alike, the text itself, and the beginning of one wording.
WORDINGS = (
    View("summary", "w1 w2 {text} w3 w4", "last", "late"),
    View("mean", "w1 w2 {text}", "mean", "all"),
    View("topic", "w1 w2 {text} w5", "last", -1),
    View("nested", "w1 w2 {text} w3", "last", "1:"),
    View("longer", "w1 w2 {text} w3 w6 w7", "last", "all"),
)
# The same after two copies of the text, with tokens that all wordings share after the last.
ECHOES = (
    View("first", "w1 {text} w2 {text} w8 w3", "last", "late"),
    View("echo", "w1 {text} w2 {text}", "max", -1),
    View("once", "w1 {text}", "mean", "all"),
    View("stem", "w1 {text} w2 {text} w8", "last", "all"),
    View("second", "w1 {text} w2 {text} w8 w4 w5", "last", -1),
    View("third", "w1 {text} w2 {text} w8 w6", "last", 1),
)
CAUSAL = [name for name in READERS if name not in ENCODERS]


def assert_by_hand(found: Tensor, embedder: Embedder, texts: list[str] = TEXTS) -> None:
    """Compare the embeddings of several views with a forward pass for each text and each view."""
    for view, own in zip(embedder.views, split_views(found, embedder.views), strict=True):
        expected = read_by_hand(embedder.backbone, build_tokenizer(), view, texts)
        torch.testing.assert_close(own, expected, **CLOSE, msg=lambda text, view=view: f"{view.name}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize("views", [WORDINGS, ECHOES, WORDINGS[::-1]], ids=["wordings", "echoes", "reversed"])
@pytest.mark.parametrize("name", CAUSAL)
def test__embed_examples__wordings_of_any_causal_backbone__as_each_alone_and_by_hand(
    name: str, views: tuple[View, ...]
) -> None:
    traits, tokenizer = BackboneTraits(READERS[name]()), build_tokenizer()
    embedder = embedder_of(traits, views)
    found, _, reading = embedder.embed_examples(examples_of(TEXTS), tokenizer)
    assert [(len(passage.views), len(passage.read)) for passage in reading.phrasing.passages] == [(len(views), 3)]
    assert reading.prefixes[0].strategy == {"mamba": "off", "gpt_neo": "batched"}.get(name, "packed")
    assert_by_hand(found, embedder)
    for view, own in zip(views, split_views(found, views), strict=True):
        torch.testing.assert_close(own, read_texts(embedder_of(traits, [view]), tokenizer), **CLOSE)


@pytest.mark.parametrize("strategy", ["packed", "batched", "off"])
@pytest.mark.parametrize("views", [WORDINGS, ECHOES], ids=["wordings", "echoes"])
@pytest.mark.parametrize("name", ["llama", "bloom", "gemma3_text"])
def test__embed_rows__wordings_by_any_strategy__one_or_many_as_by_hand(
    name: str, views: tuple[View, ...], strategy: str
) -> None:
    embedder, tokenizer = embedder_of(build_long(name), views), build_tokenizer()
    phrasing = embedder.passage_reader.write(tokenizer)
    encoder = replace(embedder.prefix_encoder, prefix_sharing=strategy)
    reading = Reading((encoder.start(phrasing.passages[0].phrase.literals[0])[0],), phrasing)
    assert reading.prefixes[0].strategy == strategy
    rows = embedder.tokenize(tokenizer, TEXTS)
    many = embedder.embed_rows(rows, reading, pad_token_id=0)
    assert_by_hand(many, embedder)
    one = torch.cat([embedder.embed_rows([row], reading, pad_token_id=0) for row in rows])
    torch.testing.assert_close(one, many, **CLOSE)
    torch.testing.assert_close(read_texts(embedder, tokenizer, batch_size=2), many, **CLOSE)


@pytest.mark.parametrize("name", ["llama", "gpt_neo"])
def test__embedding_cache__wordings__same_without_the_backbone(name: str, tmp_path: Path) -> None:
    backbone, tokenizer, calls = build_long(name), build_tokenizer(), []
    cache = make_cache(tmp_path, backbone)
    expected = read_texts(embedder_of(backbone, WORDINGS), tokenizer)
    embedder = embedder_of(backbone, WORDINGS, cache)
    found, _, reading = embedder.embed_examples(examples_of(TEXTS), tokenizer)
    torch.testing.assert_close(found, expected, **CLOSE)
    backbone.register_forward_hook(lambda *args: calls.append(1))
    again = embedder.embed_rows(embedder.tokenize(tokenizer, TEXTS), reading, pad_token_id=0)
    assert torch.equal(again, found)
    assert not calls


def test__embedding_cache__endings_of_the_same_tokens__not_mixed_up(tmp_path: Path) -> None:
    backbone, tokenizer = build_backbone("llama"), build_tokenizer()
    cache, last = make_cache(tmp_path, backbone), "w1 {text} "
    # the tokens w1 {text} w2 w3 w4, and the same spans: one row, and two that fork at different places
    for mean, final in (("w2 w3", "w2 w3 w4"), ("w2 w3", "w4"), ("w2", "w3 w4")):
        views = (View("mean", last + mean, "mean", "all"), View("last", last + final, "last", "all"))
        found = read_texts(embedder_of(backbone, views, cache), tokenizer)
        torch.testing.assert_close(found, read_texts(embedder_of(backbone, views), tokenizer), **CLOSE)


@pytest.mark.parametrize("switch", [12, 20, 30])
def test__embed_examples__rotation_that_depends_on_the_length__each_ending_as_if_alone(switch: int) -> None:
    factors = {"short_factor": [1.0, 1.0, 1.0, 1.0], "long_factor": [3.0, 2.0, 4.0, 5.0]}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": switch, **factors}
    torch.manual_seed(0)
    backbone = Phi3Model(Phi3Config(**PHI3, rope_parameters=rope)).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(0.0, 0.3) if parameter.dim() > 1 else None
    views = (View("short", "w1 {text} w2", "last", -1), View("long", "w1 {text} " + "w3 " * 9, "last", -1))
    embedder = embedder_of(backbone, views)
    assert_by_hand(read_texts(embedder, build_tokenizer()), embedder)


def test__continuation__straight__each_ending_after_the_stem() -> None:
    forked = Continuation((1, 2, 3, 4, 5, 6), ((0, 2), (3, 4), (5, 6)), (2, 4))
    assert forked.straight() == [
        Continuation((1, 2, 3, 4), ((0, 2), (3, 4), (0, 1))),
        Continuation((1, 2, 5, 6), ((0, 1), (0, 1), (3, 4))),
    ]
    plain = Continuation((1, 2), ((0, 1),))
    assert plain.straight() == [plain]
