"""Recordings in any form as mono waveforms at one sampling rate."""

import math
import numbers
import os
import wave
from collections.abc import Mapping
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch

from transformers_tart.inputs.sources import BYTES, read_file, to_numpy, unwrap


FORMS = (
    "a path, a URL, the bytes of a wav, flac, ogg or mp3 file, a numpy array or torch tensor of samples, "
    '{"array": ..., "sampling_rate": ...}, {"bytes": ..., "path": ...} or a torchcodec AudioDecoder'
)
# Lossy codecs decode to a little more than 1, and so do mixes; integers written as floats go to hundreds at once.
LARGEST_FLOAT = 2.0
MOST_CHANNELS = 8  # 7.1 surround; an array of more rows is probably a batch of recordings
HIGHEST_RATE = 1_000_000  # ultrasound; filters for odd rates above it would fill the memory
FRAMES_PER_BLOCK = 1 << 20


class Waveform(NamedTuple):
    """A mono recording.

    Attributes:
        samples: (n,) float32 in [-1, 1], or a little outside, as lossy codecs and mixes are.
        sampling_rate: samples per second.
    """

    samples: np.ndarray
    sampling_rate: int


def read_audio(
    value: object, where: str, sampling_rate: int, timeout: float | None = None, assumed_rate: int | None = None
) -> np.ndarray:
    """Read a recording as mono samples (n,), float32, at one sampling rate.

    Channels are averaged. At another rate n is rounded up.

    Args:
        value (`str`, `Path`, `bytes`, `numpy.ndarray`, `torch.Tensor`, `dict`, `AudioDecoder` or `Waveform`):
            A path, an http(s) or base64 data URL, or the bytes of an encoded file; samples of shape (n,),
            (channels, n) or (n, channels), the shorter axis being the channels, the first if they are equal; a dict
            of `array` or `raw` and `sampling_rate`; a row of the `Audio` column of a `datasets.Dataset`, decoded or
            not; or a dict of one of these under `audio`. Integer samples are scaled by the range of their type.
        where (`str`):
            The place of the recording, such as "Input 3"; errors begin with it.
        sampling_rate (`int`):
            Samples per second of the result.
        timeout (`float`, *optional*):
            Seconds to wait for a URL; without limit when not given.
        assumed_rate (`int`, *optional*, defaults to `sampling_rate`):
            The rate of an array that comes without one.

    Raises:
        ValueError: On samples that are absent, not finite or out of range, shapes that are not one recording's, rates
            that are not positive integers, dicts with other keys, and files that are not audio.
        TypeError: On anything else.
        OSError: When a file or URL cannot be read; `FileNotFoundError` when there is no file.
        ImportError: When the file needs the library soundfile, which is not installed.
    """
    wanted = _check_rate(sampling_rate, f"{where} is wanted at")
    assumed = wanted if assumed_rate is None else _check_rate(assumed_rate, f"{where} is assumed to be at")
    samples, rate = _read(value, where, timeout, assumed)
    if rate == wanted:
        return samples
    from scipy.signal import resample_poly

    common = math.gcd(wanted, rate)
    return resample_poly(samples, wanted // common, rate // common).astype(np.float32, copy=False)


def _read(value: object, where: str, timeout: float | None, assumed_rate: int) -> Waveform:
    if isinstance(value, Mapping) and set(value) == {"audio"}:
        value = value["audio"]
    rate: object = assumed_rate
    channel_axis = None
    if isinstance(value, Mapping) and not {"array", "raw"}.isdisjoint(value):
        value, rate = _array_of(value, where)
    elif isinstance(value, Waveform):
        value, rate = value
    elif hasattr(value, "get_all_samples"):
        value, rate = _decoded(value, where)
        channel_axis = 0
    value = unwrap(value, where, "audio")
    if isinstance(value, (str, os.PathLike)):
        value = read_file(value, where, timeout)
    if isinstance(value, BYTES):
        return _decode(bytes(value), where)
    if isinstance(value, (np.ndarray, torch.Tensor)):
        rate = _check_rate(rate, f"{where} has")
        return Waveform(_mono(to_numpy(value), where, channel_axis), rate)
    raise TypeError(f"{where} is {type(value).__name__}; a recording must be {FORMS}.")


def _check_rate(rate: Any, subject: str) -> int:
    number = rate.item() if hasattr(rate, "item") and getattr(rate, "ndim", 0) == 0 else rate
    if isinstance(number, bool) or not isinstance(number, numbers.Integral) or not 1 <= int(number) <= HIGHEST_RATE:
        raise ValueError(
            f"{subject} the sampling rate {number!r}; it must be an integer from 1 to {HIGHEST_RATE}, in samples per "
            "second."
        )
    return int(number)


def _array_of(row: Mapping, where: str) -> tuple[object, object]:
    key = "array" if "array" in row else "raw"
    unknown = sorted(str(other) for other in set(row) - {key, "sampling_rate", "path"})
    if unknown or "sampling_rate" not in row:
        raise ValueError(
            f'{where} has the keys {sorted(map(str, row))}; a dict of samples must have "array" or "raw", and '
            '"sampling_rate", and may have "path".'
        )
    if not isinstance(row[key], (np.ndarray, torch.Tensor)):
        raise TypeError(
            f"{where} has {type(row[key]).__name__} as its {key}; it must be a numpy array or a torch tensor, such as "
            "numpy.asarray(samples, dtype='float32')."
        )
    return row[key], row["sampling_rate"]


def _decoded(decoder: Any, where: str) -> tuple[object, object]:
    """Return samples (channels, n) and their rate from a torchcodec decoder, which decodes its file on this call."""
    try:
        found = decoder.get_all_samples()
    except (RuntimeError, ValueError) as err:
        raise ValueError(f"{where} is an AudioDecoder that fails to decode: its file is broken; replace it.") from err
    return found.data, found.sample_rate


def _mono(array: np.ndarray, where: str, channel_axis: int | None = None) -> np.ndarray:
    if array.ndim not in (1, 2):
        raise ValueError(f"{where} has the shape {array.shape}; samples must be (n,), (channels, n) or (n, channels).")
    floats = _to_floats(array, where)
    if array.ndim == 2:
        axis = int(array.shape[1] < array.shape[0]) if channel_axis is None else channel_axis
        if channel_axis is None and array.shape[axis] > MOST_CHANNELS:
            raise ValueError(
                f"{where} has the shape {array.shape}, of more than {MOST_CHANNELS} channels; give one recording at a "
                "time, and of more channels their mean."
            )
        floats = floats.mean(axis=axis)
    return floats.astype(np.float32)


def _to_floats(array: np.ndarray, where: str) -> np.ndarray:
    if array.size == 0:
        raise ValueError(f"{where} holds no samples (its shape is {array.shape}); leave it out.")
    kind, bits = array.dtype.kind, 8 * array.dtype.itemsize
    if kind == "f":
        _check_floats(array, where)
        return array
    if kind not in "iu":
        raise TypeError(f"{where} has samples of the type {array.dtype}; they must be floats or integers.")
    if bits > 32:  # a library widened the samples, so their scale is unknown
        raise ValueError(
            f"{where} has samples of the type {array.dtype}, whose range no recording has; give them in the type of "
            "the recording, for example .astype('int16'), or as floats in [-1, 1]."
        )
    half = 2.0 ** (bits - 1)
    return (array.astype(np.float64) - (half if kind == "u" else 0.0)) / half


def _check_floats(array: np.ndarray, where: str) -> None:
    if not np.isfinite(array).all():
        raise ValueError(f"{where} has samples that are NaN or infinite; replace them, for example by 0.")
    loudest = np.abs(array).max()
    if loudest > LARGEST_FLOAT:
        raise ValueError(
            f"{where} has samples up to {loudest:.4g} in size; floats must be in [-1, 1]: divide 16 bit integers by "
            "32768, or give them in an integer type."
        )


def _decode(data: bytes, where: str) -> Waveform:
    """Decode a file as far as it goes: a recording may be shorter than its header announces."""
    if not data:
        raise ValueError(f"{where} is an empty file; leave it out or replace it.")
    try:
        import soundfile
    except (ImportError, OSError) as err:  # OSError when the C library below it is absent
        return _decode_wave(data, where, err)
    blocks: list[np.ndarray] = []
    try:
        with soundfile.SoundFile(BytesIO(data)) as file:
            rate = file.samplerate
            # in blocks, because a broken header may announce more samples than there is memory
            while len(block := file.read(FRAMES_PER_BLOCK, dtype="float32", always_2d=True)):
                _check_floats(block, where)
                blocks.append(block.mean(axis=1))
    except soundfile.SoundFileError as err:
        raise ValueError(
            f"{where} is no audio file that can be decoded; give a wav, flac, ogg or mp3 file that is whole, and of a "
            "video its sound track, saved as one of these."
        ) from err
    if not blocks:
        raise ValueError(f"{where} is an audio file without samples; leave it out or replace it.")
    return Waveform(np.concatenate(blocks), _check_rate(rate, f"{where} has"))


def _decode_wave(data: bytes, where: str, missing: Exception) -> Waveform:
    """Decode wav files of integers without soundfile."""
    try:
        with wave.open(BytesIO(data)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            frames = file.readframes(file.getnframes())
        if width > 4:
            raise wave.Error(f"{8 * width} bits")
    except (wave.Error, EOFError):
        raise ImportError(
            f"{where} is not a wav file of integers, and other files need the library soundfile: "
            'pip install "transformers-tart[audio]", or give samples.'
        ) from missing
    frames = frames[: len(frames) // (width * channels) * width * channels]
    if width == 3:  # a zero below each sample keeps the scale
        samples = np.pad(np.frombuffer(frames, dtype="u1").reshape(-1, 3), ((0, 0), (1, 0))).reshape(-1).view("<i4")
    else:
        samples = np.frombuffer(frames, dtype={1: "u1", 2: "<i2", 4: "<i4"}[width])
    return Waveform(_mono(samples.reshape(-1, channels), where, 1), _check_rate(rate, f"{where} has"))
