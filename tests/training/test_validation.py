"""Validation on fixed synthetic tasks."""

import pytest
import torch
from helpers.builders import build_reasoner
from helpers.training import PAPER, TASKS
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from transformers_tart.training.validation import Score, Validation, overall


def guess_blindly(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    return torch.full((len(query), num_classes), 1 / num_classes, dtype=torch.float64)


def be_sure_of_the_first(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    return torch.eye(num_classes, dtype=torch.float64)[:1].expand(len(query), -1)


@pytest.mark.slow
def test__validation__reasoner__loss_and_accuracy_of_its_answers() -> None:
    reasoner = build_reasoner(projection="none")  # which validation leaves out
    batches = TASKS.validation(Generator().manual_seed(0))
    scores = Validation(batches).measure(reasoner.train())
    assert reasoner.training
    assert list(scores) == [f"k={batch.support_size}, {batch.num_classes} classes" for batch in batches]
    reasoner.eval()
    for batch, score in zip(batches, scores.values(), strict=True):
        size, losses, right = batch.support_size, [], []
        for x, y in zip(batch.embeddings, batch.labels, strict=True):
            with torch.no_grad():
                logits = reasoner(x[None, :size], y[None, :size], x[None, size:], num_labels=batch.num_classes).logits[
                    0
                ]
            losses.append(cross_entropy(logits, y[size:]))
            right.append((logits.argmax(-1) == y[size:]).float().mean())
        assert score.loss == pytest.approx(torch.stack(losses).mean().item(), abs=2e-4)
        assert score.accuracy == pytest.approx(torch.stack(right).mean().item(), abs=2e-4)


def test__validation__references__measured_once_on_the_same_tasks() -> None:
    batches = TASKS.validation(Generator().manual_seed(0))
    validation = Validation(batches, {"blind": guess_blindly, "sure": be_sure_of_the_first})
    found = validation.reference_scores
    for batch in batches:
        name = f"k={batch.support_size}, {batch.num_classes} classes"
        assert found["blind"][name].loss == pytest.approx(torch.tensor(batch.num_classes).log().item(), abs=1e-4)
        share = (batch.labels[:, batch.support_size :] == 0).double().mean().item()
        assert found["sure"][name].accuracy == pytest.approx(share, abs=1e-4)
        assert found["sure"][name].loss == pytest.approx((1 - share) * -torch.tensor(1e-12).log().item(), rel=1e-3)
    assert validation.reference_scores is found


def test__validation__gpt2_on_its_own_family__without_projection() -> None:
    reasoner = build_reasoner("gpt2", num_components=4, n_positions=10)
    scores = Validation(PAPER.validation(Generator().manual_seed(0))).measure(reasoner)
    assert list(scores) == ["k=2, 2 classes", "k=8, 2 classes"]


def test__overall__scores__mean() -> None:
    assert overall({"a": Score(1.0, 0.5), "b": Score(3.0, 1.0)}) == Score(2.0, 0.75)


def test__validation__nothing_to_measure_on__said() -> None:
    with pytest.raises(ValueError, match="needs batches of tasks with a support set"):
        Validation(())
    with pytest.raises(ValueError, match="needs batches of tasks with a support set"):
        Validation((PAPER.draw(0, Generator().manual_seed(0)),))
    batch = TASKS.validation(Generator().manual_seed(0))[0]
    with pytest.raises(ValueError, match="must be of another shape"):
        Validation((batch, batch))
