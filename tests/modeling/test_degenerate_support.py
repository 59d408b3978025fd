"""Support sets that give little or nothing to learn from: the answers stay finite, or an error says why."""

import pytest
import torch
from helpers.builders import build_reasoner, draw_task, shared_reasoner
from torch import Tensor

from transformers_tart import TartReasoner
from transformers_tart.reasoners.architectures import ARCHITECTURES


def get_reasoner(name: str) -> TartReasoner:
    return shared_reasoner() if name == "kernel" else build_reasoner(name)


def assert_finite(name: str, support: Tensor, labels: Tensor, query: Tensor, **kwargs: int) -> None:
    with torch.no_grad():
        logits = get_reasoner(name)(support, labels, query, **kwargs).logits
    assert torch.isfinite(logits).all()


pytestmark = pytest.mark.parametrize("name", ARCHITECTURES)


def test__reasoner__duplicate_rows__finite(name: str) -> None:
    support, labels, query, _ = draw_task(4, dim=20)
    assert_finite(name, support.repeat(1, 6, 1), labels.repeat(1, 6), query)


def test__reasoner__duplicates_with_other_labels__finite(name: str) -> None:
    support, labels, query, _ = draw_task(4, dim=20)
    assert_finite(name, support.repeat(1, 2, 1), torch.cat([labels, 1 - labels], 1), query)


def test__reasoner__one_row_differs__finite(name: str) -> None:
    support, labels, query, _ = draw_task(12, dim=20)
    assert_finite(name, torch.cat([support[:, :1].expand(-1, 11, -1), support[:, 1:2]], 1), labels, query)


def test__reasoner__rank_one__finite(name: str) -> None:
    support, labels, query, _ = draw_task(12, dim=20)
    assert_finite(name, support[:, :, :1] @ support[:, :1], labels, query)


def test__reasoner__two_examples__finite(name: str) -> None:
    support, labels, query, _ = draw_task(2, dim=20)
    assert_finite(name, support, labels, query)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test__reasoner__extreme_scale__finite_and_as_without(name: str, scale: float) -> None:
    support, labels, query, _ = draw_task(12, dim=20)
    with torch.no_grad():
        expected = get_reasoner(name)(support, labels, query).logits
        found = get_reasoner(name)(support * scale, labels, query * scale).logits
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)


def test__reasoner__class_without_examples__finite(name: str) -> None:
    support, labels, query, _ = draw_task(12, dim=20)
    assert_finite(name, support, labels * 2, query, num_labels=4)


def test__reasoner__one_example_of_a_class__finite(name: str) -> None:
    support, labels, query, _ = draw_task(30, dim=20)
    assert_finite(name, support, (torch.arange(30) == 7).long()[None], query)


def test__reasoner__varies_by_less_than_rounding__finite(name: str) -> None:
    support, labels, query, _ = draw_task(4, dim=20)
    assert_finite(name, torch.ones(1, 4, 20).index_add(2, torch.tensor([0]), support[..., :1] * 1e-7), labels, query)
    tiny = torch.tensor([[[1.0, 0.0], [1.0, 1e-30]]])
    assert_finite(name, tiny, torch.tensor([[0, 1]]), query[..., :2])


def test__reasoner__query_equal_to_the_support__finite(name: str) -> None:
    support, labels, _, _ = draw_task(12, dim=20)
    assert_finite(name, support, labels, support)


def test__reasoner__subsets_of_a_few_examples__finite(name: str) -> None:
    support, labels, query, _ = draw_task(5, dim=20)
    assert torch.isfinite(build_reasoner(name, max_support=4)(support, labels, query).logits).all()


def test__reasoner__equal_embeddings__says_that_nothing_can_be_learned(name: str) -> None:
    _, labels, query, _ = draw_task(12, dim=20)
    with pytest.raises(ValueError, match="All support embeddings are equal, so nothing can be learned"):
        get_reasoner(name)(torch.ones(1, 12, 20), labels, query)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test__reasoner__not_finite__names_the_backbone(name: str, value: float) -> None:
    support, labels, query, _ = draw_task(12, dim=20)
    support[0, 3, 4] = value
    with pytest.raises(ValueError, match="NaN or infinite values: the backbone is broken or overflows"):
        get_reasoner(name)(support, labels, query)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, y: (s[0], y), r"must be \(batch, k, dim\) and support labels \(batch, k\); got \(12, 20\)"),
        (lambda s, y: (s, y[:, :5]), r"got \(1, 12, 20\) and \(1, 5\)"),
        (lambda s, y: (s, y.float()), "must be integers from 0, at least one of them; got torch.float32"),
        (lambda s, y: (s, y.bool()), "got torch.bool"),
        (lambda s, y: (s, y - 1), "must be integers from 0"),
        (lambda s, y: (s[:, :0], y[:, :0]), "at least one of them"),
        (lambda s, y: (s, y * 0), "have one label; give examples of at least two classes"),
        (lambda s, y: (s[:, :1], y[:, :1]), "have one label; give examples of at least two classes"),
    ],
)
def test__reasoner__support_that_does_not_fit__clear_error(name: str, change: object, message: str) -> None:
    support, labels, query, _ = draw_task(12, dim=20)
    with pytest.raises(ValueError, match=message):
        get_reasoner(name)(*change(support, labels), query)


def test__reasoner__fewer_classes_announced__says_both_numbers(name: str) -> None:
    support, labels, query, _ = draw_task(12, dim=20, classes=3)
    with pytest.raises(ValueError, match="A support label is 2, but there are 2 classes"):
        get_reasoner(name)(support, labels, query, num_labels=2)
