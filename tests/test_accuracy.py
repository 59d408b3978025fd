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


# at least what ridge regression on the same embeddings gives, less its spread over support sets
@pytest.mark.parametrize(
    ("name", "k", "accuracy"), [("sms_spam", 64, 0.95), ("ag_news", 128, 0.43), ("trec6", 128, 0.45)]
)
def test__pipeline__real_texts__accurate_and_better_calibrated_than_logistic_regression(
    stories_folder: str, name: str, k: int, accuracy: float
) -> None:
    if not (SHARED / "data" / "text" / f"{name}.jsonl.gz").exists():
        pytest.skip(f"needs the real text set {name}, which is absent here")
    result = load_recipe().measure(stories_folder, SHARED / "data" / "text", name, k, seeds=5)
    assert result["accuracy"] >= accuracy
    assert result["log_loss"] < result["logistic_log_loss"]
