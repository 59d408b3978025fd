"""What the whole of it is for: real texts, a real tiny language model, the shipped reasoner, through the pipeline."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from conftest import SHARED


RECIPE = Path(__file__).parents[1] / "hub_cards" / "tart-reasoner-kernel" / "measure.py"


def load_recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "k", "accuracy"), [("sms_spam", 64, 0.95), ("ag_news", 128, 0.43), ("trec6", 128, 0.45)]
)
def test__pipeline__real_texts__as_accurate_as_ridge_on_the_same_embeddings(
    stories_folder: str, name: str, k: int, accuracy: float
) -> None:
    if not (SHARED / "data" / "text" / f"{name}.jsonl.gz").exists():
        pytest.skip(f"needs the real text set {name}, which is absent here")
    result = load_recipe().measure(stories_folder, SHARED / "data" / "text", name, k, seeds=5)
    assert result["accuracy"] >= accuracy
    assert result["accuracy"] >= result["ridge_accuracy"] - 0.01
    assert result["log_loss"] < 1.05 * result["logistic_log_loss"]
