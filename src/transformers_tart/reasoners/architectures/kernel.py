"""The `kernel` architecture: ridge smoothers of the examples' Gram matrices, stacked under a learned prior.

Layers of attention through the same smoothers read the examples before the prior is chosen. Of embeddings, only inner
products and distances are used, so their width is free and rotations do not matter. There are no positions, and each
class has a stream of its own with shared weights, so neither the order of the support set nor that of the classes
matters. Queries attend to the support set, and not to each other.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import initialization as init

from transformers_tart.checks.tensors import at_least_float32
from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.reasoners.architectures.base import Architecture
from transformers_tart.reasoners.architectures.rows import PLAIN, Rows
from transformers_tart.reasoners.architectures.smoothers import (
    ALONE,
    Geometry,
    Kernel,
    Smoothers,
    half_squared_distances,
    in_float32,
    smooth,
)
from transformers_tart.reasoners.architectures.stacking import StackPrior, blend, fit_stack


NUM_PLAIN_FEATURES = 6
FAR = 1e9  # finite, as the gradient of the sharpness is NaN at an infinite distance
# Before training: level of the logits, close to that of logistic regression, and precisions of the level, of the
# deviations of the smoothers, and of the offsets of the classes.
FIRST_PRIOR = (5.0, 0.1, 3.0, 3.0)
LEAST_DEVIATION_PRECISION = 1.0  # below, differences between similar smoothers would be fitted to noise
ERROR_FLOOR = 1e-3  # keeps the logarithm of a perfect fit finite


@dataclass(frozen=True)
class KernelState:
    """An encoded support set of k examples in C classes, for a batch of B sets and A smoothers."""

    geometry: Geometry
    kernels: tuple[Kernel, ...]  # one for each sharpness
    frequency: Tensor  # (B, C) share of each class in the support set
    solved_labels: Tensor  # (B, k, A, C) centered and scaled labels, multiplied by each ridge inverse
    errors: Tensor  # (B, A, C) log of the leave-one-out squared error of each smoother, relative to a blind guess
    weights: Tensor  # (B, A) weight of each smoother
    offset: Tensor  # (B, C) offset of the logits of each class
    smoothed: tuple[Tensor, ...]  # (B, k, A, C, head_dim) of each layer, values multiplied by each ridge inverse
    values: tuple[Tensor, ...]  # (B, R, k, C * head_dim) of each layer, values of the R softmax heads
    held_out: Tensor  # (B, k, C) leave-one-out log-probabilities of the stack


class KernelLayer(nn.Module):
    """A pre-norm residual layer: attention to the support tokens through smoothers and softmax heads, then an MLP."""

    def __init__(self, config: TartReasonerConfig):
        super().__init__()
        width, self.head_dim = config.hidden_size, config.head_dim
        self.num_ridge_heads, self.num_softmax_heads = config.num_smoothers, config.num_softmax_heads
        self.num_heads = self.num_ridge_heads + self.num_softmax_heads
        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.value = nn.Linear(width, self.num_heads * self.head_dim, bias=False)
        self.output = nn.Linear(self.num_heads * self.head_dim, width)
        self.class_mixer = nn.Linear(width, width, bias=False)
        self.log_sharpness = nn.Parameter(torch.linspace(-1.0, 3.0, config.num_softmax_heads))
        self.mlp_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        inner = config.intermediate_size or 4 * width
        self.mlp_in = nn.Linear(width, inner)
        self.mlp_out = nn.Linear(inner, width)

    def support_values(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (B, k, A, C, head_dim) of ridge heads and (B, R, k, C * head_dim) of softmax heads."""
        batch, classes, size, _ = normed.shape
        values = self.value(normed).view(batch, classes, size, self.num_heads, self.head_dim).permute(0, 2, 3, 1, 4)
        ridge, softmax = values.split([self.num_ridge_heads, self.num_softmax_heads], dim=2)
        return ridge, softmax.transpose(1, 2).flatten(3)

    @in_float32
    def attend_softmax(self, distances: Tensor, values: Tensor, rows: Rows = PLAIN) -> Tensor:
        """Attend by half squared distances (B, n, k) to values (B, R, k, C * head_dim) of weighted rows."""
        scores = -distances[:, None] * at_least_float32(self.log_sharpness).exp()[None, :, None, None]
        if rows.weights is not None:
            scores = scores + rows.weights.log()[:, None, None]
        return torch.softmax(scores, dim=-1) @ at_least_float32(values)

    def update(self, hidden: Tensor, normed: Tensor, ridge: Tensor, softmax: Tensor) -> Tensor:
        """Add attended values (B, n, A, C, head_dim) and (B, R, n, C * head_dim) to tokens (B, C, n, width)."""
        batch, classes, size, _ = hidden.shape
        softmax = softmax.view(batch, self.num_softmax_heads, size, classes, self.head_dim).permute(0, 3, 2, 1, 4)
        attended = torch.cat([ridge.permute(0, 3, 1, 2, 4), softmax], dim=3).flatten(3)
        hidden = hidden + self.output(attended.to(hidden.dtype)) + self.class_mixer(normed.mean(1, keepdim=True))
        return hidden + self.mlp_out(nn.functional.gelu(self.mlp_in(self.mlp_norm(hidden))))


class KernelArchitecture(Architecture):
    """A reasoner of any k, width and class count, equivariant in examples and classes and invariant to rotations.

    The first tokens hold the predictions of all smoothers, leave-one-out for examples. The predictions are stacked
    under a prior computed from the support tokens, and each query's tokens set its temperature. Copies of an example
    are held out with it. An example of weight 2 is two copies.
    """

    takes_weights = True

    def __init__(self, config: TartReasonerConfig):
        super().__init__()
        self.sharpness, self.strengths = list(config.kernel_sharpness or ()), list(config.ridge_strengths or ())
        self.num_smoothers, self.holds_out_means = config.num_smoothers, config.holds_out_means
        self.embed = nn.Linear(NUM_PLAIN_FEATURES + 2 * config.num_smoothers, config.hidden_size)
        self.layers = nn.ModuleList(KernelLayer(config) for _ in range(config.num_hidden_layers or 0))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.prior = nn.Linear(config.hidden_size, config.num_smoothers + len(FIRST_PRIOR))
        self.temperature = nn.Linear(config.hidden_size, 1)

    def init_weights(self) -> None:
        """Initialize a prior around the mean of the smoothers, and layers whose MLPs and mixers return 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                init.normal_(module.weight, std=(3 * module.in_features) ** -0.5)
        for linear in (self.temperature, self.prior):
            init.zeros_(linear.weight)
            init.zeros_(linear.bias)
        first = torch.tensor(FIRST_PRIOR).log()
        init.copy_(self.prior.bias, torch.cat([torch.zeros(self.num_smoothers), first]))
        for layer in self._layers():
            init.zeros_(layer.mlp_out.weight)
            init.zeros_(layer.class_mixer.weight)
            init.copy_(layer.log_sharpness, torch.linspace(-1.0, 3.0, layer.num_softmax_heads))

    def prepare(
        self, embeddings: Tensor, labels: Tensor, num_classes: int, weights: Tensor | None = None
    ) -> KernelState:
        """Encode support embeddings (B, k, dim) float with labels (B, k) int64 and weights (B, k)."""
        geometry = Geometry.of(at_least_float32(embeddings), Rows(weights))
        distances = half_squared_distances(geometry.support, geometry.support)
        distances.diagonal(dim1=1, dim2=2).zero_()
        rows = geometry.rows.with_copies(geometry.support, distances)
        smoothers = Smoothers.fit(geometry, distances, self.sharpness, self.strengths, rows)
        members = nn.functional.one_hot(labels, num_classes).to(geometry.support.dtype)  # (B, k, C)
        frequency = rows.mean(members)[:, 0]
        targets = (members - frequency[:, None]) / (2 * _deviation(frequency))
        solve = smoothers.solve_centered if self.holds_out_means else smoothers.solve
        solved_labels, predictions = solve(targets[:, :, None].expand(-1, -1, self.num_smoothers, -1))
        if self.holds_out_means:  # the only example of a class is evidence of nothing once it is left out
            predictions = predictions * _have_peers(members, rows)[:, :, None, None]
        errors = _relative_errors(predictions, targets, rows)
        size = rows.total(labels.shape[1])
        hidden = self._tokens(geometry.support, frequency, predictions, errors, size, targets.transpose(1, 2))
        distances.diagonal(dim1=1, dim2=2).fill_(FAR)  # examples do not attend to themselves
        distances = distances if rows.copies is None else distances.masked_fill(rows.copies > 0, FAR)
        smoothed, values = [], []
        for layer in self._layers():
            normed = layer.attention_norm(hidden)
            ridge, softmax = layer.support_values(normed)
            solved, held_out = smoothers.solve(ridge)
            smoothed.append(solved)
            values.append(softmax)
            hidden = layer.update(hidden, normed, held_out, layer.attend_softmax(distances, softmax, rows))
        pooled = self.norm(hidden)
        pooled = pooled.mean(dim=(1, 2)) if weights is None else rows.mean(pooled.mean(1))[:, 0]
        log_share = torch.log(frequency + 0.5 / (size[:, None] if isinstance(size, Tensor) else size))
        of_smoothers, offset = fit_stack(predictions, rows.weigh(members), log_share, self._stack_prior(pooled))
        offset = offset + log_share
        held_out = blend(predictions, of_smoothers, offset)
        fitted = (frequency, solved_labels, errors, of_smoothers, offset)
        return KernelState(geometry, smoothers.kernels, *fitted, tuple(smoothed), tuple(values), held_out)

    def held_out(self, state: KernelState) -> Tensor:
        """Return the stack's leave-one-out log-probabilities (B, k, C)."""
        return state.held_out

    def influence(self, state: KernelState, embeddings: Tensor) -> Tensor:
        """Return the contributions (B, n, k, C) of the examples to the logits of queries, before the temperature."""
        grams, _ = self._grams(state, state.geometry.locate(embeddings))
        each = len(self.strengths)
        weighted = (state.solved_labels * state.weights[:, None, :, None]).unflatten(2, (-1, each)).sum(3)
        return torch.stack([gram[..., None] * weighted[:, None, :, i] for i, gram in enumerate(grams)]).sum(0)

    def _grams(self, state: KernelState, located: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the kernels (B, n, k) between located queries and the support, and half their squared distances."""
        distances = half_squared_distances(located, state.geometry.support)
        return [kernel(located, state.geometry, distances) for kernel in state.kernels], distances

    def query(self, state: KernelState, embeddings: Tensor) -> Tensor:
        """Return logits (B, n, C) of query embeddings (B, n, dim)."""
        located = state.geometry.locate(embeddings)
        grams, distances = self._grams(state, located)
        predictions = smooth(grams, state.solved_labels)
        rows, k = state.geometry.rows, state.geometry.support.shape[1]
        hidden = self._tokens(located, state.frequency, predictions, state.errors, rows.total(k))
        for layer, smoothed, values in zip(self._layers(), state.smoothed, state.values, strict=True):
            normed = layer.attention_norm(hidden)
            hidden = layer.update(
                hidden, normed, smooth(grams, smoothed), layer.attend_softmax(distances, values, rows)
            )
        temperature = at_least_float32(self.temperature(self.norm(hidden)).mean(dim=1)).clamp(-2.0, 2.0).exp()
        blended = torch.einsum("bnac,ba->bnc", predictions, state.weights)
        return blended / temperature + state.offset[:, None]

    def _layers(self) -> list[KernelLayer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _stack_prior(self, pooled: Tensor) -> StackPrior:
        """Compute the prior of the smoothers' weights from the mean (B, width) of the support tokens."""
        shares, rest = at_least_float32(self.prior(pooled)).split([self.num_smoothers, len(FIRST_PRIOR)], dim=1)
        level, of_level, of_deviation, of_offset = rest.clamp(-5.0, 5.0).exp().split(1, dim=1)
        of_deviation = of_deviation.clamp_min(LEAST_DEVIATION_PRECISION)
        return StackPrior(shares.softmax(-1), level, of_level, of_deviation, of_offset)

    def _tokens(
        self,
        located: Tensor,
        frequency: Tensor,
        predictions: Tensor,
        errors: Tensor,
        support_size: int | Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Return the first tokens (B, C, n, width), of queries, or of the support with its labels (B, C, n)."""
        size, classes = located.shape[1], frequency.shape[1]
        shape = (located.shape[0], classes, size)
        plain = [
            located.new_zeros(shape) if labels is None else labels * 2.0,
            located.new_full(shape, float(labels is None)),
            torch.log(located.norm(dim=-1) + 0.1)[:, None].expand(shape),
            torch.log(frequency * classes + 1e-3)[..., None].expand(shape),
            _full(support_size, shape, located) / 5,
            located.new_full(shape, math.log(classes)),
        ]
        features = [
            torch.stack(plain, dim=-1),
            predictions.permute(0, 3, 1, 2) * 2.0,
            errors.transpose(1, 2)[:, :, None].expand(*shape, -1),
        ]
        return self.embed(torch.cat(features, dim=-1).to(self.embed.weight.dtype))


def _deviation(frequency: Tensor) -> Tensor:
    """Return the standard deviation (B, 1, 1) of one-hot labels, the unit of the smoothers' predictions."""
    return (frequency * (1 - frequency)).mean(1).sqrt().clamp_min(0.01)[:, None, None]


def _full(support_size: int | Tensor, shape: tuple[int, int, int], like: Tensor) -> Tensor:
    """Return the logarithm of the size of a support set, a number or (B,), in a shape (B, C, n)."""
    if isinstance(support_size, Tensor):  # a number too, where it is traced
        return support_size.to(like.dtype).log().reshape(-1, 1, 1).expand(shape)
    return like.new_full(shape, math.log(support_size))


def _have_peers(members: Tensor, rows: Rows) -> Tensor:
    """Return whether examples (B, k) with one-hot labels (B, k, C) have others of their class beside their copies."""
    weighted = rows.weigh(members)
    counts = weighted.sum(1, keepdim=True)
    others = counts - rows.sum_of_copies(weighted)
    return (members * (others > ALONE * counts)).sum(-1) > 0


def _relative_errors(predictions: Tensor, targets: Tensor, rows: Rows) -> Tensor:
    """Return the log of the squared error (B, A, C) of predictions (B, k, A, C), relative to that of predicting 0."""
    error = rows.mean((predictions - targets[:, :, None]).square())[:, 0]
    blind = rows.mean(targets.square())
    return torch.log((error + ERROR_FLOOR) / (blind + ERROR_FLOOR)).clamp(-5.0, 5.0)
