"""What is measured on: sizes, a model, texts or embeddings, all drawn from one seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Workload:
    r"""
    The options of a measurement.

    Args:
        k (`int`), queries (`int`):
            Sizes of the support set and of what is classified.
        naive_queries (`int`):
            Most queries, or prompts, of each kind that the naive side computes; 0 for all.
        backbone (`str`):
            As [`load_language_model`] takes it.
        max_characters (`int`):
            What is read of each text in a prompt.
        dtype (`str`):
            Precision of the backbone, or "auto".
        device (`torch.device`):
            Where everything runs.
        compile (`bool`):
            Whether the backbone of our side is compiled.
        seed (`int`):
            Of texts, embeddings and random weights.
    """

    k: int
    queries: int
    naive_queries: int = 20
    backbone: str = "mini"
    max_characters: int = 100
    dtype: str = "auto"
    device: torch.device = torch.device("cpu")
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 2 or self.queries < 1 or self.naive_queries < 0 or self.max_characters < 1:
            raise ValueError(
                f"k is {self.k}, queries {self.queries}, naive_queries {self.naive_queries} and max_characters "
                f"{self.max_characters}; they must be at least 2, 1, 0 and 1."
            )

    @property
    def model(self) -> str:
        """The backbone, as a result names it."""
        return f"{self.backbone}, ours compiled" if self.compile else self.backbone

    @property
    def labels(self) -> list[int]:
        """Two classes in turn."""
        return [i % 2 for i in range(self.k)]

    def sample(self, total: int) -> list[int]:
        """Which of `total` items the naive side computes: the middles of equal stretches."""
        count = min(self.naive_queries or total, total)
        return [(2 * i + 1) * total // (2 * count) for i in range(count)]

    def sample_by_length(self, texts: Sequence[str]) -> list[int]:
        """The same along the texts by length, so that those computed are as long as all of them on average."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        return sorted(order[i] for i in self.sample(len(texts)))

    def cut(self, texts: Sequence[str]) -> list[str]:
        """What is read of texts in a prompt."""
        return [text[: self.max_characters].strip() for text in texts]


DECAY = 0.85  # of the scales of the directions: without gaps between them the first 16 would be no one's to find


def draw_embeddings(workload: Workload, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Support embeddings (k, dim), labels (k,) and queries (n, dim): two classes, directions of falling scale."""
    generator = torch.Generator().manual_seed(workload.seed)
    labels = torch.tensor(workload.labels)
    count = workload.k + workload.queries
    scales = DECAY ** torch.arange(dim).float()
    latent = torch.randn(count, dim, generator=generator) * scales
    means = torch.randn(2, dim, generator=generator) * scales
    truth = torch.cat([labels, torch.arange(workload.queries) % 2])
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
    rows = ((latent + means[truth]) @ rotation).to(workload.device)
    return rows[: workload.k], labels.to(workload.device), rows[workload.k :]


__all__ = ["Workload", "draw_embeddings"]
