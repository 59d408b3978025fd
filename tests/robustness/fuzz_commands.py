"""Bad and odd options and files of every command, run in this process."""

# ruff: noqa: E501 (tables of cases)

import contextlib
import functools
import gzip
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from fuzz_values import Case, Group
from helpers.builders import build_reasoner, build_tokenizer, make_examples, make_texts, save_backbone
from helpers.published import SIZES, published_state
from safetensors.torch import save_file

from transformers_tart.cli import main


LONGEST = 1500
OUTPUT = Path("evaluated")  # in the folder of the test, where it runs
ODD_NUMBERS = ("0", "-1", "1.5", "nan", "x", "", "1e9", "9" * 30)
MODEL_COMMANDS = ("classify", "push", "demo")
COUNTS = {
    "classify": ("--batch-size",),
    "evaluate": ("--seeds", "--max-test", "--max-length", "--batch-size", "--k"),
    "evaluate-reasoner": ("--seeds", "--k", "--per-class", "--train-rows"),
    "diagnose": ("--seeds", "--max-test", "--tasks", "--max-length", "--batch-size", "--k"),
    "bench": ("--repeats", "--k", "--queries"),
    "train-reasoner": ("--max-steps",),
}
TABLES = {
    "empty.jsonl": b"", "empty.csv": b"", "line.csv": b"\n", "brackets.jsonl": b"[" * 5000, "array.jsonl": b"[1]", "number.jsonl": b"1\n", "cut.jsonl": b'{"text": "w1"',
    "wide.csv": b"text,label\na,b,c\n", "quote.csv": b'text,label\n"a,b\n', "latin.csv": b"text,label\n\xe4,a\n", "twice.csv": b"text,text,label\na,b,c\n",
    "other.csv": b"body,kind\na,b\n", "header.csv": b"text,label\n", "zip.parquet": b"PK\x03\x04", "text.parquet": b"hello", "text.csv.gz": b"hello", "cut.csv.gz": gzip.compress(b"text,label\na,b\n" * 99)[:40],
    "null.jsonl": b"null\n", "nan.jsonl": b'{"text": NaN, "label": "a"}\n', "deep.jsonl": b'{"text": ' + b"[" * 3000, "digits.jsonl": b'{"text": ' + b"9" * 5000 + b"}",
    "ints.jsonl": b'{"text": 1, "label": "a"}\n', "nul.csv": b"text,label\na\x00b,c\n", "bom.csv": b"\xff\xfet\x00e\x00x\x00t\x00", "one.jsonl": b'{"text": "w1", "label": "a"}\n',
    "blank.csv": b"text,label\na,\nb,x\n", "ignored.csv": b"text,label\na,-100\nb,1\nc,2\n", "mixed.jsonl": b'{"text": "a", "label": 1}\n{"text": "b", "label": "x"}\n', "ending.doc": b"text\n", "noending": b"text\n",
}  # fmt: skip
GOOD_INPUT = (
    "empty.jsonl",
    "empty.csv",
    "header.csv",
    "blank.csv",
    "ignored.csv",
    "mixed.jsonl",
    "one.jsonl",
    "nul.csv",
    "nan.jsonl",
    "ints.jsonl",
    "line.csv",
)


class Outcome(NamedTuple):
    """What a command line ended with."""

    code: int
    out: str
    err: str


def run(*arguments: object) -> Outcome:
    """Run a command line in this process."""
    shutil.rmtree(OUTPUT, ignore_errors=True)  # a folder of another run would be refused for that reason alone
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
    out.flush()
    return Outcome(code, out.buffer.getvalue().decode(), err.getvalue())  # type: ignore[attr-defined]


def is_refused(found: Outcome) -> bool:
    """Whether a command ended with exit code 1 or 2 and a short line on stderr."""
    lines = [line for line in found.err.splitlines() if line.strip() and not line.startswith((" ", "usage:"))]
    said = lines[-1] if lines else ""
    return (
        found.code in (1, 2)
        and said.startswith(("transformers-tart", "classify: "))
        and len(said) < LONGEST
        and "Traceback" not in found.err
    )


def is_done(found: Outcome) -> bool:
    """Whether a command ended well, or with a refusal in one line."""
    return found.code == 0 or is_refused(found)


def write_files(folder: Path) -> None:
    """Write models, tables and checkpoints, good and bad ones."""
    save_backbone(folder / "base")
    build_reasoner().save_pretrained(folder / "reasoner")
    for name, content in TABLES.items():
        (folder / name).write_bytes(content)
    rows = make_examples(40)
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "texts.txt").write_text("\n".join(make_texts(3, seed=5)) + "\n")
    (folder / "folder.csv").mkdir(exist_ok=True)
    torch.save(published_state(), folder / "published.pt")
    (folder / "sizes.json").write_text(json.dumps(SIZES))
    save_file({"embeddings": torch.randn(80, 8), "labels": torch.arange(80) % 2}, folder / "embedded.safetensors")
    save_file(
        {"embeddings": torch.full((80, 8), torch.nan), "labels": torch.arange(80) % 2}, folder / "nan.safetensors"
    )
    save_file({"x": torch.zeros(1)}, folder / "other.safetensors")
    (folder / "broken.safetensors").write_bytes(b"\xff" * 99)
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / "results.jsonl").write_text("{broken\n")
    os.mkfifo(folder / "pipe.jsonl")


def good_options(folder: Path) -> dict[str, list[object]]:
    """Options with which each command would work."""
    base, examples = folder / "base", folder / "examples.jsonl"
    return {
        "classify": ["--model", base, "--examples", examples, "--input", folder / "texts.txt"],
        "push": ["--model", base, "--examples", examples, "--repo-id", "me/x"],
        "convert": ["--checkpoint", folder / "published.pt", "--config", folder / "sizes.json", "--output", folder / "converted"],
        "evaluate": ["--model", base, "--task", examples, "--k", 8, "--seeds", 1, "--output", OUTPUT, "--methods", "majority"],
        "evaluate-reasoner": [folder / "embedded.safetensors", "--k", 8, "--seeds", 1, "--reasoner", folder / "reasoner"],
        "diagnose": ["--model", base, "--task", examples, "--k", 8, "--seeds", 1, "--tasks", 2, "--no-fine-tuning"],
        "bench": ["prepare", "--repeats", 1, "--k", 4, "--queries", 2],
        "report": [folder / "results", "--no-plots"],
        "train-reasoner": ["--output", folder / "trained", "--max-steps", 1, "--no-validation"],
        "demo": ["--model", base],
    }  # fmt: skip


def command_cases(folder: Path) -> Iterator[Case]:
    """Options and files of every command."""
    good = good_options(folder)

    def refuse(name: str, *arguments: object) -> Case:
        return Case(name, lambda: run(*arguments), is_refused)

    for command, options in good.items():
        yield refuse(f"{command}: unknown option", command, *options, "--nonsense")
        yield refuse(f"{command}: one value too many", command, *options, "--seed", "x", "y")
        if command not in ("demo", "bench"):
            yield refuse(f"{command}: nothing", command)
        for option in COUNTS.get(command, ()):
            for value in ODD_NUMBERS[: 8 if option == "--seeds" or (option == "--k" and command != "evaluate") else 7]:
                yield Case(
                    f"{command}: {option} {value[:9]}",
                    lambda a=(command, *options, option, value): run(*a),
                    is_refused,
                )
    for command in ("classify", "push", "demo", "evaluate", "diagnose"):
        for option in ("--dtype", "--device", "--protocol", "--template", "--device-map"):
            for value in ("nonsense", "", "cuda:77", "cpu:1", "float64", "meta", "\0", "x" * 100):
                yield refuse(f"{command}: {option} {value[:9]!r}", command, *good[command], option, value)
        for value in (
            "",
            "nowhere",
            "/nowhere",
            "a/b/c",
            "/",
            "\0",
            "x" * 5000,
            folder / "reasoner",
            folder / "texts.txt",
            "file:///etc",
            "~",
            "-",
        ):
            arguments = [
                value if i and good[command][i - 1] == "--model" else each for i, each in enumerate(good[command])
            ]
            if command != "evaluate":  # which loads the model where a method needs it, and notes what fails
                yield refuse(f"{command}: --model {str(value)[-12:]!r}", command, *arguments)
        if command != "evaluate":
            yield refuse(f"{command}: --revision", command, *good[command], "--revision", "")
    tables = [*TABLES, "nowhere.csv", "folder.csv", "pipe.jsonl", ""]
    for name in tables:
        inputs = (
            "classify",
            "--model",
            folder / "base",
            "--examples",
            folder / "examples.jsonl",
            "--input",
            folder / name,
        )
        check = is_done if name in GOOD_INPUT else is_refused
        yield Case(f"classify: input {name}", lambda a=inputs: run(*a), check)
        for command in ("classify", "push", "evaluate", "diagnose"):
            key = "--examples" if command in ("classify", "push") else "--task"
            arguments = [
                folder / name if i and good[command][i - 1] == key else each for i, each in enumerate(good[command])
            ]
            yield refuse(f"{command}: {key} {name}", command, *arguments)
    for name in (
        "x.txt",
        "",
        "folder.csv",
        "nowhere/x.csv",
        "/dev/null/x.csv",
        "texts.txt",
        "examples.jsonl",
        "x",
        "\0.csv",
        "y" * 300 + ".csv",
    ):
        yield refuse(
            f"classify: output {name[:12]!r}", "classify", *good["classify"], "--output", folder / name if name else ""
        )
    for value in ("nonsense", "", "TART", "tart tart"):
        yield refuse(f"evaluate: methods {value}", "evaluate", *good["evaluate"], "--methods", value)
        yield refuse(
            f"evaluate-reasoner: baselines {value}",
            "evaluate-reasoner",
            *good["evaluate-reasoner"],
            "--baselines",
            value,
        )
        yield refuse(
            f"evaluate-reasoner: metrics {value}", "evaluate-reasoner", *good["evaluate-reasoner"], "--metrics", value
        )
        yield refuse(f"bench: pair {value}", "bench", value, "--repeats", 1)
        yield refuse(f"train-reasoner: preset {value}", "train-reasoner", "--output", folder / "t", "--preset", value)
    for name in ("nan", "other", "broken", "nowhere"):
        yield refuse(f"evaluate-reasoner: {name}", "evaluate-reasoner", folder / f"{name}.safetensors", "--k", 8)
    for name in ("texts.txt", "nowhere", "empty.csv", "base", "other.safetensors", ""):
        yield refuse(
            f"convert: checkpoint {name}",
            "convert",
            "--checkpoint",
            folder / name,
            "--config",
            folder / "sizes.json",
            "--output",
            folder / "c",
        )
        yield refuse(
            f"convert: config {name}",
            "convert",
            "--checkpoint",
            folder / "published.pt",
            "--config",
            folder / name,
            "--output",
            folder / "c",
        )
        yield refuse(f"report: {name}", "report", folder / name, "--no-plots")
    for command, output in (("convert", "texts.txt"), ("train-reasoner", "texts.txt"), ("evaluate", "texts.txt")):
        yield refuse(f"{command}: output is a file", command, *good[command], "--output", folder / output)
    for command in ("bench", "diagnose"):
        for name in ("nowhere/x.json", "folder.csv", ""):
            yield refuse(f"{command}: json {name}", command, *good[command], "--json", folder / name)
    yield refuse("bench: pairs and a profile", "bench", "prepare", "--profile")
    yield refuse("demo: revision alone", "demo", "--revision", "main")
    yield refuse(
        "push: reasoner with examples",
        "push",
        "--model",
        folder / "reasoner",
        "--examples",
        folder / "examples.jsonl",
        "--repo-id",
        "me/x",
    )
    for name in ("", "a/b/c", "..", "me/", "x" * 200):
        yield refuse(f"push: repository {name[:9]!r}", "push", "--model", folder / "reasoner", "--repo-id", name)
    for arguments in ([], ["nonsense"], [""], ["--nonsense"], ["classify", "--help", "x", "--nope"][:1]):
        yield refuse(f"arguments {arguments}", *arguments)


def groups(folder: Path) -> Iterator[Group]:
    """The group of cases."""
    folder = folder / "commands"
    folder.mkdir()
    write_files(folder)
    good = functools.partial(run, "classify", *good_options(folder)["classify"], "--device", "cpu")
    yield Group("commands", functools.partial(command_cases, folder), good)


__all__ = ["build_tokenizer", "groups"]
