"""Fine-tuning learns, on a backbone of its own, and leaves everything else as it is."""

import copy
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from helpers.builders import SHARED, WORDS, build_backbone, build_tokenizer, make_texts, save_backbone
from torch import Tensor

from transformers_tart import TartForSequenceClassification
from transformers_tart.embeddings import encode_texts
from transformers_tart.evaluation.methods import fine_tuning
from transformers_tart.evaluation.methods.base import Support, TaskContext
from transformers_tart.evaluation.methods.baselines import logistic_regression
from transformers_tart.evaluation.methods.fine_tuning import (
    Head,
    PooledEncoder,
    choose_part,
    choose_view,
    draw_batches,
    fine_tune,
    group_parameters,
    write_rows,
)
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.tasks import Task, load_task
from transformers_tart.inputs.examples import Examples
from transformers_tart.inputs.tokenization import tokenize


pytestmark = pytest.mark.core


PARTS = ["head", "last", "full", "lora"]
MODEL_TYPES = ["bert", "llama", "gpt2"]
CLASSES, K = 3, 36


def make_task(rows: int = 72, pairs: bool = False) -> Task:
    """Three classes with words of their own, half of the rows for tests."""
    generator = torch.Generator().manual_seed(0)
    labels = [i % CLASSES for i in range(rows)]
    drawn = [torch.randint(0, 10, (8,), generator=generator).tolist() for _ in labels]
    words = [[WORDS[30 * label + i] for i in row] for label, row in zip(labels, drawn, strict=True)]
    texts = [(" ".join(row[:4]), " ".join(row[4:])) if pairs else " ".join(row) for row in words]
    half = rows // 2
    return Task("made", ("a", "b", "c"), texts[:half], labels[:half], texts[half:], labels[half:])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("backbones")
    return {name: save_backbone(folder / name, name) for name in MODEL_TYPES}


def make_context(folder: str, **options: bool) -> TaskContext:
    return TaskContext(make_task(**options), Models(folder))


def support_of(context: TaskContext, seed: int = 1) -> Support:
    return Support(tuple(range(K)), seed)


def accuracy(probabilities: Tensor, context: TaskContext) -> float:
    return (probabilities.argmax(1) == torch.tensor(context.task.test_labels)).double().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test__fine_tune__each_part_and_backbone__learns(folders: dict[str, str], model_type: str, part: str) -> None:
    context = make_context(folders[model_type])
    probabilities = fine_tune(part)(context, support_of(context))
    assert probabilities.shape == (K, CLASSES)
    assert probabilities.dtype == torch.float64
    torch.testing.assert_close(probabilities.sum(1), torch.ones(K, dtype=torch.float64))
    assert accuracy(probabilities, context) > 0.6


@pytest.mark.slow
def test__fine_tune__pairs_without_padding_token__learns(tmp_path: Path) -> None:
    build_backbone("bert").save_pretrained(tmp_path)
    build_tokenizer(pad_token=None).save_pretrained(tmp_path)
    context = make_context(str(tmp_path), pairs=True)
    assert accuracy(fine_tune()(context, support_of(context)), context) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test__fine_tune__seed__decides_alone(folders: dict[str, str], part: str) -> None:
    context = make_context(folders["llama"])
    first = fine_tune(part)(context, support_of(context, 1))
    torch.rand(3)  # what was drawn before is no matter
    assert torch.equal(fine_tune(part)(context, support_of(context, 1)), first)
    assert not torch.equal(fine_tune(part)(context, support_of(context, 2)), first)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test__fine_tune__shared_backbone_and_generators__as_before(folders: dict[str, str], part: str) -> None:
    context = make_context(folders["gpt2"])
    backbone = context.model.backbone
    before = copy.deepcopy(backbone.state_dict())
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    fine_tune(part)(context, support_of(context))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    after = backbone.state_dict()
    assert context.model.backbone is backbone
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not backbone.training
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test__fine_tune__unknown_part__error_names_the_parts() -> None:
    with pytest.raises(ValueError, match=r'part is "body"; it must be one of .*"?head'):
        fine_tune("body")


def test__fine_tune__lora_without_peft__error_says_what_to_install(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    context = make_context(folders["llama"])
    with pytest.raises(ImportError, match=r"pip install 'transformers-tart\[peft\]'"):
        fine_tune("lora")(context, support_of(context))


def test__fine_tune__loss_not_finite__error_says_what_to_do(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fine_tuning.LEARNING_RATES, "full", 1e30)
    context = make_context(folders["llama"])
    states = torch.get_rng_state()
    with pytest.raises(FloatingPointError, match=r"at step \d+ of 40: leave fine-tuning out"):
        fine_tune("full")(context, support_of(context))
    assert torch.equal(torch.get_rng_state(), states)


def trained(part: str, model_type: str, layers: str) -> set[str]:
    backbone = build_backbone(model_type, **{layers: 3})
    choose_part(backbone, part)
    return {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("model_type", "layers", "blocks"), [("llama", "num_hidden_layers", "layers"), ("gpt2", "n_layer", "h")]
)
def test__choose_part__each__gradients_reach_it_alone(model_type: str, layers: str, blocks: str) -> None:
    everything = {name for name, _ in build_backbone(model_type, **{layers: 3}).named_parameters()}
    last = {name for name in everything if name.startswith((f"{blocks}.1.", f"{blocks}.2."))}
    assert trained("head", model_type, layers) == set()
    assert trained("last", model_type, layers) == last
    assert trained("full", model_type, layers) == everything


@pytest.mark.parametrize(("model_type", "layers"), [("llama", "num_hidden_layers"), ("gpt2", "n_layer")])
def test__choose_part__lora__gradients_reach_the_adapters_alone(model_type: str, layers: str) -> None:
    adapters = trained("lora", model_type, layers)
    assert adapters
    assert all("lora_" in name for name in adapters)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test__pooled_encoder__rows_of_all_lengths__embeddings_of_the_package(model_type: str) -> None:
    backbone, tokenizer = build_backbone(model_type), build_tokenizer()
    texts = make_texts(9, seed=3)
    encoder = PooledEncoder(backbone, Accelerator(), tokenizer.pad_token_id).eval()
    expected = encode_texts(backbone, tokenizer, texts)[:, 0]
    torch.testing.assert_close(encoder.embed(tokenize(tokenizer, texts, None)), expected, rtol=1e-4, atol=1e-5)


def test__pooled_encoder__parts__hold_each_row_once_in_the_order_of_lengths() -> None:
    rows = [{"input_ids": [5] * length} for length in (3, 9, 1, 7, 2)]
    encoder = PooledEncoder(build_backbone("llama"), Accelerator(), batch_size=2)
    assert encoder.parts(rows, [4, 1, 3]) == [[1, 3], [4]]


def test__head__examples_all_alike__even_and_finite() -> None:
    features = torch.ones(4, 6)
    assert torch.equal(Head(features, 3)(features + 1e-3), torch.zeros(4, 3))


def test__draw_batches__few_and_many_examples__whole_epochs_and_a_least_number_of_steps() -> None:
    assert len(draw_batches(8, seed=0)) == 40
    batches = draw_batches(100, seed=0)
    assert len(batches) == 70
    for epoch in range(10):
        assert sorted(sum(batches[7 * epoch : 7 * epoch + 7], [])) == list(range(100))


def test__group_parameters__biases_and_norms__do_not_decay() -> None:
    decaying, others = group_parameters(build_backbone("gpt2"), 1e-3)
    assert decaying["weight_decay"] > 0 == others["weight_decay"]
    assert {parameter.dim() for parameter in others["params"]} == {1}


@pytest.mark.exhaustive
@pytest.mark.slow
def test__fine_tune__real_model_and_messages__about_as_good_as_the_linear_probe(stories_folder: str) -> None:
    path = SHARED / "data" / "text" / "sms_spam.jsonl.gz"
    if not path.exists():
        pytest.skip("needs the real data sets, which are absent here")
    context = TaskContext(load_task(str(path), max_test=400), Models(stories_folder, max_length=128))
    support = Support.draw(context.task, 256, 42)
    known, tests = context.embeddings(support)
    probe = logistic_regression(known, context.labels(support), tests, 2)
    tuned = fine_tune()(context, support)
    assert accuracy(tuned, context) > accuracy(probe, context) - 0.01


def test__write_rows__first_view_that_ends_a_template__states_of_its_embedding() -> None:
    views = ["mean_final", "one_word_final"]
    model = TartForSequenceClassification.from_backbone(build_backbone("llama"), views=views, max_length=6)
    tokenizer, texts = build_tokenizer(), ["w1 w2", "w3 w4 w5 w6 w7 w8 w9"]
    view = choose_view(model)
    assert view is not None
    assert view.name == "one_word_final"
    rows = write_rows(model, view, tokenizer, texts)
    found = PooledEncoder(model.backbone, Accelerator(), tokenizer.pad_token_id, pooling="last").eval().embed(rows)
    expected = model.embedder().embed_examples(Examples(texts, [0, 1], ()), tokenizer).embeddings[:, -1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert choose_view(TartForSequenceClassification.from_backbone(build_backbone("bert"))) is None


@pytest.mark.parametrize("views", ["mean_final", "one_word_final"])
def test__write_rows__prompt_of_the_model__before_each_text(views: str) -> None:
    with_prompt, without = (
        TartForSequenceClassification.from_backbone(build_backbone("llama"), views=views, prompt=prompt)
        for prompt in ("w9 ", None)
    )
    view = choose_view(with_prompt)
    found = write_rows(with_prompt, view, build_tokenizer(), ["w1 w2"])
    assert found == write_rows(without, view, build_tokenizer(), ["w9 w1 w2"])
