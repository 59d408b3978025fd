"""Threads that share a pipeline get the answers that they would get alone."""

import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from helpers.builders import WORDS, build_backbone, build_tokenizer, make_pipeline
from safetensors.torch import load_file
from tokenizers import processors
from torch import Tensor
from transformers import pipeline

from transformers_tart import TartClassificationPipeline, TartForSequenceClassification
from transformers_tart.backbones import MINI
from transformers_tart.embeddings import encode_texts
from transformers_tart.embeddings.prefix_strategies import _linear_biases


THREADS = 8
LENGTHS = (5, 9, 30, 70, 200, 900, 5000)  # words
Call = tuple[list[dict[str, str]], str]


def draw_calls(count: int, words: Sequence[str], lengths: Sequence[int], seed: int) -> list[Call]:
    """Calls of one thread: each with the examples of the thread, and a text of its own."""
    generator = random.Random(seed)

    def draw(length: int) -> str:
        return " ".join(generator.choices(words, k=length))

    examples = [{"text": draw(generator.randint(3, 15)), "label": f"{'ab'[i % 2]}{seed}"} for i in range(8)]
    return [(examples, draw(generator.choice(lengths))) for _ in range(count)]


def run_together(work: Callable[[Any], Any], given: Sequence[Any]) -> list[Any]:
    """What each thread makes of its share."""
    with ThreadPoolExecutor(len(given)) as pool:
        return list(pool.map(work, given))


def assert_same_as_alone(classify: TartClassificationPipeline, calls: list[list[Call]]) -> None:
    def answer(own: list[Call]) -> list[dict[str, float]]:
        return [{r["label"]: r["score"] for r in classify(text, examples=e, top_k=None)} for e, text in own]

    found = run_together(answer, calls)
    expected = [answer(own) for own in calls]
    for own, alone in zip(found, expected, strict=True):
        assert [scores.keys() for scores in own] == [scores.keys() for scores in alone]
        for some, others in zip(own, alone, strict=True):
            assert some == pytest.approx(others, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("gpt_neox", {"views": "plain"}),
        ("gpt_neox", {"views": ["mean", "one_word", "echo_all"]}),
        ("bert", {}),
        ("bloom", {"protocol": "vanilla", "max_length": 60}),
        ("llama", {"protocol": "loo"}),
    ],
)
@pytest.mark.parametrize("side", ["right", "left"])
def test__pipeline__shared_by_threads__answers_of_each_alone(model_type: str, options: dict, side: str) -> None:
    tokenizer = build_tokenizer(truncation_side=side)
    tokenizer.backend_tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 1))
    tokenizer.backend_tokenizer.enable_truncation(20)  # as the files of sentence encoders have it
    tokenizer.backend_tokenizer.enable_padding(length=30)
    backbone = {"max_position_embeddings": 128} if model_type == "llama" else {}
    model = TartForSequenceClassification.from_backbone(build_backbone(model_type, **backbone), **options)
    classify = make_pipeline(model, tokenizer=tokenizer, examples=None)
    assert_same_as_alone(classify, [draw_calls(4, WORDS, LENGTHS, seed) for seed in range(THREADS)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test__encode_texts__positions_that_switch_with_the_length__embeddings_of_each_alone(kind: str) -> None:
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    if kind == "longrope":
        rope.update(short_factor=[1.0] * 4, long_factor=[9.0] * 4, original_max_position_embeddings=16)
    limit = 64 if kind == "longrope" else 16
    backbone = build_backbone("llama", rope_parameters=rope, max_position_embeddings=limit)
    backbone.config.max_position_embeddings = 64
    texts = [[text for _, text in draw_calls(40, WORDS, (length,), seed)] for seed, length in enumerate((5, 60) * 4)]

    def embed(own: list[str]) -> Tensor:
        return torch.cat([encode_texts(backbone, build_tokenizer(), [text]) for text in own])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns as often as they can
    try:
        found = run_together(embed, texts)
    finally:
        sys.setswitchinterval(before)
    for embeddings, own in zip(found, texts, strict=True):
        torch.testing.assert_close(embeddings, embed(own))


def test__linear_biases__other_threads_meanwhile__read_as_before() -> None:
    backbone = build_backbone("bloom")
    mask = torch.ones(1, 5, dtype=torch.long)

    def biases(_: object = None) -> Tensor:
        return backbone.build_alibi_tensor(mask, 4, torch.float32)

    expected = biases()
    with _linear_biases(backbone, torch.tensor([0, 1, 1, 1, 2])):
        assert not torch.equal(biases(), expected)
        assert torch.equal(run_together(biases, [None])[0], expected)
    assert torch.equal(biases(), expected)


@pytest.mark.exhaustive
@pytest.mark.slow
def test__pipeline__eight_threads_of_two_hundred_calls__answers_of_each_alone() -> None:
    words = ["free", "win", "now", "prize", "claim", "call", "see", "you", "at", "eight", "tonight", "home", "dinner"]
    classify = pipeline("tart-classification")
    assert_same_as_alone(classify, [draw_calls(200, words, LENGTHS, seed) for seed in range(THREADS)])


@pytest.mark.slow
def test__load__several_threads_at_once__whole_models_then_and_later() -> None:
    initializers = dict(vars(torch.nn.init))
    kept = load_file(MINI / "model.safetensors")
    for _ in range(4):
        towers = run_together(lambda _: TartForSequenceClassification.from_backbone("mini").backbone, range(6))
        for tower in towers:
            weights = tower.state_dict()
            assert all(torch.equal(weights[name], kept[f"gpt_neox.{name}"].float()) for name in weights)
    # which transformers replaces while it loads, and leaves replaced where loads overlap
    assert dict(vars(torch.nn.init)) == initializers


def test__threads__add_examples_to_one_task__none_is_lost() -> None:
    classify = make_pipeline()
    size = len(classify.model.support)
    run_together(lambda i: classify.add_examples([{"text": f"w{i} w2", "label": f"c{i % 3}"}]), range(THREADS))
    assert len(classify.model.support) == size + THREADS
