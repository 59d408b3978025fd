"""Runs the tests for accelerators and `transformers-tart bench` on one, and writes their results with its name.

    python device.py --output device
    python device.py --output device --device cpu

Writes `results.json` and `results.md` to the folder, after each part. What is not done after `--minutes` is stopped.
With `--device cpu` everything is tiny, which shows that the parts run, and compiling is left out.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from transformers_tart.bench.machine import default_device, describe, machine_facts, version_facts
from transformers_tart.bench.timing import format_heading, format_row


ROOT = Path(__file__).parents[2]
TESTS = ("tests/devices", "tests/hints/test_hint_requests.py")
OUTCOME = re.compile(r"^\S+::(\S+) (PASSED|FAILED|ERROR|SKIPPED)", re.MULTILINE)
BENCH = ("gpt2-reasoner", "kernel-reasoner", "stream", "views", "vanilla", "loo")
REPEATS = {"cpu": 1}  # on a CPU; elsewhere 3
TINY = ("--k", "18", "--queries", "20", "--naive-queries", "2", "--words", "1", "20")


def run(command: Sequence[str], deadline: float, log: Path, **environment: str) -> str:
    """Run Python with arguments until a deadline; return its output, which the log keeps, and how it ended."""
    paths = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("w") as file:
        given = {"cwd": ROOT, "stdout": file, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(
            [sys.executable, *command], env={**os.environ, "PYTHONPATH": paths, **environment}, **given
        )
        try:
            end = f"exit code {process.wait(max(1.0, deadline - time.monotonic()))}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            end = "stopped at the end of its time"
    print(f"{log.stem}: {end}", flush=True)
    return end


def write(output: Path, facts: dict[str, Any]) -> None:
    """Write all results as JSON and as markdown."""
    (output / "results.json").write_text(json.dumps(facts, indent=1) + "\n")
    lines = ["```text", describe(facts["machine"], facts["versions"]), f"device: {facts['device']}", "```", ""]
    if pairs := facts.get("bench", {}).get("pairs"):
        repeats = REPEATS.get(facts["device"], 3)
        lines += ["Seconds of `transformers-tart bench`:", "", format_heading(repeats), *map(format_row, pairs), ""]
    outcomes = facts.get("tests", {})
    counts = {kind: sum(found == kind for found in outcomes.values()) for kind in sorted(set(outcomes.values()))}
    lines += ["Tests: " + ", ".join(f"{count} {kind.lower()}" for kind, count in counts.items()), ""]
    lines += [f"- {kind.lower()}: `{name}`" for name, kind in outcomes.items() if kind != "PASSED"]
    lines += ["", *(f"{part}: {end}" for part, end in facts["ends"].items())]
    (output / "results.md").write_text("\n".join(lines) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tests, then the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("device"), help="folder of the results")
    parser.add_argument("--device", help="(default: the accelerator)")
    parser.add_argument("--minutes", type=float, default=5, help="of all parts together; the tests have 3 fifths")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="files of tests, from the root of the repository")
    parser.add_argument("--pairs", nargs="*", default=BENCH, help="of the bench")
    args = parser.parse_args(argv)
    device = torch.device(args.device or default_device())
    if device.type == "cpu" and args.device is None:
        raise SystemExit("There is no accelerator here; --device cpu tries the script at a tiny size.")
    output, begin = args.output.resolve(), time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"machine": machine_facts(), "versions": version_facts(), "device": str(device)}
    facts["ends"] = {}
    print(describe(facts["machine"], facts["versions"]), flush=True)
    is_tiny, log, table = device.type == "cpu", output / "tests.log", output / "bench.json"
    chosen = ["-m", "device", "-v", *(["-k", "not compiled"] if is_tiny else [])]
    deadline = begin + 60 * args.minutes * 3 / 5
    command = ["-m", "pytest", *args.tests, *chosen, "-p", "no:cacheprovider"]
    facts["ends"]["tests"] = run(command, deadline, log, TART_TEST_DEVICE=str(device))
    facts["tests"] = dict(OUTCOME.findall(log.read_text()))
    write(output, facts)
    table.unlink(missing_ok=True)
    repeats = str(REPEATS.get(device.type, 3))
    command = ["-m", "transformers_tart", "bench", *args.pairs, "--device", str(device), "--repeats", repeats]
    command += ["--json", str(table), *(TINY if is_tiny else ())]
    facts["ends"]["bench"] = run(command, begin + 60 * args.minutes, output / "bench.log")
    facts["bench"] = json.loads(table.read_text()) if table.exists() else {}
    write(output, facts)


if __name__ == "__main__":
    main()
