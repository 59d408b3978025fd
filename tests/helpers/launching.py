"""Processes of `accelerate launch`, which may be killed together or in part."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in tests; sums differ in their last bits with the number
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]  # without a GPU too
PLAIN = ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "transformers_tart"]


def launch_command(arguments: Sequence[str], processes: int, *machines: str) -> list[str]:
    """The command line of some processes on this machine; of one without a launcher."""
    if processes == 1:
        return [sys.executable, "-m", "transformers_tart", *arguments]
    place = machines or ("--num_machines", "1", "--main_process_port", "0")
    return [*LAUNCH, "--num_processes", str(processes), *place, *PLAIN, *arguments]


def whole_lines(folder: Path) -> dict[str, list[bytes]]:
    """The whole lines of each file of results."""
    return {path.name: path.read_bytes().split(b"\n")[:-1] for path in sorted(folder.glob("results*.jsonl"))}


def run_and_kill(command: list[str], folder: Path, rng: random.Random) -> tuple[str, bool]:
    """Kill a command at a random moment: all of it, one process or the launcher first; whether it was alive then."""
    before, growth = sum(map(len, whole_lines(folder).values())), rng.randint(1, 6)
    deadline = time.monotonic() + (rng.uniform(0, 20) if rng.random() < 0.3 else 240)
    victim, pause = rng.choice(["all", "process", "launcher"]), rng.uniform(0, 1)
    process = psutil.Popen(command, stderr=subprocess.DEVNULL, env=ONE_THREAD)
    while time.monotonic() < deadline and sum(map(len, whole_lines(folder).values())) < before + growth:
        if process.poll() is not None:
            return victim, False
        time.sleep(rng.uniform(0, 0.02))
    workers = process.children(recursive=True)
    everyone = [process, *workers]
    rng.shuffle(everyone)
    first = everyone if victim == "all" else workers[:1] if victim == "process" and workers else [process]
    for number, each in enumerate([*first, *everyone]):
        with contextlib.suppress(psutil.NoSuchProcess):
            if number == len(first):
                time.sleep(pause)
                everyone += [child for one in everyone for child in one.children()]
            each.kill()
    psutil.wait_procs(everyone, timeout=60)
    return victim, True
