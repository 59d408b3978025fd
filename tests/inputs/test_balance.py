"""Support sets above the limit are split into the same subsets in whatever order they come."""

import pytest
import torch
from helpers.builders import build_reasoner, draw_task, shared_reasoner
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from transformers_tart import TartReasoner
from transformers_tart.inputs.balance import balanced_subsets


def contents(embeddings: Tensor, labels: Tensor, limit: int) -> list[list]:
    """The examples of each subset, in an order of their own."""
    subsets = balanced_subsets(embeddings[None], labels[None], limit)
    return [sorted([labels[i].item(), *embeddings[i].tolist()] for i in index[0]) for index in subsets]


def probabilities(reasoner: TartReasoner, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    with torch.no_grad():
        return reasoner(support, labels, query).logits.softmax(-1)


@given(
    size=st.integers(11, 700), classes=st.integers(2, 5), limit=st.integers(4, 300), seed=st.integers(0, 9),
    is_whole=st.booleans(), scale=st.sampled_from([1e-30, 1.0, 1e30]),
)  # fmt: skip
def test__balanced_subsets__examples_permuted__same_subsets(
    size: int, classes: int, limit: int, seed: int, is_whole: bool, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(size, 3, generator=generator)
    embeddings = (embeddings.round() if is_whole else embeddings) * scale  # whole numbers have many equal distances
    labels = torch.randint(classes, (size,), generator=generator)
    order = torch.randperm(size, generator=generator)
    assert contents(embeddings[order], labels[order], limit) == contents(embeddings, labels, limit)


@given(seed=st.integers(0, 20))
def test__balanced_subsets__classes_renumbered__same_subsets(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings, labels = torch.randn(1, 50, 3, generator=generator), torch.randint(4, (1, 50), generator=generator)
    names = torch.randperm(4, generator=generator)
    found, expected = (balanced_subsets(embeddings, x, 12) for x in (names[labels], labels))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test__balanced_subsets__several_sets__each_as_if_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings, labels = torch.randn(3, 40, 4, generator=generator), torch.randint(3, (3, 40), generator=generator)
    together = balanced_subsets(embeddings, labels, 15)
    for row in range(3):
        alone = balanced_subsets(embeddings[row : row + 1], labels[row : row + 1], 15)
        assert all(torch.equal(index[row : row + 1], own) for index, own in zip(together, alone, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test__balanced_subsets__other_dtypes__as_in_float32(dtype: torch.dtype) -> None:
    embeddings, labels = (x[:, :40] for x in draw_task(40)[:2])
    found = balanced_subsets(embeddings.to(dtype), labels, 12)
    expected = balanced_subsets(embeddings.to(dtype).float(), labels, 12)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.slow
@given(size=st.integers(21, 60), classes=st.integers(2, 4), seed=st.integers(0, 50))
def test__reasoner__support_above_the_limit_permuted__same(size: int, classes: int, seed: int) -> None:
    reasoner = build_reasoner(max_support=20)
    support, labels, query, _ = draw_task(size, classes=classes, seed=seed)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    found = probabilities(reasoner, support[:, order], labels[:, order], query)
    torch.testing.assert_close(found, probabilities(reasoner, support, labels, query), atol=1e-4, rtol=0)


@pytest.mark.slow
@given(seed=st.integers(0, 50))
def test__reasoner__support_above_the_limit_classes_renumbered__scores_follow(seed: int) -> None:
    reasoner = build_reasoner(max_support=20)
    support, labels, query, _ = draw_task(50, classes=3, seed=seed)
    names = torch.randperm(3, generator=torch.Generator().manual_seed(seed))
    found = probabilities(reasoner, support, names[labels], query)[..., names]
    torch.testing.assert_close(found, probabilities(reasoner, support, labels, query), atol=1e-4, rtol=0)


@pytest.mark.exhaustive
@pytest.mark.slow
def test__shipped_reasoner__2500_examples_permuted__same() -> None:
    support, labels, query, _ = draw_task(2500, 20, classes=2, gap=0.5)
    order = torch.randperm(2500, generator=torch.Generator().manual_seed(0))
    assert len(shared_reasoner().prepare(support, labels).views[0].parts) == 2
    found = probabilities(shared_reasoner(), support[:, order], labels[:, order], query)
    torch.testing.assert_close(found, probabilities(shared_reasoner(), support, labels, query), atol=1e-4, rtol=0)
