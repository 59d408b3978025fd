"""Whatever the default dtype of PyTorch is, the answers are those of float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers.builders import build_reasoner, make_examples, make_pipeline, make_texts, save_backbone, score_all
from helpers.media_backbones import class_of, make_media, make_media_examples, save_media
from torch import Tensor
from transformers import AutoTokenizer, pipeline

from transformers_tart import TartForSequenceClassification


pytestmark = pytest.mark.core


TEXTS = [*make_texts(9, seed=4), "w1 " * 90]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float32")
    for model_type in ("llama", "bert", "bloom"):
        save_backbone(path / model_type, model_type)
    for reasoner in ("kernel", "gpt2"):
        build_reasoner(reasoner, max_support=20).save_pretrained(path / reasoner)
    return path


def answer(folder: Path, model_type: str, reasoner: str, options: dict) -> tuple[Tensor, Tensor]:
    """Probabilities by the pipeline, and logits by the model, which is composed, fitted, saved and loaded."""
    model = TartForSequenceClassification.from_backbone(folder / model_type, folder / reasoner, **options)
    classify = make_pipeline(model, examples=make_examples(24, ("a", "b", "c")))
    batch = classify.tokenizer(TEXTS[:9], padding=True, return_tensors="pt")
    return score_all(classify, TEXTS).float(), model(batch["input_ids"], batch["attention_mask"]).logits


@pytest.mark.slow
@pytest.mark.parametrize("reasoner", ["kernel", "gpt2"])
@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {}),
        ("llama", {"protocol": "vanilla"}),
        ("llama", {"protocol": "loo", "layers": -1}),
        ("bloom", {"protocol": "vanilla", "pooling": "max"}),
        ("bert", {"pooling": "last", "normalize": True, "layers": "all"}),
        ("bert", {"pooling": "first"}),
    ],
)
def test__default_dtype__float64__answers_of_float32(
    folder: Path, reasoner: str, model_type: str, options: dict
) -> None:
    expected = answer(folder, model_type, reasoner, options)
    with default_dtype(torch.float64):
        found = answer(folder, model_type, reasoner, options)
    assert found[1].dtype == torch.float32
    for values, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(values, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("when", ["composing", "classifying"])
def test__default_dtype__float64_while_something_is_done__same(folder: Path, when: str) -> None:
    def make(dtype: torch.dtype) -> object:
        with default_dtype(dtype):
            tokenizer = AutoTokenizer.from_pretrained(folder / "llama")
            return pipeline(
                "tart-classification", model=str(folder / "llama"), tokenizer=tokenizer, examples=make_examples()
            )

    expected = score_all(make(torch.float32), TEXTS)
    classify = make(torch.float64 if when == "composing" else torch.float32)
    with default_dtype(torch.float64 if when == "classifying" else torch.float32):
        found = score_all(classify, TEXTS)
    torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "convnext", "wav2vec2", "ast"])
def test__default_dtype__float64_for_images_and_audio__answers_of_float32(name: str, tmp_path: Path) -> None:
    modality = class_of(name).config_class.modality
    folder = save_media(tmp_path, name)

    def probabilities() -> Tensor:
        classify = pipeline("tart-classification", model=folder, examples=make_media_examples(modality))
        return score_all(classify, make_media(modality, 6, seed=3)).float()

    expected = probabilities()
    with default_dtype(torch.float64):
        found = probabilities()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
