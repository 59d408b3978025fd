"""The pipeline on images and audio: every backbone, every form of input, every way to hand many over."""

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from datasets import Audio, ClassLabel, Dataset, Features, Image
from helpers.media_backbones import (
    FAMILIES,
    NAMES,
    RATE,
    class_of,
    compose_media,
    make_media,
    make_media_examples,
    processor_of,
    save_media,
    shared_media,
    to_file,
)
from hypothesis import given
from hypothesis import strategies as st
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from transformers_tart import TartClassificationPipeline
from transformers_tart.embeddings.media import MediaEmbedder


pytestmark = pytest.mark.core


PROCESSORS = {"image": "image_processor", "audio": "feature_extractor"}
ENDINGS = {"image": "png", "audio": "wav"}


class Fitted(NamedTuple):
    """A pipeline made of a folder, what it reads, some inputs, and its answers to each of them alone."""

    name: str
    modality: str
    folder: str
    classify: TartClassificationPipeline
    items: list[Any]
    alone: torch.Tensor


def score(results: Iterable[list[dict]]) -> torch.Tensor:
    """Probabilities (n, classes), the classes sorted by name."""
    return torch.tensor([[r["score"] for r in sorted(result, key=lambda r: r["label"])] for result in results])


def score_all(classify: Callable, items: Any, **options: Any) -> torch.Tensor:
    return score(classify(items, **{"top_k": None, **options}))


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def fit(name: str, folder: Path) -> Fitted:
    modality = FAMILIES[name].modality
    examples = make_media_examples(modality)
    classify = pipeline("tart-classification", model=save_media(folder, name), examples=examples)
    items = make_media(modality, 9, seed=1)
    return Fitted(name, modality, str(folder), classify, items, score(classify(item, top_k=None) for item in items))


@pytest.fixture(scope="module", params=FAMILIES)
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Each family; tests leave it as it is."""
    return fit(request.param, tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", params=["dinov2", "wav2vec2"])
def fitted_one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A family that sees and one that hears; tests leave them as they are."""
    return fit(request.param, tmp_path_factory.mktemp("base"))


def in_table(modality: str, items: list[Any], labels: list[int] | None = None) -> Dataset:
    """Files in a table as `datasets` keeps them; sounds stay files, for their decoder may be absent."""
    columns: dict[str, Any] = {modality: [{"bytes": to_file(modality, item), "path": None} for item in items]}
    features: dict[str, Any] = {modality: Image() if modality == "image" else Audio(decode=False)}
    if labels is not None:
        columns["label"], features["label"] = labels, ClassLabel(names=list(NAMES))
    return Dataset.from_dict(columns).cast(Features(features))


def write(fitted: Fitted, folder: Path) -> list[Path]:
    paths = [folder / f"{i}.{ENDINGS[fitted.modality]}" for i in range(len(fitted.items))]
    for path, item in zip(paths, fitted.items, strict=True):
        path.write_bytes(to_file(fitted.modality, item))
    return paths


@pytest.mark.slow
def test__pipeline__folder_of_any_backbone__tells_easy_classes_apart(fitted: Fitted) -> None:
    assert type(fitted.classify.model) is class_of(fitted.name)
    assert type(fitted.classify.model.backbone).__name__ == FAMILIES[fitted.name].tower
    assert (fitted.alone.argmax(1) == torch.arange(9) % 3).float().mean() > 0.6
    result = fitted.classify(fitted.items[0])
    assert set(result) == {"label", "score"}
    assert result["label"] in NAMES
    assert result["score"] == pytest.approx(fitted.alone[0].max().item(), abs=1e-5)


@pytest.mark.slow
def test__call__many_inputs_in_any_batches__equal_one_at_a_time(fitted: Fitted) -> None:
    for batch_size in (None, 1, 5, 9):
        assert_close(score_all(fitted.classify, fitted.items, batch_size=batch_size), fitted.alone)


@pytest.mark.slow
def test__stock_pipeline__stored_task__same_scores(fitted: Fitted, tmp_path: Path) -> None:
    fitted.classify.save_pretrained(tmp_path)
    stock = pipeline(f"{fitted.modality}-classification", model=str(tmp_path))
    items = fitted.items
    if fitted.modality == "audio":
        items = [{"raw": item, "sampling_rate": RATE} for item in items]
    assert type(stock.model) is class_of(fitted.name)
    assert_close(score(stock(items, top_k=3)), fitted.alone)


@pytest.mark.slow
def test__save_pretrained__loaded__same_scores_by_the_stored_processor(fitted: Fitted, tmp_path: Path) -> None:
    given = getattr(fitted.classify, PROCESSORS[fitted.modality])
    before = given.to_dict()
    fitted.classify.save_pretrained(tmp_path)
    assert given.to_dict() == before
    (Path(fitted.folder) / "preprocessor_config.json").rename(tmp_path / "hidden.json")
    try:
        loaded = pipeline("tart-classification", model=str(tmp_path))
    finally:
        (tmp_path / "hidden.json").rename(Path(fitted.folder) / "preprocessor_config.json")
    assert torch.equal(score_all(loaded, fitted.items), score_all(fitted.classify, fitted.items))
    assert type(getattr(loaded, PROCESSORS[fitted.modality])) is type(given)


@pytest.mark.slow
def test__save_pretrained__model_alone__processor_of_its_backbone(fitted_one: Fitted, tmp_path: Path) -> None:
    fitted_one.classify.model.save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    loaded = pipeline("tart-classification", model=str(tmp_path))
    assert torch.equal(score_all(loaded, fitted_one.items), score_all(fitted_one.classify, fitted_one.items))


@pytest.mark.slow
def test__save_pretrained__backbone_included__nothing_else_is_needed(fitted_one: Fitted, tmp_path: Path) -> None:
    fitted_one.classify.save_pretrained(tmp_path, include_backbone=True)
    loaded = pipeline("tart-classification", model=str(tmp_path))
    assert loaded.model.config.base_model_name_or_path is None
    assert torch.equal(score_all(loaded, fitted_one.items), score_all(fitted_one.classify, fitted_one.items))


@pytest.mark.slow
@given(order=st.permutations(range(9)), batch_size=st.integers(1, 10))
def test__call__any_order_and_batch_size__equals_one_at_a_time(
    fitted_one: Fitted, order: list[int], batch_size: int
) -> None:
    found = score_all(fitted_one.classify, [fitted_one.items[i] for i in order], batch_size=batch_size)
    assert_close(found, fitted_one.alone[order])


@pytest.mark.parametrize(
    "form",
    [
        lambda modality, item, path: item,
        lambda modality, item, path: str(path),
        lambda modality, item, path: path,
        lambda modality, item, path: path.read_bytes(),
        lambda modality, item, path: np.asarray(item),
        lambda modality, item, path: torch.from_numpy(np.array(item)),
        lambda modality, item, path: {modality: item},
        lambda modality, item, path: {modality: str(path)},
        lambda modality, item, path: {"bytes": path.read_bytes(), "path": None},
        lambda modality, item, path: {"bytes": None, "path": str(path)},
    ],
    ids=["own", "name", "path", "bytes", "array", "tensor", "dict", "dict_of_name", "row_of_bytes", "row_of_path"],
)
def test__call__any_form__same_answers(form: Callable, fitted_one: Fitted, tmp_path: Path) -> None:
    paths = write(fitted_one, tmp_path)
    items = [form(fitted_one.modality, item, path) for item, path in zip(fitted_one.items, paths, strict=True)]
    found = fitted_one.classify(items, top_k=None)
    assert isinstance(found, list)
    assert_close(score(found), fitted_one.alone)
    assert_close(score([fitted_one.classify(items[4], top_k=None)]), fitted_one.alone[4:5])


@pytest.mark.parametrize(
    ("gather", "is_list"),
    [
        (lambda modality, items: tuple(items), True),
        (lambda modality, items: np.array([to_file(modality, item) for item in items], dtype=object), True),
        (lambda modality, items: dict(enumerate(items)).values(), True),
        (lambda modality, items: in_table(modality, items)[modality], True),
        (lambda modality, items: in_table(modality, items), True),
        (lambda modality, items: iter(items), False),
        (lambda modality, items: (item for item in items), False),
        (lambda modality, items: KeyDataset(in_table(modality, items), modality), False),
        (lambda modality, items: (row[modality] for row in in_table(modality, items).to_iterable_dataset()), False),
    ],
    ids=["tuple", "array_of_files", "values", "column", "table", "iterator", "generator", "key_dataset", "stream"],
)
def test__call__many_inputs__a_list_or_an_iterator(gather: Callable, is_list: bool, fitted_one: Fitted) -> None:
    found = fitted_one.classify(gather(fitted_one.modality, fitted_one.items), top_k=None)
    assert isinstance(found, list if is_list else Iterator)
    assert_close(score(found), fitted_one.alone)


@pytest.mark.parametrize("axes", [3, 4])
def test__call__array_of_images__one_or_many(fitted_one: Fitted, axes: int) -> None:
    if fitted_one.modality == "image":
        one = np.asarray(fitted_one.items[0])
    else:  # two channels of one sound, or many sounds of two channels
        one = np.stack([fitted_one.items[0], fitted_one.items[0]])
    expected = fitted_one.alone[0]
    found = fitted_one.classify(one if axes == 3 else np.stack([one, one, one]), top_k=None)
    assert_close(score([found] if axes == 3 else found), expected.expand(1 if axes == 3 else 3, -1))


def test__call__nothing__an_empty_list(fitted_one: Fitted) -> None:
    assert fitted_one.classify([]) == []
    assert fitted_one.classify((), top_k=None, progress_bar=True) == []
    assert list(fitted_one.classify(iter([]))) == []


def test__call__generator__reads_no_more_than_its_window(fitted_one: Fitted) -> None:
    assert MediaEmbedder.batches_per_window <= 4
    read: list[int] = []
    results = fitted_one.classify((read.append(i) or fitted_one.items[i % 9] for i in range(10**6)), batch_size=2)
    assert read == []
    next(results)
    assert len(read) == 2 * MediaEmbedder.batches_per_window
    assert [next(results) for _ in range(2 * MediaEmbedder.batches_per_window - 1)]
    assert len(read) == 2 * MediaEmbedder.batches_per_window
    next(results)
    assert len(read) == 4 * MediaEmbedder.batches_per_window
    read.clear()
    next(fitted_one.classify(read.append(i) or fitted_one.items[i % 9] for i in range(10**6)))
    assert len(read) <= 128


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (None, 3), (10, 3)])
def test__call__top_k__that_many_best_first(top_k: int | None, count: int, fitted_one: Fitted) -> None:
    classify, items = fitted_one.classify, fitted_one.items
    best = fitted_one.alone[0].sort(descending=True)
    for found in (classify(items[0], top_k=top_k), classify(items, top_k=top_k)[0]):
        assert [r["label"] for r in found] == [NAMES[i] for i in best.indices[:count]]
        assert [r["score"] for r in found] == pytest.approx(best.values[:count].tolist(), abs=1e-5)


@pytest.mark.slow
def test__call__examples__win_and_leave_the_stored_ones(fitted_one: Fitted) -> None:
    modality, classify = fitted_one.modality, fitted_one.classify
    other = [{**row, "label": {"a": "x", "b": "y", "c": "x"}[row["label"]]} for row in make_media_examples(modality)]
    found = classify(fitted_one.items, examples=other, top_k=None)
    assert {r["label"] for r in found[0]} == {"x", "y"}
    assert_close(score_all(classify, fitted_one.items), fitted_one.alone)
    assert classify.model.config.id2label == dict(enumerate(NAMES))
    fitted = pipeline("tart-classification", model=fitted_one.folder, examples=other)
    assert_close(score_all(fitted, fitted_one.items), score(found))
    fitted.set_examples(make_media_examples(modality))
    assert_close(score_all(fitted, fitted_one.items), fitted_one.alone)
    fitted.set_examples(None)
    with pytest.raises(ValueError, match="no support set"):
        fitted(fitted_one.items[0])


@pytest.mark.slow
def test__examples__in_a_table_or_columns_or_another_order__same_answers(fitted_one: Fitted) -> None:
    modality, rows = fitted_one.modality, make_media_examples(fitted_one.modality)
    shuffled = random.Random(0).sample(rows, len(rows))
    items, labels = [row[modality] for row in rows], [row["label"] for row in rows]
    table = in_table(modality, items, [NAMES.index(label) for label in labels])
    for examples in (shuffled, {modality: items, "label": labels}, table):
        assert_close(score_all(fitted_one.classify, fitted_one.items, examples=examples), fitted_one.alone)


def test__pipeline__loaded_model_and_processor__same_answers(fitted_one: Fitted) -> None:
    given = {PROCESSORS[fitted_one.modality]: processor_of(fitted_one.name)}
    examples = make_media_examples(fitted_one.modality)
    for model in (shared_media(fitted_one.name), compose_media(fitted_one.name, shared_media(fitted_one.name))):
        classify = pipeline("tart-classification", model=model, examples=examples, **given)
        assert_close(score_all(classify, fitted_one.items), fitted_one.alone)


def test__pipeline__no_processor_anywhere__says_what_to_pass(tmp_path: Path) -> None:
    for name, argument in (("vit", "image_processor"), ("hubert", "feature_extractor")):
        shared_media(name).save_pretrained(tmp_path / name)
        with pytest.raises(ValueError, match=f"No {argument} can be loaded from .*; pass {argument}="):
            pipeline("tart-classification", model=str(tmp_path / name))
        with pytest.raises(ValueError, match=f"names no backbone to take the {argument} from; pass {argument}="):
            TartClassificationPipeline(compose_media(name))
