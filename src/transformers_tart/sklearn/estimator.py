"""`TartClassifier`, few-shot classification as an estimator of scikit-learn."""

import copy
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from transformers_tart.inputs.examples import Examples
from transformers_tart.sklearn.inputs import as_inputs
from transformers_tart.sklearn.targets import check_one_label, choose, log_prior, log_shares, weigh
from transformers_tart.sklearn.tasks import MEMORY, InputTask, Loaded, MatrixTask, Shared


SHARED = ("backbone", "reasoner", "processor")  # parameters that a clone shares, as they are frozen and large
SETTINGS = ("backbone", "views", "reasoner", "protocol", "prompt", "max_length", "dtype", "device", "processor")


class TartClassifier(ClassifierMixin, BaseEstimator):
    r"""
    Few-shot classifier of texts, images, audio or embeddings, without training.

    ```python
    >>> classifier = TartClassifier("sentence-transformers/all-MiniLM-L6-v2").fit(texts, labels)
    >>> classifier.predict_proba(["free entry, WIN now"])
    >>> GridSearchCV(classifier, {"views": ["plain", "default"], "max_examples": [16, 64]}).fit(texts, labels)
    >>> TartClassifier().fit(embeddings, labels)  # in place of LogisticRegression()
    ```

    A weight counts as copies: an example of weight 2 is as good as two of weight 1, exactly. Above the largest support
    set that the reasoner reads in one pass (2,048 for the default one) rows are divided among passes, where copies and
    weights differ a little. Copies of an example are held out together when its evidence is measured.

    Pickles hold the examples and their embeddings, and of a backbone that is given by name only the name.

    Args:
        backbone (`str`, `Path`, `PreTrainedModel` or [`TartPreTrainedModel`], *optional*):
            Model that embeds the inputs, as in [`TartPreTrainedModel.from_backbone`], or a saved task, of which the
            reasoner and the views are taken. `None`: the inputs are the rows of a matrix of embeddings.
        views (`str`, [`View`] or `list`, *optional*), reasoner ([`TartReasoner`], `str` or `Path`, *optional*),
        protocol (`str`, *optional*), prompt (`str`, *optional*), max_length (`int`, *optional*):
            As in [`TartPreTrainedModel.from_backbone`].
        hints (`str`, `Callable` or `list`, *optional*, defaults to `"auto"`), hypothesis_template (`str`, *optional*),
        label_descriptions (`dict[str, str]`, *optional*), unlabeled (`list`, *optional*):
            Label hints, as in [`TartPreTrainedModel.encode_support`].
        max_examples (`int`, *optional*):
            Most examples to read, drawn with `random_state`, as many of each class as can be.
        class_weight (`dict` or `"balanced"`, *optional*):
            Weights of the classes, by which those of their examples are multiplied.
        class_prior (`dict` or `list[float]`, *optional*):
            Probabilities of the classes where the classifier is used, by class or in the order of `classes_`. The
            log-odds are shifted to them from the weighted shares of the examples (Saerens et al. 2002).
        embedding_cache (`str` or `Path`, *optional*, defaults to `"memory"`):
            Where embeddings are kept, so that each input is embedded once: `"memory"`, shared by clones in a process,
            a folder, shared by processes too, or `None`, which keeps those of the examples only.
        processor (`object`, *optional*):
            Tokenizer, image processor or feature extractor; that of the backbone when not given.
        dtype (`str` or `torch.dtype`, *optional*), device (`str`, `int` or `torch.device`, *optional*):
            Of a backbone that is loaded, as in `pipeline`; of the reasoner without one, by default float64 on the CPU.
        batch_size (`int`, *optional*):
            Most inputs of a forward pass; as many as a budget of tokens allows when not given.
        random_state (`int` or `np.random.RandomState`, *optional*):
            Seed of the choice of examples.

    Attributes:
        classes_ (`np.ndarray` of shape `(C,)`):
            The classes, sorted.
        n_features_in_ (`int`):
            Number of columns of X, 1 for inputs of a backbone.
    """

    def __init__(
        self,
        backbone: Any = None,
        views: Any = None,
        *,
        reasoner: Any = None,
        hints: Any = "auto",
        hypothesis_template: str | None = None,
        label_descriptions: Any = None,
        unlabeled: Any = None,
        protocol: str | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        max_examples: int | None = None,
        class_weight: Any = None,
        class_prior: Any = None,
        embedding_cache: Any = MEMORY,
        processor: Any = None,
        dtype: Any = None,
        device: Any = None,
        batch_size: int | None = None,
        random_state: Any = None,
    ):
        self.backbone = backbone
        self.views = views
        self.reasoner = reasoner
        self.hints = hints
        self.hypothesis_template = hypothesis_template
        self.label_descriptions = label_descriptions
        self.unlabeled = unlabeled
        self.protocol = protocol
        self.prompt = prompt
        self.max_length = max_length
        self.max_examples = max_examples
        self.class_weight = class_weight
        self.class_prior = class_prior
        self.embedding_cache = embedding_cache
        self.processor = processor
        self.dtype = dtype
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Read labeled examples.

        Args:
            X (`list`, `np.ndarray`, `pd.Series` or a table of one column):
                n inputs; without a backbone, a matrix (n, d) of embeddings.
            y (`list` or `np.ndarray` of shape `(n,)`):
                Their labels.
            sample_weight (`list[float]` or `np.ndarray` of shape `(n,)`, *optional*):
                Their weights; an example of weight 0 is left out.
        """
        return self._fit(*self._check_examples(X, y, sample_weight, reset=True), known={}, declared=None)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Add labeled examples to those that were fitted; only the new ones are embedded.

        Args:
            X, y, sample_weight:
                As in [`fit`].
            classes (`list` or `np.ndarray`, *optional*):
                All classes, in the first call; without them, new classes may come with later calls.
        """
        is_first = not hasattr(self, "classes_")
        rows, targets, weights = self._check_examples(X, y, sample_weight, reset=is_first)
        if is_first:
            declared = None if classes is None else np.unique(classes)
            return self._fit(rows, targets, weights, known={}, declared=declared)
        if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes are {np.unique(classes).tolist()}, those of before {self.classes_.tolist()}.")
        old, kept = self._examples, getattr(self._task, "entries", {})
        if isinstance(targets.tolist()[0], str) != isinstance(old[1].tolist()[0], str):
            raise ValueError(f"The labels are {targets.dtype}, and those of before {old[1].dtype}; use one kind.")
        if weights is not None or old[2] is not None:
            each = [np.ones(len(part[1])) if part[2] is None else part[2] for part in (old, (rows, targets, weights))]
            weights = np.concatenate(each)
        joined = np.concatenate([old[0], rows]) if self.backbone is None else [*old[0], *rows]
        return self._fit(joined, np.concatenate([old[1], targets]), weights, kept, self._declared)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable classes (n,)."""
        best = self._log_probabilities(X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities (n, C) of the classes."""
        return np.exp(self._log_probabilities(X))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms (n, C) of the probabilities of the classes."""
        return self._log_probabilities(X)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the log-odds (n,) of the second class of two, or the logarithms (n, C) of the probabilities."""
        found = self._log_probabilities(X)
        return found[:, 1] - found[:, 0] if found.shape[1] == 2 else found

    def _check_examples(self, X: Any, y: Any, sample_weight: Any, reset: bool) -> tuple[Any, np.ndarray, Any]:
        if y is None:
            raise ValueError("TartClassifier requires y to be passed, but the target y is None")
        rows = self._check_inputs(X, reset)
        targets = check_one_label(y)
        check_consistent_length(rows, targets)
        check_classification_targets(targets)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
        return rows, targets, sample_weight

    def _check_inputs(self, X: Any, reset: bool) -> Any:
        if self.backbone is None:
            return validate_data(self, X, dtype=np.float64, reset=reset)
        inputs = as_inputs(X)
        if reset:
            self.n_features_in_ = 1
        return inputs

    def _fit(self, rows: Any, targets: np.ndarray, sample_weight: Any, known: Any, declared: Any) -> Self:
        classes, labels = np.unique(targets, return_inverse=True)
        if declared is not None:
            if unknown := np.setdiff1d(classes, declared).tolist():
                raise ValueError(f"The labels {unknown} are not among the classes {declared.tolist()}.")
            classes, labels = declared, np.searchsorted(declared, targets)
        weights = weigh(classes, labels, self.class_weight, sample_weight)
        kept = choose(labels, weights, self.max_examples, self.random_state)
        own = None if weights is None else weights[kept]
        prior = None if self.class_prior is None else log_prior(self.class_prior, classes)
        if self.backbone is None:
            dtype = torch.float64 if self.dtype is None else getattr(torch, str(self.dtype).removeprefix("torch."))
            reasoner = self._share().reasoner(self.reasoner, dtype, self.device)
            task: Any = MatrixTask.fit(reasoner, rows[kept], labels[kept], own, len(classes))
        else:
            names = tuple(str(value) for value in classes.tolist())
            given = None if own is None else own.tolist()
            examples = Examples([rows[i] for i in kept], labels[kept].tolist(), names, weights=given)
            hinting = {name: getattr(self, name) for name in ("hints", "hypothesis_template", "label_descriptions")}
            hinting["unlabeled"] = self.unlabeled
            task = InputTask.fit(self._load(), examples, known, self.batch_size, **hinting)
        self._task, self._declared, self._examples = task, declared, (rows, targets, sample_weight)
        self._shift = None if prior is None else prior - log_shares(labels[kept], own, len(classes))
        self.classes_ = classes
        return self

    def _log_probabilities(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        rows = self._check_inputs(X, reset=False)
        if isinstance(self._task, MatrixTask):
            logits = self._task.logits(rows)
        else:
            logits = self._task.logits(self._load(), rows, self.hints, self.batch_size)
        logits = logits if self._shift is None else logits + self._shift
        logits = logits - logits.max(1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    def _share(self) -> Shared:
        if not hasattr(self, "_shared"):
            self._shared = Shared()
        return self._shared

    def _load(self) -> Loaded:
        """Return the backbone with the settings of the parameters."""
        settings = {name: getattr(self, name) for name in (*SETTINGS, "embedding_cache")}
        return self._share().load(settings)

    def __sklearn_clone__(self) -> "TartClassifier":
        large = {name: getattr(self, name) for name in SHARED}
        blank = copy.copy(self).set_params(**dict.fromkeys(SHARED))
        clone = super(TartClassifier, blank).__sklearn_clone__().set_params(**large)
        clone._shared = self._share()
        return clone

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_shared", None)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.backbone is None
        tags.input_tags.one_d_array = tags.input_tags.string = self.backbone is not None
        return tags


__all__ = ["TartClassifier"]
