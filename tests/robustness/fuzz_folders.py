"""Loading of damaged and hostile folders, one after another, with a record of each outcome; run by test_fuzz_folders.

`python fuzz_folders.py FOLDER COUNT SEED` writes `FOLDER/cases.json`.
"""

import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from helpers.builders import build_reasoner, build_tokenizer, make_examples, make_pipeline, make_texts, save_backbone
from helpers.sentence_encoders import write_encoder
from safetensors import SafetensorError
from safetensors.torch import load_file

from transformers_tart import TartClassificationPipeline, TartForSequenceClassification, TartReasoner


SECONDS, MEMORY = 30, 2**30
ALLOWED = (OSError, TypeError, ValueError)
KINDS = ("task", "whole", "reasoner", "base", "encoder")
DEEP = "[" * 50_000
VALUES: list[Any] = [
    None, True, -1, 0, 1, 10**6, 2**31, 2**63, 10**18, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x",
    "../outside", "/etc/passwd", "~", "C:\\x", "a\0b", "\u202e\ud800", "x" * 10**5, [], [1], [None], {}, {"a": 1},
    [[[[1]]]], {"model_type": "tart"}, {"model_type": "gpt2", "n_layer": 10**6}, "tart",
    "../outside/model.safetensors", list(range(10**4)), {str(i): i for i in range(10**4)},
]  # fmt: skip
CODE = {"AutoConfig": "evil.A", "AutoModel": "evil.B", "AutoTokenizer": ["evil.C", "evil.C"]}
events: list[str] = []


class TimeUp(BaseException):
    """Not an Exception, so that no handler on the way catches it."""


class Mark:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("executed",)


def truncate(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content) + 1)])


def flip(path: Path, draw: random.Random) -> None:
    """Flip bits of a text, or of the header of weights; changed weights of a backbone cannot be detected."""
    content = bytearray(path.read_bytes())
    end = len(content) if path.suffix != ".safetensors" else 8 + int.from_bytes(content[:8], "little")
    for _ in range(draw.choice([1, 3, 30])):
        content[draw.randrange(max(1, min(end, len(content))))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))


def flip_weights(path: Path, draw: random.Random) -> None:
    """Flip one bit of the numbers in a file whose checksum is in the config beside it."""
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[draw.randrange(start, len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))


def has_checksum(path: Path) -> bool:
    """Return whether the config beside a file, which may be damaged by now, gives its checksum."""
    try:
        fields = json.loads((path.parent / "config.json").read_text())
        return path.name in fields["sha256"]
    except (LookupError, OSError, TypeError, ValueError, RecursionError):
        return False


def delete(path: Path, draw: random.Random) -> None:
    path.unlink()


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def make_folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def link(path: Path, draw: random.Random) -> None:
    target = draw.choice([path.name, "nowhere", "/dev/zero", "/dev/null", ".", "config.json"])
    path.unlink()
    path.symlink_to(target)


def swap(path: Path, draw: random.Random) -> None:
    other = draw.choice([each for each in files_of(path.parent) if each != path] or [path])
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


def nest(path: Path, draw: random.Random) -> None:
    path.write_text(
        draw.choice([DEEP, '{"a":' * 50_000, '{"model_type": "gpt2", "x": ' + "[" * 500 + "]" * 500 + "}"])
    )


def garble(path: Path, draw: random.Random) -> None:
    path.write_bytes(draw.choice([b"[1]", b"null", b"\xff\xfe\x00", draw.randbytes(500), b'"text"']))


def hollow(path: Path, draw: random.Random) -> None:
    path.write_text("{}")


def edit(path: Path, draw: random.Random) -> None:
    """Replace a field of a JSON file, at any depth, or add one."""
    found = json.loads(path.read_text())
    places = [found]
    for place in places:
        children = place.values() if isinstance(place, dict) else place
        places += [child for child in children if isinstance(child, (dict, list)) and child]
    place = draw.choice(places[:40])
    key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
    if isinstance(place, dict) and draw.random() < 0.1:
        key = draw.choice(["auto_map", "transformers_weights", "quantization_config", "to_dict", "__class__", "dtype"])
    place[key] = CODE if key == "auto_map" else draw.choice(VALUES)
    path.write_text(json.dumps(found))


def name_code(path: Path, draw: random.Random) -> None:
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "auto_map": CODE, "model_type": "evil", "tokenizer_class": "C"}))


def pickle_weights(path: Path, draw: random.Random) -> None:
    """Write pickles in place of weights, or under their name."""
    content = pickle.dumps({"weight": Mark()})
    if draw.random() < 0.5:
        path.unlink()
        path = path.with_name("pytorch_model.bin")
    path.write_bytes(content)


def shard(path: Path, draw: random.Random) -> None:
    """Write an index that names shards elsewhere."""
    name = draw.choice([*(value for value in VALUES if not isinstance(value, dict)), "../outside/model.safetensors"])
    weight_map = dict.fromkeys(load_file(path), str(name) if isinstance(name, list) else name)
    path.unlink()
    fields = {"metadata": draw.choice([{}, {"total_size": 10**18}, None, []]), "weight_map": weight_map}
    path.with_name("model.safetensors.index.json").write_text(json.dumps(fields))


Mutation = Callable[[Path, random.Random], None]
ANY: list[Mutation] = [truncate, flip, delete, empty, make_folder, link, swap, garble]
JSON: list[Mutation] = [edit, edit, edit, edit, edit, edit, nest, name_code, hollow]
WEIGHTS: list[Mutation] = [pickle_weights, shard, shard]
LEGITIMATE = (edit, flip, hollow, swap)  # what may leave a folder that is whole, and says something else


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in (".json", ".safetensors"))


def build(folder: Path) -> None:
    """Write the folders to damage, and a folder outside of them."""
    base = save_backbone(folder / "base")
    classify = make_pipeline(TartForSequenceClassification.from_backbone(base, build_reasoner()))
    classify.save_pretrained(folder / "task")
    classify.save_pretrained(folder / "whole", include_backbone=True)
    build_reasoner().save_pretrained(folder / "reasoner")
    write_encoder(folder / "encoder")
    build_tokenizer().save_pretrained(folder / "encoder")


def answer(kind: str, folder: Path) -> torch.Tensor:
    """Return the predictions of a folder for the same inputs."""
    texts = make_texts(6, seed=1)
    torch.manual_seed(0)
    if kind == "reasoner":
        reasoner = TartReasoner.from_pretrained(folder / kind)
        return reasoner(torch.randn(1, 8, 16), torch.tensor([[0, 1] * 4]), torch.randn(1, 3, 16)).logits.detach()
    if kind in ("task", "whole"):
        classify = TartClassificationPipeline(model=TartForSequenceClassification.from_pretrained(folder / kind))
    else:
        model = TartForSequenceClassification.from_backbone(folder / kind, build_reasoner())
        classify = TartClassificationPipeline(model=model, examples=make_examples())
    rows = classify(texts, top_k=None, function_to_apply="none")
    return torch.tensor([[score["score"] for score in sorted(row, key=lambda each: each["label"])] for row in rows])


def place(source: Path, target: Path) -> None:
    """Copy all folders, and let the task refer to the copy of its backbone."""
    shutil.copytree(source, target)
    config = json.loads((target / "task" / "config.json").read_text())
    config["base_model_name_or_path"] = str(target / "base")
    (target / "task" / "config.json").write_text(json.dumps(config))


def watch(source: Path) -> None:
    """Record unpickling, and access to the folder outside."""
    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        original = getattr(module, name)

        def noted(*args: Any, _original: Any = original, _name: str = name, **kwargs: Any) -> Any:
            events.append(f"unpickled by {_name}")
            return _original(*args, **kwargs)

        setattr(module, name, noted)

    def hook(event: str, args: tuple) -> None:
        if event == "open" and "/outside/" in str(args[0]) and "r" in str(args[1] or "r"):
            events.append(f"read {args[0]}")

    sys.addaudithook(hook)


def raise_time_up(*args: Any) -> None:
    raise TimeUp


def run(number: int, seed: int, source: Path, expected: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Damage a copy, load it, and return the outcome."""
    draw, target = random.Random(f"{seed}-{number}"), source.parent / "case" / "inside"
    shutil.rmtree(target.parent, ignore_errors=True)
    place(source, target)
    shutil.copytree(source / "base", target.parent / "outside")
    shutil.copytree(source / "base", target / "outside" / "base")
    kind, applied, done = KINDS[number % len(KINDS)], [], []
    for _ in range(draw.choice([1, 1, 1, 2])):
        where = "base" if kind == "task" and draw.random() < 0.4 else kind
        path = draw.choice(files_of(target / where))
        choices = ANY + (JSON if path.suffix == ".json" else WEIGHTS if "model" in path.name else [])
        choices += [flip_weights] * 4 if has_checksum(path) else []
        mutate = draw.choice(choices)
        applied.append(f"{mutate.__name__} {path.relative_to(target)}")
        done.append(mutate)
        try:
            mutate(path, draw)
        except (AttributeError, LookupError, OSError, SafetensorError, TypeError, ValueError) as err:
            applied[-1] += f" (not possible any more: {type(err).__name__})"
    events.clear()
    begin, case = time.perf_counter(), {"number": number, "kind": kind, "damage": applied}
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with torch.no_grad():
            found = answer(kind, target)
        is_same = found.shape == expected[kind].shape and bool(torch.equal(found, expected[kind]))
        may_differ = any(mutate in LEGITIMATE for mutate in done)
        outcome = "same" if is_same else "other" if may_differ and bool(found.isfinite().all()) else "WRONG"
    except ALLOWED as err:
        outcome = f"{type(err).__name__}: {str(err)[:200]}"
    except TimeUp:
        outcome = "FAULT: too slow"
    except BaseException as err:
        outcome = f"FAULT: {type(err).__name__}: {str(err)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if events or Path("executed").exists():
        outcome = f"FAULT: {sorted(set(events))} {Path('executed').exists()} after {outcome}"
    return {**case, "outcome": outcome, "seconds": round(time.perf_counter() - begin, 2)}


def main(folder: str, count: str, seed: str) -> None:
    """Run all cases under a limit of memory."""
    os.chdir(folder)
    source = Path(folder) / "source"
    build(source)
    place(source, Path(folder) / "first")
    expected = {kind: answer(kind, Path(folder) / "first") for kind in KINDS}
    watch(source)
    signal.signal(signal.SIGALRM, raise_time_up)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    cases = [run(number, int(seed), source, expected) for number in range(int(count))]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    Path("cases.json").write_text(json.dumps({"peak_mb": peak, "cases": cases}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
