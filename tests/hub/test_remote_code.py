"""Loading with `trust_remote_code=True`, in processes of their own: with this package, and without it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.builders import build_backbone, build_tokenizer, make_pipeline, save_backbone
from helpers.hostile import edit, save_coded_model, save_coded_processor
from helpers.hub_models import EXAMPLES, make_reasoner
from safetensors.torch import save_file

from transformers_tart import TartForSequenceClassification


BLOCK = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "transformers_tart":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""
WITHOUT = """
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

for loader in (AutoConfig, AutoModel, AutoModelForSequenceClassification):
    for folder in ("model", "reasoner"):
        try:
            loader.from_pretrained(folder, trust_remote_code=True)
        except ImportError as err:
            assert "transformers_tart. Run `pip install transformers_tart`" in str(err), err
        else:
            raise AssertionError(loader)
"""
WITH = """
import sys
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

assert "transformers_tart" not in sys.modules
expected = load_file("expected.safetensors")
for loader in (AutoModel, AutoModelForSequenceClassification):
    model = loader.from_pretrained("model", trust_remote_code=True)
    with torch.no_grad():
        assert torch.equal(model(expected["input_ids"]).logits, expected["logits"])
    assert type(model).__module__ == "transformers_tart.modeling_tart", type(model)
reasoner = AutoModel.from_pretrained("reasoner", trust_remote_code=True)
assert type(reasoner).__name__ == "TartReasoner"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a fitted model, its logits and a reasoner."""
    build_backbone("gpt2").save_pretrained(tmp_path / "base")
    model = TartForSequenceClassification.from_backbone(tmp_path / "base", make_reasoner())
    model.set_support(model.encode_support(EXAMPLES, build_tokenizer()))
    model.save_pretrained(tmp_path / "model")
    model.reasoner.save_pretrained(tmp_path / "reasoner")
    input_ids = torch.arange(5, 17).view(2, 6)
    with torch.no_grad():
        logits = model(input_ids).logits.contiguous()
    save_file({"input_ids": input_ids, "logits": logits}, tmp_path / "expected.safetensors")
    return tmp_path


def run(code: str, folder: Path, answers: str = "") -> None:
    """Run code in a folder, in a fresh process; what goes wrong there is shown here."""
    environment = {**os.environ, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "MARK": str(folder / "mark")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, input=answers)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test__trust_remote_code__package_missing__error_names_it(folder: Path) -> None:
    run(BLOCK + WITHOUT, folder)


@pytest.mark.slow
def test__trust_remote_code__package_not_imported__same_logits(folder: Path) -> None:
    run(WITH, folder)


UNTRUSTED = """
import sys
from pathlib import Path
from transformers import AutoModel, AutoModelForSequenceClassification, pipeline
from transformers_tart import TartForSequenceClassification
from transformers_tart.cli import main
from transformers_tart.modeling_tart import compose_any

EXAMPLES = [{"text": "w1 w2", "label": "a"}, {"text": "w3 w4", "label": "b"}]
WAYS = {
    "from_backbone": lambda: TartForSequenceClassification.from_backbone("coded"),
    "compose_any": lambda: compose_any("coded"),
    "AutoModel": lambda: AutoModel.from_pretrained("task"),
    "AutoModelForSequenceClassification": lambda: AutoModelForSequenceClassification.from_pretrained("task"),
    "from_pretrained": lambda: TartForSequenceClassification.from_pretrained("task"),
    "backbone": lambda: TartForSequenceClassification.from_pretrained("fine", backbone="coded"),
    "pipeline": lambda: pipeline("tart-classification", model="task"),
    "pipeline, False": lambda: pipeline("tart-classification", model="coded", trust_remote_code=False),
    "text-classification": lambda: pipeline("text-classification", model="task"),
    "tokenizer": lambda: pipeline("tart-classification", model="gpt2", examples=EXAMPLES),
    "tokenizer by name": lambda: pipeline("tart-classification", model="fine", tokenizer="gpt2"),
    "image processor": lambda: pipeline("tart-classification", model="vit"),
    "feature extractor": lambda: pipeline("tart-classification", model="wav2vec2"),
    "classify": lambda: run("classify", "--examples", "rows.jsonl", "--input", "rows.jsonl", "--model", "coded"),
    "classify, tokenizer": lambda: run(
        "classify", "--examples", "rows.jsonl", "--input", "rows.jsonl", "--model", "gpt2"
    ),
    "demo": lambda: run("demo", "--model", "coded"),
    "push": lambda: run("push", "--model", "coded", "me/name"),
    "evaluate": lambda: run("evaluate", "--model", "coded", "--tasks", "rows.jsonl", "--output", "out"),
}


def run(*arguments):
    status = main(list(arguments))
    if status:
        raise ValueError(f"exit status {status}: trust_remote_code=True")


for name, way in WAYS.items():
    try:
        way()
    except (OSError, TypeError, ValueError, SystemExit) as err:
        told = "trust_remote_code=True" in str(err)
        named = "evil." in str(err) or name == "pipeline, False" or "exit status" in str(err)
        assert (told and named) or isinstance(err, SystemExit), (name, err)
    else:
        # transformers has a tokenizer of its own for that model
        assert "tokenizer" in name, f"{name} has loaded it"
    assert not Path("mark").exists(), name
"""
TRUSTED = """
from pathlib import Path
from transformers import AutoModel, pipeline
from transformers_tart import TartForSequenceClassification

EXAMPLES = [{"text": "w1 w2", "label": "a"}, {"text": "w3 w4", "label": "b"}]
model = TartForSequenceClassification.from_backbone("coded", trust_remote_code=True)
assert type(model.backbone).__name__ == "EvilModel"
assert Path("mark").exists()
classify = pipeline("tart-classification", model="coded", examples=EXAMPLES, trust_remote_code=True)
classify.save_pretrained("again")
expected = classify("w1 w2 w3", top_k=None)
loaded = pipeline("tart-classification", model="again", trust_remote_code=True)
assert loaded("w1 w2 w3", top_k=None) == expected
assert type(AutoModel.from_pretrained("again", trust_remote_code=True).backbone).__name__ == "EvilModel"
coded = pipeline("tart-classification", model="gpt2", examples=EXAMPLES, trust_remote_code=True)
assert type(coded.tokenizer).__name__ == "EvilTokenizer"
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with backbones that hold code, and two tasks, one of which refers to such a backbone."""
    for name in ("gpt2", "vit", "wav2vec2"):
        save_coded_processor(tmp_path / name, name)
    save_coded_model(tmp_path / "coded")
    model = TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base"), make_reasoner())
    make_pipeline(model).save_pretrained(tmp_path / "fine")
    shutil.copytree(tmp_path / "fine", tmp_path / "task")
    edit(tmp_path / "task" / "config.json", base_model_name_or_path=str(tmp_path / "coded"))
    rows = [json.dumps({"text": f"w{i}", "label": "ab"[i % 2]}) for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    return tmp_path


@pytest.mark.slow
def test__code_of_a_repository__not_trusted__never_runs(hostile: Path) -> None:
    run(UNTRUSTED, hostile, "y\n" * 100)


@pytest.mark.slow
def test__code_of_a_repository__trusted__runs(hostile: Path) -> None:
    run(TRUSTED, hostile)


def test__sentence_encoder__modules_that_are_code__never_run(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", str(hostile / "mark"))
    modules = [{"idx": 0, "name": "0", "path": "", "type": "evil.EvilModel"}]
    (hostile / "base" / "modules.json").write_text(json.dumps(modules))
    (hostile / "base" / "evil.py").write_text((hostile / "coded" / "evil.py").read_text())
    with pytest.raises(ValueError, match="is made of evil.EvilModel, which this package does not do"):
        TartForSequenceClassification.from_backbone(hostile / "base")
    TartForSequenceClassification.from_backbone(hostile / "base", pooling="mean")
    assert not (hostile / "mark").exists()
