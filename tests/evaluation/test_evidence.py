"""The tables of real models: their rows are those of the plan, and the cards show what the rows say."""

import pytest
from helpers.scripts import CARDS, load_script

from transformers_tart.evaluation.records import read_records


measure, tables = load_script("evidence/measure.py"), load_script("evidence/tables.py")
MEASURED = sorted(path.parent.name for path in (CARDS / "evidence").glob("*/results.jsonl"))


@pytest.mark.parametrize("name", MEASURED)
def test__rows__each_table__are_planned_and_without_error(name: str) -> None:
    records = read_records(CARDS / "evidence" / name)
    assert not {record.key for record in records} - measure.TABLES[name].runs
    assert not [record.error for record in records if record.error is not None]
    lines = (CARDS / "evidence" / name / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(records)


def test__cards__tables__are_those_of_the_rows() -> None:
    cards = [path for path in tables.CARDS if tables.MARKS.search(path.read_text(encoding="utf-8"))]
    assert len(cards) == 8
    for card in cards:
        text = card.read_text(encoding="utf-8")
        assert tables.fill(text, card.parent.name) == text, f"run {tables.__file__}"
