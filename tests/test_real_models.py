"""Classification with pretrained models, of which `REAL_MODELS` names a folder that has one in each subfolder."""

import gzip
import json

import pytest
from helpers.builders import REAL_MODELS, SHARED
from transformers import pipeline


pytestmark = pytest.mark.real

DATA = SHARED / "data" / "text" / "sms_spam.jsonl.gz"


@pytest.mark.parametrize("name", ["minilm", "multilingual-e5-small", "smollm2-135m", "gemma3-270m"])
def test__pipeline__pretrained_language_model__well_above_chance(name: str) -> None:
    if not (REAL_MODELS / name / "config.json").exists() or not DATA.exists():
        pytest.skip("needs pretrained models, in the folder that the environment variable REAL_MODELS names, and data")
    with gzip.open(DATA, "rt", encoding="utf-8") as file:
        rows = [{key: row[key] for key in ("text", "label")} for row in map(json.loads, file)]
    of_class = [[row for row in rows if row["label"] == label] for label in sorted({row["label"] for row in rows})]
    examples = [row for own in of_class for row in own[:8]]
    queries = [row for own in of_class for row in own[8:58]]
    classify = pipeline("tart-classification", model=str(REAL_MODELS / name), examples=examples)
    answers = classify([row["text"] for row in queries], max_length=64)
    right = sum(answer["label"] == row["label"] for answer, row in zip(answers, queries, strict=True))
    assert right / len(queries) > 0.75
