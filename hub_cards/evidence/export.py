"""Compare exported tasks with the pipeline: largest difference of probabilities, and time per text.

python hub_cards/evidence/export.py MODEL... [--images] > export.jsonl
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import pipeline

import transformers_tart  # noqa: F401 (registers the pipeline)
from transformers_tart.export import export_task


WORDS = ["match", "striker", "scored", "market", "shares", "bank", "profit", "phone", "chip", "software", "release"]
NUM_EXAMPLES, NUM_INPUTS, BATCH, REPEATS = 32, 64, 16, 3


def make_texts(count: int, seed: int) -> list[str]:
    draws = np.random.default_rng(seed)
    return [" ".join(draws.choice(WORDS, draws.integers(5, 40))) for _ in range(count)]


def make_images(count: int, seed: int) -> list[Image.Image]:
    draws = np.random.default_rng(seed)
    return [Image.fromarray(draws.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(count)]


def time_per_input(run: Callable[[list], np.ndarray], inputs: list) -> tuple[np.ndarray, float]:
    """Return the answers, and the least of the mean times per input in milliseconds."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        found = np.concatenate([run(inputs[i : i + BATCH]) for i in range(0, len(inputs), BATCH)])
        best = min(best, (time.perf_counter() - start) / len(inputs) * 1000)
    return found, best


def measure(name: str, is_image: bool) -> dict[str, float | str]:
    kind, make = ("image", make_images) if is_image else ("text", make_texts)
    examples = [{kind: x, "label": f"class {i % 4}"} for i, x in enumerate(make(NUM_EXAMPLES, 0))]
    classify = pipeline("tart-classification", model=name, examples=examples, dtype=torch.float32, device="cpu")
    inputs, labels = make(NUM_INPUTS, 1), [f"class {i}" for i in range(4)]

    def ours(batch: list) -> np.ndarray:
        rows = [
            {each["label"]: each["score"] for each in row} for row in classify(batch, top_k=None, batch_size=BATCH)
        ]
        return np.array([[row[label] for label in labels] for row in rows])

    expected, ms = time_per_input(ours, inputs)
    result: dict[str, float | str] = {"model": Path(name).name, "pytorch_ms": ms}
    for format in ("onnx", "torch"):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            path = export_task(classify, folder, format)
            result[f"{format}_export_s"] = time.perf_counter() - start
            found, result[f"{format}_ms"] = time_per_input(load(path, Path(folder), classify, is_image), inputs)
            result[f"{format}_difference"] = float(np.abs(found - expected).max())
    return result


def load(path: Path, folder: Path, classify: object, is_image: bool) -> Callable[[list], np.ndarray]:
    """Return a function from a batch of inputs to probabilities by an exported program."""
    config = json.loads((folder / "config.json").read_text())
    tokenizer = None if is_image else Tokenizer.from_file(str(folder / "tokenizer.json"))

    def read(batch: list) -> dict[str, np.ndarray]:
        if tokenizer is None:
            features = classify.image_processor(images=batch, return_tensors="np")
            return {"pixel_values": np.asarray(features["pixel_values"])}
        encoded = tokenizer.encode_batch(batch, add_special_tokens=config["add_special_tokens"])
        rows = [row.ids or [config["neutral_token_id"]] for row in encoded]
        length = max(map(len, rows))
        ids = np.array([row + [0] * (length - len(row)) for row in rows])
        mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": mask}

    if path.suffix == ".onnx":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options)
        return lambda batch: session.run(["probabilities"], read(batch))[0]
    program = torch.export.load(path).module()

    def run(batch: list) -> np.ndarray:
        with torch.no_grad():
            return program(**{key: torch.from_numpy(x) for key, x in read(batch).items()})["probabilities"].numpy()

    return run


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--images", action="store_true")
    args = parser.parse_args()
    for model in args.models:
        print(json.dumps(measure(model, args.images)), flush=True)
