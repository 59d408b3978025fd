"""Answers from several views and label hints: their combination by learned weights, or a mixture by evidence."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from transformers_tart.reasoners.architectures.rows import Rows
from transformers_tart.reasoners.architectures.smoothers import in_float32
from transformers_tart.reasoners.architectures.stacking import fit_weights
from transformers_tart.reasoners.evidence import Evidence
from transformers_tart.reasoners.hint_scaling import HintScaling
from transformers_tart.reasoners.mixing import mix, weigh_views
from transformers_tart.reasoners.state import Combination, ReasonerState, ViewState, Votes
from transformers_tart.reasoners.weighing import Weighing


@in_float32
def combine(
    weighing: Weighing | None,
    views: tuple[ViewState, ...],
    labels: Tensor,
    hints: Tensor | None,
    unlabeled: Tensor | None,
    num_labels: int,
    weights: Tensor | None = None,
) -> ReasonerState:
    """Weigh views of examples with labels (B, k), and their hints (B, k, H, C) and (B, m, H, C) if there are any.

    The examples may have weights (B, k).
    """
    batch, size = labels.shape
    rows, dtype = Rows(weights), _dtype_of(views)
    held_out = [view.held_out for view in views if view.held_out is not None]
    scores = [rows.mean((view * one_hot(labels, num_labels)).sum(-1))[:, 0] for view in held_out]
    likelihoods = torch.stack(scores) if scores else labels.new_zeros(len(views), batch, dtype=dtype)
    log_weights = weigh_views(likelihoods, rows.total(size))
    if weighing is None or (hints is None and len(views) == 1):
        return ReasonerState(num_labels, batch, views, log_weights)
    if hints is None or unlabeled is None:
        hints = unlabeled = log_weights.new_zeros(batch, size, 0, num_labels)
    members = rows.weigh(one_hot(labels, num_labels).to(hints.dtype))
    combination = _weigh(weighing, held_out, members, hints, unlabeled)
    return ReasonerState(num_labels, batch, views, log_weights, combination)


def _weigh(
    weighing: Weighing, held_out: Sequence[Tensor], members: Tensor, hints: Tensor, unlabeled: Tensor
) -> Combination:
    """Fit the weights of views (B, k, C) and hints (B, k, H, C) to one-hot labels (B, k, C) times weights."""
    batch, k, classes = members.shape
    scaling, size = HintScaling.fit(hints, members, unlabeled), members.sum(dim=(1, 2))
    # without examples the center holds nothing of the classes' frequencies, and all of their bias
    full = torch.ones_like(scaling.bias)
    shrinkage = weighing.shrinkage(scaling.bias, scaling.error, classes, size) if k else full
    # one example more of each class than there are, since that of a hint may be the class of none
    log_frequency = ((members.sum(1) + 1) / (size[:, None] + classes)).log()
    log_share = _log_share(members)
    views = [view - log_share[:, None] for view in held_out]
    columns = torch.stack(views, dim=2) if views else members.new_zeros(batch, k, 0, classes)
    missing = scaling.missing.to(members.dtype).mean(-1)
    scaled = scaling.transform(hints, shrinkage)
    evidence = Evidence(columns, scaled, members, log_frequency, scaling.bias, missing)
    shares, prior = weighing(evidence)
    shared = torch.einsum("bkvc,bv->bkc", columns, shares)[:, :, None]
    weights, offset = fit_weights(torch.cat([shared, evidence.columns], dim=2), members, log_frequency, prior)
    of_views = weights[:, :1] * shares + weights[:, 1 : 1 + len(views)]
    of_hints = weights[:, 1 + len(views) :]
    return Combination(of_views, of_hints, offset + log_frequency, log_share, scaling, shrinkage)


def _log_share(members: Tensor) -> Tensor:
    """Return the log-frequencies (B, C) that the predictions of each view hold."""
    size = members.sum(dim=(1, 2))[:, None] if members.shape[1] else 1
    return (members.sum(1) / size + 0.5 / size).log()


def _dtype_of(views: Sequence[ViewState]) -> torch.dtype:
    return next((view.held_out.dtype for view in views if view.held_out is not None), torch.float32)


def answer(state: ReasonerState, views: Sequence[Tensor], hints: Tensor | None) -> Tensor:
    """Return logits (B, n, C), from logits (B, n, C) of each view and hints (B, n, H, C)."""
    if state.combination is None:
        return mix(views, state.log_weights.unbind()) if len(views) > 1 else views[0]
    of_views, of_hints = _weighted(state.combination, views, hints)
    return sum([*of_views, *of_hints], state.combination.offset[:, None])


def _weighted(
    combination: Combination, views: Sequence[Tensor], hints: Tensor | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the weighted logits (B, n, C) of each view and each hint."""
    own = [torch.log_softmax(view, dim=-1) - combination.log_frequency[:, None] for view in views]
    of_views = [view * combination.views[:, i, None, None] for i, view in enumerate(own)]
    if hints is None:
        return of_views, []
    scaled = combination.scaling.transform(hints, combination.shrinkage) * combination.hints[:, None, :, None]
    return of_views, list(scaled.unbind(2))


def votes(
    state: ReasonerState, views: Sequence[Tensor], hints: Tensor | None, influence: Sequence[Tensor | None]
) -> Votes:
    """Return the parts of an answer, given contributions (B, n, k, C) of the examples in each view."""
    combination = state.combination
    if combination is None:
        weights = state.log_weights.exp().transpose(0, 1)
        of_views = [torch.log_softmax(view, dim=-1) * weights[:, i, None, None] for i, view in enumerate(views)]
        of_hints, of_each = list[Tensor](), weights[:, :0]
        offset = weights.new_zeros(state.batch, state.num_labels)
    else:
        of_views, of_hints = _weighted(combination, views, hints)
        weights, of_each, offset = combination.views, combination.hints, combination.offset
    logits = answer(state, views, hints)
    shape = (0, *logits.shape)
    parts = [torch.stack(each) if each else logits.new_zeros(shape) for each in (of_views, of_hints)]
    known = [each for each in influence if each is not None]
    total = None
    if known and len(known) == len(views):
        total = _influence([each * weights[:, i, None, None, None] for i, each in enumerate(known)], logits)
    return Votes(logits, weights, of_each, parts[0], parts[1], offset, total)


def _influence(contributions: Sequence[Tensor], logits: Tensor) -> Tensor:
    """Return the influence (B, n, k) on the predicted class, compared with the mean of all classes."""
    total = torch.stack(list(contributions)).sum(0)
    total = total - total.mean(-1, keepdim=True)
    predicted = logits.argmax(-1)[..., None, None].expand(*total.shape[:3], 1)
    return total.gather(3, predicted)[..., 0]
