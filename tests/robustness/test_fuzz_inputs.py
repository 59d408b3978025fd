"""Thousands of bad and odd inputs: each gets a right answer or an error that names it, and harms no later call.

`cases.json` in the folder of the test lists the cases with what came of each. `fuzz_inputs.py FOLDER SEED .` runs all
of them, and another pattern those whose name it fits.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


SEED = 15


@pytest.mark.exhaustive
@pytest.mark.slow
def test__inputs__bad_and_odd__right_answer_or_clear_error(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("fuzz_inputs.py")), str(tmp_path), str(SEED)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    cases = json.loads((tmp_path / "cases.json").read_text())
    wrong = [case for case in cases if case["outcome"].startswith(("FAULT", "WRONG"))]
    assert not wrong, json.dumps(wrong, indent=1)
    assert len(cases) > 3000
    assert len({case["name"] for case in cases}) == len(cases)
    answered = [case for case in cases if case["outcome"] == "right"]
    assert 300 < len(answered) < len(cases) / 3  # or what must be refused is not tried
