"""Answers that are withheld, degrees of being out of scope, and label sets."""

import pickle
import sys

import pytest
import torch
from helpers.builders import compose, make_examples, make_pipeline, make_texts, score_all
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils import logging

from transformers_tart import SupportSet
from transformers_tart.answers.conformal import least_probability, predict_held_out
from transformers_tart.answers.formats import AnswerFormat
from transformers_tart.answers.limits import Limits, limit_options
from transformers_tart.answers.scope import Scope
from transformers_tart.checks import progress
from transformers_tart.support import PreparedSupport


LABELS = ("w1 w2", "w30 w31", "w60 w61")
ROWS = make_examples(24, LABELS)
TEXTS = make_texts(6, seed=5)


@pytest.fixture(scope="module")
def classify() -> object:
    """A pipeline with three classes."""
    return make_pipeline(compose(views="plain"), examples=ROWS)


def test__abstain_below__unsure_and_sure__label_none_with_its_score(classify) -> None:
    found = classify(TEXTS)
    limit = sorted(each["score"] for each in found)[3]
    withheld = classify(TEXTS, abstain_below=limit)
    assert [each["score"] for each in withheld] == [each["score"] for each in found]
    expected = [each["label"] if each["score"] >= limit else None for each in found]
    assert [each["label"] for each in withheld] == expected
    assert classify(TEXTS, abstain_below=0.0) == found
    listed = classify(TEXTS, abstain_below=1.0, top_k=None)
    assert listed == [[{"label": None, "score": each["score"]}] for each in found]


def test__abstain_below__other_function__compares_the_probability(classify) -> None:
    (best,) = classify(TEXTS[:1])
    for limit, label in ((best["score"] - 1e-3, best["label"]), (best["score"] + 1e-3, None)):
        assert classify(TEXTS[:1], abstain_below=limit, function_to_apply="none")[0]["label"] == label


def test__abstain_below__candidate_labels__none_in_their_format(classify) -> None:
    found = classify(TEXTS[0], candidate_labels=list(LABELS), abstain_below=1.0)
    assert found["labels"] == [None]
    assert len(found["scores"]) == 1


def test__abstain_below__of_the_construction__until_a_call_takes_it_back() -> None:
    classify = make_pipeline(compose(views="plain"), examples=ROWS, abstain_below=1.0)
    assert classify(TEXTS[0])["label"] is None
    assert classify(TEXTS[0], abstain_below=None)["label"] is not None


@pytest.mark.parametrize("name", ["abstain_below", "reject_above", "coverage"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.5", True])
def test__limits__no_share__refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} is .*from 0 to 1"):
        limit_options({name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coverage": 1.0}, "above 0 and below 1"),
        ({"coverage": 0.9, "top_k": 2}, "give one of them"),
        ({"coverage": 0.99}, "24 examples .* at most 0.960"),
        ({"out_of_scope": 2}, "True or False"),
        ({"candidate_labels": list(LABELS), "coverage": 0.9}, "there are none"),
        ({"candidate_labels": list(LABELS), "reject_above": 0.9}, "there are none"),
    ],
)
def test__limits__that_cannot_be__refused(classify, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classify(TEXTS[0], **options)


def test__limits__protocol_with_prompt__refused() -> None:
    classify = make_pipeline(compose(protocol="vanilla"), examples=ROWS[:12])
    with pytest.raises(ValueError, match="prompt embeds these in another way"):
        classify(TEXTS[0], out_of_scope=True)


def test__out_of_scope__asked_for__in_all_formats_and_the_same_alone(classify) -> None:
    found = classify(TEXTS, out_of_scope=True)
    degrees = [each["out_of_scope"] for each in found]
    assert all(0 <= degree < 1 for degree in degrees)
    assert [classify(text, out_of_scope=True)["out_of_scope"] for text in TEXTS] == degrees
    assert [{"label": each["label"], "score": each["score"]} for each in found] == classify(TEXTS)
    assert all(each["out_of_scope"] == degrees[0] for each in classify(TEXTS[0], out_of_scope=True, top_k=None))
    limit = sorted(degrees)[3]
    labels = [each["label"] for each in classify(TEXTS, reject_above=limit)]
    assert [label is None for label in labels] == [degree > limit for degree in degrees]


def test__calibration__next_call_and_pickle__measured_once(classify) -> None:
    classify(TEXTS[0], coverage=0.8)
    calibration = classify._calibration
    classify(TEXTS[1], coverage=0.7, out_of_scope=True)
    assert classify._calibration is calibration
    copy = pickle.loads(pickle.dumps(classify))
    assert copy(TEXTS[0], coverage=0.8) == classify(TEXTS[0], coverage=0.8)
    classify(TEXTS[0], examples=ROWS[:12], coverage=0.8)
    assert classify._calibration is not calibration


def prepare(embeddings: torch.Tensor, labels: torch.Tensor, names: tuple[str, ...] = LABELS) -> PreparedSupport:
    return MODEL.prepare_embedded(SupportSet(embeddings, labels, names))


MODEL = compose(pooling="mean", layers=-1)


def draw(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters in the embeddings of the model, the classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(LABELS)
    centers = torch.randn(len(LABELS), 1, 32, generator=torch.Generator().manual_seed(9))
    return centers[labels] + torch.randn(count, 1, 32, generator=generator), labels


def test__scope__inputs_like_the_examples__share_as_promised_and_others_above() -> None:
    degrees = Scope.of(prepare(*draw(120))).compare(draw(600, seed=1)[0])
    for share in (0.5, 0.8, 0.95):
        assert abs(float((degrees > share).float().mean()) - (1 - share)) < 0.1
    assert (Scope.of(prepare(*draw(120))).compare(5 * draw(20, seed=2)[0]) > 0.99).all()


def test__scope__many_examples__some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers_tart.answers.scope.MOST", 20)
    scope = Scope.of(prepare(*draw(50)))
    assert len(scope.novelty) == 17
    assert len(scope.compare(draw(4)[0])) == 4


def test__label_sets__order_of_examples_and_classes__does_not_matter() -> None:
    embeddings, labels = draw(30)
    probabilities = predict_held_out(MODEL, prepare(embeddings, labels)).sort().values
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    places = torch.tensor([2, 0, 1])
    names = (LABELS[1], LABELS[2], LABELS[0])
    other = predict_held_out(MODEL, prepare(embeddings[order], places[labels[order]], names)).sort().values
    assert torch.allclose(probabilities, other, atol=1e-4)


def test__label_sets__copies_and_single_example_of_a_class__not_predicted_from_themselves() -> None:
    embeddings, labels = draw(30)
    shuffled = labels[torch.randperm(30, generator=torch.Generator().manual_seed(0))]  # nothing to learn
    twice = predict_held_out(MODEL, prepare(torch.cat([embeddings] * 2), torch.cat([shuffled] * 2)))
    assert len(twice) == 60
    assert twice.mean() < 0.5
    alone = torch.where(torch.arange(30) == 7, 2, labels % 2)
    assert len(predict_held_out(MODEL, prepare(embeddings, alone))) == 29


def test__label_sets__held_out_queries__covered_as_asked() -> None:
    embeddings, labels = draw(300)
    examples, (queries, truth) = (embeddings[:150], labels[:150]), draw(900, seed=4)
    prepared = prepare(*examples)
    probabilities = MODEL.answer(queries, prepared).softmax(-1)
    for coverage in (0.7, 0.9):
        least = least_probability(predict_held_out(MODEL, prepared), coverage)
        covered = (probabilities >= least).gather(1, truth[:, None]).float().mean()
        assert abs(float(covered) - coverage) < 0.07


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=30, max_size=60),
    st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=6),
    st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)),
    st.randoms(),
)
def test__label_sets__higher_coverage__hold_those_of_a_lower_one(held_out, logits, coverages, random) -> None:
    names = tuple(map(str, range(len(logits))))
    found = []
    for coverage in sorted(coverages):
        limits = Limits(excluded=least_probability(torch.tensor(held_out), coverage))
        form = AnswerFormat(names, limits=limits)
        found.append({each["label"]: each["score"] for each in form.write(None, torch.tensor(logits))})
        order = random.sample(range(len(names)), len(names))
        permuted = AnswerFormat(tuple(names[i] for i in order), limits=limits)
        other = permuted.write(None, torch.tensor([logits[i] for i in order]))
        if len(set(logits)) == len(logits):
            assert {each["label"] for each in other} == set(found[-1])
    assert set(found[0]) <= set(found[1])
    assert max(logits) == logits[int(next(iter(found[0])))]


def test__coverage__slow_on_a_terminal__progress_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging, "_tqdm_active", True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fitted = make_pipeline(compose(views="plain"), examples=ROWS[:12])
    for delay, is_shown in ((3600, False), (0, True)):
        monkeypatch.setattr(progress, "DELAY", delay)
        fitted.set_examples(ROWS[:12])
        fitted(TEXTS[0], coverage=0.8)
        captured = capsys.readouterr()
        assert ("calibrating" in captured.err) == is_shown
        assert captured.out == ""


def test__coverage__call__list_with_the_best_and_no_smaller_for_more(classify) -> None:
    every = score_all(classify, TEXTS)
    small, large = (classify(TEXTS, coverage=coverage) for coverage in (0.5, 0.95))
    for few, many, scores in zip(small, large, every, strict=True):
        assert {each["label"] for each in few} <= {each["label"] for each in many}
        assert few[0] == many[0]
        assert few[0]["score"] == pytest.approx(float(scores.max()))
