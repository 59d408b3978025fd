"""The line in the log about hints that predict nothing."""

import dataclasses

import pytest
from helpers.builders import build_tokenizer, compose, make_examples

from transformers_tart.answers.explanation import LEAST_WEIGHT, warn_about_hints


LABELS = ("w1 w2", "w3 w4")


def test__warn_about_hints__weight_near_zero__one_line_without_labels(all_logs: pytest.LogCaptureFixture) -> None:
    prepared = compose(views="plain").prepare_examples(make_examples(8, LABELS), build_tokenizer())
    combination = prepared.state.combination
    assert combination is not None
    for weight, count in ((LEAST_WEIGHT * 2, 0), (0.0, 1), (0.0, 1)):
        weights = combination.hints.new_full(combination.hints.shape, weight)
        state = dataclasses.replace(prepared.state, combination=dataclasses.replace(combination, hints=weights))
        warn_about_hints(dataclasses.replace(prepared, state=state))
        lines = [r.getMessage() for r in all_logs.records if "almost ignored" in r.getMessage()]
        assert len(lines) == count
    assert "label_similarity" in lines[0]
    assert not any(label in lines[0] for label in LABELS)


def test__warn_about_hints__no_examples_or_hints__silent(all_logs: pytest.LogCaptureFixture) -> None:
    model = compose(views="plain")
    warn_about_hints(model.prepare_examples(None, build_tokenizer(), candidate_labels=list(LABELS)))
    warn_about_hints(model.prepare_examples(make_examples(8), build_tokenizer(), hints=None))
    assert "almost ignored" not in all_logs.text
