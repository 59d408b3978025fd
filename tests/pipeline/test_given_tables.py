"""Examples and queries in tables: pandas, Arrow, datasets, arrays and streams; what is none is a clear error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from helpers.builders import build_tokenizer, make_examples, make_pipeline, make_texts
from helpers.media_backbones import make_media, make_media_examples, processor_of, shared_media
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from transformers_tart import TartClassificationPipeline
from transformers_tart.inputs.examples import parse_examples
from transformers_tart.inputs.texts import parse_text


pytestmark = pytest.mark.core


TEXTS = make_texts(4, seed=7)
COLUMNS = {"text": TEXTS, "label": ["x", "y", "x", "y"], "id": [1, 2, 3, 4]}


class Frame:
    """A frame of another library: columns, their types, and a column by its name."""

    def __init__(self, columns: dict[str, list]):
        self.given = columns

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.given)

    @property
    def dtypes(self) -> list[type]:
        """Their types."""
        return [object for _ in self.given]

    def __getitem__(self, name: str) -> list:
        return self.given[name]

    def __len__(self) -> int:
        return len(self.given["text"])


TABLES: dict[str, Callable[[dict], Any]] = {
    "pandas": pandas.DataFrame,
    "pandas_arrow": lambda columns: pandas.DataFrame(columns).convert_dtypes(dtype_backend="pyarrow"),
    "pandas_index": lambda columns: pandas.DataFrame(columns, index=[9, 9, 3, 1]),
    "arrow": pyarrow.table,
    "batch": lambda columns: pyarrow.RecordBatch.from_pydict(columns),
    "dataset": Dataset.from_dict,
    "frame": Frame,
}


@pytest.fixture(scope="module")
def classify() -> TartClassificationPipeline:
    """A fitted pipeline; tests leave its support set as it is."""
    return make_pipeline()


@pytest.mark.parametrize("kind", TABLES)
def test__examples__table__as_rows(kind: str) -> None:
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, COLUMNS["label"], strict=True)]
    assert parse_examples(TABLES[kind](COLUMNS)) == parse_examples(rows)


@pytest.mark.parametrize("kind", TABLES)
def test__call__table__its_rows(kind: str, classify: TartClassificationPipeline) -> None:
    assert classify(TABLES[kind](COLUMNS)) == classify(TEXTS)
    pairs = {"text": TEXTS, "text_pair": [*TEXTS[:2], None, TEXTS[3]], "label": [0, 0, 0, 0]}
    expected = [{"text": a, "text_pair": b} for a, b in zip(TEXTS, pairs["text_pair"], strict=True)]
    assert classify(TABLES[kind](pairs)) == classify(expected)


@pytest.mark.parametrize("kind", TABLES)
def test__table__without_the_column__lists_the_columns(kind: str, classify: TartClassificationPipeline) -> None:
    table = TABLES[kind]({"sentence": TEXTS, "category": COLUMNS["label"], "text_id": TEXTS})
    with pytest.raises(ValueError, match=r"columns \['sentence', 'category', 'text_id'\], without \['text'\]"):
        classify(table)
    with pytest.raises(ValueError, match=r"\['sentence', 'category', 'text_id'\], without \['text', 'label'\]"):
        parse_examples(table)


def test__call__name_of_a_table__asks_for_a_path(
    classify: TartClassificationPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert classify("new.csv")["label"]
    Path("new.csv").write_text("text\na\n", encoding="utf-8")
    with pytest.raises(ValueError, match="name of a table; give it as Path"):
        classify("new.csv")
    assert len(classify(["new.csv"])) == len(classify(Path("new.csv"))) == 1


def test__examples__labels_that_differ_by_spaces__value_error() -> None:
    with pytest.raises(ValueError, match="'ham' and 'ham ' differ by spaces alone"):
        parse_examples([("a", "ham "), ("b", "ham"), ("c", "spam")])


@pytest.mark.parametrize(
    "make",
    [
        tuple,
        numpy.array,
        pandas.Series,
        pandas.Index,
        pyarrow.array,
        lambda texts: pyarrow.chunked_array([texts[:1], texts[1:]]),
        lambda texts: numpy.array(texts, dtype=object),
        lambda texts: Dataset.from_dict({"text": texts})["text"],
        lambda texts: dict.fromkeys(texts).keys(),
    ],
)
def test__call__column_of_texts__a_list(make: Callable, classify: TartClassificationPipeline) -> None:
    assert classify(make(TEXTS)) == classify(TEXTS)


def test__call__streams__as_lists(classify: TartClassificationPipeline) -> None:
    expected = classify(TEXTS)
    rows = Dataset.from_dict(COLUMNS)
    for stream in (iter(TEXTS), (text for text in TEXTS), KeyDataset(rows, "text"), rows.to_iterable_dataset()):
        assert list(classify(stream)) == expected


@pytest.mark.parametrize("make", [list, tuple, pandas.DataFrame, pandas.Series, numpy.array, iter])
def test__call__nothing__nothing(make: Callable, classify: TartClassificationPipeline) -> None:
    empty = make({"text": []}) if make is pandas.DataFrame else make([])
    assert list(classify(empty)) == []
    assert classify(pandas.DataFrame()) == []
    assert classify(numpy.array("w1")) == classify("w1")


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (DatasetDict({"train": Dataset.from_dict(COLUMNS)}), ValueError, r"splits \['train'\]; choose one"),
        (set(TEXTS), TypeError, "a set, which has no order"),
        ([TEXTS[:2], TEXTS[2:]], TypeError, 'Input 0 is list; a text must be a string. Of a pair give {"text"'),
        ([("a", "b")], TypeError, "Input 0 is tuple; a text must be a string. Of a pair"),
        (numpy.array([["a", "b"]]), TypeError, "Input 0 is ndarray"),
        (torch.zeros(3), TypeError, "Input 0 is Tensor"),
        ([b"a"], TypeError, "Input 0 is bytes"),
        ([{"text": TEXTS}], TypeError, "Input 0 is list"),
        ({"role": "user", "content": "a"}, ValueError, r"The input has the keys \['role', 'content'\]"),
        ([{"role": "user", "content": "a"}], ValueError, r"Input 0 has the keys \['role', 'content'\]"),
        (pandas.DataFrame({"text": ["a", None]}), TypeError, r"Input 1 is float \(nan\); a text must be a string"),
        (pandas.array(["a", None], dtype="string"), TypeError, r"Input 1 is NAType \(<NA>\); a text must be"),
        (bytearray(b"ab"), TypeError, "The input is bytearray; give a text"),
        (pandas.DataFrame([["a", "b"]], columns=["text", "text"]), ValueError, "Several columns .* have one name"),
        (torch.utils.data.DataLoader(TEXTS, batch_size=2), TypeError, "Input 0 is list"),
    ],
)
def test__call__no_texts__clear_error(
    inputs: object, error: type[Exception], message: str, classify: TartClassificationPipeline
) -> None:
    with pytest.raises(error, match=message):
        list(classify(inputs))


def test__call__table_without_rows_in_memory__says_to_collect(classify: TartClassificationPipeline) -> None:
    lazy = Frame({"text": TEXTS})
    lazy.collect = lambda: None
    with pytest.raises(TypeError, match=r"A Frame holds no rows yet; give its result: .collect\(\)"):
        classify(lazy)


def test__examples__splits__listed() -> None:
    rows = Dataset.from_dict(COLUMNS)
    streams = IterableDatasetDict({"dev": rows.to_iterable_dataset(), "test": rows.to_iterable_dataset()})
    for splits in (DatasetDict(dev=rows, test=rows), streams):
        with pytest.raises(ValueError, match=r"dataset splits \['dev', 'test'\]; choose one"):
            parse_examples(splits)


def test__examples__stream_without_features__columns_found() -> None:
    stream = IterableDataset.from_generator(lambda: iter([{"sentence": "a"}]))
    with pytest.raises(ValueError, match=r"columns \['sentence'\], without \['text', 'label'\]"):
        parse_examples(stream)


def test__examples__generator_of_rows__read() -> None:
    rows = make_examples(6)
    assert parse_examples(row for row in rows) == parse_examples(rows)


def test__examples__rows_of_a_frame_without_a_pair__single() -> None:
    frame = pandas.DataFrame({"text": ["a", "b"], "text_pair": ["c", None], "label": [0, 1]})
    assert parse_examples(frame).inputs == [("a", "c"), "b"]


@pytest.mark.parametrize("text", ["a\ud800b", "\udfff", "x \ud83dz"])
def test__texts__lone_surrogates__replaced(text: str, classify: TartClassificationPipeline) -> None:
    clean = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    assert parse_text(text, "It") == clean
    assert parse_text({"text": "a", "text_pair": text}, "It") == ("a", clean)
    assert parse_text("\ud83d\ude42", "It") == "🙂"
    assert classify([text, {"text": "w1", "text_pair": text}]) == classify([clean, {"text": "w1", "text_pair": clean}])
    rows = [*make_examples(4), {"text": text, "label": "ham"}]
    assert parse_examples(rows).inputs[-1] == clean
    assert make_pipeline(examples=rows, tokenizer=build_tokenizer())("w1")["label"] in ("ham", "spam")


@pytest.fixture(scope="module", params=["vit", "wav2vec2"])
def media(request: pytest.FixtureRequest) -> TartClassificationPipeline:
    """A fitted pipeline of images and one of audio."""
    kind = {"vit": "image", "wav2vec2": "audio"}[request.param]
    processor = {"image_processor" if kind == "image" else "feature_extractor": processor_of(request.param)}
    return pipeline(
        "tart-classification", model=shared_media(request.param), examples=make_media_examples(kind), **processor
    )


@pytest.mark.parametrize(
    "numbers", [[0.1] * 4000, [1] * 9, [[0.1, 0.2], [0.3]], [[[0, 0], [0, 0]]], (0.5,), [numpy.float32(0.5)]]
)
def test__media__list_of_numbers__says_to_give_an_array(numbers: Any, media: TartClassificationPipeline) -> None:
    with pytest.raises(TypeError, match=r"give the numbers of one (image|audio) input as an array: numpy.asarray\("):
        media(numbers)


def test__media__table__its_column(media: TartClassificationPipeline) -> None:
    kind = media.model.config.modality
    items = make_media(kind, 3)
    frame = pandas.DataFrame({kind: pandas.Series(items, dtype=object), "id": [1, 2, 3]})
    assert media(frame) == media(items)
    assert media(frame[kind]) == media(items)
    with pytest.raises(ValueError, match=rf"columns \['id'\], without \['{kind}'\]"):
        media(frame[["id"]])
    with pytest.raises(TypeError, match="is a single str"):
        media.set_examples({kind: "a.png", "label": "cat"})
