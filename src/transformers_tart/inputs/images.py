"""Images in any form as RGB."""

import base64
import binascii
import os
import struct
import zlib
from io import BytesIO
from typing import TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch

from transformers_tart.inputs.sources import BYTES, read_file, to_numpy, unwrap


Image: TypeAlias = PIL.Image.Image

FORMS = (
    "a path, a URL, a base64 string, the bytes of an image file, a PIL image, a numpy array, a torch tensor or "
    '{"bytes": ..., "path": ...}'
)
SHAPES = "(h, w), (h, w, channels) or (channels, h, w) with 1, 3 or 4 channels"
CHANNELS = (1, 3, 4)
# Errors of Pillow's decoders on a broken file.
BROKEN: tuple[type[Exception], ...] = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, EOFError),
    *(struct.error, zlib.error),
)
# Values that may be white in PIL modes wider than 8 bits: the least that no value of the image exceeds.
WHITE = {"I": (255, 65535), "F": (1, 255)}
LONGEST_PATH = 4096
ROUNDING = 1e-3  # by how much floats may leave [0, 1], as after a resize; it is less than half a level


def read_image(value: object, where: str, timeout: float | None = None) -> Image:
    """Read an image as RGB, fully loaded, without changing the input.

    The EXIF orientation is applied. Transparency is dropped, as by `PIL.Image.Image.convert` and
    `transformers.image_utils.load_image`. Of an animation the first frame is read.

    Args:
        value (`str`, `Path`, `bytes`, `PIL.Image.Image`, `numpy.ndarray`, `torch.Tensor` or `dict`):
            A path, an http(s) URL, a base64 string or data URL, or the bytes of an encoded file; a PIL image of any
            mode; an array of shape (h, w), (h, w, channels) or (channels, h, w) with 1, 3 or 4 channels, of booleans,
            of integers in 0..255 or of floats in [0, 1]; a row of the `Image` column of a `datasets.Dataset`, decoded
            or not; or a dict of one of these under `image`. Where both the first and the last axis may be the
            channels, the last is.
        where (`str`):
            The place of the image, such as "Input 3"; errors begin with it.
        timeout (`float`, *optional*):
            Seconds to wait for a URL; without limit when not given.

    Raises:
        ValueError: On files that are not images, broken or too large, arrays without pixels or of other shapes and
            ranges, and dicts with other keys.
        TypeError: On anything else.
        OSError: When a file or URL cannot be read; `FileNotFoundError` when there is no file.
    """
    value = unwrap(value, where, "image")
    if isinstance(value, (str, os.PathLike)):
        encoded = _from_base64(value) if isinstance(value, str) else None
        value = read_file(value, where, timeout) if encoded is None else encoded
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return _from_array(to_numpy(value), where)
    if isinstance(value, (*BYTES, PIL.Image.Image)):
        return _to_rgb(value if isinstance(value, PIL.Image.Image) else bytes(value), where)
    raise TypeError(f"{where} is {type(value).__name__}; an image must be {FORMS}.")


def _from_base64(text: str) -> bytes | None:
    """Return the image file in a base64 string, `None` for another string: some paths are base64 too."""
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(text) > LONGEST_PATH:
        return data
    try:
        PIL.Image.open(BytesIO(data)).close()
    except PIL.Image.DecompressionBombError:
        return data
    except BROKEN:
        return None
    return data


def _to_rgb(source: bytes | Image, where: str) -> Image:
    if isinstance(source, bytes) and not source:
        raise ValueError(f"{where} is an empty file; leave it out or replace it.")
    try:
        image = PIL.Image.open(BytesIO(source)) if isinstance(source, bytes) else source
        image.load()
        image = PIL.ImageOps.exif_transpose(image)
    except PIL.Image.DecompressionBombError as err:
        raise ValueError(
            f"{where} has more pixels than Pillow takes from a file; make it smaller, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        ) from err
    except BROKEN as err:
        raise ValueError(
            f"{where} is no image that Pillow can read: its file is broken, cut short or of another kind; give a file "
            "that an image viewer opens, such as PNG or JPEG."
        ) from err
    if 0 in image.size:
        raise ValueError(f"{where} is an image of the size {image.size}, without pixels; leave it out.")
    if image.mode in WHITE or image.mode.startswith("I;"):
        image = _narrow(image, where)
    if image.mode == "La":  # Pillow has no conversion from it to RGB
        image = image.convert("LA")
    return image.convert("RGB")


def _narrow(image: Image, where: str) -> Image:
    """Return a gray image of 8 bits from one of more, which `convert` would clip."""
    values = np.asarray(image, dtype=np.float64)
    fits = [white for white in WHITE.get(image.mode, (65535,)) if values.min() >= 0 and values.max() <= white]
    if not fits:
        raise ValueError(
            f"{where} is an image of mode {image.mode} with values that are NaN, negative or above "
            f"{WHITE[image.mode][-1]}; scale them to 0..255 and convert it to mode L."
        )
    return PIL.Image.fromarray(np.rint(values * (255 / fits[0])).astype(np.uint8))


def _from_array(array: np.ndarray, where: str) -> Image:
    if array.size == 0:
        raise ValueError(f"{where} has the shape {array.shape}, without pixels; leave it out.")
    if array.ndim == 3 and array.shape[-1] not in CHANNELS and array.shape[0] in CHANNELS:
        array = np.moveaxis(array, 0, -1)
    elif array.ndim != 2 and not (array.ndim == 3 and array.shape[-1] in CHANNELS):
        raise ValueError(f"{where} has the shape {array.shape}; an image must be {SHAPES}, one at a time.")
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return PIL.Image.fromarray(np.ascontiguousarray(_to_levels(array, where))).convert("RGB")


def _to_levels(array: np.ndarray, where: str) -> np.ndarray:
    kind = array.dtype.kind
    if kind == "b":
        return array.astype(np.uint8) * 255
    if kind not in "iuf":
        raise TypeError(f"{where} has values of the type {array.dtype}; they must be integers, floats or booleans.")
    low, high = array.min(), array.max()
    if kind in "iu":
        if low < 0 or high > 255:
            raise ValueError(
                f"{where} has integers from {low} to {high}; they must be in 0..255: divide 16 bit values by 257."
            )
        return array.astype(np.uint8)
    if not np.isfinite(array).all():
        raise ValueError(f"{where} has values that are NaN or infinite; replace them, for example by 0.")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(
            f"{where} has floats from {low:.4g} to {high:.4g}; they must be in [0, 1]: divide by 255, or undo the "
            "normalization of an image processor."
        )
    return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
