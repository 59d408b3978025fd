"""The `kernel` architecture: attention over examples through smoothers of their Gram matrix.

Nothing of an embedding is used but inner products, so the width of the embeddings is free and rotating them changes
nothing. There are no positions, and one stream per class with shared weights, so neither the order of the support set
nor the names of the classes can matter. Queries read the support set and never each other.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from transformers_tart.architectures.base import Architecture
from transformers_tart.configuration_tart import TartReasonerConfig


NUM_TOKEN_FEATURES = 6
FARTHEST = 1e6  # a query is drawn in to this many standard deviations of the support
FAR = 1e9  # finite: an infinite distance makes the gradient of the sharpness NaN


@dataclass(frozen=True)
class KernelState:
    """What the queries need of a support set of k examples in C classes, for a batch of B sets.

    Attributes:
        support: (B, k, dim) normalised support embeddings.
        centre: (B, 1, dim) their mean, in units of `unit`.
        unit: (B, 1, 1) largest absolute entry of the support, taken out first so that squares stay in range.
        scale: (B, 1, 1) root mean squared norm of the centred support.
        frequency: (B, C) share of each class in the support set.
        smoothed: one (B, k, A, C, head_dim) tensor a layer, values already multiplied by each ridge inverse.
        values: one (B, R, k, C * head_dim) tensor a layer, values of the softmax heads.
    """

    support: Tensor
    centre: Tensor
    unit: Tensor
    scale: Tensor
    frequency: Tensor
    smoothed: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def to(self, device: torch.device | str) -> "KernelState":
        """The same state on another device."""
        moved: dict[str, Any] = {
            f.name: tuple(t.to(device) for t in value) if isinstance(value, tuple) else value.to(device)
            for f in fields(self)
            for value in [getattr(self, f.name)]
        }
        return KernelState(**moved)


class KernelLayer(nn.Module):
    """Mixes the values of the support tokens into every token, then an MLP; pre-norm, residual."""

    def __init__(self, config: TartReasonerConfig):
        super().__init__()
        width, self.head_dim = config.hidden_size, config.head_dim
        self.num_ridge_heads, self.num_softmax_heads = len(config.ridge_alphas or ()), config.num_softmax_heads
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
        """Values (B, k, A, C, head_dim) of the ridge heads and (B, R, k, C * head_dim) of the softmax heads."""
        batch, classes, size, _ = normed.shape
        values = self.value(normed).view(batch, classes, size, self.num_heads, self.head_dim).permute(0, 2, 3, 1, 4)
        ridge, softmax = values.split([self.num_ridge_heads, self.num_softmax_heads], dim=2)
        return ridge, softmax.transpose(1, 2).flatten(3)

    def attend_softmax(self, distances: Tensor, values: Tensor) -> Tensor:
        """(B, n, k) squared distances and (B, R, k, C * head_dim) values -> (B, R, n, C * head_dim)."""
        sharpness = self.log_sharpness.float().exp()[None, :, None, None]
        return torch.softmax(-distances[:, None] * sharpness, dim=-1).to(values.dtype) @ values

    def update(self, hidden: Tensor, normed: Tensor, ridge: Tensor, softmax: Tensor) -> Tensor:
        """Add what was attended, (B, n, A, C, head_dim) and (B, R, n, C * head_dim), to tokens (B, C, n, width)."""
        batch, classes, size, _ = hidden.shape
        softmax = softmax.view(batch, self.num_softmax_heads, size, classes, self.head_dim).permute(0, 3, 2, 1, 4)
        attended = torch.cat([ridge.permute(0, 3, 1, 2, 4), softmax], dim=3).flatten(3)
        hidden = hidden + self.output(attended.to(hidden.dtype)) + self.class_mixer(normed.mean(1, keepdim=True))
        return hidden + self.mlp_out(nn.functional.gelu(self.mlp_in(self.mlp_norm(hidden))))


class KernelArchitecture(Architecture):
    """Equivariant in examples and classes, invariant to rotations of the embeddings; any k, width and class count."""

    def __init__(self, config: TartReasonerConfig):
        super().__init__()
        self.alphas = list(config.ridge_alphas or ())
        self.embed = nn.Linear(NUM_TOKEN_FEATURES, config.hidden_size)
        self.layers = nn.ModuleList(KernelLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.readout = nn.Linear(config.hidden_size, 1)

    def init_weights(self) -> None:
        """Start from small linear maps and a residual stream that the MLPs, class mixers and read-out leave alone."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                init.normal_(module.weight, std=(3 * module.in_features) ** -0.5)
        init.zeros_(self.readout.weight)
        for layer in self._layers():
            init.zeros_(layer.mlp_out.weight)
            init.zeros_(layer.class_mixer.weight)
            init.copy_(layer.log_sharpness, torch.linspace(-1.0, 3.0, layer.num_softmax_heads))

    def prepare(self, embeddings: Tensor, labels: Tensor, num_classes: int) -> KernelState:
        """Read support embeddings (B, k, dim) float with labels (B, k) int64 once."""
        normalised, centre, unit, scale = _normalise_support(embeddings.float())
        gram = normalised @ normalised.transpose(1, 2)
        distances = _squared_distances(normalised, normalised)
        distances.diagonal(dim1=1, dim2=2).fill_(FAR)  # an example never attends to itself
        inverses = [_ridge_inverse(gram, alpha) for alpha in self.alphas]
        members = nn.functional.one_hot(labels, num_classes).transpose(1, 2).float()
        frequency = members.mean(2)
        hidden = self._tokens(normalised, frequency, (members - frequency[..., None]) * 2.0)
        smoothed, values = [], []
        for layer in self._layers():
            normed = layer.attention_norm(hidden)
            ridge, softmax = layer.support_values(normed)
            products = [_apply(inverse, ridge[:, :, i]) for i, inverse in enumerate(inverses)]
            held_out = [_hold_out(p, ridge[:, :, i], inverses[i]) for i, p in enumerate(products)]
            smoothed.append(torch.stack(products, dim=2))
            values.append(softmax)
            hidden = layer.update(hidden, normed, torch.stack(held_out, 2), layer.attend_softmax(distances, softmax))
        return KernelState(normalised, centre, unit, scale, frequency, tuple(smoothed), tuple(values))

    def query(self, state: KernelState, embeddings: Tensor) -> Tensor:
        """Logits (B, n, C) of query embeddings (B, n, dim)."""
        support = state.support
        if embeddings.shape[-1] != support.shape[-1]:
            raise ValueError(
                f"The queries have {embeddings.shape[-1]} dimensions, the support set has {support.shape[-1]}: embed "
                "both in the same way."
            )
        normalised = (embeddings.float() / state.unit - state.centre) / state.scale
        # squares of what lies absurdly far out leave the range of float32; its direction is all that counts by then
        normalised = normalised.clamp(-1e30, 1e30)
        normalised = normalised * (FARTHEST / normalised.abs().amax(-1, keepdim=True).clamp_min(FARTHEST))
        gram = normalised @ support.transpose(1, 2)
        distances = _squared_distances(normalised, support)
        hidden = self._tokens(normalised, state.frequency, None, support_size=support.shape[1])
        for layer, smoothed, values in zip(self._layers(), state.smoothed, state.values, strict=True):
            normed = layer.attention_norm(hidden)
            hidden = layer.update(hidden, normed, _apply(gram, smoothed), layer.attend_softmax(distances, values))
        logits = self.readout(self.norm(hidden)).squeeze(-1).transpose(1, 2).float()
        return logits + torch.log(state.frequency + 0.5 / support.shape[1])[:, None]

    def _layers(self) -> list[KernelLayer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _tokens(
        self, normalised: Tensor, frequency: Tensor, labels: Tensor | None, support_size: int | None = None
    ) -> Tensor:
        """First tokens (B, C, n, width); `labels` (B, C, n) for the support, `None` for queries."""
        size, classes = normalised.shape[1], frequency.shape[1]
        shape = (normalised.shape[0], classes, size)
        is_query = torch.full(shape, float(labels is None), device=normalised.device)
        labels = torch.zeros(shape, device=normalised.device) if labels is None else labels
        features = [
            labels,
            is_query,
            torch.log(normalised.norm(dim=-1) + 0.1)[:, None].expand(shape),
            torch.log(frequency * classes + 1e-3)[..., None].expand(shape),
            torch.full(shape, math.log(support_size or size) / 5, device=normalised.device),
            torch.full(shape, math.log(classes), device=normalised.device),
        ]
        return self.embed(torch.stack(features, dim=-1).to(self.embed.weight.dtype))


def _normalise_support(embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre (B, k, dim) and scale it to a mean squared norm of 1, without leaving the range of float32."""
    tiny = torch.finfo(embeddings.dtype).tiny
    unit = embeddings.abs().amax(dim=(1, 2), keepdim=True).clamp_min(tiny)
    embeddings = embeddings / unit
    centre = embeddings.mean(1, keepdim=True)
    centred = embeddings - centre
    scale = centred.square().sum(-1).mean(1)[:, None, None].sqrt()
    # what varies by less than rounding is constant; dividing by it would throw the queries out of range
    scale = torch.where(scale > torch.finfo(scale.dtype).eps, scale, 1.0)
    return centred / scale, centre, unit, scale


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Half the squared distances (B, n, k) of rows a (B, n, dim) and b (B, k, dim)."""
    norms = a.square().sum(-1)[:, :, None] + b.square().sum(-1)[:, None]
    return (norms / 2 - a @ b.transpose(1, 2)).clamp_min(0)


def _ridge_inverse(gram: Tensor, alpha: float) -> Tensor:
    """(K + alpha I)^-1 of (B, k, k)."""
    eye = torch.eye(gram.shape[-1], device=gram.device, dtype=gram.dtype)
    return torch.cholesky_inverse(torch.linalg.cholesky(gram + alpha * eye))


def _apply(matrix: Tensor, values: Tensor) -> Tensor:
    """(B, n, k) times (B, k, ...) -> (B, n, ...), in float32."""
    return (matrix @ values.float().flatten(2)).view(*matrix.shape[:2], *values.shape[2:])


def _hold_out(product: Tensor, values: Tensor, inverse: Tensor) -> Tensor:
    """Leave-one-out ridge predictions (B, k, C, head_dim): row i is fitted without example i.

    With M the inverse, they are -sum_j M_ij v_j / M_ii over j != i, that is v_i - (M v)_i / M_ii.
    """
    return values.float() - product / inverse.diagonal(dim1=1, dim2=2)[:, :, None, None]


__all__ = ["KernelArchitecture", "KernelState"]
