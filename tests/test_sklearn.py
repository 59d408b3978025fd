"""`TartClassifier` in the tools of scikit-learn."""

import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.builders import REAL_MODELS, build_backbone, build_tokenizer, make_examples, make_texts, score_all
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from transformers import pipeline

from transformers_tart.loading.embedded import MINI
from transformers_tart.sklearn import TartClassifier


EXAMPLES = make_examples(24)
TEXTS, LABELS = [row["text"] for row in EXAMPLES], [row["label"] for row in EXAMPLES]
QUERIES = make_texts(6, seed=9)
MINILM = REAL_MODELS / "minilm"


class ReadTexts:
    """The rows that a backbone reads, counted by a hook."""

    def __init__(self, backbone: torch.nn.Module):
        self.rows: list[tuple[int, ...]] = []
        backbone.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        mask = kwargs.get("attention_mask")
        is_padded = mask is not None and mask.dim() == 2  # else texts are packed into one row
        kept = mask[:, -ids.shape[1] :].bool() if is_padded else torch.ones_like(ids).bool()
        self.rows += [tuple(row[each].tolist()) for row, each in zip(ids, kept, strict=True)]


def blobs(count: int = 60, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return make_blobs(count, 5, centers=classes, cluster_std=4.0, random_state=seed)


def text_classifier(**parameters: object) -> TartClassifier:
    backbone = parameters.pop("backbone", None) or build_backbone("llama")
    return TartClassifier(backbone, processor=build_tokenizer(), **parameters)  # type: ignore[arg-type]


@parametrize_with_checks([TartClassifier(backbone=None)])
def test__estimator__checks_of_scikit_learn__passed(estimator: TartClassifier, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def test__import__of_the_package__without_scikit_learn() -> None:
    code = "import sys, transformers_tart; assert 'transformers_tart.sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test__matrix__cross_validation_and_pipeline__learned() -> None:
    rows, labels = blobs()
    assert cross_val_score(make_pipeline(StandardScaler(), TartClassifier()), rows, labels, cv=3).mean() > 0.8


def test__matrix__weights__equal_copies() -> None:
    rows, labels = blobs()
    weights = np.random.default_rng(0).integers(0, 4, len(rows))
    for settings in ({}, {"class_weight": "balanced"}, {"class_prior": [0.5, 0.3, 0.2]}):
        weighted = TartClassifier(**settings).fit(rows, labels, sample_weight=weights)
        copied = TartClassifier(**settings).fit(rows.repeat(weights, axis=0), labels.repeat(weights))
        np.testing.assert_allclose(weighted.predict_proba(rows), copied.predict_proba(rows), rtol=1e-7, atol=1e-9)


def test__matrix__fractions_of_weights__between_those_of_integers() -> None:
    generator = np.random.default_rng(0)
    rows, labels = generator.normal(size=(30, 4)), np.arange(30) % 2
    proba = [
        TartClassifier().fit(rows, labels, sample_weight=np.where(labels == 1, w, 1)).predict_proba(rows)[:, 1].mean()
        for w in (1, 1.5, 2)
    ]
    assert proba[0] + 0.02 < proba[1] < proba[2] - 0.02


def test__matrix__class_weight_balanced__shares_of_the_support_forgotten() -> None:
    rows, labels = blobs(90, 2)
    kept = np.r_[np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:6]]
    plain = TartClassifier().fit(rows[kept], labels[kept]).predict_proba(rows)[:, 1].mean()
    balanced = TartClassifier(class_weight="balanced").fit(rows[kept], labels[kept]).predict_proba(rows)[:, 1].mean()
    by_dict = TartClassifier(class_weight={0: 0.57, 1: 4.25}).fit(rows[kept], labels[kept]).predict_proba(rows)
    assert plain < balanced < 0.65
    assert by_dict[:, 1].mean() == pytest.approx(balanced, abs=0.01)


@pytest.mark.parametrize("prior", [{0: 0.7, 1: 0.2, 2: 0.1}, [0.7, 0.2, 0.1]])
def test__matrix__class_prior__log_odds_shifted_by_its_ratio_to_the_shares(prior: object) -> None:
    rows, labels = blobs()
    shares = np.bincount(labels) / len(labels)
    plain = TartClassifier().fit(rows, labels).predict_log_proba(rows)
    shifted = plain + np.log([0.7, 0.2, 0.1]) - np.log(shares)
    shifted -= np.log(np.exp(shifted).sum(1, keepdims=True))
    found = TartClassifier(class_prior=prior).fit(rows, labels).predict_log_proba(rows)
    np.testing.assert_allclose(found, shifted, atol=1e-9)


@pytest.mark.parametrize("prior", [{0: 0.7, 1: 0.3}, [0.7, 0.2], [0.7, 0.2, 0.2], [1.2, -0.1, -0.1]])
def test__class_prior__no_probabilities_of_the_classes__an_error(prior: object) -> None:
    with pytest.raises(ValueError, match="give a probability for each class of"):
        TartClassifier(class_prior=prior).fit(*blobs())


def test__matrix__partial_fit__as_fitted_at_once_and_classes_grow() -> None:
    rows, labels = blobs()
    first = np.flatnonzero(labels < 2)[:20]
    rest = np.setdiff1d(np.arange(len(labels)), first)
    grown = TartClassifier().partial_fit(rows[first], labels[first])
    assert grown.classes_.tolist() == [0, 1]
    grown.partial_fit(rows[rest], labels[rest])
    order = np.r_[first, rest]
    whole = TartClassifier().fit(rows[order], labels[order])
    np.testing.assert_allclose(grown.predict_proba(rows), whole.predict_proba(rows))
    declared = TartClassifier().partial_fit(rows[first], labels[first], classes=[0, 1])
    with pytest.raises(ValueError, match=r"The labels \[2\] are not among the classes \[0, 1\]"):
        declared.partial_fit(rows[rest], labels[rest])


def test__max_examples__drawn_by_seed__balanced() -> None:
    rows, labels = blobs(90)
    same = [
        TartClassifier(max_examples=12, random_state=seed).fit(rows, labels).predict_proba(rows) for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(same[0], same[1])
    assert np.abs(same[0] - same[2]).max() > 1e-3
    assert TartClassifier(max_examples=12).fit(rows, labels)._task.state.views[0].held_out.shape[1] == 12


@pytest.mark.parametrize("y", [np.eye(3, dtype=int)[np.arange(60) % 3], [["a"], ["a", "b"]] * 30])
def test__fit__several_labels__an_error_that_names_what_takes_them(y: object) -> None:
    with pytest.raises(ValueError, match="OneVsRestClassifier"):
        TartClassifier().fit(blobs()[0], y)
    indicator = np.eye(3, dtype=int)[blobs()[1]]
    assert OneVsRestClassifier(TartClassifier()).fit(blobs()[0], indicator).predict(blobs()[0]).shape == (60, 3)


def test__fit__one_class__an_error() -> None:
    with pytest.raises(ValueError, match="of 1 class; a classifier needs examples of at least two classes"):
        TartClassifier().fit([[0.0], [1.0]], ["a", "a"])


@pytest.mark.parametrize("name", [str(MINI), pytest.param(str(MINILM), marks=pytest.mark.real)])
def test__texts__same_answers_as_the_pipeline(name: str) -> None:
    if not Path(name).exists():
        pytest.skip("needs MiniLM, which is absent here")
    classify = pipeline("tart-classification", model=name, examples=EXAMPLES)
    found = TartClassifier(name).fit(TEXTS, LABELS).predict_proba(QUERIES)
    np.testing.assert_allclose(found, score_all(classify, QUERIES).numpy(), atol=1e-5)


@pytest.mark.parametrize("form", ["array", "objects", "column", "series", "table"])
def test__texts__any_container__same_answers(form: str) -> None:
    import pandas as pd

    forms = {
        "array": np.array,
        "objects": lambda texts: np.array(texts, dtype=object),
        "column": lambda texts: np.array(texts, dtype=object)[:, None],
        "series": lambda texts: pd.Series(texts, index=range(5, 5 + len(texts))),
        "table": lambda texts: pd.DataFrame({"anything": texts}),
    }
    classifier = text_classifier()
    expected = classifier.fit(TEXTS, LABELS).predict_proba(QUERIES)
    found = clone(classifier).fit(forms[form](TEXTS), np.array(LABELS)).predict_proba(forms[form](QUERIES))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test__texts__table_of_several_columns__an_error() -> None:
    import pandas as pd

    with pytest.raises(ValueError, match=r"X has the columns \['a', 'b'\]; give one, such as X\['a'\]"):
        text_classifier().fit(pd.DataFrame({"a": TEXTS, "b": TEXTS}), LABELS)
    with pytest.raises(TypeError, match="X is str; give a list"):
        text_classifier().fit(TEXTS, LABELS).predict("one text")


def test__texts__search_over_views_and_k__each_text_read_once_a_view() -> None:
    backbone = build_backbone("llama")
    read = ReadTexts(backbone)
    search = GridSearchCV(
        make_pipeline(FunctionTransformer(), text_classifier(backbone=backbone, hints=None)),
        {"tartclassifier__views": ["plain", "default"], "tartclassifier__max_examples": [6, None]},
        cv=3,
        error_score="raise",
    )
    search.fit(TEXTS, LABELS)
    fitted = len(read.rows)
    assert fitted <= 2 * len(set(TEXTS)) + 20  # and the probes of a backbone that is new
    clone(search.best_estimator_).fit(TEXTS, LABELS).predict(TEXTS)
    assert len(read.rows) <= fitted + 1  # the prefix of the template


def test__texts__partial_fit__reads_only_what_is_new() -> None:
    backbone = build_backbone("llama")
    read = ReadTexts(backbone)
    classifier = text_classifier(backbone=backbone, hints=None, embedding_cache=None).partial_fit(
        TEXTS[:16], LABELS[:16]
    )
    before = len(read.rows)
    classifier.partial_fit([*TEXTS[16:20], "a new text"], [*LABELS[16:20], "spam"])
    assert len(read.rows) - before <= 5
    whole = text_classifier(backbone=backbone, hints=None).fit([*TEXTS[:20], "a new text"], [*LABELS[:20], "spam"])
    np.testing.assert_allclose(classifier.predict_proba(QUERIES), whole.predict_proba(QUERIES), atol=1e-5)


def test__texts__pickled__reference_to_the_backbone_only_and_examples_kept() -> None:
    classifier = TartClassifier("mini", hints=None).fit(TEXTS, LABELS)
    expected, stored = classifier.predict_proba(QUERIES), pickle.dumps(classifier)
    assert len(stored) < 1e6  # the backbone has 6 MB
    restored = pickle.loads(stored)
    np.testing.assert_array_equal(restored.predict_proba(QUERIES), expected)
    read = ReadTexts(restored._load().model.backbone)
    restored.partial_fit(["a new text"], ["spam"])
    assert len(read.rows) == 2  # the prefix of the template, and the new text


def length_hint(texts: list[str], label_names: tuple[str, ...]) -> np.ndarray:
    return np.array([[len(text), -len(text)] for text in texts], dtype=np.float32)


@pytest.mark.parametrize("hints", [length_hint, {"length": length_hint}, ["label_similarity", length_hint]])
def test__texts__hint_of_the_user__used_after_pickling_too(hints: object) -> None:
    classifier = TartClassifier("mini", hints=hints).fit(TEXTS, LABELS)
    restored = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(restored.predict_proba(QUERIES), classifier.predict_proba(QUERIES))


def test__texts__integer_weights__close_to_copies() -> None:
    weights = np.random.default_rng(0).integers(0, 4, len(TEXTS))
    classifier = text_classifier()
    weighted = classifier.fit(TEXTS, LABELS, sample_weight=weights).predict_proba(QUERIES)
    copied = clone(classifier).fit(np.repeat(TEXTS, weights), np.repeat(LABELS, weights)).predict_proba(QUERIES)
    np.testing.assert_allclose(weighted, copied, atol=1e-3)


def test__texts__folder__serves_other_processes(tmp_path: Path) -> None:
    backbone = build_backbone("llama")
    text_classifier(backbone=backbone, embedding_cache=tmp_path).fit(TEXTS, LABELS)
    read = ReadTexts(backbone)
    text_classifier(backbone=backbone, embedding_cache=tmp_path).fit(make_texts(2, seed=9), ["ham", "spam"])
    probes, read.rows = set(read.rows), []
    text_classifier(backbone=backbone, embedding_cache=tmp_path, hints=None).fit(TEXTS, LABELS)
    assert set(read.rows) <= probes


@pytest.mark.real
@pytest.mark.skipif(not MINILM.exists(), reason="needs MiniLM, which is absent here")
def test__minilm__cross_validation_and_search__each_text_read_once_a_view() -> None:
    texts = [
        f"{verb} {thing} number {i}" for i in range(6) for verb in ("I love", "I hate") for thing in ("tea", "rain")
    ]
    labels = ["good" if "love" in text else "bad" for text in texts]
    classifier = TartClassifier(str(MINILM))
    read = ReadTexts(classifier._load().model.backbone)
    assert cross_val_score(classifier, texts, labels, cv=3).mean() > 0.9
    counts = Counter(read.rows)
    assert max(counts.values()) == 1
    assert len(counts) >= len(texts)
    GridSearchCV(classifier, {"max_examples": [8, None], "class_weight": [None, "balanced"]}, cv=3).fit(texts, labels)
    assert Counter(read.rows) == counts


@pytest.mark.parametrize("missing", [None, float("nan"), 3])
def test__fit__no_text__error_names_the_place(missing: object) -> None:
    with pytest.raises(TypeError, match="Input 1 is .*; a text must be a string"):
        text_classifier().fit([TEXTS[0], missing, *TEXTS[2:]], LABELS)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test__fit__missing_label__error_names_the_place(missing: object) -> None:
    with pytest.raises(ValueError, match="Input y contains NaN or None, the first at 2"):
        text_classifier().fit(TEXTS, [*LABELS[:2], missing, *LABELS[3:]])


def test__partial_fit__labels_of_another_kind__refused() -> None:
    classifier = text_classifier().partial_fit(TEXTS, [int(label == LABELS[0]) for label in LABELS])
    with pytest.raises(ValueError, match="The labels are .*, and those of before int64; use one kind"):
        classifier.partial_fit(TEXTS[:1], ["1"])
    assert classifier.classes_.tolist() == [0, 1]


def test__fit__pairs__as_predict_reads_them() -> None:
    pairs = [{"text": text, "text_pair": other} for text, other in zip(TEXTS, TEXTS[::-1], strict=True)]
    found = text_classifier().fit(pairs, LABELS).predict_proba(pairs[:4])
    rows = [pair | {"label": label} for pair, label in zip(pairs, LABELS, strict=True)]
    classify = pipeline(
        "tart-classification", model=build_backbone("llama"), tokenizer=build_tokenizer(), examples=rows
    )
    np.testing.assert_allclose(found, score_all(classify, pairs[:4]), atol=1e-5)
