"""Names of classes: those of the examples, or those that a user gave by `config.id2label`, in every place alike."""

import enum
import json
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from helpers.builders import compose, make_examples, make_pipeline, make_texts, save_backbone
from transformers import AutoModel, pipeline

from transformers_tart import SupportSet, TartClassificationPipeline, TartForSequenceClassification
from transformers_tart.errors import CorruptFileError
from transformers_tart.inputs.examples import parse_examples


pytestmark = pytest.mark.core


TEXTS = make_texts(8)
NAMES = {0: "no", 1: "yes"}
Color = enum.Enum("Color", {"RED": "red", "BLUE": "blue"})


def label(labels: list) -> dict[str, list]:
    """Examples with these labels in turn."""
    return {"text": TEXTS, "label": [labels[i % len(labels)] for i in range(len(TEXTS))]}


def answers(classify: TartClassificationPipeline, **options: Any) -> list[dict]:
    """All classes of a text, sorted by name."""
    return sorted(classify("w1 w2", top_k=None, **options), key=lambda result: result["label"])


@pytest.mark.parametrize(
    ("labels", "names", "indices"),
    [
        ([True, False], ("False", "True"), [1, 0]),
        ([numpy.True_, numpy.False_], ("False", "True"), [1, 0]),
        ([1.0, 0.0], ("0", "1"), [1, 0]),
        ([numpy.float32(2), 1], ("1", "2"), [1, 0]),
        ([numpy.int8(-1), 1], ("-1", "1"), [0, 1]),
        ([torch.tensor(3), torch.tensor(1)], ("1", "3"), [1, 0]),
        ([numpy.str_("b"), "a"], ("a", "b"), [1, 0]),
        ([Color.RED, Color.BLUE], ("blue", "red"), [1, 0]),
        ([10, 9, 1e3], ("9", "10", "1000"), [1, 0, 2]),
        (["a\ud800", "b"], ("a\ufffd", "b"), [0, 1]),
    ],
)
def test__parse_examples__labels_of_every_kind__numbered(labels: list, names: tuple, indices: list) -> None:
    parsed = parse_examples(label(labels))
    assert parsed.label_names == names
    assert parsed.labels[: len(labels)] == indices
    frame = pandas.DataFrame({"text": TEXTS, "label": pandas.Series(label(labels)["label"], dtype=object)})
    assert parse_examples(frame) == parsed


def test__parse_examples__strings_of_a_class_label__in_its_order() -> None:
    class Rows:
        """A data set that gives the names of its classes, as after a transform."""

        def __init__(self, names: list):
            self.features, self.column_names = {"label": type("Feature", (), {"names": names})}, ["text", "label"]

        def select_columns(self, names: list[str]) -> list[dict]:
            """Its rows."""
            return [{"text": "a", "label": "z"}, {"text": "b", "label": "y"}]

    assert parse_examples(Rows(["z", "y"])).labels == [0, 1]
    for names, message in (
        (["z", "x"], "label of example 1 is 'y', outside the 2 names of its ClassLabel feature"),
        (["z", "z"], "names two classes 'z'"),
        (["z", 3], "names class 1 3; a name must be a string"),
        (["z", " "], "names class 1 ' '"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_examples(Rows(names))


@pytest.mark.slow
@pytest.mark.parametrize("labels", [[1, 0], [1.0, 0.0], [True, False], ["yes", "no"]])
def test__id2label__given__names_the_classes(labels: list, tmp_path: Path) -> None:
    expected = answers(make_pipeline(examples=label(["yes", "no"])))
    model = compose()
    model.config.id2label = dict(NAMES)
    assert answers(make_pipeline(model, examples=label(labels))) == expected
    folder = save_backbone(tmp_path / "base")
    for options in ({"id2label": NAMES}, {"id2label": {"0": "no", "1": "yes"}}, {"label2id": {"no": 0, "yes": 1}}):
        classify = pipeline("tart-classification", model=folder, model_kwargs=options, examples=label(labels))
        assert answers(classify) == expected
        classify.set_examples(label(labels))  # the names stay
        assert answers(classify) == expected
        composed = TartForSequenceClassification.from_backbone(folder, **options, num_labels=2)
        assert answers(make_pipeline(composed, examples=label(labels))) == expected


def test__id2label__order_other_than_sorted__kept() -> None:
    model = compose()
    model.config.id2label = {0: "yes", 1: "no"}
    classify = make_pipeline(model, examples=label(["no", "yes"]))
    assert classify.model.support.labels.tolist() == [1, 0] * 4
    for found, expected in zip(answers(classify), answers(make_pipeline(examples=label(["no", "yes"]))), strict=True):
        assert found == pytest.approx(expected)
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = Dataset.from_dict({"text": TEXTS, "label": [0, 1] * 4}, features=features)
    classify.set_examples(rows)
    assert classify.model.support.labels.tolist() == [1, 0] * 4


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["no", "maybe"], r"label of example 1 is 'maybe', outside the 2 names of config.id2label, \['no', 'yes'\]"),
        ([0, 1, 2], "label of example 2 is 2, outside the 2 names"),
        ([-1, 1], "label of example 0 is -1, outside the 2 names"),
    ],
)
def test__id2label__labels_outside_its_names__clear_error(labels: list, message: str) -> None:
    model = compose()
    model.config.id2label = dict(NAMES)
    classify = make_pipeline(model, examples=None)
    with pytest.raises(ValueError, match=message):
        classify.set_examples(label(labels))
    assert {row["label"] for row in answers(classify, examples=label(labels))} == set(labels)


@pytest.mark.slow
def test__rename__answers_saved_files_and_reloads_follow(tmp_path: Path) -> None:
    classify = make_pipeline(compose_saved(tmp_path))
    scores = [row["score"] for row in answers(classify)]
    classify.model.config.id2label = {0: "fine", 1: "junk"}
    assert [row["label"] for row in answers(classify)] == ["fine", "junk"]
    assert [row["score"] for row in answers(classify)] == scores
    classify.save_pretrained(tmp_path / "task")
    config = json.loads((tmp_path / "task" / "config.json").read_text())
    assert config["id2label"] == {"0": "fine", "1": "junk"}
    assert config["label2id"] == {"fine": 0, "junk": 1}
    assert SupportSet.load(tmp_path / "task" / "support.safetensors").label_names == ("fine", "junk")
    again = pipeline("tart-classification", model=str(tmp_path / "task"))
    assert answers(again) == answers(classify)
    stock = pipeline("text-classification", model=str(tmp_path / "task"))
    assert stock("w1 w2")[0]["label"] == classify("w1 w2")["label"]


@pytest.mark.slow
def test__reload__names_of_the_config_win(tmp_path: Path) -> None:
    make_pipeline(compose_saved(tmp_path)).save_pretrained(tmp_path / "task")
    path = tmp_path / "task" / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}))
    assert [row["label"] for row in answers(pipeline("tart-classification", model=str(tmp_path / "task")))] == [
        "a",
        "b",
    ]
    named = AutoModel.from_pretrained(tmp_path / "task", id2label={0: "c", 1: "d"})
    assert named.config.id2label == {0: "c", 1: "d"}
    assert [row["label"] for row in answers(make_pipeline(named, examples=None))] == ["c", "d"]
    for wrong in ({0: "a", 1: "b", 2: "c"}, {0: "spam", 1: "ham"}):
        path.write_text(json.dumps({**fields, "id2label": wrong}))
        if len(wrong) == 3:
            with pytest.raises(CorruptFileError, match="has 2 classes, id2label of its config.json 3"):
                pipeline("tart-classification", model=str(tmp_path / "task"))
        else:
            with pytest.raises(ValueError, match="in another order"):
                pipeline("tart-classification", model=str(tmp_path / "task"))


def compose_saved(folder: Path) -> TartForSequenceClassification:
    """A composition whose backbone can be referred to."""
    return TartForSequenceClassification.from_backbone(save_backbone(folder / "base"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({0: "a"}, "config.id2label has 1 names, the support set has 2 classes"),
        ({0: "a", 1: "a"}, "config.id2label names two classes 'a'"),
        ({0: "a", 2: "b"}, r"The keys of config.id2label are \[0, 2\]; they must be 0 to 1"),
        ({0: "a", 1: ""}, "config.id2label names class 1 ''"),
    ],
)
def test__rename__wrong_names__clear_error(names: dict, message: str, tmp_path: Path) -> None:
    classify = make_pipeline()
    classify.model.config.id2label = names
    with pytest.raises(ValueError, match=message):
        classify("w1")
    with pytest.raises(ValueError, match=message):
        classify.model.save_pretrained(tmp_path, include_backbone=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}}, "give one"),
        ({"id2label": {0: "a", 1: "b"}, "num_labels": 3}, "num_labels is 3, but there are 2 names"),
        ({"id2label": ["a", "b"]}, r"id2label is \['a', 'b'\]; it must be a dict"),
        ({"label2id": {"a": "x"}}, "The keys of label2id are"),
    ],
)
def test__from_backbone__names_that_contradict__clear_error(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose(**options)


def test__examples_of_a_call__have_their_own_names() -> None:
    classify = make_pipeline()
    classify.model.config.id2label = {0: "fine", 1: "junk"}
    assert {row["label"] for row in answers(classify, examples=label(["p", "q"]))} == {"p", "q"}
    assert {row["label"] for row in answers(classify)} == {"fine", "junk"}


@pytest.mark.slow
def test__set_examples__names_of_earlier_examples__give_way(tmp_path: Path) -> None:
    classify = make_pipeline()
    for labels in (["p", "q", "r"], [0, 1], ["ham", "spam"]):
        classify.set_examples(label(labels))
        assert {row["label"] for row in answers(classify)} == set(labels)
    classify.set_examples(None)
    assert classify.model.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    classify.set_examples(make_examples(labels=("s", "t")))
    classify.model.save_pretrained(tmp_path, include_backbone=True)
    again = make_pipeline(TartForSequenceClassification.from_pretrained(tmp_path), examples=label([0, 1]))
    assert {row["label"] for row in answers(again)} == {0, 1}


@pytest.mark.slow
def test__reload__names_that_a_user_chose__stay_for_further_examples(tmp_path: Path) -> None:
    given = TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base"), id2label=NAMES)
    given.set_support(make_pipeline(given, examples=label([1, 0])).model.support)
    changed = make_pipeline(compose_saved(tmp_path), examples=label([1, 0]))
    changed.model.config.id2label = dict(NAMES)
    for i, model in enumerate((given, changed.model)):
        make_pipeline(model, examples=None).save_pretrained(tmp_path / f"{i}")
        again = pipeline("tart-classification", model=str(tmp_path / f"{i}"))
        again.add_examples([{"text": "w3", "label": 1}])
        assert again.model.support.labels.tolist() == [1, 0] * 4 + [1]
        again.set_examples(label([1, 0]))
        assert [row["label"] for row in answers(again)] == ["no", "yes"]
        with pytest.raises(ValueError, match="'p', outside the 2 names of config.id2label"):
            again.set_examples(label(["p", "q"]))


@pytest.mark.slow
def test__reload__names_changed_in_its_config__stay_for_further_examples(tmp_path: Path) -> None:
    make_pipeline(compose_saved(tmp_path), examples=label([1, 0])).save_pretrained(tmp_path / "task")
    path = tmp_path / "task" / "config.json"
    names = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **names}))
    again = pipeline("tart-classification", model=str(tmp_path / "task"))
    again.set_examples(label([1, 0]))
    assert [row["label"] for row in answers(again)] == ["no", "yes"]
