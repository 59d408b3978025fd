"""Tries bad and odd inputs, one after another, and notes what comes of each; run by test_fuzz_inputs.

`python fuzz_inputs.py FOLDER SEED [PATTERN]` writes `FOLDER/cases.json`.
"""

import contextlib
import io
import json
import os
import random
import re
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import fuzz_commands
import fuzz_model
import fuzz_pipeline
import fuzz_reasoner
from fuzz_values import ODD, Case, Group, are_equal

import transformers_tart


SECONDS, MEMORY, LONGEST, MOST = 30, 2**30, 1500, 250
ALLOWED = (ImportError, OSError, TypeError, ValueError)
OURS = os.path.dirname(transformers_tart.__file__)


class TimeUp(BaseException):
    """Not an Exception, so that nothing on the way takes it for its own."""


def raise_time_up(*args: Any) -> None:
    raise TimeUp


def judge_error(case: Case, err: Exception) -> str:
    """What is wrong with an error, or nothing."""
    said, where = str(err), traceback.extract_tb(err.__traceback__)[-1]
    if case.check is not None and not case.may_refuse:
        return "a legitimate input is refused"
    if not re.search(case.mention, said, re.IGNORECASE):
        return f"the message lacks {case.mention}"
    if not said.strip() or len(said) > LONGEST:
        return f"a message of {len(said)} characters"
    if re.search("[\ud800-\udfff]", said):
        return "a message that cannot be written"
    is_of_system = isinstance(err, OSError) and err.errno is not None
    is_of_user = isinstance(err, KeyError) or where.filename.endswith(("fuzz_pipeline.py", "fuzz_model.py"))
    if not (where.filename.startswith(OURS) or is_of_system or is_of_user or case.mention):
        return f"raised in {where.filename}:{where.lineno}"
    return ""


def attempt(case: Case) -> str:
    """Try a case and say what came of it."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        found = case.thunk()
        if case.check is None:
            return f"WRONG: no error, but {repr(found)[:200]}"
        return "right" if case.check(found) else f"WRONG: {repr(found)[:300]}"
    except ALLOWED as err:
        fault = judge_error(case, err)
        return f"{f'FAULT: {fault}: ' if fault else ''}{type(err).__name__}: {str(err)[:300]}"
    except TimeUp:
        return "FAULT: too slow"
    except BaseException as err:
        place = traceback.extract_tb(err.__traceback__)[-1]
        return f"FAULT: {type(err).__name__}: {str(err)[:300]} at {place.filename}:{place.lineno}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run(group: Group, case: Case, expected: Any) -> dict[str, Any]:
    """Try a case, and a good call after it."""
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        outcome = attempt(case)
    seconds = time.perf_counter() - begin
    try:
        is_broken = not are_equal(group.good(), expected)
    except Exception as err:
        is_broken, outcome = True, f"{outcome} ({err})"
    if is_broken:
        outcome = f"FAULT: a good call gives another answer after {outcome}"
    if printed.getvalue() and group.name != "commands":
        outcome = f"FAULT: {printed.getvalue()[:50]!r} printed after {outcome}"
    return {"name": f"{group.name}: {case.name}", "outcome": outcome, "seconds": round(seconds, 2)}


def draw(cases: list[Case], generator: random.Random) -> list[Case]:
    """Draw some of the odd values for each argument, beside all cases of their own, and mix them."""
    odd = [case for case in cases if case.name.rpartition(": ")[2] in ODD]
    own = [case for case in cases if case not in odd]
    drawn = own + generator.sample(odd, min(MOST, len(odd)))
    generator.shuffle(drawn)
    return drawn


def main(folder: str, seed: str, pattern: str = "") -> None:
    """Run cases, drawn and mixed by the seed, or all whose name fits a pattern, under a limit of memory."""
    os.chdir(folder)
    modules = (fuzz_pipeline, fuzz_model, fuzz_reasoner, fuzz_commands)
    groups = [group for module in modules for group in module.groups(Path(folder))]
    signal.signal(signal.SIGALRM, raise_time_up)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    found = []
    for group in groups:
        cases = [case for case in group.cases() if re.search(pattern, f"{group.name}: {case.name}")]
        cases = draw(cases, random.Random(seed)) if not pattern else cases
        expected = group.good()
        found += [run(group, case, expected) for case in cases]
        Path("cases.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
