"""The recipe of the paper's head: a run in pieces ends, with few small files between and tasks that continue."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from accelerate.state import AcceleratorState
from helpers.training import PAPER, SHORT, TINY_GPT2
from safetensors.torch import load_file

from transformers_tart import TartReasoner
from transformers_tart.training.presets import PRESETS, Preset


RECIPE = Path(__file__).parents[2] / "hub_cards" / "tart-reasoner-paper"
FIELDS = ("architecture", "hidden_size", "num_hidden_layers", "num_attention_heads", "n_positions", "num_components")


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The training script, with a tiny preset; other recipes have a module of the same name."""
    monkeypatch.syspath_prepend(str(RECIPE))
    monkeypatch.delitem(sys.modules, "train", raising=False)
    monkeypatch.setitem(
        PRESETS, "tiny", Preset("tiny", {name: getattr(TINY_GPT2, name) for name in FIELDS}, PAPER, SHORT)
    )
    AcceleratorState._reset_state(True)  # other tests may have asked for another precision
    import train

    monkeypatch.delitem(sys.modules, "train")
    return train


def run(recipe: ModuleType, folder: Path, *options: object) -> None:
    arguments = ["--preset", "tiny", "--mixed-precision", "no", "--work", folder / "run", *options]
    recipe.main([str(argument) for argument in arguments])


def read_state(piece: Path) -> dict:
    return json.loads((piece / "states.json").read_text())["states"][0]


@pytest.mark.slow
def test__recipe__a_step_in_each_piece__the_tasks_of_one_run_and_a_reasoner(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "SHARD", "4KB")
    run(recipe, tmp_path, "--max-steps", 3, "--max-minutes", 0, "--to", tmp_path / "1")
    run(recipe, tmp_path, "--max-steps", 3, "--max-minutes", 0, "--from", tmp_path / "1", "--to", tmp_path / "2")
    assert [read_state(tmp_path / piece)["step"] for piece in "12"] == [1, 2]
    generator = torch.Generator().manual_seed(SHORT.seed)
    for step, piece in enumerate("12"):
        PAPER.draw(step, generator)
        assert read_state(tmp_path / piece)["random_state"] == generator.get_state().tolist()
    assert len(list((tmp_path / "2").glob("*.safetensors"))) > 1
    run(recipe, tmp_path, "--max-steps", 3, "--max-minutes", 0, "--from", tmp_path / "2", "--to", tmp_path / "3")
    last = json.loads((tmp_path / "3" / "training.json").read_text())["history"][-1]
    assert last["step"] == 3
    assert last["validation"]
    assert TartReasoner.from_pretrained(tmp_path / "3").config.architecture == "gpt2"
    with pytest.raises(SystemExit, match=r"has no states.json"):
        run(recipe, tmp_path, "--from", tmp_path / "3")


@pytest.mark.slow
def test__unpack__piece__the_weights_in_half_precision(recipe: ModuleType, tmp_path: Path) -> None:
    run(recipe, tmp_path, "--max-minutes", 0, "--to", tmp_path / "1")
    whole = load_file(tmp_path / "run" / "checkpoint-1" / "model.safetensors")
    recipe.unpack(tmp_path / "1", tmp_path / "again")
    weights = load_file(tmp_path / "again" / "checkpoint-1" / "model.safetensors")
    assert weights.keys() == whole.keys()
    for name, tensor in weights.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, whole[name].half().float())


def test__pack__weights_of_the_largest_preset__few_small_files(recipe: ModuleType, tmp_path: Path) -> None:
    config = PRESETS["paper-258"].build_config()
    checkpoint = tmp_path / "run" / "checkpoint-7"
    checkpoint.mkdir(parents=True)
    recipe.save_file(TartReasoner(config).state_dict(), checkpoint / "model.safetensors")
    torch.save({"state": {0: torch.zeros(9)}, "param_groups": []}, checkpoint / "optimizer.bin")
    for file in (checkpoint / "states.json", tmp_path / "run" / "training.json"):
        file.write_text("{}")
    (tmp_path / "piece").mkdir()
    recipe.pack(tmp_path / "run", tmp_path / "piece")
    sizes = [file.stat().st_size for file in (tmp_path / "piece").iterdir()]
    assert len(sizes) <= 8
    assert max(sizes) < 16 * 2**20
    assert torch.load(tmp_path / "piece" / "optimizer.bin", weights_only=True)["state"] == {}


@pytest.mark.slow
def test__estimate__curriculum__a_row_of_each_length(
    recipe: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run(recipe, tmp_path, "--estimate", 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1:3] for line in lines if line.startswith("| 6") or line.startswith("| 7")] == [
        [" 6 ", " 3 "],
        [" 7 ", " 1 "],
    ]
    assert lines[-1].startswith("4 steps")
