"""Bounds of values in files, checked before memory is allocated or a model is built.

They are far above the needs of any working model; they keep a damaged or hostile file from exhausting the memory.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from transformers_tart.checks.arguments import shorten


MAX_JSON_BYTES = 2**26
MAX_JSON_CONTAINERS = 2**21
MAX_JSON_DEPTH = 64
MAX_CLASSES = 2**18
MAX_LABEL_NAME = 2**16  # characters, as everything that is named or written
MAX_TEMPLATE = 2**20
MAX_PATH = 2**10
MAX_TOKENS = 2**24  # of a prompt
MAX_TOKEN_ID = 2**31 - 1
MAX_INTEGER = 2**31 - 1
MAX_WIDTH = 2**16  # of tokens, heads and MLPs of a reasoner
MAX_LAYERS = 2**10
MAX_HEADS = 2**12
MAX_POSITIONS = 2**20
MAX_SUPPORT = 2**24
MAX_ORDERS = 2**10
DTYPES = ("float16", "bfloat16", "float32", "float64")
# Fields by which transformers reads other files or code, which no config of this package needs.
UNWANTED = {"quantization_config", "transformers_weights"}
CODE_FIELDS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
MAX_SMOOTHERS = 2**12
MAX_FILES = 2**12
CHECKED_FILE, SHA256 = re.compile(r"(model[\w.-]*|support)\.safetensors"), re.compile(r"[0-9a-f]{64}")


def check_integer(field: str, value: Any, low: int, high: int) -> None:
    """Raise a ValueError that names a field, unless its value is an integer within bounds."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{field} is {shorten(value)}; it must be an integer from {low} to {high}.")


def check_numbers(field: str, values: Any, low: float, limit: int) -> None:
    """Raise a ValueError that names a field, unless it holds at most `limit` finite numbers of at least `low`."""
    is_list = isinstance(values, list | tuple) and 0 < len(values) <= limit
    if not is_list or any(not _is_finite(value) or value < low for value in values):
        raise ValueError(
            f"{field} is {shorten(values)}; it must be a list of 1 to {limit} finite numbers of at least {low}."
        )


def check_finite(field: str, value: Any, low: float) -> None:
    """Raise a ValueError that names a field, unless its value is a finite number of at least a bound."""
    if not _is_finite(value) or value < low:
        raise ValueError(f"{field} is {shorten(value)}; it must be a finite number of at least {low}.")


def check_fields(kind: type, dtype: Any, others: Mapping[str, Any]) -> None:
    """Raise a ValueError that names a field of a config's JSON object that would break the config.

    Args:
        kind: class of the config.
        dtype: its field of that name.
        others: unknown fields, which become attributes.
    """
    if isinstance(dtype, str) and dtype not in DTYPES:
        raise ValueError(f"dtype is {shorten(dtype)}; it must be one of {DTYPES}.")
    methods = sorted(name for name in others if name.startswith("__") or callable(getattr(kind, name, None)))
    if methods:
        raise ValueError(f"{shorten(methods[0])} is no field of a {kind.__name__}.")
    wrong = sorted(name for name in UNWANTED if others.get(name) is not None)
    if wrong:
        raise ValueError(f"{wrong[0]} is no field of a {kind.__name__}, whose weights are plain safetensors.")
    named = sorted(name for name in CODE_FIELDS if "/" in str(others.get(name)))
    if named:
        raise ValueError(f"{named[0]} is {shorten(others[named[0]])}, code of another repository, which is not run.")


def check_checksums(field: str, sums: Mapping[str, str] | None) -> None:
    """Raise a ValueError unless a field of a config is absent, or holds checksums by names of files."""
    entries = () if sums is None else sums.items()
    if len(entries) > MAX_FILES or not all(CHECKED_FILE.fullmatch(k) and SHA256.fullmatch(v) for k, v in entries):
        raise ValueError(
            f"{field} must hold 64 hexadecimal digits for each of model*.safetensors and support.safetensors; correct "
            "or delete it."
        )


def check_inside(field: str, path: Any) -> str:
    """Return a path inside a repository, with `/` between its parts, or raise a ValueError where it may leave it."""
    parts = PurePosixPath(path).parts if isinstance(path, str) else ()
    is_odd = not isinstance(path, str) or len(path) > MAX_PATH or not path.isprintable()
    if is_odd or path.startswith(("/", "~")) or ".." in parts or "\\" in path or ":" in path:
        raise ValueError(
            f"{field} names the path {shorten(path)}; it must be a file or folder inside the repository. Correct the "
            "file, or use another repository."
        )
    return "/".join(parts)


def parse_json(text: str, name: str) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: When it is not JSON, too long, or nested too deep; the message begins with `name`.
    """
    if len(text) > MAX_JSON_BYTES or text.count("[") + text.count("{") > MAX_JSON_CONTAINERS:
        raise ValueError(f"{name} is JSON of {len(text)} characters, more than is read.")
    try:
        found = json.loads(text)
    except RecursionError as err:
        raise ValueError(f"{name} is JSON nested deeper than {MAX_JSON_DEPTH}.") from err
    except ValueError as err:
        raise ValueError(f"{name} is no valid JSON: {err}") from err
    level = [found]
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [
            child
            for each in level
            if isinstance(each, (dict, list))
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return found
    raise ValueError(f"{name} is JSON nested deeper than {MAX_JSON_DEPTH}.")


def read_object(path: str | os.PathLike, name: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ValueError: When there is none, or it is too large or nested too deep; the message begins with `name`.
    """
    path = Path(path)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{name} has {path.stat().st_size} bytes, more than is read.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise ValueError(f"{name} is no text in UTF-8: {err}") from err
    found = parse_json(text, name)
    if not isinstance(found, dict):
        raise ValueError(f"{name} holds {shorten(found)}, and no JSON object.")
    return found


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < MAX_INTEGER and math.isfinite(value)
