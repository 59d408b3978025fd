"""The published projection of images and recordings, against its steps written out."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from transformers_tart.embeddings.reference import published_projection


def draw(k: int, hidden: int, queries: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated embeddings that are not centered."""
    generator = torch.Generator().manual_seed(k)
    rows = torch.randn(k + queries, hidden, generator=generator) @ torch.randn(hidden, hidden, generator=generator)
    return rows[:k] + 3, rows[k:] + 3


@pytest.mark.parametrize(("k", "hidden"), [(9, 24), (64, 24), (18, 700)])
def test__published_projection__any_embeddings__as_its_steps_in_numpy(k: int, hidden: int) -> None:
    support, query = draw(k, hidden)
    pca = PCA(n_components=8, svd_solver="full").fit(support.double().numpy())
    scores = [pca.transform(x.double().numpy()) for x in (support, query)]
    centered = [x - scores[0].mean(axis=0) for x in scores]
    values, vectors = np.linalg.eigh(np.cov(centered[0], rowvar=False))
    whitening = vectors @ np.diag(1 / np.sqrt(values)) @ vectors.T
    expected = [np.concatenate([x @ whitening.T] * 2, axis=-1) for x in centered]
    found = published_projection(support, query)
    assert [tuple(x.shape) for x in found] == [(k, 16), (7, 16)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, torch.from_numpy(theirs).float(), atol=1e-3, rtol=1e-3)


def test__published_projection__components__copied_behind_each_other() -> None:
    support, query = published_projection(*draw(32, 20))
    assert torch.equal(support[:, :8], support[:, 8:])
    assert torch.equal(query[:, :8], query[:, 8:])
    torch.testing.assert_close(support[:, :8].T.cov(), torch.eye(8), atol=1e-4, rtol=0)


def test__published_projection__other_queries__change_nothing() -> None:
    support, query = draw(32, 20)
    assert torch.equal(published_projection(support, query)[1][:1], published_projection(support, query[:1])[1])


@pytest.mark.parametrize(
    ("support", "query", "message"),
    [((8, 20), (1, 20), "has 8 embeddings"), ((20, 7), (1, 7), "of 7 dimensions"), ((20, 9), (1, 8), r"query is \(1")],
)
def test__published_projection__impossible__says_why(support: tuple, query: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        published_projection(torch.randn(support), torch.randn(query))
