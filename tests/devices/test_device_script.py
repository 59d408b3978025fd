"""The script that tests and times an accelerator, tried on a CPU."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers.scripts import load_script


@pytest.fixture
def script() -> ModuleType:
    return load_script("tart-reasoner-kernel/device.py")


@pytest.mark.slow
def test__script__on_a_cpu__outcomes_and_times(script: ModuleType, tmp_path: Path) -> None:
    test = "tests/devices/test_devices.py::test__encode_texts__batched_on_device__as_one_at_a_time_on_cpu"
    script.main(["--device", "cpu", "--output", str(tmp_path), "--tests", test, "--pairs", "gpt2-reasoner"])
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["ends"] == {"tests": "exit code 0", "bench": "exit code 0"}
    assert set(found["tests"].values()) == {"PASSED"}
    assert [pair["pair"] for pair in found["bench"]["pairs"]] == ["gpt2-reasoner"]
    assert "Tests: 3 passed" in (tmp_path / "results.md").read_text()


def test__script__no_accelerator__said(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "default_device", lambda: torch.device("cpu"))
    with pytest.raises(SystemExit, match="no accelerator here; --device cpu"):
        script.main([])
