"""Examples and inputs in every form of a table, under their usual names or others: the same answers."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from helpers.builders import build_tokenizer, compose, make_examples, make_pipeline, make_texts

from transformers_tart import SupportSet, TartClassificationPipeline


pytestmark = pytest.mark.core


ROWS = make_examples(12)
TEXTS = make_texts(5, seed=7)
NAMES = {"text_column": "body", "label_column": "topic"}

Columns = dict[str, list]


def rows_of(columns: Columns) -> list[dict]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def polars_frame(columns: Columns) -> Any:
    return pytest.importorskip("polars").DataFrame(columns)


def stream(columns: Columns) -> IterableDataset:
    return Dataset.from_dict(columns).to_iterable_dataset()


def stream_without_features(columns: Columns) -> IterableDataset:
    return IterableDataset.from_generator(lambda: iter(rows_of(columns)))


def write_jsonl(columns: Columns, path: Path) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(columns)))
    return path


def write_json(columns: Columns, path: Path) -> Path:
    path = path.with_suffix(".json")
    path.write_text(json.dumps(rows_of(columns)))
    return path


def write_csv(columns: Columns, path: Path) -> str:
    pandas.DataFrame(columns).to_csv(path.with_suffix(".csv"), index=False)
    return str(path.with_suffix(".csv"))


def write_tsv(columns: Columns, path: Path) -> Path:
    path = path.with_suffix(".tsv")
    pandas.DataFrame(columns).to_csv(path, index=False, sep="\t")
    return path


def write_parquet(columns: Columns, path: Path) -> Path:
    path = path.with_suffix(".parquet")
    Dataset.from_dict(columns).to_parquet(path)
    return path


FORMS: dict[str, Callable[[Columns], Any]] = {
    "dicts": rows_of,
    "generator of dicts": lambda columns: iter(rows_of(columns)),
    "columns": dict,
    "columns of Series": lambda columns: {name: pandas.Series(values) for name, values in columns.items()},
    "pandas": pandas.DataFrame,
    "pandas with an index": lambda columns: pandas.DataFrame(columns).set_index("id"),
    "pandas of Arrow": lambda columns: pandas.DataFrame(columns).convert_dtypes(dtype_backend="pyarrow"),
    "polars": polars_frame,
    "columns of polars": lambda columns: {name: polars_frame(columns)[name] for name in columns},
    "Arrow": pyarrow.table,
    "Arrow batch": lambda columns: pyarrow.RecordBatch.from_pydict(columns),
    "Dataset": Dataset.from_dict,
    "stream": stream,
    "stream without features": stream_without_features,
}
FILES: dict[str, Callable[[Columns, Path], Any]] = {
    "csv": write_csv, "tsv": write_tsv, "jsonl": write_jsonl, "json": write_json, "parquet": write_parquet,
}  # fmt: skip
SPLITS: dict[str, Callable[[Columns], Any]] = {
    "DatasetDict": lambda columns: DatasetDict(train=Dataset.from_dict(columns), test=Dataset.from_dict(columns)),
    "streams": lambda columns: IterableDatasetDict({"test": stream(columns), "train": stream(columns)}),
}


def make(form: str, columns: Columns, folder: Path) -> Any:
    if form in FILES:
        return FILES[form](columns, folder / "table")
    return {**FORMS, **SPLITS}[form](columns)


def assert_same(found: Iterable[dict], expected: list[dict]) -> None:
    """Compare answers of other batches."""
    found = list(found)
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in expected], abs=1e-5)


@pytest.fixture(scope="module")
def classify() -> TartClassificationPipeline:
    """A fitted pipeline; tests leave its support set as it is."""
    return make_pipeline(examples=ROWS)


@pytest.fixture(scope="module")
def expected(classify: TartClassificationPipeline) -> list[dict]:
    return classify(TEXTS)


@pytest.mark.parametrize("names", [{}, NAMES], ids=["usual", "named"])
@pytest.mark.parametrize("form", [*FORMS, *FILES, *SPLITS, "tuples", "Series", "polars Series"])
def test__table__of_every_form__same_answers(
    form: str, names: dict[str, str], classify: TartClassificationPipeline, expected: list[dict], tmp_path: Path
) -> None:
    text, label = names.get("text_column", "text"), names.get("label_column", "label")
    labels = [row["label"] for row in ROWS]
    inputs: Any
    if form == "tuples":
        examples, inputs = list(zip([row["text"] for row in ROWS], labels, strict=True)), tuple(TEXTS)
    elif form.endswith("Series"):
        series = pandas.Series if form == "Series" else pytest.importorskip("polars").Series
        examples = {text: series([row["text"] for row in ROWS]), label: series(labels)}
        inputs = series(TEXTS)
    else:
        columns = {"id": list(range(12)), text: [row["text"] for row in ROWS], label: labels}
        examples = make(form, columns, tmp_path)
        (tmp_path / "inputs").mkdir()
        inputs = make(form, {"id": list(range(5)), text: TEXTS, "more": ["x"] * 5}, tmp_path / "inputs")
        inputs = Path(inputs) if form in FILES else inputs
    again = make(form, columns, tmp_path) if form == "generator of dicts" else examples
    split = {"split": "test"} if form in SPLITS else {}
    assert list(classify(inputs, examples=examples, **names, **split)) == expected
    support = classify.model.encode_support(again, classify.tokenizer, **names)
    assert isinstance(support, SupportSet)
    assert list(classify(TEXTS, examples=support)) == expected


def test__pipeline__names_of_columns__those_of_later_examples_and_inputs(expected: list[dict]) -> None:
    frame = pandas.DataFrame(ROWS).rename(columns={"text": "body", "label": "topic"})
    classify = make_pipeline(examples=frame, **NAMES)
    body = pandas.DataFrame({"body": TEXTS, "text": "x"})
    assert classify(body) == expected
    assert classify(body.to_dict("records")) == expected
    assert_same([classify({"body": TEXTS[0], "id": 1})], expected[:1])
    assert classify(TEXTS) == expected
    classify.set_examples(frame.iloc[::-1])
    assert classify({"text": TEXTS, "id": [0] * 5}, text_column="text") == classify(TEXTS)
    with pytest.raises(ValueError, match=r"Input 1 has the keys \['text'\], without \['body'\]"):
        classify([{"body": "a"}, {"text": "a"}])
    explained = classify.explain(body, examples=frame)
    assert [row["label"] for row in explained] == [row["label"] for row in expected]


def test__pairs__named_column__read(classify: TartClassificationPipeline) -> None:
    pairs = [{"text": text, "text_pair": "w1 w2"} for text in TEXTS]
    frame = pandas.DataFrame({"one": TEXTS, "two": "w1 w2", "text_pair": "w9"})
    assert classify(frame, text_column="one", text_pair_column="two") == classify(pairs)
    with pytest.raises(ValueError, match=r"without \['pair'\]"):
        classify(frame, text_column="one", text_pair_column="pair")


@pytest.mark.parametrize(
    ("columns", "remedy"),
    [
        ({"sentence": "a", "category": 1, "id": 3}, 'text_column="sentence" and label_column="category" if these'),
        ({"Review Text": "a", "news_class": 1}, 'text_column="Review Text" and label_column="news_class" if these'),
        ({"kind": "x", "text": "a"}, 'give label_column="kind" if that is the column'),
        ({"a": "x", "b": "y", "text": "c"}, r"give label_column=\.\.\., or rename the columns"),
        ({"text_id": 1, "n": 2}, r"give text_column=\.\.\. and label_column=\.\.\., or rename"),
    ],
)
@pytest.mark.parametrize("form", ["dicts", "columns", "pandas", "polars", "Arrow", "Dataset", "stream", "jsonl"])
def test__examples__without_a_column__columns_listed_and_the_likely_one_proposed(
    columns: dict[str, Any], remedy: str, form: str, tmp_path: Path
) -> None:
    table = make(form, {name: [value] for name, value in columns.items()}, tmp_path)
    with pytest.raises(ValueError, match=remedy) as caught:
        compose().encode_support(table, build_tokenizer())
    assert f"{list(columns)}, without" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image_column": "x"}, TypeError, "no image_column for this model; .* by text_column, text_pair_column"),
        ({"text_column": 3}, TypeError, "text_column is 3 of type int; it must be a name"),
        ({"text_column": "label"}, ValueError, '"label" is read as another column already; give label_column'),
        ({"split": "train"}, ValueError, 'split is "train", but the examples have no splits; leave it out'),
    ],
)
def test__encode_support__wrong_option__clear_error(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compose().encode_support(ROWS, build_tokenizer(), **arguments)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ("absent.csv", "There is no file absent.csv"),
        ("a text", "The examples are str; give a list of"),
        (Path("table.xlsx"), "The examples are .*Path; give a list of"),
        (DatasetDict(dev=Dataset.from_list(ROWS)), r"splits \['dev'\]; choose one, for example split=\"dev\""),
    ],
)
def test__set_examples__no_table__clear_error(
    examples: Any, message: str, classify: TartClassificationPipeline
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        classify.set_examples(examples)


def test__splits__of_a_call__inputs_need_one_and_examples_take_train(
    classify: TartClassificationPipeline, expected: list[dict]
) -> None:
    other = Dataset.from_list(make_examples(12, seed=5))
    splits = DatasetDict(test=Dataset.from_dict({"text": TEXTS}), train=Dataset.from_list(ROWS), dev=other)
    assert classify(splits, examples=splits, split="test") == expected
    with pytest.raises(ValueError, match=r"The inputs are .* splits \['test', 'train', 'dev'\]; choose one"):
        classify(splits)
    with pytest.raises(ValueError, match=r"splits \['test', 'train', 'dev'\], without 'val'; choose one"):
        classify(splits, split="val")
    model, tokenizer = classify.model, classify.tokenizer
    found = model.encode_support(splits, tokenizer, split="dev").embeddings
    assert found.equal(model.encode_support(other, tokenizer).embeddings)


@pytest.fixture(params=[(False, True), (0, 1), (3, -20)], ids=str)
def labels(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return request.param


def test__labels__booleans_and_integers__as_given_after_saving_too(labels: tuple, tmp_path: Path) -> None:
    rows = [{**row, "label": labels[row["label"] == "spam"]} for row in ROWS]
    classify = make_pipeline(examples=rows)
    found = classify(TEXTS)
    assert {type(row["label"]) for row in found} == {type(labels[0])}
    assert {row["label"] for row in classify(TEXTS[0], top_k=None)} == set(labels)
    assert type(classify.explain(TEXTS[0])["examples"][0]["label"]) is type(labels[0])
    classify.model.save_pretrained(tmp_path, include_backbone=True)
    model = type(classify.model).from_pretrained(tmp_path)
    again = TartClassificationPipeline(model=model, tokenizer=classify.tokenizer)
    assert json.dumps(again(TEXTS)) == json.dumps(found)
    assert set(model.config.id2label.values()) == set(map(str, labels))
    assert classify(TEXTS, examples=ROWS)[0]["label"] in ("ham", "spam")


def test__labels__renamed__names() -> None:
    rows = [{**row, "label": row["label"] == "spam"} for row in ROWS]
    classify = make_pipeline(model=compose(id2label={0: "no", 1: "yes"}), examples=rows)
    assert {row["label"] for row in classify(TEXTS[0], top_k=None)} == {"no", "yes"}


def read_lazily() -> Iterator[dict]:
    yield {"body": TEXTS[0]}
    raise RuntimeError("read too early")


def test__generator_of_rows__named_column__read_in_windows(
    classify: TartClassificationPipeline, expected: list[dict]
) -> None:
    assert iter(classify(read_lazily(), text_column="body")) is not None
    rows = ({"body": text, "id": i} for i, text in enumerate(TEXTS))
    assert_same(classify(rows, text_column="body", batch_size=2), expected)
