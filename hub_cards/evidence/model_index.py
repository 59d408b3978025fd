"""The accuracy of TART as the `model-index` of a card, which the Hub shows beside it."""

from dataclasses import replace
from pathlib import Path

from huggingface_hub import ModelCard
from measure import TABLES

from transformers_tart.evaluation.records import read_records
from transformers_tart.evaluation.report.comparison import Comparison
from transformers_tart.evaluation.report.page import list_results


ROWS = Path(__file__).parent


def add_results(text: str, table: str, name: str) -> str:
    """Return a card with the means of TART in its metadata, over the support sets that probes were planned for."""
    planned = {run for stage in TABLES[table].stages if "logistic_regression" in stage.methods for run in stage.runs}
    records = [r for r in read_records(ROWS / table) if r.method == "tart" and r.key in planned]
    card = ModelCard(text)
    results = list_results(Comparison.of(records, metrics=["accuracy"]), "tart")
    card.data.model_name = name
    card.data.eval_results = [replace(result, task_type=card.data.pipeline_tag) for result in results]
    return str(card)
