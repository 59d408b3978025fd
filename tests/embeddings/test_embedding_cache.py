"""The cache of embeddings: its keys and its file."""

import contextlib
import copy
import os
import pickle
import random
import shutil
import sqlite3
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers.builders import build_backbone
from helpers.caches import is_complete, make_cache, make_row
from torch import Tensor, nn
from transformers import PreTrainedModel

from transformers_tart.embeddings import cache as cache_module
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.errors import CorruptFileError


pytestmark = pytest.mark.core


IDS = [[31001, 31002, 31003, 31004], [31005, 31006]]


# Round trips


@pytest.mark.parametrize("shape", [(3, 8), (3, 4, 8), (3, 0, 8)])
def test__get__after_put__same_embeddings(shape: tuple[int, ...], tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    keys = [cache.key([i]) for i in range(3)]
    embeddings = torch.randn(shape)
    cache.put(keys, embeddings)
    found = cache.get([*keys, cache.key([99]), keys[0]])
    assert found.pop(3) is None
    assert torch.equal(torch.stack(found), embeddings[[0, 1, 2, 0]])


def test__put__half_precision_with_gradient_in_slices__float32_back(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    embeddings = torch.randn(2, 8, 6, dtype=torch.bfloat16, requires_grad=True)[:, ::2].transpose(1, 2)
    cache.put([b"a", b"b"], embeddings)
    found = torch.stack(cache.get([b"a", b"b"]))
    assert found.dtype == torch.float32
    assert torch.equal(found, embeddings.detach().float())


def test__put__too_few_keys__value_error_and_nothing_stored(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    with pytest.raises(ValueError, match="1 keys for embeddings of shape"):
        cache.put([b"a"], torch.randn(2, 3))
    assert cache.get([b"a"]) == [None]


def test__cache__same_folder_in_several_objects__shared(tmp_path: Path) -> None:
    first, second = make_cache(tmp_path / "new" / "folder"), make_cache(tmp_path / "new" / "x" / ".." / "folder")
    first.put([first.key([1])], make_row(1))
    for other in (second, copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert torch.equal(other.get([other.key([1])])[0], make_row(1)[0])


# Keys


def change_one_element(backbone: PreTrainedModel) -> None:
    weight = backbone.wte.weight.data
    weight[50, 7] = torch.nextafter(weight[50, 7], torch.tensor(9.0))


def swap_rows(backbone: PreTrainedModel) -> None:
    weight = backbone.wte.weight.data
    weight[[3, 4]] = weight[[4, 3]]


def flip_signs(backbone: PreTrainedModel) -> None:
    backbone.wte.weight.data.neg_()


def convert(backbone: PreTrainedModel) -> None:
    backbone.to(torch.bfloat16)


def change_config(backbone: PreTrainedModel) -> None:
    backbone.config.layer_norm_epsilon = 0.1


def name_revision(backbone: PreTrainedModel) -> None:
    backbone.config._commit_hash = "abc"


CHANGES = [change_one_element, swap_rows, flip_signs, convert, change_config, name_revision]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test__key__backbone_changed__other(change: Callable[[PreTrainedModel], None], tmp_path: Path) -> None:
    backbone = build_backbone("gpt2")
    before = make_cache(tmp_path, backbone).key([1])
    change(backbone)
    assert make_cache(tmp_path, backbone).key([1]) != before


def test__key__buffer_of_integers_changed__other(tmp_path: Path) -> None:
    backbone, keys = build_backbone("gpt2"), set()
    backbone.register_buffer("codes", torch.zeros(11, dtype=torch.int8))
    backbone.register_buffer("flag", torch.tensor(False))
    for change in (lambda: None, lambda: backbone.codes[10].fill_(1), lambda: backbone.flag.fill_(True)):
        change()
        keys.add(make_cache(tmp_path, backbone).key([1]))
    assert len(keys) == 3


def test__key__chunks_swapped__other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "CHUNK", 16)  # a row of 32 floats
    backbone = build_backbone("gpt2")
    before = make_cache(tmp_path, backbone).key([1])
    swap_rows(backbone)
    assert make_cache(tmp_path, backbone).key([1]) != before


def test__key__saved_and_loaded_elsewhere__same(tmp_path: Path) -> None:
    backbone = build_backbone("gpt2")
    before = make_cache(tmp_path / "cache", backbone).key([1])
    backbone.save_pretrained(tmp_path / "model")
    loaded = type(backbone).from_pretrained(tmp_path / "model")
    assert make_cache(tmp_path / "cache", loaded).key([1]) == before


def test__key__other_settings__other(tmp_path: Path) -> None:
    settings = [{}, {"pooling": "mean"}, {"pooling": "last"}, {"pooling": "mean", "layers": -1}, {"layers": "-1"}]
    assert len({make_cache(tmp_path, **each).key([1]) for each in settings}) == len(settings)
    assert make_cache(tmp_path, a=1, b=2).key([1]) == make_cache(tmp_path, b=2, a=1).key([1])


def test__key__other_split_of_the_same_ids__other(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    splits = [([1, 2, 3],), ([1], [2, 3]), ([1, 2], [3]), ([1, 2, 3], []), ([], [1, 2, 3]), ([1], [2], [3]), ()]
    splits += [([],), ([1, 3, 2],), ([0, 1, 2, 3],), ([1], [1], [1]), ([1, 1, 1],)]
    keys = {cache.key(*split) for split in splits}
    assert len(keys) == len(splits)
    assert {len(key) for key in keys} == {32}


class Composed:
    """What a quantized weight looks like: tensors inside another one."""

    def __init__(self, codes: Tensor, scales: Tensor):
        self.codes, self.scales = codes, scales

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes", "scales"], None


def test__key__part_of_a_composed_weight_changed__other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, keys = build_backbone("gpt2"), set()
    codes = torch.arange(7, dtype=torch.int8)
    for scale in (1.0, 2.0):
        state = {"weight": Composed(codes, torch.tensor(scale))}
        monkeypatch.setattr(backbone, "state_dict", lambda state=state: state)
        keys.add(make_cache(tmp_path, backbone).key([1]))
    assert len(keys) == 2


def test__cache__offloaded_backbone__value_error(tmp_path: Path) -> None:
    backbone = build_backbone("gpt2")
    backbone.wte = nn.Embedding(99, 32, device="meta")
    with pytest.raises(ValueError, match=r"cache cannot be used.*wte\.weight is offloaded"):
        make_cache(tmp_path, backbone)


def test__cache__state_that_is_no_tensor__value_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = build_backbone("gpt2")
    monkeypatch.setattr(backbone, "state_dict", lambda: {"packed": (1, 2)})
    with pytest.raises(ValueError, match="packed is of type tuple"):
        make_cache(tmp_path, backbone)


# The file


def test__put__many_rows__all_back(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache.put([cache.key([i]) for i in range(100)], torch.cat([make_row(i) for i in range(100)]))
    assert is_complete(cache, 100)


def test__files__after_put__hold_no_token_ids(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache.put([cache.key(*IDS), cache.key(IDS[0])], torch.randn(2, 3, 8))
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert cache.key(*IDS) in stored
    for ids in IDS:
        assert not any(array(code, ids).tobytes() in stored for code in "HIQ")
        assert not any(str(i).encode() in stored for i in ids)


def close(cache: EmbeddingCache) -> Path:
    """Close the connection of a cache, which moves everything into one file, and return the file."""
    cache._database.close()
    (path,) = Path(cache._database.folder).iterdir()
    return path


def test__get__value_damaged__missing_until_written_again(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache.put([b"good", b"bad"], torch.cat([make_row(1), make_row(2)]))
    path, bad = close(cache), make_row(2, 200).numpy().tobytes()
    stored = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(stored.index(bad) + len(bad) // 2)
        file.write(b"\xff")
    good, missing = cache.get([b"good", b"bad"])
    assert torch.equal(good, make_row(1)[0])
    assert missing is None
    cache.put([b"bad"], make_row(2))
    assert torch.equal(cache.get([b"bad"])[0], make_row(2)[0])


def write_values(folder: Path, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(folder / cache_module.FILE)) as connection, connection:
        for i, value in enumerate(values):
            connection.execute("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", (bytes([i]), value))


@pytest.mark.parametrize("value", [b"", b"\0\0\0\0", b"abc", bytes(100), "text", 3])
def test__get__value_of_something_else__missing(value: object, tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    write_values(tmp_path, value)
    assert cache.get([b"\0"]) == [None]


def test__get__value_under_another_key__missing(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache.put([b"\0", b"\1"], torch.cat([make_row(1), make_row(2)]))
    with contextlib.closing(sqlite3.connect(tmp_path / cache_module.FILE)) as connection:
        values = [row[0] for row in connection.execute("SELECT value FROM embeddings ORDER BY key")]
    write_values(tmp_path, *reversed(values))
    assert cache.get([b"\0", b"\1"]) == [None, None]


def test__cache__file_of_something_else__corrupt_file_error(tmp_path: Path) -> None:
    (tmp_path / cache_module.FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(CorruptFileError, match=f"{tmp_path.name} is damaged"):
        make_cache(tmp_path)


def test__cache__truncated_file__corrupt_file_error(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache.put([cache.key([i]) for i in range(50)], torch.cat([make_row(i) for i in range(50)]))
    path = close(cache)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(CorruptFileError, match=f"{tmp_path.name} is damaged"):
        is_complete(make_cache(tmp_path), 50)


@pytest.mark.parametrize("seed", range(20))
def test__get__random_bytes_overwritten__error_missing_or_right(seed: int, tmp_path: Path) -> None:
    cache, rng = make_cache(tmp_path), random.Random(seed)
    cache.put([cache.key([i]) for i in range(50)], torch.cat([make_row(i, 500) for i in range(50)]))
    path = close(cache)
    with path.open("r+b") as file:
        for _ in range(rng.choice([1, 10, 100])):
            file.seek(rng.randrange(path.stat().st_size))
            file.write(rng.randbytes(rng.choice([1, 8, 500])))
    found: list[Tensor | None] = []
    with contextlib.suppress(CorruptFileError):
        found = cache.get([cache.key([i]) for i in range(50)])
    assert all(row is None or torch.equal(row, make_row(i, 500)[0]) for i, row in enumerate(found))


def test__cache__folder_deleted_and_used_again__works(tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache")
    cache.put([b"a"], make_row(1))
    shutil.rmtree(tmp_path / "cache")
    assert cache.get([b"a"]) == [None]
    cache.put([b"a"], make_row(2))
    assert torch.equal(make_cache(tmp_path / "cache").get([b"a"])[0], make_row(2)[0])
    assert make_row(2, 200).numpy().tobytes() in close(cache).read_bytes()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("name", [".", "new"])
def test__cache__read_only_folder__os_error_names_it(name: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OSError, match=tmp_path.name):
            make_cache(tmp_path / name)
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("name", ["file", "file/cache"])
def test__cache__file_in_the_way__os_error_names_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=name):
        make_cache(tmp_path / name)


def test__put__disk_full__os_error_names_folder(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache._database._open().execute("PRAGMA max_page_count = 4")
    with pytest.raises(OSError, match=f"No space left on device: .*{tmp_path.name}"):
        cache.put([b"a", b"b"], torch.cat([make_row(1), make_row(2)]))
    assert cache.get([b"a", b"b"]) == [None, None]


def test__cache__of_version_0_1__not_read(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"entries of another library")
    cache = make_cache(tmp_path)
    cache.put([b"a"], make_row(1))
    assert torch.equal(cache.get([b"a"])[0], make_row(1)[0])
    assert (tmp_path / "data.mdb").read_bytes() == b"entries of another library"


def test__cache__threads__each_reads_what_any_wrote(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)

    def write(i: int) -> bool:
        cache.put([cache.key([i])], make_row(i))
        return torch.equal(cache.get([cache.key([i])])[0], make_row(i)[0])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, range(60)))
    assert is_complete(cache, 60)
