"""Published checkpoints become reasoners with the same answers."""

import json
from pathlib import Path

import pytest
import torch
from helpers.builders import SHARED
from helpers.published import SIZES, published_state
from safetensors.torch import load_file

from transformers_tart import TartReasoner
from transformers_tart.conversion import convert_reference_checkpoint
from transformers_tart.errors import CorruptFileError


pytestmark = pytest.mark.core


GOLDEN = SHARED / "golden"


@pytest.fixture
def golden() -> dict[str, torch.Tensor]:
    path = GOLDEN / "reference_head_io.safetensors"
    if not path.exists():
        pytest.skip("needs the outputs of the published procedure, which are absent here")
    return load_file(path)


def test__conversion__golden_head__same_logits(golden: dict[str, torch.Tensor]) -> None:
    reasoner = convert_reference_checkpoint(GOLDEN / "reference_head.pt", GOLDEN / "reference_head_config.json")
    with torch.no_grad():
        logits = reasoner.architecture.sequence_logits(golden["features"], golden["labels"])
    assert (logits - golden["logits"]).abs().max() < 1e-4


def test__conversion__golden_head_read_once__same_logit_for_each_query(golden: dict[str, torch.Tensor]) -> None:
    reasoner = convert_reference_checkpoint(GOLDEN / "reference_head.pt", GOLDEN / "reference_head_config.json")
    k = 20
    with torch.no_grad():
        state = reasoner.architecture.prepare(golden["features"][:, :k], golden["labels"][:, :k].long(), 2)
        log_odds = reasoner.architecture.query(state, golden["features"][:, k:])[..., 1]
    assert (log_odds[:, 0] - golden["logits"][:, k]).abs().max() < 1e-4


def test__conversion__converted_head__saves_and_loads(tmp_path: Path) -> None:
    torch.save(published_state(), tmp_path / "head.pt")
    reasoner = convert_reference_checkpoint(tmp_path / "head.pt", SIZES)
    reasoner.save_pretrained(tmp_path / "reasoner")
    loaded = TartReasoner.from_pretrained(tmp_path / "reasoner").eval()
    torch.manual_seed(1)
    inputs = torch.randn(1, 5, 12), torch.tensor([[0, 1, 0, 1, 1]]), torch.randn(1, 3, 12)
    with torch.no_grad():
        assert torch.equal(loaded(*inputs).logits, reasoner(*inputs).logits)


def test__conversion__training_checkpoint_with_old_masks__read_too(tmp_path: Path) -> None:
    masks = {"_backbone.h.0.attn.bias": torch.ones(1, 1, 12, 12), "_backbone.h.0.attn.masked_bias": torch.tensor(-1e4)}
    torch.save({"model_state_dict": published_state(**masks), "train_step": 3}, tmp_path / "state.pt")
    reasoner = convert_reference_checkpoint(tmp_path / "state.pt", SIZES)
    assert torch.equal(reasoner.architecture.read_in.weight, published_state()["_read_in.weight"])


@pytest.mark.parametrize(("name", "value"), [("n_embd", 16), ("n_positions", 7), ("n_layer", 2)])
def test__conversion__other_sizes__value_error(tmp_path: Path, name: str, value: int) -> None:
    torch.save(published_state(), tmp_path / "head.pt")
    with pytest.raises(ValueError, match="check n_"):
        convert_reference_checkpoint(tmp_path / "head.pt", {**SIZES, name: value})


def test__conversion__sizes_missing__named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"n_dims": 4}))
    with pytest.raises(ValueError, match="n_positions"):
        convert_reference_checkpoint(tmp_path / "head.pt", tmp_path / "config.json")


def test__conversion__config_of_another_kind__type_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="config is int"):
        convert_reference_checkpoint(tmp_path / "head.pt", 16)


@pytest.mark.parametrize("content", [b"no checkpoint", b""])
def test__conversion__damaged_file__corrupt_file_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "head.pt").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"head\.pt"):
        convert_reference_checkpoint(tmp_path / "head.pt", SIZES)


def test__conversion__file_that_would_run_code__refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"_backbone.x": Trap()}, tmp_path / "head.pt")
    with pytest.raises(CorruptFileError):
        convert_reference_checkpoint(tmp_path / "head.pt", SIZES)
    assert not (tmp_path / "ran").exists()


def test__conversion__other_tensors__corrupt_file_error(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "head.pt")
    with pytest.raises(CorruptFileError, match="not a published TART head"):
        convert_reference_checkpoint(tmp_path / "head.pt", SIZES)
