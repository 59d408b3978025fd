"""Logistic regression on the embeddings that the reasoner reads."""

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor


def linear_probe(support: Tensor, labels: Tensor, query: Tensor, num_classes: int, c: float = 1.0) -> Tensor:
    r"""
    Fit a logistic regression to labelled embeddings and predict.

    Args:
        support (`torch.FloatTensor` of shape `(k, hidden)`), labels (`torch.LongTensor` of shape `(k,)`):
            The labelled embeddings, of at least two classes.
        query (`torch.FloatTensor` of shape `(n, hidden)`):
            The embeddings to predict.
        num_classes (`int`):
            Number of classes, those without an example included.
        c (`float`, *optional*, defaults to 1.0):
            Inverse of the regularisation strength, as in `sklearn.linear_model.LogisticRegression`.

    Returns:
        `torch.FloatTensor` of shape `(n, num_classes)`: probabilities; zero for a class without an example.
    """
    probe = LogisticRegression(C=c, max_iter=2000).fit(support.cpu().numpy(), labels.cpu().numpy())
    result = torch.zeros(len(query), num_classes)
    result[:, torch.from_numpy(probe.classes_)] = torch.from_numpy(probe.predict_proba(query.cpu().numpy())).float()
    return result


__all__ = ["linear_probe"]
