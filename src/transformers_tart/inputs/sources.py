"""Sources of images and audio: files, URLs, bytes, tensors, and rows of `datasets`."""

import base64
import binascii
import errno
import os
import re
from collections.abc import Mapping

import numpy as np
import torch
from huggingface_hub.utils import httpx


BYTES = (bytes, bytearray, memoryview)


URLS = ("http://", "https://")


def to_numpy(array: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return a tensor of any device and float type as an array; an array as it is."""
    if isinstance(array, np.ndarray):
        return array
    if array.device.type == "meta":
        raise ValueError("A tensor on the device meta holds no values; give one that does.")
    array = array.detach().cpu()
    return (array.float() if array.dtype == torch.bfloat16 else array).numpy()


def unwrap(value: object, where: str, kind: str) -> object:
    """Return the value of `{kind: value}`, and the bytes or else the path of an undecoded row of `datasets`."""
    if isinstance(value, Mapping) and set(value) == {kind}:
        value = value[kind]
    if not isinstance(value, Mapping):
        return value
    if not value or not set(value) <= {"bytes", "path"}:
        raise ValueError(
            f'{where} has the keys {sorted(map(str, value))}; give "{kind}" alone, or "bytes" or "path" or both.'
        )
    found = value.get("path") if value.get("bytes") is None else value["bytes"]
    if found is None:
        raise ValueError(f"{where} has neither bytes nor a path; leave it out or give one of them.")
    return found


def read_file(source: str | os.PathLike, where: str, timeout: float | None = None) -> bytes:
    """Return the content of a file, by its path, its http(s) URL or as a base64 data URL."""
    name = os.fspath(source)
    if isinstance(source, str) and source[:8].lower().startswith(URLS):
        return _fetch(source, where, timeout)
    if isinstance(source, str) and source.startswith("data:"):
        try:
            return base64.b64decode(source.partition(",")[2])
        except (binascii.Error, ValueError) as err:
            raise ValueError(f"{where} is a data URL that is not base64; give the bytes of the file instead.") from err
    # a text given by mistake is not repeated, for messages are logged; a path is a word or ends as files do
    quoted = f" {name!r}" if not isinstance(source, str) or re.fullmatch(r"\S{,255}|.{,250}\.\w{1,5}", source) else ""
    try:
        if os.path.exists(source) and not os.path.isfile(source):  # a device or a pipe may have no end
            raise OSError(errno.EINVAL, "it is no regular file")
        with open(source, "rb") as file:
            return file.read()
    except (OSError, ValueError) as err:  # ValueError: a character that no path may have
        if isinstance(err, OSError) and err.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise OSError(f"{where} cannot be read from{quoted}: {err.strerror}; give a readable file.") from err
        raise FileNotFoundError(f"{where} is not at the path{quoted}: there is no such file; check the path.") from err


def _fetch(url: str, where: str, timeout: float | None) -> bytes:
    try:
        response = httpx.get(url, timeout=timeout, follow_redirects=True)
        response.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as err:  # UnicodeError: a host name no host may have
        raise OSError(
            f"{where} cannot be fetched from its URL ({type(err).__name__}); check it, or give a file."
        ) from err
    return response.content
