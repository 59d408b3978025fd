"""Tasks of saved embeddings, on which reasoners and baselines are measured."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


REASONER, WITHOUT_HINTS = "reasoner", "reasoner_without_hints"
NOTHING = "–"


@dataclass(frozen=True)
class EmbeddedTask:
    """Labeled embeddings, of which the first `train_rows` are for support sets and the others are queries."""

    name: str
    embeddings: Tensor  # (n, dim) or (n, layers, hidden) float32
    labels: Tensor  # (n,) int64, from 0
    train_rows: int
    more_views: tuple[Tensor, ...] = ()  # embeddings of the same rows in other views
    hints: Tensor | None = None  # (n, hints, classes) float32, NaN for a class of which a hint has no score

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.labels.max()) + 1 if self.hints is None else self.hints.shape[2]

    @property
    def views(self) -> tuple[Tensor, ...]:
        """Embeddings (n, layers, hidden) of each view."""
        return tuple(view if view.dim() == 3 else view[:, None] for view in (self.embeddings, *self.more_views))

    @classmethod
    def load(cls, path: str | Path, train_rows: int | None = None) -> "EmbeddedTask":
        """Load a safetensors file.

        It holds `labels` (n,), and `embeddings` (n, dim) or (n, layers, hidden) of one view, or `embeddings.0`,
        `embeddings.1` and so on of several; perhaps `hints` (n, hints, classes), larger for more likely classes, NaN
        where a hint has no score of a class; and in its metadata, unless given, `train_rows`.
        """
        try:
            with safe_open(str(path), "pt") as file:
                metadata, names = file.metadata() or {}, file.keys()
                places = [f"embeddings.{i}" for i in range(sum(name.startswith("embeddings.") for name in names))]
                views = [file.get_tensor(name).float() for name in places or ["embeddings"]]
                labels = file.get_tensor("labels").long()
                hints = file.get_tensor("hints").float() if "hints" in names else None
        except (SafetensorError, OSError) as err:
            raise CorruptFileError(f"{path} is no readable file of embeddings and labels: {err}") from err
        if train_rows is None:
            if "train_rows" not in metadata:
                raise ValueError(f"{path} has no train_rows in its metadata; give the number of train rows.")
            train_rows = int(metadata["train_rows"])
        _check_shapes(path, views, labels, hints)
        if not 2 <= train_rows < len(labels):
            raise ValueError(f"{path} has {len(labels)} rows, of which {train_rows} cannot be for support sets.")
        return cls(Path(path).stem, views[0], labels, train_rows, tuple(views[1:]), hints)

    def draw_support(self, k: int, seed: int) -> Tensor:
        """Draw k train rows, the classes in turn as long as they last; larger sets contain the smaller ones."""
        order = torch.randperm(self.train_rows, generator=torch.Generator().manual_seed(seed))
        return order[classes_in_turn(self.labels[order])[:k]]


def _check_shapes(path: str | Path, views: Sequence[Tensor], labels: Tensor, hints: Tensor | None) -> None:
    for embeddings in views:
        if embeddings.dim() not in (2, 3) or labels.shape != embeddings.shape[:1]:
            raise ValueError(
                f"{path} holds embeddings {tuple(embeddings.shape)} and labels {tuple(labels.shape)}; they must be "
                "(n, dim) or (n, layers, hidden), and (n,)."
            )
    if hints is not None and (hints.dim() != 3 or len(hints) != len(labels) or hints.shape[2] <= int(labels.max())):
        raise ValueError(
            f"{path} holds hints {tuple(hints.shape)} for {len(labels)} rows and {int(labels.max()) + 1} classes; "
            "they must be (n, hints, classes)."
        )


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
    per_class: int | None = None  # examples of each class that were asked for, where it was not k


@dataclass(frozen=True)
class ReasonerPredictor:
    """A reasoner with the signature of the baselines, which also reads several views, and hints."""

    reasoner: TartReasoner
    reads_hints: bool = True

    def __call__(self, support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
        """Return probabilities (n, classes) float64 of queries (n, dim) by a support set (k, dim)."""
        return self.read([support], labels, [query], num_classes)

    def read(
        self,
        support: Sequence[Tensor],
        labels: Tensor,
        query: Sequence[Tensor],
        num_classes: int,
        hints: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return probabilities (n, classes) float64 by a support set of any views, and hints of both."""
        with torch.inference_mode():
            device = self.reasoner.device
            known, asked = ([view[None].to(device) for view in views] for views in (support, query))
            read = hints if hints is not None and self.reads_hints else (None, None)
            known_hints, asked_hints = (None if rows is None else rows[None].to(device) for rows in read)
            state = self.reasoner.prepare(known, labels[None].to(device), known_hints, num_labels=num_classes)
            return self.reasoner.query(state, asked, asked_hints)[0].cpu().double().softmax(-1)


def choose_sizes(
    task: EmbeddedTask, sizes: Sequence[int] | None, per_class: Sequence[int] | None = None
) -> dict[int, int | None]:
    """Return sizes of support sets, at most all train rows, each with the examples of each class that it stands for.

    With both, tasks of two classes have the sizes, and others `per_class` examples each, filled up with those of other
    classes where one has fewer. With `per_class` alone, a class with fewer examples gives all it has.
    """
    if sizes is None and per_class is not None:
        counts, found = task.labels[: task.train_rows].bincount(), dict[int, int | None]()
        for count in sorted(per_class):
            found.setdefault(int(counts.clamp_max(count).sum()), count)
        return found
    if per_class is not None and task.num_classes > 2:
        sizes = [count * task.num_classes for count in per_class]
    return dict.fromkeys(sorted({min(k, task.train_rows) for k in sizes or () if k >= task.num_classes}))


def measure_task(
    task: EmbeddedTask, methods: dict[str, Predictor], sizes: Iterable[int], seeds: Sequence[int]
) -> Iterator[Measurement]:
    """Measure every method with every support set; the support set first centers and scales the layers of a view.

    Without examples, reasoners alone are measured, once and by the hints of the task.
    """
    truth = task.labels[task.train_rows :]
    counts = sizes if isinstance(sizes, Mapping) else {}
    for k in sizes:
        for seed in seeds[: None if k else 1]:
            chosen = task.draw_support(k, seed)
            for name, predict in methods.items():
                reads_hints = isinstance(predict, ReasonerPredictor) and predict.reads_hints
                if k == 0 and not (reads_hints and task.hints is not None):
                    continue
                start = time.perf_counter()
                probabilities = _predict(predict, task, chosen)
                seconds = time.perf_counter() - start
                values = {metric: measure(probabilities, truth) for metric, measure in METRICS.items()}
                yield Measurement(task.name, task.num_classes, k, seed, name, seconds, values, counts.get(k))


def _predict(predict: Predictor, task: EmbeddedTask, chosen: Tensor) -> Tensor:
    """Return the probabilities of a method; those that read one embedding read the views side by side."""
    pairs = [_scale(view[chosen], view[task.train_rows :], len(task.views) > 1) for view in task.views]
    support, query = ([pair[part] for pair in pairs] for part in (0, 1))
    labels, classes = task.labels[chosen], task.num_classes
    if not isinstance(predict, ReasonerPredictor):
        return predict(torch.cat(support, dim=1), labels, torch.cat(query, dim=1), classes)
    hints = None if task.hints is None else (task.hints[chosen], task.hints[task.train_rows :])
    return predict.read(support, labels, query, classes, hints)


def _scale(support: Tensor, query: Tensor, is_one_of_many: bool) -> tuple[Tensor, Tensor]:
    """Center and scale layers by the support set; a single layer stays as it is, unless it is one of many views."""
    if len(support) == 0 or (support.shape[1] == 1 and not is_one_of_many):
        return support.flatten(1), query.flatten(1)
    scaling = LayerScaling.fit(support)
    return scaling.transform(support), scaling.transform(query)


def format_table(measurements: Sequence[Measurement], metric: str) -> str:
    """Return a markdown table of a metric for each task and k, then of means over tasks; accuracy in %."""
    methods = list(dict.fromkeys(m.method for m in measurements))
    factor, digits = (100, 1) if metric == "accuracy" else (1, 3)
    lines = [f"| {metric} | k | " + " | ".join(methods) + " |", "|---" * (len(methods) + 2) + "|"]
    cells: dict[tuple[str, int, str], list[float]] = {}
    for m in measurements:
        cells.setdefault((m.task, m.k, m.method), []).append(factor * m.metrics[metric])
    for task, k in dict.fromkeys((m.task, m.k) for m in measurements):
        found = [estimate(cells[task, k, method]) if (task, k, method) in cells else None for method in methods]
        shown = [f"{v.mean:.{digits}f} ± {v.half_width or 0.0:.{digits}f}" if v else NOTHING for v in found]
        lines.append(f"| {task} | {k} | " + " | ".join(shown) + " |")
    for title, group in _groups(measurements).items():
        values = [[factor * m.metrics[metric] for m in group if m.method == method] for method in methods]
        lines.append(
            f"| **{title}** | | " + " | ".join(f"{mean(v):.{digits}f}" if v else NOTHING for v in values) + " |"
        )
    return "\n".join(lines)


def _groups(measurements: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """Group measurements by number of classes and k, or by the examples of each class, for averages."""
    if all(m.per_class is not None for m in measurements):
        counts = sorted({m.per_class or 0 for m in measurements})
        return {f"{count} of each class": [m for m in measurements if m.per_class == count] for count in counts}
    binary = [m for m in measurements if m.num_classes == 2]
    groups = {f"two classes, k={k}": [m for m in binary if m.k == k] for k in sorted({m.k for m in binary})}
    groups["two classes"] = binary
    groups["more classes"] = [m for m in measurements if m.num_classes > 2]
    groups["all"] = list(measurements)
    return {title: group for title, group in groups.items() if group}


def as_json(measurements: Sequence[Measurement], facts: dict[str, object]) -> str:
    """Return all measurements and facts about the run as JSON."""
    return json.dumps({**facts, "measurements": [asdict(m) for m in measurements]}, indent=1) + "\n"
