"""Methods without a language model, and SetFit as far as its library is not needed."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.builders import save_backbone

from transformers_tart.evaluation.methods.base import Support, TaskContext
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.methods.plain import majority, tfidf
from transformers_tart.evaluation.methods.setfit import setfit
from transformers_tart.evaluation.tasks import Task
from transformers_tart.inputs.texts import Text


pytestmark = pytest.mark.core


WORDS = ("apple pear", "stone rock", "river lake")


def make_context(texts: list[Text], labels: list[int], tests: list[Text], name: str = "none") -> TaskContext:
    task = Task("made", ("a", "b", "c"), texts, labels, tests, [0] * len(tests))
    return TaskContext(task, Models(name))


def support_of(context: TaskContext) -> Support:
    return Support(tuple(range(len(context.task.train_texts))), seed=1)


def test__majority__unequal_classes__smoothed_shares_for_each_text() -> None:
    context = make_context(["x", "y", "z"], [0, 0, 1], ["u", "v"])
    expected = torch.tensor([[3, 2, 1], [3, 2, 1]], dtype=torch.float64) / 6
    assert torch.equal(majority(context, support_of(context)), expected)


def test__tfidf__words_of_their_own__found() -> None:
    context = make_context([*WORDS, *WORDS], [0, 1, 2] * 2, ["a pear", "the rock", "one lake"])
    probabilities = tfidf(context, support_of(context))
    assert probabilities.dtype == torch.float64
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3, dtype=torch.float64))
    assert probabilities.argmax(1).tolist() == [0, 1, 2]


def test__tfidf__word_order_alone__found() -> None:
    texts: list[Text] = ["up then down", "down then up"]
    context = make_context(texts * 4, [0, 1] * 4, texts)
    assert tfidf(context, support_of(context)).argmax(1).tolist() == [0, 1]


def test__tfidf__class_without_example__probability_zero() -> None:
    context = make_context(["apple", "lake", "pear", "river"], [0, 2, 0, 2], ["apple", "sky"])
    probabilities = tfidf(context, support_of(context))
    assert torch.equal(probabilities[:, 1], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, dtype=torch.float64))


def test__tfidf__pairs__both_texts_are_read() -> None:
    pairs: list[Text] = [("same", "apple"), ("same", "stone")]
    context = make_context(pairs * 3, [0, 1] * 3, pairs)
    assert tfidf(context, support_of(context)).argmax(1).tolist() == [0, 1]


def test__tfidf__examples_without_words__class_shares() -> None:
    context = make_context(["", "!", "?"], [0, 1, 1], ["apple", ""])
    assert torch.equal(tfidf(context, support_of(context)), majority(context, support_of(context)))


def test__setfit__library_absent__error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "setfit", None)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    context = make_context(["x", "y"], [0, 1], ["z"])
    with pytest.raises(ImportError, match=r"pip install 'transformers-tart\[setfit\]'"):
        setfit(context, support_of(context))


class StandInTrainer:
    """Stands in for the library's: only fits the head, on the lengths of the texts."""

    def __init__(self, model: SimpleNamespace, args: dict, train_dataset: dict):
        self.model, self.args, self.data = model, args, train_dataset

    def train(self) -> None:
        lengths = [[len(text)] for text in self.data["text"]]
        self.model.model_head.fit(lengths, list(self.data["label"]))
        self.model.predict_proba = lambda texts, **_: self.model.model_head.predict_proba([[len(t)] for t in texts])


def stand_in_for_library(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(
        SetFitModel=SimpleNamespace, Trainer=StandInTrainer, TrainingArguments=lambda folder, **options: options
    )

    def load_encoder(*_: object, model_kwargs: dict, **__: object) -> SimpleNamespace:
        assert model_kwargs["dtype"] == "float32"  # the library would train in the dtype of the file, such as float16
        return SimpleNamespace(max_seq_length=8)

    encoders = SimpleNamespace(SentenceTransformer=load_encoder)
    monkeypatch.setitem(sys.modules, "setfit", library)
    monkeypatch.setitem(sys.modules, "sentence_transformers", encoders)


def test__setfit__class_without_example__probability_zero(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stand_in_for_library(monkeypatch)
    folder = tmp_path_factory.mktemp("encoder")
    save_backbone(folder, "bert")
    (folder / "modules.json").write_text("[]")
    before = np.random.get_state()[1].copy()
    context = make_context(["x", "long text"] * 3, [0, 2] * 3, [("z", "y"), "another text"], str(folder))
    probabilities = setfit(context, support_of(context))
    assert probabilities.argmax(1).tolist() == [0, 2]
    assert torch.equal(probabilities[:, 1], torch.zeros(2, dtype=torch.float64))
    assert np.array_equal(before, np.random.get_state()[1])


def test__setfit__prompt__before_each_text_in_place_of_the_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in_for_library(monkeypatch)
    trainers, train = [], StandInTrainer.train

    def note(trainer: StandInTrainer) -> None:
        trainers.append(trainer)
        train(trainer)

    monkeypatch.setattr(StandInTrainer, "train", note)
    save_backbone(tmp_path, "bert")
    (tmp_path / "modules.json").write_text("[]")
    context = make_context(["x", ("y", "z")], [0, 1], ["z"], str(tmp_path))
    context.models.prompt = "query: "
    setfit(context, support_of(context))
    assert list(trainers[0].data["text"]) == ["query: x", "query: y\nz"]
    assert trainers[0].model.model_body.default_prompt_name is None


def test__setfit__backbone_of_another_kind__error_says_which_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stand_in_for_library(monkeypatch)
    context = make_context(["x", "y"], [0, 1], ["z"], save_backbone(tmp_path_factory.mktemp("bare") / "bert", "bert"))
    with pytest.raises(ValueError, match="bert is none: modules.json cannot be loaded"):
        setfit(context, support_of(context))
