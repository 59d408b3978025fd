"""Suggestions of inputs to label next."""

import pytest
import torch
from helpers.builders import compose, make_examples, make_pipeline, make_texts, score_all
from helpers.media_backbones import compose_media, make_images, processor_of

from transformers_tart.answers.suggesting import Pool
from transformers_tart.inputs.views import View


ROWS = make_examples(8)
TEXTS = make_texts(30, seed=3)


def test__suggest__of_many__distinct_and_the_same_again() -> None:
    classify = make_pipeline(examples=ROWS)
    found = classify.suggest(TEXTS, 5)
    indices = [each["index"] for each in found]
    assert len(set(indices)) == 5
    assert [each["index"] for each in classify.suggest(TEXTS, 5, batch_size=4)] == indices
    scores = [each["score"] for each in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


def test__suggest__copies__once_and_none_of_examples() -> None:
    classify = make_pipeline(examples=ROWS)
    pool = [*TEXTS[:4], *TEXTS[:4], *(row["text"] for row in ROWS)]
    found = classify.suggest(pool, 10)
    assert {each["index"] % 4 for each in found} == {0, 1, 2, 3}
    assert len(found) == 4


def test__suggest__candidate_labels_or_examples_of_the_call__no_stored_ones() -> None:
    classify = make_pipeline(examples=None, model=compose(), candidate_labels=["w1 w2", "w30 w31"])
    assert len(classify.suggest(TEXTS, 3)) == 3
    assert len(classify.suggest(TEXTS, 3, examples=ROWS)) == 3
    assert classify.suggest([], 3) == []


def test__suggest__single_text_or_count__errors() -> None:
    classify = make_pipeline(examples=ROWS)
    with pytest.raises(TypeError, match="is one text"):
        classify.suggest(TEXTS[0])
    with pytest.raises(ValueError, match="n is 0"):
        classify.suggest(TEXTS, 0)
    with pytest.raises(TypeError, match=r"unexpected keyword arguments \['top_k'\]"):
        classify.suggest(TEXTS, 3, top_k=1)
    assert classify.suggest(TEXTS, 3, candidate_labels=None) == classify.suggest(TEXTS, 3)


def make_pool(centers: list[float], logits: list[list[float]]) -> Pool:
    """A pool of points on a circle, one near each angle."""
    points = torch.tensor([[torch.tensor(angle).cos(), torch.tensor(angle).sin()] for angle in centers])
    pool = Pool((View("mean"),))
    pool.add(list(range(len(centers))), points[:, None], torch.tensor(logits))
    return pool


def test__choice__uncertain_group_and_certain_group__from_both_but_the_uncertain_first() -> None:
    uncertain, certain = [[0.0, 0.1]] * 3, [[0.0, 2.0]] * 3
    pool = make_pool([0.0, 0.1, 0.2, 3.0, 3.1, 3.2], uncertain + certain)
    first, second = pool.choose(torch.zeros(0, 1, 2), 2)
    assert first["index"] < 3 <= second["index"]


def test__choice__more_inputs_than_are_compared__still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers_tart.answers.suggesting.MOST", 4)
    pool = make_pool([0.1 * i for i in range(12)], [[0.0, 0.0 if i == 7 else 3.0] for i in range(12)])
    assert pool.choose(torch.zeros(0, 1, 2), 1)[0]["index"] == 7


def test__images__added_removed_and_suggested__as_all_at_once() -> None:
    images = make_images(12)
    rows = [{"image": image, "label": "ab"[i % 2]} for i, image in enumerate(images[:8])]
    classify = make_pipeline(
        compose_media("vit"), tokenizer=None, image_processor=processor_of("vit"), examples=rows[:5]
    )
    classify.add_examples(rows[5:])
    whole = make_pipeline(compose_media("vit"), tokenizer=None, image_processor=processor_of("vit"), examples=rows)
    assert (score_all(classify, images[8:]) - score_all(whole, images[8:])).abs().max() < 1e-5
    with pytest.raises(ValueError, match="by their indices"):
        classify.remove_examples(rows[:1])
    classify.remove_examples([0, 1])
    assert len(classify.model.support) == 6
    assert len({each["index"] for each in classify.suggest(images, 3)} - set(range(2, 8))) == 3
