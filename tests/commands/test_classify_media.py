"""`classify` on tables of images: paths beside the table, and files that cannot be read."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as PillowImage
from transformers import AutoModel, ViTConfig, ViTImageProcessor

from transformers_tart.cli import main


pytestmark = pytest.mark.core


COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    AutoModel.from_config(ViTConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images, a table of their labels and one of what is classified, in which a file is broken."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    rows = []
    for i in range(8):
        label = ("red", "blue")[i % 2]
        noise = rng.integers(-20, 20, (12 + i, 16, 3))
        pixels = (np.array(COLORS[label]) + noise).clip(0, 255).astype(np.uint8)
        PillowImage.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        rows.append({"image": f"images/{i}.png", "label": label})
    write_table(tmp_path / "train.csv", rows)
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG no more")
    queries = [{"image": "images/0.png"}, {"image": "images/broken.png"}, {"image": str(tmp_path / "images/3.png")}]
    write_table(tmp_path / "new.csv", queries)
    return tmp_path


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def classify(backbone: str, folder: Path, given: str, output: str) -> int:
    examples = ["--examples", str(folder / "train.csv"), "--input", str(folder / given), "--device", "cpu"]
    return main(["classify", "--model", backbone, *examples, "--output", str(folder / output)]) or 0


def test__classify__images_by_path__labels_and_why_one_has_none(backbone: str, folder: Path) -> None:
    assert classify(backbone, folder, "new.csv", "out.jsonl") == 0
    found = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [(row["row"], row["label"]) for row in found] == [(0, "red"), (1, None), (2, "blue")]
    assert found[1]["score"] is None
    assert "Row 1 " in found[1]["error"]
    assert "error" not in found[0]


def test__classify__images_to_csv__a_column_of_errors(backbone: str, folder: Path) -> None:
    assert classify(backbone, folder, "new.csv", "out.csv") == 0
    with open(folder / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["red", "", "blue"]
    assert [bool(row["error"]) for row in rows] == [False, True, False]


def test__classify__images_inside_parquet__read_as_they_are(backbone: str, folder: Path) -> None:
    content = {"image": [{"bytes": (folder / "images" / f"{i}.png").read_bytes(), "path": None} for i in (4, 5)]}
    features = Features({"image": Image(decode=False)})
    Dataset.from_dict(content, features=features).to_parquet(folder / "new.parquet")
    assert classify(backbone, folder, "new.parquet", "out.jsonl") == 0
    found = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["label"] for row in found] == ["red", "blue"]


def test__classify__table_without_images__says_which_column(
    backbone: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    features = Features({"text": Value("string")})
    Dataset.from_dict({"text": ["a"]}, features=features).to_parquet(folder / "texts.parquet")
    assert classify(backbone, folder, "texts.parquet", "out.jsonl") != 0
    assert "without ['image']; give --image-column" in capsys.readouterr().err
