"""A diagnosis as a page of markdown, and the advice that follows from its numbers."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers_tart.evaluation.diagnosis.diagnosis import Diagnosis
from transformers_tart.evaluation.diagnosis.gaps import FINE_TUNING, PROBE, PROMPTING, TART, Gaps
from transformers_tart.evaluation.report.page import render_template
from transformers_tart.evaluation.report.tables import escape_markdown


TITLES = {
    FINE_TUNING: "fine-tuning",
    PROBE: "linear probe of the frozen representation",
    TART: "TART",
    PROMPTING: "in-context prompting",
}
MIN_GAIN = 1.0  # points below which a gap is harmless, and twice the examples are not worth it


def _sort_gaps(gaps: Gaps) -> dict[str, list[str]]:
    """Sort the parts of TART by their gaps: limiting if shown to be above 0, harmless if below a point."""
    lost = None if gaps.reasoning is None else -gaps.reasoning
    parts = (
        ("the representation (fine-tuning minus linear probe", gaps.representation, "; try another backbone"),
        ("the reasoner (linear probe minus TART", gaps.remaining, ""),
        ("what the embeddings lose (prompting minus linear probe", lost, "; prompt instead"),
    )
    found: dict[str, list[str]] = {"limiting": [], "harmless": [], "undecided": []}
    for name, gap, remedy in parts:
        if gap is not None:
            kind = "limiting" if gap.low > 0 else "harmless" if gap.high < MIN_GAIN else "undecided"
            found[kind].append(f"{name}: {gap.format()} points{remedy if kind == 'limiting' else ''})")
    return found


def _render(name: str, content: Mapping[str, Any]) -> str:
    return render_template(Path(__file__).with_name(name), content)


def advise(diagnosis: Diagnosis) -> tuple[str, ...]:
    """Return a paragraph on each question: what limits, whether to label more, which layers to read, what to trust."""
    predicted = diagnosis.predicted_regret
    content = {
        "diagnosis": diagnosis,
        "parts": _sort_gaps(diagnosis.gaps),
        "min_gain": MIN_GAIN,
        "costs_are_shown": predicted is not None and predicted.moved.is_shown and predicted.moved.correlation > 0,
    }
    paragraphs = _render("advice_template.md", content).split("\n\n")
    return tuple(" ".join(paragraph.split()) for paragraph in paragraphs)


def as_json(diagnosis: Diagnosis) -> str:
    """Format every number, and the advice."""
    return json.dumps({**asdict(diagnosis), "advice": advise(diagnosis)}, indent=1) + "\n"


def _compare_regret(diagnosis: Diagnosis) -> str:
    predicted = diagnosis.predicted_regret
    if predicted is None or predicted.low is None or predicted.high is None:
        return ""
    if diagnosis.regret.mean < predicted.low:
        return ", less than predicted"
    return ", more than predicted" if diagnosis.regret.mean > predicted.high else ", as predicted"


def format_diagnosis(diagnosis: Diagnosis) -> str:
    """Format the whole page."""
    measured = diagnosis.gaps.accuracies
    names = [name for name in TITLES if name in measured] + [name for name in measured if name not in TITLES]
    missing = {name: "It was left out." for name in (FINE_TUNING, PROMPTING) if name not in measured}
    titles = {name: TITLES.get(name, escape_markdown(name)) for name in [*names, *missing, *diagnosis.gaps.missing]}
    content = {
        "diagnosis": diagnosis,
        "advice": advise(diagnosis),
        "accuracies": {titles[name]: measured[name] for name in names},
        "missing": {titles[name]: why for name, why in (missing | diagnosis.gaps.missing).items()},
        "regret_place": _compare_regret(diagnosis),
    }
    return _render("page_template.md", content)
