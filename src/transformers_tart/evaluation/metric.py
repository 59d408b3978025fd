"""A metric for `evaluate` that is part of this package, of classes and of probabilities."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import evaluate
import numpy as np
import torch
from datasets import Features, List, Value
from torch import Tensor

from transformers_tart.evaluation import metrics
from transformers_tart.evaluation.metrics import LABEL_METRICS, SCORE_METRICS, SUM_TOLERANCE


Metric: TypeAlias = evaluate.EvaluationModule | evaluate.CombinedEvaluations

TART = "tart"
DEFAULT = "default"  # the name that evaluate gives where no configuration is asked for
INPUTS = """
Lists, arrays or tensors: `references` (n,) are true classes, from 0; `predictions` (n,) predicted classes, by default
the most probable ones; `prediction_scores` (n, num_classes) probabilities, for the metrics that need them.
"""


class TartMetric(evaluate.Metric):
    r"""
    Six metrics of predicted classes and probabilities.

    ```python
    >>> metric = TartMetric()
    >>> metric.compute(predictions=[0, 1, 1], references=[0, 1, 0])
    >>> metric.compute(prediction_scores=[[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]], references=[0, 1, 0])
    ```

    - `accuracy`: share of rows whose prediction is their label.
    - `macro_f1`: mean of the F1 scores of the classes that occur among predictions or labels.
    - `matthews_correlation`: of predictions and labels, for any number of classes; 0 where one of them is constant.
    - `log_loss`: mean of -log of the probability of the label, in nats. Probabilities are clipped to between 2.2e-16
      and 1 - 2.2e-16, as scikit-learn clips those of double precision: a label of probability 0 costs 36 nats.
    - `brier_score`: mean over rows of the squared distance of the probabilities from the truth, summed over classes.
    - `calibration_error`: rows are put into 15 bins of equal width by their largest probability, right edges included;
      the sum over bins of |accuracy - mean largest probability|, each with the share of its rows (Guo et al. 2017).
      Here, the prediction of a row is the class of its largest probability.

    Inside `evaluate.combine`, `add` and `add_batch` ask for `prediction_scores`: give `None` where there are none, or
    make the metric with the name of one that needs labels alone.

    Args:
        config_name (`str`, *optional*):
            One of these names: then that alone is computed. All of them when not given.
        keep_in_memory (`bool`, *optional*):
            Whether to keep rows in memory rather than in a file; the default in a single process.
        kwargs:
            As in `evaluate.Metric`: `num_process`, `process_id`, `experiment_id`, `cache_dir`, ...

    Raises:
        ValueError: On an unknown `config_name`.
    """

    def __init__(self, config_name: str | None = None, keep_in_memory: bool | None = None, **kwargs: Any):
        names = (DEFAULT, *LABEL_METRICS, *SCORE_METRICS)
        if config_name is not None and config_name not in names:
            raise ValueError(
                f'There is no metric "{config_name}"; config_name must be one of {names}, or None for all.'
            )
        if keep_in_memory is None:
            keep_in_memory = kwargs.get("num_process", 1) == 1
        super().__init__(config_name, keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": Value("int64"), "references": Value("int64")}
        if self.config_name not in LABEL_METRICS:
            features["prediction_scores"] = List(Value("float64"))
        return evaluate.MetricInfo(
            description="Accuracy, macro F1, Matthews correlation, log loss, Brier score and calibration error.",
            citation="",
            inputs_description=INPUTS,
            features=Features(features),
        )

    def compute(
        self, *, predictions: Any = None, references: Any = None, prediction_scores: Any = None, **kwargs: Any
    ) -> dict[str, float] | None:
        """Compute the metrics of these rows and of those that were added before, and forget all of them."""
        if any(given is not None for given in (predictions, references, prediction_scores)):
            self.add_batch(predictions=predictions, references=references, prediction_scores=prediction_scores)
        if len(self) == 0:
            raise ValueError("There are no rows; give predictions and references, or add some before.")
        return super().compute(**kwargs)

    def add_batch(
        self, *, predictions: Any = None, references: Any = None, prediction_scores: Any = None, **kwargs: Any
    ) -> None:
        """Add rows; nothing is kept of a batch that is refused."""
        batch = _check_batch(predictions, references, prediction_scores)
        super().add_batch(**{name: batch[name] for name in self._feature_names()}, **kwargs)

    def add(
        self, *, prediction: Any = None, reference: Any = None, prediction_scores: Any = None, **kwargs: Any
    ) -> None:
        """Add one row."""
        row = {"predictions": prediction, "references": reference, "prediction_scores": prediction_scores, **kwargs}
        self.add_batch(**{name: None if given is None else [given] for name, given in row.items()})

    def _compute(
        self, *, predictions: list[int], references: list[int], prediction_scores: list | None = None
    ) -> dict[str, float]:
        scores = None if prediction_scores is None else _stack_scores(prediction_scores)
        if scores is None and self.config_name in SCORE_METRICS:
            raise ValueError(f"The metric {self.config_name} needs probabilities: give prediction_scores.")
        return self.measure(torch.tensor(predictions), torch.tensor(references), scores)

    def measure(self, predictions: Tensor, references: Tensor, scores: Tensor | None = None) -> dict[str, float]:
        """Compute the metrics of checked tensors, without a copy in the tables of evaluate."""
        only = None if self.config_name == DEFAULT else self.config_name
        return metrics.measure(predictions, references, scores, only)


def load_metric(name_or_metric: str | Metric) -> Metric:
    """Return a metric, or a [`TartMetric`] for the name `"tart"`, or that of another name by `evaluate.load`.

    `evaluate.load` runs the code that it finds under a name on the Hub or on this machine.
    """
    if isinstance(name_or_metric, Metric):
        return name_or_metric
    if not isinstance(name_or_metric, str):
        raise TypeError(f"The metric is {type(name_or_metric).__name__}; give a name or an evaluate.EvaluationModule.")
    if name_or_metric == TART:
        return TartMetric()
    try:
        return evaluate.load(name_or_metric)
    except OSError as err:
        raise OSError(
            f'The metric "{name_or_metric}" cannot be loaded: it is not on the Hub, or the Hub cannot be reached. '
            f'"{TART}" needs no Hub; or give a loaded evaluate.EvaluationModule. ({err})'
        ) from err


def _check_batch(predictions: Any, references: Any, prediction_scores: Any) -> dict[str, np.ndarray]:
    """Check rows and return their features; `prediction_scores` are None in each row where there are none."""
    if references is None or (predictions is None and prediction_scores is None):
        raise ValueError("Give references, and with them predictions or prediction_scores.")
    scores = None if prediction_scores is None else _check_scores(prediction_scores)
    if predictions is None and scores is not None:
        predictions = scores.argmax(1)
    batch = {
        name: _check_labels(labels, name, None if scores is None else scores.shape[1])
        for name, labels in (("predictions", predictions), ("references", references))
    }
    batch["prediction_scores"] = np.full(len(batch["references"]), None) if scores is None else scores
    lengths = {name: len(rows) for name, rows in batch.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The numbers of rows differ: {lengths}.")
    return batch


def _as_array(values: Any, name: str) -> np.ndarray:
    if isinstance(values, Sequence) and not isinstance(values, str):
        values = torch.stack(list(values)) if values and isinstance(values[0], Tensor) else list(values)
    if isinstance(values, Tensor):
        values = (values.double() if values.is_floating_point() else values).detach().cpu()  # numpy has no bfloat16
    try:
        array = np.asarray(values)
    except ValueError as err:
        raise ValueError(f"The rows of {name} have different lengths; each must have one number a class.") from err
    if array.ndim == 0:
        raise ValueError(f"{name} is {type(values).__name__}; give a list, an array or a tensor.")
    if len(array) == 0:
        raise ValueError(f"{name} has no rows; there is nothing to measure.")
    return array


def _check_labels(values: Any, name: str, num_classes: int | None) -> np.ndarray:
    labels, meaning = _as_array(values, name), "labels are the numbers of classes, from 0."
    if labels.ndim != 1:
        hint = " Give probabilities as prediction_scores." if name == "predictions" else ""
        raise ValueError(f"{name} have the shape {labels.shape}; it must be (n,), an integer a row.{hint}")
    if labels.dtype.kind not in "biuf" or not (np.isfinite(labels) & (np.trunc(labels) == labels)).all():
        raise ValueError(f"{name} hold {labels.dtype} that are no integers; {meaning}")
    if labels.min() < 0:
        raise ValueError(
            f"There is a label {labels.min():.0f} in {name}; {meaning} Rows without a label are often marked by -1: "
            "leave them out."
        )
    if num_classes is not None and labels.max() >= num_classes:
        raise ValueError(
            f"There is a label {labels.max():.0f} in {name}, but prediction_scores have {num_classes} classes; "
            f"{meaning}"
        )
    return labels.astype(np.int64)


def _check_scores(values: Any) -> np.ndarray:
    scores = _as_array(values, "prediction_scores")
    if scores.ndim != 2 or scores.dtype.kind not in "biuf":
        raise ValueError(
            f"prediction_scores have the shape {scores.shape} and the dtype {scores.dtype}; they must be "
            "(n, num_classes) probabilities."
        )
    scores = scores.astype(np.float64)
    sums = scores.sum(1)
    wrong = ~((scores >= 0).all(1) & (np.abs(sums - 1) <= SUM_TOLERANCE))  # NaN is neither
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{wrong.sum()} of {len(scores)} rows of prediction_scores are no probabilities: row {row} goes from "
            f"{scores[row].min():.4g} to {scores[row].max():.4g} and sums to {sums[row]:.4g}. They must be at least 0 "
            "and sum to 1; softmax makes such rows of logits."
        )
    return scores


def _stack_scores(rows: list[list[float] | None]) -> Tensor | None:
    widths = {None if row is None else len(row) for row in rows}
    if widths == {None}:
        return None
    if len(widths) > 1:
        raise ValueError(
            "The batches that were added differ: give prediction_scores of the same number of classes with each of "
            "them, or with none."
        )
    return torch.tensor(rows, dtype=torch.float64)
