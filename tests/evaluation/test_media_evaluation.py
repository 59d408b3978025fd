"""Methods on images: the harness embeds them once, with a tower and a processor that are loaded once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, ViTConfig, ViTImageProcessor, ViTModel

from transformers_tart import TartForImageClassification
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.plan import Plan
from transformers_tart.evaluation.records import read_records
from transformers_tart.evaluation.runner import evaluate


@pytest.mark.slow
def test__evaluate__folder_of_images__methods_of_embeddings_measured_and_others_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ViTModel(ViTConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vit")
    rng = np.random.default_rng(0)
    for i in range(80):
        label, split = ("dark", "light")[i % 2], ("train", "test")[i >= 60]
        folder = tmp_path / "shades" / split / label
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.normal(70 + 90 * (i % 2), 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    loads, load = [], AutoImageProcessor.from_pretrained
    monkeypatch.setattr(AutoImageProcessor, "from_pretrained", lambda *a, **kw: loads.append(1) or load(*a, **kw))
    plan = Plan([str(tmp_path / "shades")], ["tart", "logistic_regression", "tfidf"], sizes=[8, 40], seeds=[1])
    assert evaluate(plan, Models(str(tmp_path / "vit")), tmp_path / "out").failed == 2
    found = {(r.method, r.k): r for r in read_records(tmp_path / "out")}
    assert all(found[method, k].metrics["accuracy"] > 0.9 for method in plan.methods[:2] for k in plan.sizes)
    assert all("shades has images, and this method reads texts" in (found["tfidf", k].error or "") for k in plan.sizes)
    assert len(loads) == 1
    TartForImageClassification.from_backbone(tmp_path / "vit", pooling="first").save_pretrained(tmp_path / "task")
    plan = Plan([str(tmp_path / "shades")], ["tart", "tart_loo"], sizes=[40], seeds=[1])
    assert evaluate(plan, Models(str(tmp_path / "task")), tmp_path / "of_task").failed == 1
    of_task = {r.method: r for r in read_records(tmp_path / "of_task")}
    assert of_task["tart"].metrics["accuracy"] > 0.9
    assert "image inputs are embedded each alone" in (of_task["tart_loo"].error or "")
    with pytest.raises(ValueError, match="max_length is 4, which is for texts"):
        Models(str(tmp_path / "task"), max_length=4).model("image")
