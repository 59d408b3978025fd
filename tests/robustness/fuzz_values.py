"""Cases of the fuzz of inputs, and odd values for any argument."""

# ruff: noqa: E501 (tables of cases)

import enum
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy
import pandas
import pyarrow
import torch


class Case(NamedTuple):
    """One input and what may come of it.

    Attributes:
        name: what is tried.
        thunk: tries it.
        check: whether a result is a right one; without it there must be an error.
        mention: a pattern that the message of an error must contain.
        may_refuse: whether an error will do where there is a check.
    """

    name: str
    thunk: Callable[[], Any]
    check: Callable[[Any], bool] | None = None
    mention: str = ""
    may_refuse: bool = False


class Group(NamedTuple):
    """Cases that try one object, and a good call of it, whose answer none of them may change."""

    name: str
    cases: Callable[[], Iterator[Case]]
    good: Callable[[], Any]


class Word(enum.Enum):
    """An enum that nothing knows."""

    ONE = "one"


class Loud:
    """Raises in whatever is asked of it."""

    def __bool__(self) -> bool:
        raise RuntimeError("no truth in this")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison with this")

    def __len__(self) -> int:
        raise RuntimeError("no length of this")

    def __repr__(self) -> str:
        return "Loud()"

    __hash__ = None  # type: ignore[assignment]


# By name: of no kind that any argument takes, unless a case says otherwise.
ODD: dict[str, Any] = {
    "0": 0, "-1": -1, "1e400": 10**400, "-1e400": -(10**400), "2.5": 2.5, "nan": math.nan, "-inf": -math.inf,
    "fraction": Fraction(7, 2), "complex": 1j, "empty text": "", "text": "nonsense", "NUL": "a\0b",
    "surrogate": "\ud800", "long text": "x" * 100_000, "bytes": b"a", "bytearray": bytearray(b"a"),
    "empty list": [], "list": [1, 2], "list of None": [None], "nested list": [[["a"]]], "tuple": (1, "a"),
    "set": {1}, "dict": {"a": 1}, "dict of None": {None: None}, "range": range(3), "object": object(), "class": int,
    "function": math.sqrt, "module": math, "ellipsis": ..., "enum": Word.ONE, "loud": Loud(),
    "numpy number": numpy.float32(0.5), "numpy array": numpy.arange(3.0), "numpy empty": numpy.array([]),
    "numpy scalar array": numpy.array(7.5), "numpy objects": numpy.array([None, "a"], dtype=object),
    "datetime": numpy.datetime64("2020-01-01"), "Series": pandas.Series([1.5, None]), "NA": pandas.NA,
    "NaT": pandas.NaT, "DataFrame": pandas.DataFrame({"a": [1]}), "empty DataFrame": pandas.DataFrame({"a": []}),
    "arrow array": pyarrow.array([1, None]), "arrow table": pyarrow.table({"a": [1]}), "arrow scalar": pyarrow.scalar(1),
    "tensor": torch.zeros(2), "scalar tensor": torch.tensor(0.5), "meta tensor": torch.zeros(2, device="meta"),
    "dtype": torch.float32, "device": torch.device("meta"), "layer": torch.nn.Linear(2, 2),
}  # fmt: skip


def refused(name: str, attempt: Callable[[Any], Any], names: str = "", mention: str = "", **others: Any) -> Iterator:
    """Yield a case for each odd value, or for those of some names, and for others: all must be refused."""
    chosen = ODD if not names else {key: ODD[key] for key in names.split(", ")}
    for key, value in {**chosen, **others}.items():
        yield Case(f"{name}: {key}", lambda value=value: attempt(value), mention=mention)


def without(*names: str) -> str:
    """The names of all odd values but some."""
    return ", ".join(key for key in ODD if key not in names)


def equals(expected: Any) -> Callable[[Any], bool]:
    """A check that an answer is the expected one."""
    return lambda found: are_equal(found, expected)


def are_equal(found: Any, expected: Any) -> bool:
    """Whether answers are equal but for rounding."""
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and list(found) == list(expected)
            and are_equal([*found.values()], [*expected.values()])
        )
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(are_equal, found, expected))
    if isinstance(expected, torch.Tensor):
        return found.shape == expected.shape and torch.allclose(found.float(), expected.float(), atol=1e-4)
    return bool(abs(found - expected) < 1e-4) if isinstance(expected, float) else bool(found == expected)


def is_answer(found: Any) -> bool:
    """Whether these are answers of a pipeline for a legitimate input."""
    rows = found if isinstance(found, list) else [found]
    return all(isinstance(row["label"], str) and 0 <= row["score"] <= 1 for row in rows)


def is_likely(logits: torch.Tensor) -> bool:
    """Whether logits give finite probabilities that sum to one."""
    total = torch.softmax(logits.float(), -1).sum(-1)
    return bool(logits.isfinite().all()) and torch.allclose(total, torch.ones_like(total))
