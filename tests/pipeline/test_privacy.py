"""Texts, labels and paths of the user stay with the user."""

import logging
from pathlib import Path

import pytest
from helpers.builders import WORDS, make_examples, make_pipeline, read_files, save_backbone, shared_reasoner
from transformers import pipeline

from transformers_tart import TartClassificationPipeline, TartForSequenceClassification


TEXT, LABEL, FOLDER = "zanzibarquokka", "narwhalpangolin", "xylophonewalrus"


def make_marked_examples() -> list[dict[str, str]]:
    """Examples that cause every warning there is about examples."""
    rows = [{**row, "text": f"{row['text']} {TEXT}"} for row in make_examples(8, (LABEL, "other"))]
    contradiction = [{"text": TEXT, "label": LABEL}, {"text": TEXT, "label": "other"}]
    return [*rows, *contradiction, {"text": " ", "label": LABEL}, {"text": f"{TEXT} " * 100, "label": "other"}]


def fit(folder: Path) -> TartClassificationPipeline:
    model = TartForSequenceClassification.from_backbone(save_backbone(folder / FOLDER), shared_reasoner())
    return make_pipeline(model, examples=make_marked_examples())


def use_everything(folder: Path) -> None:
    """Fit, predict, save and load in every way."""
    classify = fit(folder)
    texts = [TEXT, f"{TEXT} " * 100, "", *WORDS[:3]]
    classify(texts, progress_bar=True)
    list(classify(iter(texts), examples=make_marked_examples(), top_k=None))
    classify.save_pretrained(folder / FOLDER / "task", include_texts=True)
    classify.model.save_pretrained(folder / FOLDER / "whole", include_backbone=True)
    pipeline("tart-classification", model=str(folder / FOLDER / "task"))(TEXT)
    pipeline("text-classification", model=str(folder / FOLDER / "task"))(TEXT)


@pytest.mark.slow
def test__logs__whole_use__no_text_anywhere(all_logs: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    use_everything(tmp_path)
    assert len(all_logs.records) > 10
    assert TEXT not in all_logs.text


@pytest.mark.slow
def test__logs_of_this_package_and_warnings__whole_use__no_label_and_no_path(
    all_logs: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """transformers names the files it opens and shows configs below the level of warnings."""
    use_everything(tmp_path)
    shown = [
        record.getMessage()
        for record in all_logs.records
        if record.name.startswith("transformers_tart") or record.levelno >= logging.WARNING
    ]
    assert any("blank text" in message for message in shown)
    assert any("more than one label" in message for message in shown)
    assert any("they are truncated" in message for message in shown)
    assert not any(marker in message for message in shown for marker in (TEXT, LABEL, FOLDER))


@pytest.mark.slow
def test__output_streams__whole_use__no_text_label_or_path(capfd: pytest.CaptureFixture, tmp_path: Path) -> None:
    use_everything(tmp_path)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert not any(marker in shown.err for marker in (TEXT, LABEL, FOLDER))


@pytest.mark.parametrize("include_backbone", [False, True])
def test__saved_files__texts_not_asked_for__hold_none(include_backbone: bool, tmp_path: Path) -> None:
    classify = fit(tmp_path)
    classify(TEXT)
    classify.save_pretrained(tmp_path / "task", include_backbone=include_backbone)
    files = read_files(tmp_path / "task")
    assert "support.safetensors" in files
    assert [name for name, content in files.items() if TEXT.encode() in content] == []


@pytest.mark.parametrize("include_backbone", [False, True])
def test__saved_files__texts_asked_for__are_in_the_support_set_alone(include_backbone: bool, tmp_path: Path) -> None:
    classify = fit(tmp_path)
    classify.save_pretrained(tmp_path / "task", include_texts=True, include_backbone=include_backbone)
    holding = [name for name, content in read_files(tmp_path / "task").items() if TEXT.encode() in content]
    assert holding == ["support.safetensors"]
    loaded = TartForSequenceClassification.from_pretrained(tmp_path / "task")
    assert loaded.support.texts == tuple(row["text"] for row in make_marked_examples())


def test__saved_files__path_of_the_backbone__is_in_the_config_alone(tmp_path: Path) -> None:
    fit(tmp_path).save_pretrained(tmp_path / "task")
    holding = [name for name, content in read_files(tmp_path / "task").items() if FOLDER.encode() in content]
    assert holding == ["config.json"]


def test__saved_files__backbone_included__hold_no_path(tmp_path: Path) -> None:
    fit(tmp_path).save_pretrained(tmp_path / "task", include_backbone=True)
    files = read_files(tmp_path / "task")
    assert [name for name, content in files.items() if str(tmp_path).encode() in content] == []
    assert [name for name, content in files.items() if FOLDER.encode() in content] == []


def test__errors__bad_examples_and_inputs__quote_no_text() -> None:
    classify = make_pipeline()
    wrong = [
        lambda: classify.set_examples([{"text": TEXT, "label": 0}, {"text": TEXT, "label": None}]),
        lambda: classify.set_examples([{"text": TEXT, "label": LABEL}] * 3),
        lambda: classify.set_examples([{"text": [TEXT], "label": 0}, {"text": TEXT, "label": 1}]),
        lambda: classify([TEXT, 3]),
        lambda: classify([[TEXT]]),
        lambda: classify({"words": TEXT, "other": TEXT}),
    ]
    for call in wrong:
        with pytest.raises((ValueError, TypeError)) as error:
            call()
        assert TEXT not in str(error.value)
        assert LABEL not in str(error.value)
