"""A fitted text model goes through `torch.export`, and the program gives the model's logits."""

import pytest
import torch
from helpers.builders import build_tokenizer, compose, make_examples, make_pipeline, make_texts
from torch import Tensor
from torch.export import Dim, ExportedProgram, export

from transformers_tart import TartForSequenceClassification


TEXTS = make_texts(6, seed=5)


def tokenized(texts: list[str], side: str = "right") -> dict[str, Tensor]:
    batch = build_tokenizer(padding_side=side)(texts, padding=True, return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def export_model(model: TartForSequenceClassification, **options: object) -> ExportedProgram:
    return export(model, (), tokenized(TEXTS), **options)


PLAIN: list[dict] = [
    {"pooling": "mean"},
    {"pooling": "last", "layers": -1},
    {"pooling": "max", "normalize": True},
    {"views": "plain"},
]


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["gpt_neox", "llama", "bert"])
@pytest.mark.parametrize("options", PLAIN)
def test__export__any_padding_side__logits_of_the_model(model_type: str, options: dict) -> None:
    model = make_pipeline(compose(model_type, **options)).model
    program = export_model(model).module()
    right = tokenized(TEXTS)
    left = tokenized(TEXTS, "left")
    with torch.no_grad():
        expected = model(**right).logits
        for batch in (right, left):
            torch.testing.assert_close(program(**batch).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test__export__dynamic_batch_and_length__logits_of_the_model() -> None:
    model = make_pipeline(compose("gpt_neox", views="plain")).model
    shapes = {0: Dim("batch"), 1: Dim("length", max=64)}
    dynamic = {"input_ids": shapes, "attention_mask": shapes}
    program = export_model(model, dynamic_shapes=dynamic).module()
    for texts in (TEXTS[:2], make_texts(11, seed=3, max_words=40), ["w1 " * 64]):
        for side in ("left", "right"):
            batch = tokenized(texts, side)
            with torch.no_grad():
                torch.testing.assert_close(program(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("reasoner", ["kernel", "gpt2"])
def test__export__either_reasoner_and_many_classes__logits_of_the_model(reasoner: str) -> None:
    composed, examples = compose("llama", reasoner, pooling="mean"), make_examples(12, ("a", "b", "c"))
    model = make_pipeline(composed, examples=examples).model
    program, batch = export_model(model).module(), tokenized(TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(program(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test__export__support_set_not_read_yet__says_what_to_call() -> None:
    fitted = make_pipeline(compose("llama", views="plain")).model
    support, fitted._prepared = fitted.support, None
    fitted.set_support(support)
    with pytest.raises(ValueError, match=r"call model.prepare_support\(\) first"):
        export_model(fitted)
    fitted.prepare_support()
    export_model(fitted)


def test__forward__row_without_token__still_said_outside_of_an_export() -> None:
    model = make_pipeline(compose("llama", views="plain")).model
    batch = tokenized(TEXTS)
    batch["attention_mask"][0] = 0
    with pytest.raises(ValueError, match="A row of the batch has no token"):
        model(**batch)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"protocol": "vanilla"}])
def test__export__templates_and_prompts__clear_error(options: dict) -> None:
    model = make_pipeline(compose("llama", **options)).model
    with pytest.raises(ValueError, match="templates and prompts cannot be exported.*views=.plain."):
        export_model(model)
