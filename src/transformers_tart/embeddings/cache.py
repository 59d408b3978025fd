"""An optional cache of embeddings on disk, safe under concurrent processes and after a kill."""

import errno
import functools
import hashlib
import json
import os
import struct
import threading
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from transformers_tart.checks.arguments import as_source, check_kind, shorten
from transformers_tart.errors import CorruptFileError
from transformers_tart.files import explain_full_disk
from transformers_tart.loading.report import UNREAD


if TYPE_CHECKING:
    import lmdb

T = TypeVar("T")
Identity: TypeAlias = tuple[int, int] | None

FORMAT = 1  # part of every key; another number makes everything stored before unfindable
LOCKS_SIZE = 8192  # bytes, as lmdb has it for its usual number of readers
MAP_SIZE = 1 << 26  # bytes at first; doubled when full
CHUNK = 1 << 18  # words of 8 bytes that are summed at once
# What a config says that changes no embedding; its dtype may be missing, so that of the weights counts.
NOISE = {"transformers_version", "architectures", "name_or_path", "_name_or_path", "_commit_hash", "dtype"}

# lmdb allows one environment of a folder in a process, and none across a fork.
_environments: dict[str, tuple["lmdb.Environment", Identity]] = {}
_lock = threading.RLock()


class EmbeddingCache:
    r"""
    Embeddings on disk, found again by the token ids that they were made of.

    Processes may share a folder, on a local disk. What a process wrote before it was killed stays. Neither texts nor
    token ids are stored, only their hashes; but embeddings tell much about their texts, so protect the folder as you
    would protect the texts. It grows without limit; delete it at any time that nothing uses it.

    Args:
        folder (`str` or `os.PathLike`):
            Where the cache lies; made when it is not there.
        backbone (`PreTrainedModel`):
            The model that embeds, as it is now: its weights are read once, and another cache object is needed after
            they change.
        settings (`dict`, *optional*):
            Whatever else changes an embedding, as JSON has it: protocol, pooling, layers.

    Raises:
        ImportError: Without the library lmdb.
        ValueError: When weights of the backbone are offloaded.
        OSError: When the folder cannot be written, or the cache in it is damaged.
    """

    def __init__(self, folder: str | os.PathLike, backbone: PreTrainedModel, **settings: object):
        try:
            import lmdb  # noqa: F401
        except ImportError as err:
            raise ImportError('An embedding cache needs lmdb: pip install "transformers-tart[cache]".') from err
        check_kind("backbone", backbone, PreTrainedModel)
        self._folder = os.path.realpath(as_source(folder, "folder"))
        try:
            facts = json.dumps([FORMAT, settings], sort_keys=True).encode()
        except (TypeError, ValueError) as err:
            raise TypeError(f"The settings {shorten(settings)} are not what JSON can hold: {err}") from err
        self._prefix = hashlib.sha256(_fingerprint(backbone) + facts).digest()
        self.get([])  # tells now whether the folder will do

    def key(self, *parts: Sequence[int]) -> bytes:
        """The key of the embedding that this backbone makes of sequences of token ids."""
        digest = hashlib.sha256(self._prefix)
        for part in parts:
            digest.update(struct.pack("<Q", len(part)) + array("q", part).tobytes())
        return digest.digest()

    def key_of_tensors(self, row: Mapping[str, Tensor]) -> bytes:
        """The key of the embedding that this backbone makes of one processed image or piece of audio."""
        digest = hashlib.sha256(self._prefix)
        for name, tensor in sorted(row.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.digest()

    def get(self, keys: Sequence[bytes]) -> list[Tensor | None]:
        """The embeddings of keys, float32 on the CPU; `None` for those that are not stored."""
        for key in keys:
            check_kind("A key", key, bytes)
        return _transact(self._folder, lambda transaction: [_decode(transaction.get(key)) for key in keys])

    def put(self, keys: Sequence[bytes], embeddings: Tensor) -> None:
        r"""
        Store embeddings, all or none of them.

        Args:
            keys (`Sequence[bytes]`):
                Their keys.
            embeddings (`torch.FloatTensor` of shape `(n, layers, hidden)`):
                One embedding a key.

        Raises:
            ValueError: When there are not as many keys as embeddings.
            OSError: When the disk is full, or the folder cannot be written any longer.
        """
        check_kind("embeddings", embeddings, Tensor)
        if embeddings.dim() == 0 or embeddings.is_meta or len(keys) != len(embeddings):
            raise ValueError(f"There are {len(keys)} keys for embeddings of shape {tuple(embeddings.shape)}.")
        rows = embeddings.detach().to("cpu", torch.float32).contiguous()
        values = [_encode(row) for row in rows]

        def write(transaction: "lmdb.Transaction") -> None:
            for key, value in zip(keys, values, strict=True):
                transaction.put(key, value)

        _transact(self._folder, write, write=True)


def _encode(embedding: Tensor) -> bytes:
    payload = safetensors.torch.save({"embedding": embedding})
    return struct.pack("<I", zlib.crc32(payload)) + payload


def _decode(value: memoryview | bytes | None) -> Tensor | None:
    if value is None or value[:4] != struct.pack("<I", zlib.crc32(value[4:])):
        return None
    try:
        return safetensors.torch.load(bytes(value[4:]))["embedding"]
    except (SafetensorError, KeyError):
        return None


def _transact(folder: str, work: Callable[["lmdb.Transaction"], T], write: bool = False) -> T:
    """Do work in one transaction; it is done again where the map of the file turns out too small."""
    import lmdb

    try:
        with _lock, explain_full_disk(folder):
            while True:
                environment = _open(folder)
                try:
                    with environment.begin(write=write, buffers=True) as transaction:
                        return work(transaction)
                except lmdb.MapFullError:
                    environment.set_mapsize(2 * environment.info()["map_size"])
                except lmdb.MapResizedError:  # another process has doubled it
                    environment.set_mapsize(0)
    except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError) as err:
        raise CorruptFileError(f"The embedding cache in {folder} is damaged ({err}); delete the folder.") from err
    except lmdb.Error as err:
        raise OSError(f"The embedding cache in {folder} cannot be used: {err}.") from err


def _open(folder: str) -> "lmdb.Environment":
    """The environment of a folder, opened where it is not open, or where its file has been deleted since."""
    import lmdb

    if folder in _environments:
        environment, identity = _environments[folder]
        if identity is not None and identity == _identify(folder):
            return environment
        del _environments[folder]
        environment.close()
    _close_at_forks()
    os.makedirs(folder, exist_ok=True)
    _allocate_locks(folder)
    # Without metasync a power failure may undo the last transaction, and damages nothing.
    environment = lmdb.open(folder, map_size=MAP_SIZE, metasync=False)
    _environments[folder] = environment, _identify(folder)
    environment.reader_check()  # frees what killed processes hold
    return environment


def _allocate_locks(folder: str) -> None:
    """Take the room of the file of locks: lmdb writes to it through memory, where a full disk would be a SIGBUS."""
    if not hasattr(os, "posix_fallocate"):
        return
    with open(os.path.join(folder, "lock.mdb"), "ab") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, LOCKS_SIZE)
        except OSError as err:
            if err.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # of file systems that cannot
                raise


def _identify(folder: str) -> Identity:
    try:
        status = os.stat(os.path.join(folder, "data.mdb"))
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


@functools.cache
def _close_at_forks() -> None:
    """Have all environments closed before each fork; parent and child open them again when they need them.

    A check of the process id in the child would come too late: another thread may have been in a transaction.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)


def _before_fork() -> None:
    _lock.acquire()
    while _environments:
        _, (environment, _) = _environments.popitem()
        environment.close()


def _fingerprint(backbone: PreTrainedModel) -> bytes:
    """A hash of the config, the revision and all weights of a model, the same on every device."""
    config = _without_noise(json.loads(backbone.config.to_json_string(use_diff=False)))
    facts = [config, str(backbone.dtype), getattr(backbone.config, "_commit_hash", None)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    multipliers: dict[torch.device, Tensor] = {}
    for name, value in backbone.state_dict().items():
        if name.startswith(f"{UNREAD}."):
            continue
        for path, tensor in _plain_tensors(name, value):
            if tensor.device not in multipliers:
                multipliers[tensor.device] = _multipliers(tensor.device)
            digest.update(repr((path, str(tensor.dtype), tuple(tensor.shape))).encode())
            for sums in _checksums(tensor, multipliers[tensor.device]):
                digest.update(struct.pack("<2q", *sums))
    return digest.digest()


def _without_noise(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_noise(item) for name, item in value.items() if name not in NOISE}
    return value


def _plain_tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors that hold the memory of a weight; a quantized one is made of several."""
    if hasattr(value, "__tensor_flatten__"):
        for part in value.__tensor_flatten__()[0]:
            yield from _plain_tensors(f"{name}.{part}", getattr(value, part))
    elif not isinstance(value, Tensor):
        raise ValueError(
            f"A cache cannot be used with this backbone: its state {name} is of type {type(value).__name__}, whose "
            "changes would go unnoticed."
        )
    elif value.device.type == "meta":
        raise ValueError(
            f"A cache cannot be used with this backbone: its weight {name} is offloaded, so its changes would go "
            "unnoticed. Load the backbone without offloading, or leave the cache out."
        )
    else:
        yield name, value


def _multipliers(device: torch.device) -> Tensor:
    """A fixed random-looking odd number for each place in a chunk."""
    factor = 0x1E3779B97F4A7C15
    mixed = torch.arange(1, CHUNK + 1, device=device) * factor
    return (mixed ^ (mixed >> 32)) * factor | 1


def _checksums(tensor: Tensor, multipliers: Tensor) -> Iterator[list[int]]:
    """Two sums a chunk of the memory of a tensor, weighted by place, on its own device.

    Integer sums overflow alike everywhere; those of floats would depend on the number of threads.
    """
    memory = tensor.detach().reshape(-1).view(torch.uint8)
    for chunk in memory.split(8 * CHUNK):
        words = pad(chunk, (0, -len(chunk) % 8)).view(torch.int64)
        factors = multipliers[: len(words)]
        # Changes of top bits alone may cancel in the first sum; the second has them lower down.
        yield torch.stack(((words * factors).sum(), ((words >> 32) * factors).sum())).tolist()


__all__ = ["EmbeddingCache"]
