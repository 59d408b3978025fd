"""Loading with `trust_remote_code=True`, in processes of their own: with this package, and without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import build_backbone, build_tokenizer
from hub_models import EXAMPLES, make_reasoner
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


def run(code: str, folder: Path) -> None:
    """Run code in a folder, in a fresh process; what goes wrong there is shown here."""
    environment = {**os.environ, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test__trust_remote_code__package_missing__error_names_it(folder: Path) -> None:
    run(BLOCK + WITHOUT, folder)


def test__trust_remote_code__package_not_imported__same_logits(folder: Path) -> None:
    run(WITH, folder)
