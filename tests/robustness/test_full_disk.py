"""A full disk: an OSError that gives the reason, from every writer, and finished work is kept."""

import errno
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers.caches import is_complete, make_cache, make_row
from helpers.full_disk import fill
from helpers.results import DONE
from helpers.training import SHORT, TASKS, TINY
from transformers import AutoTokenizer

from transformers_tart import TartReasoner
from transformers_tart.backbones import MINI
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.evaluation.records import append_record, read_records
from transformers_tart.evaluation.report import Comparison, write_report
from transformers_tart.files import explain_full_disk, write_whole
from transformers_tart.training.trainer import train_reasoner


WRITERS = {
    "safetensors": lambda folder: safetensors.torch.save_file({"a": torch.zeros(300_000)}, folder / "a.safetensors"),
    "torch": lambda folder: torch.save(torch.zeros(300_000), folder / "a.pt"),
    "tokenizers": lambda folder: AutoTokenizer.from_pretrained(MINI).save_pretrained(folder / "tokenizer"),
    "text": lambda folder: (folder / "a.txt").write_text("a" * 1_200_000),
}


@pytest.mark.parametrize("writer", WRITERS)
def test__explain_full_disk__library_s_own_error__os_error_with_the_path(writer: str, small_disk: Path) -> None:
    fill(small_disk, leave=1 << 16)
    with (
        pytest.raises(OSError, match="No space left on device: .*task") as caught,
        explain_full_disk(small_disk / "task"),
    ):
        WRITERS[writer](small_disk)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyError("a"), FileNotFoundError(2, "No such file")])
def test__explain_full_disk__another_error__left_as_it_is(error: Exception, small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(type(error)) as caught, explain_full_disk(small_disk):
        raise error
    assert caught.value is error


def test__explain_full_disk__error_without_reason_on_a_disk_with_room__left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="unexpected pos"), explain_full_disk(tmp_path / "a" / "b"):
        raise RuntimeError("unexpected pos 576 vs 534")


def test__write_whole__full_disk__older_file_kept_and_nothing_left_over(small_disk: Path) -> None:
    write_whole(small_disk / "a.json", "before")
    fill(small_disk)
    with pytest.raises(OSError, match="No space left on device: .*a.json"):
        write_whole(small_disk / "a.json", "a" * 100_000)
    assert (small_disk / "a.json").read_text() == "before"
    assert sorted(os.listdir(small_disk)) == ["a.json", "filler"]


def append_seeds(path: Path) -> None:
    for seed in range(1, 100):
        append_record(path, replace(DONE, seed=seed))


def test__results__full_disk__whole_records_kept(small_disk: Path) -> None:
    path = small_disk / "results.jsonl"
    append_record(path, DONE)
    fill(small_disk)
    with pytest.raises(OSError, match="No space left on device: .*results.jsonl"):
        append_seeds(path)  # the page of the file has room for some
    kept = len(read_records(small_disk))
    assert 0 < kept < 100
    (small_disk / "filler").unlink()
    append_record(path, replace(DONE, seed=100))
    assert len(read_records(small_disk)) == kept + 1


def put_rows(cache: EmbeddingCache) -> None:
    for i in range(100):
        cache.put([cache.key([i])], make_row(i, 10_000))


def fill_cache(folder: Path) -> None:
    cache = make_cache(folder / "cache")
    with pytest.raises(OSError, match="No space left on device: .*cache"):
        put_rows(cache)
    kept = sum(row is not None for row in cache.get([cache.key([i]) for i in range(100)]))
    assert 0 < kept < 100
    assert is_complete(cache, kept, 10_000)


def open_cache(folder: Path) -> None:
    fill(folder)
    with pytest.raises(OSError, match="No space left on device: .*cache"):
        make_cache(folder / "cache")


@pytest.mark.slow
@pytest.mark.parametrize("work", [fill_cache, open_cache])
def test__cache__full_disk__said_and_embeddings_kept(work: Callable[[Path], None], small_disk: Path) -> None:
    # in a process of its own, which a write through memory that fails would kill
    process = multiprocessing.get_context("fork").Process(target=work, args=(small_disk,))
    process.start()
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.slow
def test__train_reasoner__full_disk__last_checkpoint_kept_and_resumed(small_disk: Path, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole", small_disk / "reasoner"
    train_reasoner(TINY, whole, SHORT, TASKS)
    train_reasoner(TINY, output, SHORT, TASKS, max_minutes=0)
    saved = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    for leave in (4 << 10, 12 << 10, 48 << 10):
        fill(small_disk, leave)
        with pytest.raises(OSError, match="No space left on device: .*reasoner"):
            train_reasoner(TINY, output, SHORT, TASKS, resume=True)
        assert [path.name for path in output.glob("*checkpoint*")] == ["checkpoint-1"]
        assert TartReasoner.from_pretrained(output) is not None
        (small_disk / "filler").unlink()
    assert saved.keys() == {path.name for path in output.iterdir() if path.is_file()}
    train_reasoner(TINY, output, SHORT, TASKS, resume=True)
    assert (output / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
def test__report__full_disk__said(small_disk: Path) -> None:
    pytest.importorskip("matplotlib")
    for seed in range(2):
        append_record(small_disk / "results.jsonl", replace(DONE, seed=seed))
    fill(small_disk, leave=16 << 10)
    with pytest.raises(OSError, match="No space left on device: .*plots"):
        write_report(small_disk, Comparison.of(read_records(small_disk)))
    with pytest.raises(OSError, match="No space left on device: .*small"):
        write_report(small_disk, Comparison.of(read_records(small_disk)), with_plots=False)
