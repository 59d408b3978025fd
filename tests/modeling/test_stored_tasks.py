"""Tasks and a reasoner that version 0.1.0 saved: they load, and predict what they predicted then."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from transformers_tart import TartForImageClassification, TartForSequenceClassification, TartReasoner
from transformers_tart.backbones import MINI


pytestmark = pytest.mark.core


STORED = Path(__file__).parents[1] / "data" / "version_0.1"
EXPECTED = json.loads((STORED / "expected.json").read_text())
TEXTS = ["win a free prize", "are you home tonight?"]
KINDS = {
    "text_stream": TartForSequenceClassification,
    "text_vanilla": TartForSequenceClassification,
    "image": TartForImageClassification,
}


def predict(model: PreTrainedModel) -> torch.Tensor:
    if isinstance(model, TartForImageClassification):
        return model(torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)).logits
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    rows = model.embedder().tokenize(tokenizer, TEXTS)
    support = model.prepare_support()
    return model.answer(model.embedder().embed_rows(rows, support.reading), support)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test__load__task_of_version_0_1__same_logits_then_and_saved_again(name: str, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(STORED / name)
    assert type(model) is KINDS[name]
    expected = torch.tensor(EXPECTED[name])
    torch.testing.assert_close(predict(model), expected, atol=1e-5, rtol=0)
    model.save_pretrained(tmp_path, include_backbone=name == "image")
    torch.testing.assert_close(predict(AutoModel.from_pretrained(tmp_path)), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test__task_of_version_0_1__grown_and_shrunk_by_indices__same_logits() -> None:
    model, tokenizer = AutoModel.from_pretrained(STORED / "text_stream"), AutoTokenizer.from_pretrained(MINI)
    name, size = model.support.label_names[0], len(model.support)
    model.add_examples([{"text": text, "label": name} for text in TEXTS], tokenizer)
    assert (predict(model) - torch.tensor(EXPECTED["text_stream"])).abs().max() > 1e-3
    with pytest.raises(ValueError, match="by their indices"):
        model.remove_examples([{"text": TEXTS[0], "label": name}], tokenizer)
    model.remove_examples([size, size + 1], tokenizer)
    torch.testing.assert_close(predict(model), torch.tensor(EXPECTED["text_stream"]), atol=1e-3, rtol=0)


def test__load__reasoner_of_version_0_1__same_logits() -> None:
    reasoner = TartReasoner.from_pretrained(STORED / "reasoner")
    support = torch.randn(1, 6, 12, generator=torch.Generator().manual_seed(1))
    queries = torch.randn(1, 2, 12, generator=torch.Generator().manual_seed(2))
    logits = reasoner(support, torch.tensor([[0, 1, 0, 1, 0, 1]]), queries).logits
    torch.testing.assert_close(logits[0], torch.tensor(EXPECTED["reasoner"]), atol=1e-5, rtol=0)
