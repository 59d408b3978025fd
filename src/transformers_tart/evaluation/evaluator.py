"""The evaluator of `evaluate` for the `tart-classification` pipeline, and its matching of labels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import evaluate
import numpy as np
import torch
from datasets import Dataset
from evaluate.evaluator.utils import DatasetColumn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, pipeline

from transformers_tart.evaluation import DEFAULT_METRIC, TASK
from transformers_tart.evaluation.metric import Metric, TartMetric, load_metric
from transformers_tart.inputs.containers import is_missing
from transformers_tart.inputs.examples import RawExamples
from transformers_tart.inputs.labels import kind_of, plain_label
from transformers_tart.pipeline_tart import TartClassificationPipeline
from transformers_tart.support import SupportSet


Label: TypeAlias = int | float | str

MAX_SHOWN = 5  # labels in an error message
STRATEGIES = ("simple", "bootstrap")


def match_labels(
    labels: Sequence[Label],
    names: Sequence[str],
    class_names: Sequence[str] | None = None,
    label_mapping: Mapping[str, Label] | None = None,
) -> tuple[np.ndarray, dict[str, int]]:
    """Match labels (n,) of a data set with the class names of a pipeline.

    Return the class numbers (n,) int64 of the labels, and the number of each name.

    `label_mapping`, the label of the data for each name, decides where it is given. Otherwise strings are the labels
    of the pipeline. Integers are matched through the names of their `ClassLabel` feature, `class_names`, else as
    integers if the labels of the pipeline are integers, else by the order of the labels of the pipeline. Booleans and
    whole floats count as integers.
    """
    labels = [_plain(label, i) for i, label in enumerate(labels)]
    given = _labels_of(names, isinstance(labels[0], str), class_names, label_mapping)
    possible = set(given)
    unknown = [label for label in labels if label not in possible]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(labels)} rows have labels that the pipeline cannot give, for example "
            f"{_show(unknown)}; it gives {_show(given)}. Pass examples of all classes, or label_mapping: the data's "
            f"label for each of the pipeline's names {_show(names)}. Leave out rows without a label, often marked -1."
        )
    order: Iterable[Any] = dict.fromkeys(given)
    if not isinstance(labels[0], str):
        order = sorted(order) if class_names is None else range(len(class_names))
    number = {label: i for i, label in enumerate(order)}
    return np.array([number[x] for x in labels]), {name: number[x] for name, x in zip(names, given, strict=True)}


def _plain(label: object, row: int) -> str | int:
    plain = plain_label(label)
    if is_missing(plain):
        raise ValueError(f"Row {row} of the data has no label; leave it out.")
    return plain if kind_of(plain, f"row {row}") == "strings" else int(plain)


def _labels_of(
    names: Sequence[str], strings: bool, class_names: Sequence[str] | None, label_mapping: Mapping[str, Label] | None
) -> list[Label]:
    """Return the label of the data for each name of the pipeline."""
    ids: dict[Label, Label] = {} if class_names is None else {name: i for i, name in enumerate(class_names)}
    labels: list[Label]
    if label_mapping is not None:
        missing = [name for name in names if name not in label_mapping]
        if missing:
            raise ValueError(f"label_mapping lacks {_show(missing)}; it must name all of the pipeline's labels.")
        labels = [ids.get(label_mapping[name], label_mapping[name]) for name in names]
    elif strings:
        labels = list(names)
    elif all(name in ids for name in names):
        labels = [ids[name] for name in names]
    elif all(name.removeprefix("-").isdecimal() for name in names):
        labels = [int(name) for name in names]
    else:
        labels = list(range(len(names))) if class_names is None else list(names)
    if class_names is not None and not set(labels) <= set(ids.values()):
        raise ValueError(
            f"The labels of the pipeline, {_show(names)}, are not those of the data, {_show(class_names)}; pass "
            "label_mapping, the data's label for each of the pipeline's."
        )
    return labels


def _show(labels: Sequence[Label]) -> str:
    distinct = list(dict.fromkeys(labels))
    return str(distinct[:MAX_SHOWN]).removesuffix("]") + (", ...]" if len(distinct) > MAX_SHOWN else "]")


ModelOrPipeline: TypeAlias = str | PreTrainedModel | TartClassificationPipeline


class TartEvaluator(evaluate.TextClassificationEvaluator):
    r"""
    Evaluator of few-shot classifiers on labeled inputs, after the text-classification evaluator of `evaluate`.

    ```python
    >>> import evaluate
    >>> from transformers_tart.evaluation import evaluator

    >>> task_evaluator = evaluate.evaluator("tart-classification")
    >>> task_evaluator.compute(classify, data=test_data, metric="tart", strategy="bootstrap", random_state=0)
    ```

    Args:
        task (`str`, *optional*, defaults to `"tart-classification"`):
            Task of the pipeline.
        default_metric_name (`str`, *optional*, defaults to `"accuracy"`):
            Metric of [`compute`] where none is given: a `config_name` of [`TartMetric`].
    """

    PIPELINE_KWARGS = {"top_k": None, "function_to_apply": "softmax"}

    def __init__(self, task: str = TASK, default_metric_name: str | None = None):
        super().__init__(task, default_metric_name=default_metric_name or DEFAULT_METRIC)

    def compute(
        self,
        model_or_pipeline: ModelOrPipeline | None = None,
        data: str | Dataset | None = None,
        subset: str | None = None,
        split: str | None = None,
        metric: str | Metric | None = None,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        feature_extractor: Any = None,
        strategy: Literal["simple", "bootstrap"] = "simple",
        confidence_level: float = 0.95,
        n_resamples: int = 9999,
        device: int | None = None,
        random_state: int | None = None,
        input_column: str = "text",
        second_input_column: str | None = None,
        label_column: str = "label",
        label_mapping: Mapping[str, Label] | None = None,
        examples: RawExamples | SupportSet | None = None,
    ) -> dict[str, Any]:
        r"""
        Classify a data set and compare the predictions with its labels.

        Args:
            model_or_pipeline ([`TartClassificationPipeline`], `PreTrainedModel` or `str`, *optional*):
                Pipeline, model, Hub id or folder; the small model inside this package when not given.
            metric (`str` or `evaluate.EvaluationModule`, *optional*):
                As in [`load_metric`]; accuracy when not given. `"tart"` gives six metrics. Metrics read class
                numbers as `predictions` and `references`, and a [`TartMetric`] the probabilities too.
            label_mapping (`dict[str, int | str]`, *optional*):
                Label of the data for each label of the pipeline; as in [`match_labels`] when not given.
            examples (`list[dict]`, `dict[str, list]`, `datasets.Dataset` or [`SupportSet`], *optional*):
                Support set; the one stored with the pipeline, which stays, when not given.
            data, subset, split, tokenizer, feature_extractor, strategy, confidence_level, n_resamples, device,
            random_state, input_column, second_input_column, label_column:
                As in `evaluate.TextClassificationEvaluator.compute`. `feature_extractor` is ignored.

        Returns:
            `dict[str, Any]`: each metric, for `"bootstrap"` as `{"score", "confidence_interval", "standard_error"}`;
            and `total_time_in_seconds`, `samples_per_second` and `latency_in_seconds` of the classification.

        Raises:
            ValueError: On data without rows or columns that it needs, labels that do not match the pipeline's, an
                unknown strategy, or when there is no support set.
            OSError: When data, metric or model cannot be loaded.
            TypeError: On labels that are neither strings nor integers.
        """
        if strategy not in STRATEGIES:
            raise ValueError(f'strategy is "{strategy}"; it must be one of {STRATEGIES}.')
        self.check_for_mismatch_in_device_setup(device, model_or_pipeline)
        measure = self.prepare_metric(metric)
        rows = self.load_data(data, subset, split)
        inputs, texts = self.prepare_data(rows, input_column, second_input_column, label_column)
        pipe = self.prepare_pipeline(model_or_pipeline, tokenizer, device=device)
        if not pipe.model.config.modality.is_tokenized:
            texts = DatasetColumn(rows, input_column)  # in place of texts and pairs
        support = _read_support(pipe, examples)
        class_names = getattr(rows.features[label_column], "names", None)  # of a ClassLabel
        references, classes = match_labels(
            inputs["references"], pipe.model.names_for(support), class_names, label_mapping
        )
        results, seconds = self.call_pipeline(pipe, texts, examples=support)
        inputs = {"references": references, **self.predictions_processor(results, classes)}
        if not isinstance(measure, TartMetric):
            del inputs["prediction_scores"]
        values = self.compute_metric(measure, inputs, strategy, confidence_level, n_resamples, random_state)
        return {**values, **seconds}

    def load_data(self, data: str | Dataset | None, subset: str | None = None, split: str | None = None) -> Dataset:
        """Return a data set with rows, loaded where a name is given."""
        try:
            rows = super().load_data(data, subset, split)
        except OSError as err:
            raise OSError(
                f'The data set "{data}" cannot be loaded: it is no folder and not on the Hub, or the Hub cannot be '
                f"reached. Give a folder or a loaded datasets.Dataset. ({err})"
            ) from err
        if len(rows) == 0:
            raise ValueError("The data set has no rows; there is nothing to measure.")
        return rows

    def prepare_pipeline(
        self,
        model_or_pipeline: ModelOrPipeline | None,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        feature_extractor: Any = None,
        device: int | None = None,
    ) -> TartClassificationPipeline:
        """Return a pipeline, built where a model or a name is given."""
        # a replacement of the whole: evaluate 0.4.6 reads transformers.TFPreTrainedModel, which was removed
        if isinstance(model_or_pipeline, TartClassificationPipeline):
            return model_or_pipeline
        if model_or_pipeline is None or isinstance(model_or_pipeline, (str, PreTrainedModel)):
            given: dict[str, Any] = {"model": model_or_pipeline, "tokenizer": tokenizer, "device": device}
            return pipeline(self.task, **given)
        raise ValueError(
            f"model_or_pipeline is {type(model_or_pipeline).__name__}; it must be a {self.task} pipeline, a model, a "
            "Hub id or a folder."
        )

    def prepare_metric(self, metric: str | Metric | None) -> Metric:
        """Return a metric; the default is part of this package."""
        return TartMetric(self.default_metric_name) if metric is None else load_metric(metric)

    def predictions_processor(
        self, predictions: Sequence[Sequence[Mapping[str, Any]]], label_mapping: Mapping[str, int]
    ) -> dict[str, np.ndarray]:
        """Return `predictions` (n,) int64 and `prediction_scores` (n, classes) float64 of the results of a pipeline.

        Labels of the pipeline that have the same class number in `label_mapping` are one class.
        """
        unreadable = [result[0]["error"] for result in predictions if result[0]["label"] is None]
        if unreadable:
            raise ValueError(f"{len(unreadable)} of {len(predictions)} inputs cannot be read. {unreadable[0]}")
        best = np.array([label_mapping[str(result[0]["label"])] for result in predictions])
        scores = np.zeros((len(predictions), max(label_mapping.values()) + 1))
        for row, result in zip(scores, predictions, strict=True):
            for answer in result:
                row[label_mapping[str(answer["label"])]] += answer["score"]
        return {"predictions": best, "prediction_scores": scores}

    def compute_metric(
        self,
        metric: Metric,
        metric_inputs: dict[str, np.ndarray],
        strategy: Literal["simple", "bootstrap"] = "simple",
        confidence_level: float = 0.95,
        n_resamples: int = 9999,
        random_state: int | None = None,
    ) -> dict[str, Any]:
        """Compute a metric, with confidence intervals for the strategy `"bootstrap"`."""
        result = metric.compute(**metric_inputs)
        if strategy == "simple":
            return result
        rows = {"rows": np.arange(len(metric_inputs["references"]))}
        options = (confidence_level, n_resamples, random_state)
        values: dict[str, Any] = {}
        for name, score in result.items():
            one = TartMetric(name) if isinstance(metric, TartMetric) else metric  # not the others too
            of_rows = _MetricOfRows(one, metric_inputs)
            values[name] = {"score": score, **self._compute_confidence_interval(of_rows, rows, [name], *options)[name]}
        return values


class _MetricOfRows:
    """A metric of row numbers, which scipy can resample, unlike rows of probabilities."""

    def __init__(self, metric: Metric, inputs: Mapping[str, np.ndarray]):
        self.metric = metric
        self.inputs = inputs

    def compute(self, rows: np.ndarray) -> dict[str, Any]:
        chosen = {name: values[rows] for name, values in self.inputs.items()}
        if not isinstance(self.metric, TartMetric):
            return self.metric.compute(**chosen)
        # thousands of samples need neither the checks nor the tables of compute
        names = ("predictions", "references", "prediction_scores")
        return self.metric.measure(*(torch.from_numpy(chosen[name]) for name in names))


def _read_support(pipe: TartClassificationPipeline, examples: RawExamples | SupportSet | None) -> SupportSet:
    support = pipe.model.support if examples is None else examples
    if support is None:
        raise ValueError("There is no support set: pass examples=..., or a pipeline that has one.")
    found = support if isinstance(support, SupportSet) else pipe._encode(support).support
    found.check_single_label("The evaluator's metrics")
    return found
