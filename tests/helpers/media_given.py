"""Small images and recordings, and folders and tables of them."""

import io
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from datasets import Audio, ClassLabel, Dataset, Features, Image
from PIL import Image as PillowImage

from transformers_tart.evaluation.tasks import Task


def png(number: int) -> bytes:
    """An image of its own for each number."""
    return encode_image(np.full((3, 4), number % 256, dtype=np.uint8) + np.arange(4, dtype=np.uint8) * (number // 256))


def encode_image(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, "png")
    return file.getvalue()


def wav(number: int) -> bytes:
    """A recording of its own for each number."""
    return encode_audio(np.full(50, number, dtype=np.int16), 8000)


def encode_audio(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(rate)
        recording.writeframes(samples.tobytes())
    return file.getvalue()


ENCODE: dict[str, Callable[[int], bytes]] = {"image": png, "audio": wav}
ENDING = {"image": "png", "audio": "wav"}


def write_files(folder: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)


def in_classes(labels: Sequence[str], modality: str = "image", parent: str = "", start: int = 0) -> dict[str, bytes]:
    """Files in folders of classes, numbered from `start` on."""
    return {
        f"{parent}{label}/{i}.{ENDING[modality]}": ENCODE[modality](i) for i, label in enumerate(labels, start=start)
    }


def media_table(count: int, modality: str, names: tuple[str, ...] = ("b", "a"), start: int = 0) -> Dataset:
    """A table as `datasets` keeps it, made without the encoder of recordings, which may be absent."""
    cells = [{"bytes": ENCODE[modality](i), "path": None} for i in range(start, start + count)]
    table = Dataset.from_dict({modality: cells, "label": [i % len(names) for i in range(count)]})
    feature = Image() if modality == "image" else Audio()
    return table.cast(Features({modality: feature, "label": ClassLabel(names=list(names))}))


def label_of(task: Task, content: bytes) -> str:
    items, labels = [*task.train_texts, *task.test_texts], [*task.train_labels, *task.test_labels]
    return task.label_names[labels[items.index(content)]]
