"""Kill a command again and again at random moments, as a script, and count what is lost.

`python killing.py '{"argv": [...], "output": "out.jsonl", "kills": 30, "seed": 0}'` prints what happened as JSON. The
command runs in forks of this process, which has imported everything, so that most kills hit it at work.
"""

import contextlib
import importlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path


MODULES = ("accelerate", "datasets", "sklearn.linear_model", "transformers_tart.pipeline_tart")
QUIET = 0.02  # seconds between two looks at a file


def start(argv: list[str]) -> int:
    """Run a command in a fork, without a word."""
    child = os.fork()
    if child:
        return child
    code = 70
    with contextlib.suppress(BaseException), open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
        from transformers_tart.cli import main

        code = main(argv)
    os._exit(code)


def kill_somewhere(child: int, path: Path, rng: random.Random) -> bool:
    """Kill a process at its start, or after its output has grown by some bytes; whether it was alive then."""
    before, deadline = size_of(path), time.monotonic() + (rng.uniform(0, 0.6) if rng.random() < 0.4 else 30)
    growth = rng.randint(1, 2000)
    while time.monotonic() < deadline and size_of(path) < before + growth:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(QUIET * rng.random())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def size_of(path: Path) -> int:
    """The size of a file that may not be there."""
    return path.stat().st_size if path.exists() else 0


def whole_rows(path: Path) -> bytes:
    """What a file holds up to its last line end; the rows of these tests have none inside."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def run(argv: list[str], output: str, kills: int, seed: int, tear: bool = True) -> dict:
    """Kill a command some times, resuming it each time, and let it end."""
    rng, path = random.Random(seed), Path(output)
    lost, alive, code = 0, 0, None
    for _ in range(kills):
        kept = whole_rows(path)
        alive += kill_somewhere(start(argv), path, rng)
        lost += not whole_rows(path).startswith(kept)
        if tear and rng.random() < 0.5 and size_of(path) > len(kept):  # as if a write had been cut short
            os.truncate(path, rng.randint(len(kept), size_of(path)))
    while code is None or code != 0:
        kept = whole_rows(path)
        _, status = os.waitpid(start(argv), 0)
        lost += not whole_rows(path).startswith(kept)
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            break
    return {"killed": alive, "lost": lost, "code": code, "rows": whole_rows(path).count(b"\n")}


if __name__ == "__main__":
    for name in MODULES:
        importlib.import_module(name)
    print(json.dumps(run(**json.loads(sys.argv[1]))))
