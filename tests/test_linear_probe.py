"""The linear probe is scikit-learn's, with a column for every class."""

import torch
from conftest import draw_task
from sklearn.linear_model import LogisticRegression

from transformers_tart.evaluation.linear_probe import linear_probe


def test__linear_probe__three_classes__scikit_learns_probabilities() -> None:
    support, labels, query, _ = (tensor[0] for tensor in draw_task(classes=3))
    expected = LogisticRegression(C=0.5, max_iter=2000).fit(support, labels).predict_proba(query)
    torch.testing.assert_close(linear_probe(support, labels, query, 3, c=0.5), torch.from_numpy(expected).float())


def test__linear_probe__class_without_example__probability_zero() -> None:
    support, labels, query, _ = (tensor[0] for tensor in draw_task(classes=2))
    scores = linear_probe(support, labels * 2, query, 4)
    assert scores.shape == (len(query), 4)
    assert torch.equal(scores[:, [1, 3]], torch.zeros(len(query), 2))
    torch.testing.assert_close(scores.sum(1), torch.ones(len(query)))
