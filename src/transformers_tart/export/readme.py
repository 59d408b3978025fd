"""The README of an exported task."""

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any


PAGE = Template("""# Exported task

A classifier of $inputs with the labels $labels, exported by transformers-tart $version from a task on the frozen
backbone `$backbone`. `$file` computes in float32. The examples of the task are in it as numbers, not as texts.

Inputs: $names. Outputs: `logits` and `probabilities`, (batch, number of labels), of
which `config.json` has the labels in order.

```bash
pip install $packages
```

```python
$code
```
""")
READ_TEXTS = """def read(texts: list[str]) -> dict[str, np.ndarray]:
    texts = [config["prompt"] + text for text in texts]
    texts = [Lowercase().normalize_str(text) for text in texts] if config["lower_case"] else texts
    encoded = tokenizer.encode_batch(texts, add_special_tokens=config["add_special_tokens"])
    rows = [row.ids or [config["neutral_token_id"]] for row in encoded]
    length = max(map(len, rows))
    ids = np.array([row + [0] * (length - len(row)) for row in rows])
    mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}"""
READ_IMAGES = """def read(paths: list[str]) -> dict[str, np.ndarray]:
    images = [Image.open(path).convert("RGB") for path in paths]
    return dict(processor(images=images, return_tensors="np"))"""
RUN = {
    "onnx": """session = onnxruntime.InferenceSession(folder / "model.onnx")


def classify(inputs: list[str]) -> list[dict]:
    _, probabilities = session.run(["logits", "probabilities"], read(inputs))""",
    "torch": """program = torch.export.load(folder / "model.pt2").module()


def classify(inputs: list[str]) -> list[dict]:
    batch = {name: torch.from_numpy(array) for name, array in read(inputs).items()}
    with torch.no_grad():
        probabilities = program(**batch)["probabilities"].numpy()""",
}
CODE = Template("""import json
from pathlib import Path

import numpy as np
$imports


folder = Path(".")
config = json.loads((folder / "config.json").read_text())
$processor
$read


$run
    best = probabilities.argmax(1)
    return [{"label": config["labels"][i], "score": float(row[i])} for i, row in zip(best, probabilities)]


print(classify($example))""")
LIBRARIES = {"onnx": "onnxruntime", "torch": "torch"}


def write_readme(folder: Path, config: Mapping[str, Any], is_text: bool) -> None:
    """Write the README of an exported task, with code that runs in its folder."""
    library = LIBRARIES[config["format"]]
    reading = "tokenizers" if is_text else "transformers pillow"
    imports = [f"import {library}"]
    imports += (
        ["from tokenizers import Tokenizer", "from tokenizers.normalizers import Lowercase"]
        if is_text
        else ["from PIL import Image", "from transformers import AutoImageProcessor"]
    )
    code = CODE.substitute(
        imports="\n".join(imports),
        processor='tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))\n\n'
        if is_text
        else "processor = AutoImageProcessor.from_pretrained(folder)\n\n",
        read=READ_TEXTS if is_text else READ_IMAGES,
        run=RUN[config["format"]],
        example='["a text to classify"]' if is_text else '["image.png"]',
    )
    page = PAGE.substitute(
        inputs="texts" if is_text else "images",
        labels=", ".join(f"`{label}`" for label in config["labels"]),
        version=config["transformers_tart"],
        backbone=config["backbone"],
        file="model.onnx" if config["format"] == "onnx" else "model.pt2",
        names="`input_ids` and `attention_mask`, (batch, length)" if is_text else "`pixel_values`, as processed",
        packages=f"{library} numpy {reading}",
        code=code,
    )
    (folder / "README.md").write_text(page, encoding="utf-8")
