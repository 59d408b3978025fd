"""SupportSet: its checks, its device, and its file."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from helpers.builders import draw_task
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from transformers_tart import SupportSet


def make_support(**changes: object) -> SupportSet:
    embeddings, labels, _, _ = draw_task(6, dim=5)
    fields = {"embeddings": embeddings[0], "labels": labels[0], "label_names": ("ham", "spam"), "texts": None}
    return SupportSet(**{**fields, **changes})


def assert_same(a: SupportSet, b: SupportSet) -> None:
    assert torch.equal(a.embeddings, b.embeddings)
    assert torch.equal(a.labels, b.labels)
    assert (a.label_names, a.texts) == (b.label_names, b.texts)


@pytest.mark.parametrize("shape", [(6, 5), (6, 3, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test__support_set__saved_and_loaded__same(shape: tuple, dtype: torch.dtype, tmp_path: Path) -> None:
    support = make_support(embeddings=torch.randn(shape).to(dtype))
    support.save(tmp_path / "s.safetensors")
    loaded = SupportSet.load(tmp_path / "s.safetensors")
    assert_same(loaded, support)
    assert loaded.embeddings.dtype == dtype


def pack(support: SupportSet) -> SupportSet:
    packed = support.pack()
    assert packed is not None
    assert packed.packed is not None
    return packed


@pytest.mark.parametrize("shape", [(6, 5), (6, 3, 5)])
def test__packed_support__saved_loaded_and_saved__same_bits_and_bytes(shape: tuple, tmp_path: Path) -> None:
    support = pack(make_support(embeddings=torch.randn(shape)))
    support.save(tmp_path / "a.safetensors")
    loaded = SupportSet.load(tmp_path / "a.safetensors")
    assert_same(loaded, support)
    assert loaded.storage == support.storage
    loaded.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert "embeddings" not in file.keys()  # noqa: SIM118 (no mapping)


def test__packed_support__renamed_or_moved__stays_packed() -> None:
    support = pack(make_support())
    assert dataclasses.replace(support, label_names=("a", "b")).packed is support.packed
    assert support.to("cpu").packed is support.packed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test__packed_support__other_embeddings__are_stored_instead(dtype: torch.dtype, tmp_path: Path) -> None:
    support, other = pack(make_support()), torch.randn(6, 5, dtype=dtype)
    replaced = dataclasses.replace(support, embeddings=other)
    assert replaced.packed is None
    replaced.save(tmp_path / "s.safetensors")
    assert torch.equal(SupportSet.load(tmp_path / "s.safetensors").embeddings, other)


def test__storage__packed_or_not__size_and_dtype_of_what_is_stored() -> None:
    support = make_support(embeddings=torch.randn(6, 10, 100))
    assert support.storage == "6 examples of 4.0 kB in float32, 24.0 kB in all"
    assert pack(support).storage == "6 examples of 2.0 kB in float16, 16.0 kB in all"  # with a center and units


@given(names=st.lists(st.text(), min_size=2, max_size=4, unique=True))
def test__support_set__any_label_names__survive(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("names") / "s.safetensors"
    support = make_support(label_names=tuple(names))
    support.save(path)
    assert SupportSet.load(path).label_names == tuple(names)


def test__save__many_times__same_bytes(tmp_path: Path) -> None:
    support = make_support(texts=tuple("abcdef"))
    for i in range(12):
        support.save(tmp_path / f"{i}.safetensors", include_texts=True)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test__save__texts_not_asked_for__are_not_stored(tmp_path: Path) -> None:
    make_support(texts=("zanzibar",) * 6).save(tmp_path / "s.safetensors")
    assert b"zanzibar" not in (tmp_path / "s.safetensors").read_bytes()
    assert SupportSet.load(tmp_path / "s.safetensors").texts is None


def test__save__texts_asked_for__survive_pairs_included(tmp_path: Path) -> None:
    texts = ("a", ("b", "c"), "é", "", ("", "d"), '"')
    make_support(texts=texts).save(tmp_path / "s.safetensors", include_texts=True)
    assert SupportSet.load(tmp_path / "s.safetensors").texts == texts


def test__save__texts_asked_for_and_absent__says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no texts; build it from examples"):
        make_support().save(tmp_path / "s.safetensors", include_texts=True)
    assert not (tmp_path / "s.safetensors").exists()


def test__save__slices_and_transposes__are_written(tmp_path: Path) -> None:
    support = make_support(embeddings=torch.randn(5, 6).T, labels=torch.tensor([0, 1] * 6)[::2] + torch.arange(6) % 2)
    support.save(tmp_path / "s.safetensors")
    assert_same(SupportSet.load(tmp_path / "s.safetensors"), support)


def test__saved_file__metadata__is_json_text_alone(tmp_path: Path) -> None:
    make_support().save(tmp_path / "s.safetensors")
    with safe_open(tmp_path / "s.safetensors", framework="pt") as file:
        assert [json.loads(value) for value in file.metadata().values()] == [{"label_names": ["ham", "spam"]}]
        assert sorted(file.keys()) == ["embeddings", "labels"]


def test__to__device__returns_an_equal_one() -> None:
    support = make_support(texts=tuple("abcdef"))
    moved = support.to("cpu")
    assert moved is not support
    assert_same(moved, support)


def test__support_set__attributes__are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_support().labels = torch.zeros(6, dtype=torch.int64)


def test__support_set__repr__shows_sizes_and_no_content() -> None:
    shown = repr(make_support(texts=("zanzibar",) * 6, label_names=("quagga", "okapi")))
    assert shown == "SupportSet(k=6, classes=2, embeddings=(6, 5))"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": torch.randn(5)}, r"needs embeddings \(k, hidden\) or \(k, layers, hidden\)"),
        ({"embeddings": torch.randn(7, 5)}, r"got \(7, 5\) and \(6,\)"),
        ({"labels": torch.zeros(6, 1, dtype=torch.int64)}, r"labels \(k,\)"),
        ({"labels": torch.tensor([0.0, 1, 0, 1, 0, 1])}, "must be int64, got torch.float32"),
        ({"labels": torch.tensor([0, 1, 2, 0, 1, 2])}, "indices into the 2 label names"),
        ({"labels": torch.tensor([0, 1, -1, 0, 1, 0])}, "indices into the 2 label names"),
        ({"labels": torch.zeros(6, dtype=torch.int64)}, "at least two classes"),
        ({"embeddings": torch.randn(0, 5), "labels": torch.zeros(0, dtype=torch.int64)}, "indices into"),
        ({"embeddings": torch.full((6, 5), torch.nan)}, "NaN or infinite.*dtype=torch.float32"),
        ({"embeddings": torch.full((6, 5), -torch.inf)}, "NaN or infinite.*dtype=torch.float32"),
        ({"texts": ("a", "b")}, "There are 2 texts for 6 examples"),
    ],
)
def test__support_set__what_does_not_fit__clear_error(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_support(**changes)
