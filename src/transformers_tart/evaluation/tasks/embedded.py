"""Tasks of saved embeddings, on which reasoners and baselines are measured."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from transformers_tart.errors import CorruptFileError
from transformers_tart.evaluation.metrics import METRICS
from transformers_tart.evaluation.report.statistics import estimate
from transformers_tart.inputs.balance import classes_in_turn
from transformers_tart.projection import LayerScaling
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.training.validation import Predictor


REASONER = "reasoner"


@dataclass(frozen=True)
class EmbeddedTask:
    """Labeled embeddings, of which the first `train_rows` are for support sets and the others are queries."""

    name: str
    embeddings: Tensor  # (n, dim) or (n, layers, hidden) float32
    labels: Tensor  # (n,) int64, from 0
    train_rows: int

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.labels.max()) + 1

    @classmethod
    def load(cls, path: str | Path, train_rows: int | None = None) -> "EmbeddedTask":
        """Load a safetensors file with `embeddings`, `labels` and, unless given, `train_rows` in its metadata."""
        try:
            with safe_open(str(path), "pt") as file:
                metadata = file.metadata() or {}
                embeddings, labels = file.get_tensor("embeddings").float(), file.get_tensor("labels").long()
        except (SafetensorError, OSError) as err:
            raise CorruptFileError(f"{path} is no readable file of embeddings and labels: {err}") from err
        if train_rows is None:
            if "train_rows" not in metadata:
                raise ValueError(f"{path} has no train_rows in its metadata; give the number of train rows.")
            train_rows = int(metadata["train_rows"])
        if embeddings.dim() not in (2, 3) or labels.shape != embeddings.shape[:1]:
            raise ValueError(
                f"{path} holds embeddings {tuple(embeddings.shape)} and labels {tuple(labels.shape)}; they must be "
                "(n, dim) or (n, layers, hidden), and (n,)."
            )
        if not 2 <= train_rows < len(labels):
            raise ValueError(f"{path} has {len(labels)} rows, of which {train_rows} cannot be for support sets.")
        return cls(Path(path).stem, embeddings, labels, train_rows)

    def draw_support(self, k: int, seed: int) -> Tensor:
        """Draw k train rows, the classes in turn as long as they last; larger sets contain the smaller ones."""
        order = torch.randperm(self.train_rows, generator=torch.Generator().manual_seed(seed))
        return order[classes_in_turn(self.labels[order])[:k]]


@dataclass(frozen=True)
class Measurement:
    """Metrics of a method with a support set."""

    task: str
    num_classes: int
    k: int
    seed: int
    method: str
    seconds: float
    metrics: dict[str, float]


def reasoner_predictor(reasoner: TartReasoner) -> Predictor:
    """Wrap a reasoner as a function with the signature of the baselines."""

    def predict(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
        with torch.inference_mode():
            device = reasoner.device
            state = reasoner.prepare(support[None].to(device), labels[None].to(device), num_labels=num_classes)
            return reasoner.query(state, query[None].to(device))[0].cpu().double().softmax(-1)

    return predict


def choose_sizes(task: EmbeddedTask, sizes: Sequence[int], per_class: Sequence[int] | None = None) -> list[int]:
    """Return sizes of support sets, at most all train rows; of more than two classes `per_class` examples each."""
    if per_class is not None and task.num_classes > 2:
        sizes = [count * task.num_classes for count in per_class]
    return sorted({min(k, task.train_rows) for k in sizes if k >= task.num_classes})


def measure_task(
    task: EmbeddedTask, methods: dict[str, Predictor], sizes: Sequence[int], seeds: Sequence[int]
) -> Iterator[Measurement]:
    """Measure every method with every support set; the support set first centers and scales the layers."""
    embeddings = task.embeddings if task.embeddings.dim() == 3 else task.embeddings[:, None]
    query, truth = embeddings[task.train_rows :], task.labels[task.train_rows :]
    for k in sizes:
        for seed in seeds:
            chosen = task.draw_support(k, seed)
            scaling = LayerScaling.fit(embeddings[chosen]) if embeddings.shape[1] > 1 else None
            support, queries = (
                rows.flatten(1) if scaling is None else scaling.transform(rows) for rows in (embeddings[chosen], query)
            )
            for name, predict in methods.items():
                start = time.perf_counter()
                probabilities = predict(support, task.labels[chosen], queries, task.num_classes)
                seconds = time.perf_counter() - start
                values = {metric: measure(probabilities, truth) for metric, measure in METRICS.items()}
                yield Measurement(task.name, task.num_classes, k, seed, name, seconds, values)


def format_table(measurements: Sequence[Measurement], metric: str) -> str:
    """Return a markdown table of a metric for each task and k, then of means over tasks; accuracy in %."""
    methods = list(dict.fromkeys(m.method for m in measurements))
    factor, digits = (100, 1) if metric == "accuracy" else (1, 3)
    lines = [f"| {metric} | k | " + " | ".join(methods) + " |", "|---" * (len(methods) + 2) + "|"]
    cells: dict[tuple[str, int, str], list[float]] = {}
    for m in measurements:
        cells.setdefault((m.task, m.k, m.method), []).append(factor * m.metrics[metric])
    for task, k in dict.fromkeys((m.task, m.k) for m in measurements):
        found = [estimate(cells[task, k, method]) for method in methods]
        shown = [f"{value.mean:.{digits}f} ± {value.half_width or 0.0:.{digits}f}" for value in found]
        lines.append(f"| {task} | {k} | " + " | ".join(shown) + " |")
    for title, group in _groups(measurements).items():
        means = [mean(factor * m.metrics[metric] for m in group if m.method == method) for method in methods]
        lines.append(f"| **{title}** | | " + " | ".join(f"{value:.{digits}f}" for value in means) + " |")
    return "\n".join(lines)


def _groups(measurements: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """Group measurements by number of classes and k, for averages."""
    binary = [m for m in measurements if m.num_classes == 2]
    groups = {f"two classes, k={k}": [m for m in binary if m.k == k] for k in sorted({m.k for m in binary})}
    groups["two classes"] = binary
    groups["more classes"] = [m for m in measurements if m.num_classes > 2]
    groups["all"] = list(measurements)
    return {title: group for title, group in groups.items() if group}


def as_json(measurements: Sequence[Measurement], facts: dict[str, object]) -> str:
    """Return all measurements and facts about the run as JSON."""
    return json.dumps({**facts, "measurements": [asdict(m) for m in measurements]}, indent=1) + "\n"
