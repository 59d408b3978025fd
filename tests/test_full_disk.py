"""A full disk: an OSError that gives the reason, from every writer, and finished work is kept."""

import errno
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from full_disk import fill
from transformers import AutoTokenizer

from transformers_tart.backbones import MINI
from transformers_tart.files import explain_full_disk, write_whole


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
