"""Tables row by row: every format, what is damaged by file and line, and the rows before the damage."""

import gzip
import tracemalloc
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from transformers_tart.inputs.tables import FileTable, read_columns, read_rows


pytestmark = pytest.mark.core


WELL_FORMED: list[tuple[str, bytes, list]] = [
    ("bom.csv", b"\xef\xbb\xbftext,label\r\na,b\r\n", ["a"]),
    ("blank.csv", b"text\na\n\nb\n\n\n", ["a", "b"]),
    ("quoted.csv", b'text,label\n"a\r\nb,""c""",d\n', ['a\r\nb,"c"']),
    ("old.csv", b"text\ra\rb\r", ["a", "b"]),
    ("numbers.csv", b"text,n\n12,1\nNA,\n,2\n", ["12", "NA", ""]),
    ("long.csv", b"text\n" + b"x" * 200_000 + b"\n", ["x" * 200_000]),
    ("tabs.tsv", b'text\tlabel\na "b, c\td\n', ['a "b, c']),
    ("semicolons.csv", b'text;label\n"a; b, c";d\ne, f;g\n', ["a; b, c", "e, f"]),
    ("bom.jsonl", b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": null}\r\n\n', ["a", None]),
    ("kinds.jsonl", b'{"text": "a"}\n{"text": 5}\n{"text": ["b"]}\n', ["a", 5, ["b"]]),
    ("surrogate.jsonl", b'{"text": "a\\ud800b \\ud83d\\ude00"}\n', ["a\ufffdb \U0001f600"]),
    ("separator.jsonl", '{"text": "a\u2028b\x85c"}\n'.encode(), ["a\u2028b\x85c"]),
    ("array.json", b' [\n{"text": "a"},\n{"text": "b"}\n]\n', ["a", "b"]),
    ("lines.txt", b"\xef\xbb\xbfa\r\n\r\nb", ["a", "", "b"]),
    ("packed.jsonl.gz", gzip.compress(b'{"text": "a"}\n'), ["a"]),
    *((f"nothing.{ending}", b"", []) for ending in ("csv", "tsv", "json", "jsonl", "parquet", "txt")),
    ("header.csv", b"text,label\n", []),
    ("blank.jsonl", b"\n\n", []),
    ("array.jsonl", b"[]", []),
]
DAMAGED: list[tuple[str, bytes, list]] = [
    ("few.csv", b"text,label\na,b\nc\n", ["a", "Line 3 of few.csv has 1 cells, but the header has 2"]),
    ("many.csv", b'text,label\n"a\nb",c\nd,e,f\n', ["a\nb", "Line 4 of many.csv has 3 cells"]),
    ("open.csv", b'text,label\na,b\n"c,d\ne,f\n', ["a", "The row that begins in line 3 of open.csv"]),
    ("twice.csv", b"text,text\na,b\n", ["Line 1 of twice.csv names the columns ['text'] more than once"]),
    ("latin.csv", b"text\na\n\xe9\n", ["a", "Line 3 of latin.csv is not UTF-8"]),
    ("latin.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', ["a", "Line 2 of latin.jsonl is not UTF-8"]),
    ("latin.txt", b"a\n\xe9\n", ["a", "Line 2 of latin.txt is not UTF-8"]),
    ("wide.txt", "äö".encode("utf-16"), ["Line 1 of wide.txt is not UTF-8"]),
    ("odd.jsonl", b'{"text": "a"}\n\n{"text": "b"\n', ["a", "Line 3 of odd.jsonl is not JSON"]),
    ("list.jsonl", b'{"text": "a"}\n"b"\n', ["a", "Line 2 of list.jsonl is str in JSON"]),
    ("deep.jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", ["Line 1 of deep.jsonl cannot be read as JSON"]),
    ("long.jsonl", b'{"text": ' + b"1" * 5000 + b"}\n", ["Line 1 of long.jsonl cannot be read as JSON"]),
    ("odd.json", b'[\n{"text": "a"},\n{"text"}\n]', ["Line 3 of odd.json is not JSON"]),
    ("numbers.json", b"[1]", ["Item 0 of the array in numbers.json is int"]),
    ("cut.jsonl.gz", gzip.compress(b'{"text": "a"}\n')[:-4], ["a", "cut.jsonl.gz is damaged"]),
    ("plain.jsonl.gz", b'{"text": "a"}\n', ["plain.jsonl.gz is damaged"]),
    ("odd.parquet", b"PAR1" + b"x" * 600 + b"PAR1", ["odd.parquet cannot be read as a parquet file"]),
]


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def read(path: str) -> list:
    """The texts of a table, and the message of the error that ends it."""
    found: list = []
    try:
        found.extend(row["text"] for row in read_rows(path))
    except ValueError as err:
        found.append(str(err).replace(str(Path(path).parent) + "/", ""))
    return found


@pytest.mark.parametrize(("name", "content", "expected"), WELL_FORMED, ids=[case[0] for case in WELL_FORMED])
def test__read_rows__well_formed__texts_as_written(name: str, content: bytes, expected: list, tmp_path: Path) -> None:
    assert read(write(tmp_path / name, content)) == expected


@pytest.mark.parametrize(("name", "content", "expected"), DAMAGED, ids=[case[0] for case in DAMAGED])
def test__read_rows__damaged__rows_before_and_then_file_and_line(
    name: str, content: bytes, expected: list, tmp_path: Path
) -> None:
    found = read(write(tmp_path / name, content))
    assert len(found) == len(expected)
    assert found[:-1] == expected[:-1]
    assert found[-1].startswith(expected[-1])


def test__read_rows__parquet__as_stored(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    Dataset.from_dict({"text": ["a", None] * 300, "label": [0, 1] * 300}).to_parquet(path)
    assert read(path) == ["a", None] * 300
    assert read_columns(path) == ["text", "label"]


@pytest.mark.slow
def test__read_rows__long_file__in_little_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "a few words of some text"}\n' * 100_000)
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path)) == 100_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"text,label\n", ["text", "label"]),
        ("a.jsonl", b'{"id": 1}\n{"text": "a"}\n{broken\n', ["id", "text"]),
        ("b.jsonl", b"", None),
    ],
)
def test__read_columns__each_format__of_header_or_rows(
    name: str, content: bytes, expected: list[str] | None, tmp_path: Path
) -> None:
    assert read_columns(write(tmp_path / name, content)) == expected


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.parquet.gz"])
def test__read_columns__not_packed__error_names_the_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} is damaged: Not a gzipped file"):
        read_columns(write(tmp_path / name, b"text,label\n"))


def test__file_table__parquet__names_of_classes(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["ham", "spam"])})
    Dataset.from_dict({"text": ["a"], "label": [1]}, features=features).to_parquet(tmp_path / "a.parquet")
    table = FileTable(str(tmp_path / "a.parquet"))
    assert table.features is not None
    assert table.features["label"].names == ["ham", "spam"]
    assert list(table) == [{"text": "a", "label": 1}]
