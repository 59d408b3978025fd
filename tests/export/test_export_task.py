"""Exported tasks: the programs give the probabilities of the pipeline, and the code of their README runs."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.builders import build_backbone, build_reasoner, compose, make_examples, make_pipeline, make_texts
from helpers.media_backbones import compose_media, make_images, make_media_examples, processor_of

from transformers_tart import TartClassificationPipeline, TartForSequenceClassification, View
from transformers_tart.export import export_task


SMALL = {"num_hidden_layers": 1, "kernel_sharpness": [0.0, 1.0], "ridge_strengths": [0.1]}
TEXTS = [*make_texts(4, seed=5), "w1", ""]
MEAN = View(pooling="mean", layers=-1)
ECHO = View(template="{text} w9 {text} w8 w7", pooling="last", layers=-1)
AFTER = View(template="w2 {text} w3 w4 w5", pooling="last", layers=-1)
OTHER = View(template="w2 {text} w3 w6", pooling="last", layers=-1)
WITHIN = View(template="w2 {text} w3", pooling="mean", layers=-1)


def need(format: str) -> None:
    """Skip a test where the packages of the extra are not installed."""
    for name in ("onnxscript", "onnxruntime") if format == "onnx" else ():
        pytest.importorskip(name, reason="needs the packages of the extra onnx")


def run_readme(folder: Path, monkeypatch: pytest.MonkeyPatch, batches: list[list[str]]) -> Any:
    """Run the code of the README with these batches in place of its example."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    before, _, _ = code.rpartition("print(")
    (folder / "snippet.py").write_text(f"{before}found = [classify(batch) for batch in {batches!r}]\n")
    monkeypatch.chdir(folder)
    return runpy.run_path("snippet.py")["found"]


def assert_same(
    classify: TartClassificationPipeline, folder: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    batches = [texts, texts[:1]]
    for found, batch in zip(run_readme(folder, monkeypatch, batches), batches, strict=True):
        expected = classify(batch)
        assert [each["label"] for each in found] == [each["label"] for each in expected]
        scores = [[each["score"] for each in answers] for answers in (found, expected)]
        np.testing.assert_allclose(*scores, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch", "onnx"])
@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("bert", {"views": [MEAN], "prompt": "w5 "}),
        ("llama", {"views": [AFTER, OTHER, WITHIN, ECHO]}),
    ],
)
def test__export_task__texts__answers_of_the_pipeline(
    format: str, model_type: str, options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(format)
    model = TartForSequenceClassification.from_backbone(build_backbone(model_type), build_reasoner(**SMALL), **options)
    classify = make_pipeline(model, examples=make_examples(12, ("a", "b", "c")))
    export_task(classify, tmp_path, format)
    assert_same(classify, tmp_path, monkeypatch, TEXTS)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["labels"] == ["a", "b", "c"]
    assert len(config["views"]) == len(options["views"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "reasoner", "views", "labels"),
    [
        ("bert", "gpt2", [MEAN], ["a", "b", "c"]),  # one-vs-rest
        ("bert", "kernel", [MEAN], [["a"], ["a", "b"], []]),
        ("bloom", "kernel", [AFTER, OTHER], ["a", "b"]),  # whose endings share no row
        ("gemma3_text", "kernel", [AFTER, OTHER], ["a", "b"]),  # whose layers have windows
    ],
)
def test__export_task__kinds_of_tasks__answers_of_the_pipeline(
    model_type: str, reasoner: str, views: list[View], labels: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = build_reasoner(**SMALL) if reasoner == "kernel" else build_reasoner("gpt2", num_hidden_layers=1)
    model = TartForSequenceClassification.from_backbone(build_backbone(model_type), own, views=views)
    examples = [{"text": text, "label": labels[i % len(labels)]} for i, text in enumerate(make_texts(12))]
    classify = make_pipeline(model, examples=examples)
    export_task(classify, tmp_path, "torch")
    assert_same(classify, tmp_path, monkeypatch, TEXTS)
    assert ("several labels" in (tmp_path / "README.md").read_text()) == isinstance(labels[0], list)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch", "onnx"])
def test__export_task__images__answers_of_the_pipeline(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(format)
    model = compose_media("vit", views=[MEAN])
    examples = make_media_examples("image", 12)
    classify = TartClassificationPipeline(model=model, image_processor=processor_of("vit"), examples=examples)
    export_task(classify, tmp_path, format)
    paths = []
    for i, image in enumerate(make_images(3, seed=1)):
        paths.append(str(tmp_path / f"{i}.png"))
        image.save(paths[-1])
    assert_same(classify, tmp_path, monkeypatch, paths)


def test__export_task__no_support_set__nothing_is_written(tmp_path: Path) -> None:
    classify = make_pipeline(compose("llama"))
    classify.set_examples(None)
    with pytest.raises(ValueError, match="no support set.*set_examples"):
        export_task(classify, tmp_path / "exported", "torch")
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"protocol": "vanilla"}, "after a prompt of the examples"),
        ({"views": ["mean", "one_word"]}, "tokenized twice"),
    ],
)
def test__export_task__what_cannot_be_exported__says_what_can(options: dict, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{reason}.*Tasks of texts or images"):
        export_task(make_pipeline(compose("llama", **options)), tmp_path, "torch")


def test__export_task__user_hints__says_what_can(tmp_path: Path) -> None:
    def hint(texts: list[str], labels: list[str]) -> np.ndarray:
        return np.zeros((len(texts), len(labels)))

    with pytest.raises(ValueError, match="of the user and are not functions"):
        export_task(make_pipeline(compose("llama"), hints=hint), tmp_path, "torch")


def test__export_task__sounds__says_what_can(tmp_path: Path) -> None:
    examples, processor = make_media_examples("audio", 6), processor_of("wav2vec2")
    model = compose_media("wav2vec2")
    classify = TartClassificationPipeline(model=model, feature_extractor=processor, examples=examples)
    with pytest.raises(ValueError, match="its inputs are audio"):
        export_task(classify, tmp_path, "torch")


def test__export_task__unknown_format__lists_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'onnx', 'torch'"):
        export_task(make_pipeline(compose("llama")), tmp_path, "gguf")


def test__export__folder_of_a_task__refused_and_the_task_stays(tmp_path: Path) -> None:
    classify = make_pipeline()
    classify.model.save_pretrained(tmp_path, include_backbone=True)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match="holds a model, whose config.json would be lost; export to another folder"):
        export_task(classify, tmp_path, "torch")
    assert (tmp_path / "config.json").read_text() == before
