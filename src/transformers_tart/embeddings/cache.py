"""An optional cache of embeddings on disk, safe under concurrent processes and after a kill."""

import functools
import hashlib
import json
import os
import sqlite3
import struct
import threading
import time
import zlib
from array import array
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from transformers_tart.backbones.digest import plain_tensors
from transformers_tart.checks.arguments import as_source, check_kind, shorten
from transformers_tart.errors import CorruptFileError
from transformers_tart.files import explain_full_disk
from transformers_tart.inputs.views import View
from transformers_tart.loading.report import UNREAD


T = TypeVar("T")

FORMAT = 3  # part of every key; entries of another format are never found
FILE = "embeddings.sqlite"
TIMEOUT = 600  # seconds to wait for transactions of other processes
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
CHUNK = 1 << 18  # words of 8 bytes that are summed at once
# Fields of a config that change no embedding; its dtype may be missing, so the dtype of the weights counts.
NOISE = {"transformers_version", "architectures", "name_or_path", "_name_or_path", "_commit_hash", "dtype"}


class EmbeddingCache:
    """Embeddings on disk, keyed by a digest of the backbone, the views and the token ids.

    Processes and threads may share a folder on a local disk. Entries survive when the process that wrote them is
    killed. Only hashes of token ids are stored, but embeddings reveal much about their texts: protect the folder like
    the texts. The cache grows without limit; delete the folder when no process uses it.

    The weights of the backbone are read once: create another cache object after they change. Keys depend on the views;
    settings are JSON values on which an embedding depends as well.
    """

    def __init__(self, folder: str | os.PathLike, backbone: PreTrainedModel, **settings: object):
        check_kind("backbone", backbone, PreTrainedModel)
        self._database = _Database(os.path.realpath(as_source(folder, "folder")))
        self._prefix = _prefix(backbone, settings)
        self.put([], torch.empty(0, 1))  # raises at once if the folder cannot be used

    def key(self, *parts: Sequence[int], views: Sequence[View] = ()) -> bytes:
        """Return the key of the embedding of sequences of token ids by this backbone, as views read them."""
        digest = self._digest(views)
        for part in parts:
            digest.update(struct.pack("<Q", len(part)) + array("q", part).tobytes())
        return digest.digest()

    def key_of_tensors(self, row: Mapping[str, Tensor], views: Sequence[View] = ()) -> bytes:
        """Return the key of the embedding of a processed image or recording by this backbone, as views read it."""
        digest = self._digest(views)
        for name, tensor in sorted(row.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.digest()

    def _digest(self, views: Sequence[View]) -> "hashlib._Hash":
        """Return the digest with which keys begin; templates are among the token ids, and norms are taken later."""
        digest = hashlib.sha256(self._prefix)
        digest.update(json.dumps([(view.pooling, view.layers, view.head, view.skip) for view in views]).encode())
        return digest

    def get(self, keys: Sequence[bytes]) -> list[Tensor | None]:
        """Return the stored embeddings, float32 on the CPU; `None` for keys that are not stored."""
        for key in keys:
            check_kind("A key", key, bytes)

        def read(connection: sqlite3.Connection) -> list[Tensor | None]:
            query = "SELECT value FROM embeddings WHERE key = ?"
            return [_decode(key, connection.execute(query, (key,)).fetchone()) for key in keys]

        return self._database.run(read)

    def put(self, keys: Sequence[bytes], embeddings: Tensor) -> None:
        """Store embeddings (n, layers, hidden), one per key: all of them or, after an error, none."""
        check_kind("embeddings", embeddings, Tensor)
        if embeddings.dim() == 0 or embeddings.is_meta or len(keys) != len(embeddings):
            raise ValueError(f"There are {len(keys)} keys for embeddings of shape {tuple(embeddings.shape)}.")
        rows = embeddings.detach().to("cpu", torch.float32).contiguous()
        payloads = (safetensors.torch.save({"embedding": row}) for row in rows)
        entries = [(key, _checksum(key, each) + each) for key, each in zip(keys, payloads, strict=True)]
        statement = "INSERT OR REPLACE INTO embeddings VALUES (?, ?)"
        self._database.run(lambda connection: connection.executemany(statement, entries))

    def __del__(self) -> None:
        if hasattr(self, "_database"):
            self._database.close()


class MemoryCache(EmbeddingCache):
    """Embeddings in memory, by the keys of [`EmbeddingCache`]; the dictionary `entries` may be shared by backbones."""

    def __init__(self, backbone: PreTrainedModel, entries: MutableMapping[bytes, Tensor], **settings: object):
        self._prefix, self.entries = _prefix(backbone, settings), entries

    def over(
        self, entries: MutableMapping[bytes, Tensor], known: Mapping[bytes, Tensor], behind: EmbeddingCache | None
    ) -> "MemoryCache":
        """Return a cache that keeps all that it is asked for in `entries`, from `known` and a cache behind it."""
        return _LayeredCache(self._prefix, entries, known, behind)

    def get(self, keys: Sequence[bytes]) -> list[Tensor | None]:
        """Return the stored embeddings, float32 on the CPU; `None` for keys that are not stored."""
        return [self.entries.get(key) for key in keys]

    def put(self, keys: Sequence[bytes], embeddings: Tensor) -> None:
        """Store embeddings (n, layers, hidden), one per key."""
        rows = embeddings.detach().to("cpu", torch.float32)
        # clones, since the pickle of a part of a tensor holds all of it
        self.entries.update((key, row.clone()) for key, row in zip(keys, rows, strict=True))


class _LayeredCache(MemoryCache):
    """Entries that are kept over known ones, and a cache behind them."""

    def __init__(
        self,
        prefix: bytes,
        entries: MutableMapping[bytes, Tensor],
        known: Mapping[bytes, Tensor],
        behind: EmbeddingCache | None,
    ):
        self._prefix, self.entries, self._known, self._behind = prefix, entries, known, behind

    def get(self, keys: Sequence[bytes]) -> list[Tensor | None]:
        """Return the stored embeddings of any layer."""
        found = [self.entries.get(key, self._known.get(key)) for key in keys]
        missing = [key for key, value in zip(keys, found, strict=True) if value is None]
        behind = iter([None] * len(missing) if self._behind is None else self._behind.get(missing))
        found = [next(behind) if value is None else value for value in found]
        self.entries.update((key, value) for key, value in zip(keys, found, strict=True) if value is not None)
        return found

    def put(self, keys: Sequence[bytes], embeddings: Tensor) -> None:
        """Store embeddings in the first layer and in the cache behind."""
        super().put(keys, embeddings)
        if self._behind is not None:
            self._behind.put(keys, embeddings)


class _Database:
    """A SQLite file with one connection, which is closed before forks and opened again when needed.

    SQLite supports no connection that is carried across a fork, in use or not.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self._path = os.path.join(folder, FILE)
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        if hasattr(os, "register_at_fork"):
            release = self._after_fork
            os.register_at_fork(before=self._before_fork, after_in_parent=release, after_in_child=release)

    def __reduce__(self) -> tuple[type["_Database"], tuple[str]]:
        return _Database, (self.folder,)

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run work in a transaction, which is rolled back after an error."""
        try:
            with self._lock, explain_full_disk(self.folder), self._open() as connection:
                return work(connection)
        except sqlite3.Error as err:
            if getattr(err, "sqlite_errorcode", 0) & 0xFF in DAMAGED:
                raise CorruptFileError(
                    f"The embedding cache in {self.folder} is damaged ({err}); delete the folder."
                ) from err
            raise OSError(f"The embedding cache in {self.folder} cannot be used: {err}.") from err

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection, self._identity = self._connection, None, None
        if connection is not None:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        """Return the connection, opened anew if the file has been deleted or replaced."""
        if self._connection is not None and self._identity is not None and self._identity == self._identify():
            return self._connection
        self.close()
        os.makedirs(self.folder, exist_ok=True)
        connection = sqlite3.connect(self._path, TIMEOUT, isolation_level="IMMEDIATE", check_same_thread=False)
        self._connection = connection
        _use_write_ahead_log(connection)
        connection.execute("CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
        self._identity = self._identify()
        return connection

    def _identify(self) -> tuple[int, int] | None:
        with suppress(FileNotFoundError):
            status = os.stat(self._path)
            return status.st_dev, status.st_ino
        return None

    def _before_fork(self) -> None:
        self._lock.acquire()
        self.close()

    def _after_fork(self) -> None:
        with suppress(RuntimeError):  # of a cache that another thread created during the fork
            self._lock.release()


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log, in which a power failure may undo the last transactions but damages nothing."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as err:  # SQLite itself does not wait for others that switch too
            if err.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    connection.execute("PRAGMA synchronous = NORMAL")


def _prefix(backbone: PreTrainedModel, settings: Mapping[str, object]) -> bytes:
    """Return the digest of what all keys of a cache depend on."""
    try:
        facts = json.dumps([FORMAT, settings], sort_keys=True).encode()
    except (TypeError, ValueError) as err:
        raise TypeError(f"The settings {shorten(settings)} cannot be written as JSON: {err}") from err
    return hashlib.sha256(_fingerprint(backbone) + facts).digest()


def _checksum(key: bytes, payload: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(payload, zlib.crc32(key)))


def _decode(key: bytes, row: tuple[object] | None) -> Tensor | None:
    """Return a stored embedding; `None` for one that is missing or damaged."""
    if row is None or not isinstance(row[0], bytes) or row[0][:4] != _checksum(key, row[0][4:]):
        return None
    try:
        return safetensors.torch.load(row[0][4:])["embedding"]
    except (SafetensorError, KeyError):
        return None


def _fingerprint(backbone: PreTrainedModel) -> bytes:
    """Return a hash of the config, the revision and all weights of a model, the same on every device."""
    text = backbone.config.to_json_string(use_diff=False)
    config = json.loads(text, object_hook=lambda fields: {name: fields[name] for name in fields if name not in NOISE})
    facts = [config, str(backbone.dtype), getattr(backbone.config, "_commit_hash", None)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    values = [item for item in backbone.state_dict().items() if not item[0].startswith(f"{UNREAD}.")]
    for name, tensor in (plain for item in values for plain in plain_tensors(*item)):
        if not isinstance(tensor, Tensor) or tensor.is_meta:
            reason = "is offloaded" if isinstance(tensor, Tensor) else f"is of type {type(tensor).__name__}"
            raise ValueError(
                f"A cache cannot be used with this backbone: its {name} {reason}, so its changes would go unnoticed. "
                "Load the backbone without offloading, or leave the cache out."
            )
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        for chunk in tensor.detach().reshape(-1).view(torch.uint8).split(8 * CHUNK):
            digest.update(struct.pack("<2q", *_checksums(chunk)))
    return digest.digest()


def _checksums(chunk: Tensor) -> list[int]:
    """Return two position-weighted sums of the memory of a chunk, computed on its device.

    Integer sums overflow in the same way everywhere; float sums would depend on the number of threads.
    """
    words = pad(chunk, (0, -len(chunk) % 8)).view(torch.int64)
    factors = _multipliers(CHUNK, chunk.device)[: len(words)]
    # changes of the top bits alone may cancel in the first sum, but not in the second
    return torch.stack(((words * factors).sum(), ((words >> 32) * factors).sum())).tolist()


@functools.lru_cache(maxsize=1)
def _multipliers(count: int, device: torch.device) -> Tensor:
    """Return fixed pseudorandom odd numbers."""
    factor = 0x1E3779B97F4A7C15
    mixed = torch.arange(1, count + 1, device=device) * factor
    return (mixed ^ (mixed >> 32)) * factor | 1
