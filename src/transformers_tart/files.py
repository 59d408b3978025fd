"""Atomic writes of files and folders, and errors of a full disk."""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers_tart.errors import CorruptFileError


try:
    import fcntl
except ImportError:  # Windows, where a folder cannot be locked
    fcntl = None  # type: ignore[assignment]


FULL = {errno.ENOSPC: ("database or disk is full",), errno.EDQUOT: ()}  # with the words of SQLite
STAGING = ".partial-"  # prefix of staging folders
SAVED = "transformers_tart_classes.py"  # a file of every save
NOTHING_LEFT = 1 << 14  # bytes; a disk with less is full


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Write a text file atomically.

    Raises:
        OSError: When the disk is full or the file cannot be written; an older file stays.
    """
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replaced(path: str | os.PathLike) -> Iterator[Path]:
    """Yield the path of a new file, which replaces another atomically when the block ends without an error.

    Raises:
        OSError: When the disk is full or the file cannot be written; an older file stays.
    """
    partial = Path(f"{os.fspath(path)}.partial")
    try:
        with explain_full_disk(path):
            yield partial
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def staged(folder: str | os.PathLike, owned: Sequence[str] = (), last: str = "config.json") -> Iterator[Path]:
    r"""
    Collect files that replace those of a folder together when the block ends.

    A process that dies while the files are moved leaves the folder without its `last` file, so that [`check_whole`]
    refuses it; before that, the folder is unchanged. Threads and processes save to a folder in turn.

    Args:
        folder (`str` or `os.PathLike`):
            The folder, created when it does not exist. Other files in it stay.
        owned (`Sequence[str]`, *optional*):
            Patterns of files that are removed unless the block writes them.
        last (`str`, *optional*, defaults to `"config.json"`):
            The file that is removed first and put last.

    Yields:
        `Path`: an empty folder inside the folder; a folder in it replaces one of the same name as a whole.

    Raises:
        OSError: When the disk is full or the folder cannot be written.
    """
    folder = Path(folder)
    with explain_full_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder), explain_full_disk(folder):
        for left in folder.glob(f"{STAGING}*"):
            shutil.rmtree(left)  # of a killed process
        with tempfile.TemporaryDirectory(prefix=STAGING, dir=folder) as name:
            stage = Path(name)
            yield stage
            _make_durable(stage)
            _move_in(stage, folder, owned, last)


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Lock a folder or file against other threads and processes until the block or the process ends.

    Raises:
        BlockingIOError: When `wait` is `False` and it is locked already.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


def check_whole(folder: str | os.PathLike, last: str = "config.json") -> None:
    """Check that no [`staged`] save to a local folder was killed.

    Raises:
        CorruptFileError: When the folder holds files of a save, but not the last one.
    """
    path = Path(folder)
    if path.is_dir() and not (path / last).exists() and (path / SAVED).exists():
        raise CorruptFileError(
            f"{folder} is torn: saving to it was interrupted, so that {last} is missing and the other files may be of "
            "two models. Save to it again."
        )


def _make_durable(stage: Path) -> None:
    """Flush files to the disk, with the permissions of the user's new files."""
    (probe := stage / "permissions").touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in stage.rglob("*"):
        if path.is_file():
            path.chmod(mode)
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def _move_in(stage: Path, folder: Path, owned: Sequence[str], last: str) -> None:
    new = sorted(stage.iterdir(), key=lambda path: path.name == last)
    if (stage / last).exists():
        (folder / last).unlink(missing_ok=True)
    names = {path.name for path in new}
    for old in {path for pattern in owned for path in folder.glob(pattern)}:
        if old.name not in names:
            old.unlink()
    for path in new:
        target = folder / path.name
        if path.is_dir() and target.is_dir():
            shutil.rmtree(target)
        os.replace(path, target)


@contextlib.contextmanager
def explain_full_disk(path: str | os.PathLike) -> Iterator[None]:
    """Raise an `OSError` that names the path when the block fails because the disk or a quota is exhausted.

    Libraries raise errors of their own then, some without a reason; for those the free space decides, so remove
    partial files outside the block.
    """
    try:
        yield
    except Exception as err:  # tokenizers raise a bare Exception
        code = _full_disk_code(err, path)
        if code is None:
            raise
        raise OSError(code, os.strerror(code), os.fspath(path)) from err


def _full_disk_code(error: Exception, path: str | os.PathLike) -> int | None:
    """Return the error number of an exhausted disk or quota, or `None` for another error."""
    link: BaseException | None = error
    while link is not None:
        for code in FULL:
            # libraries in Rust and SQLite give the reason in their message alone
            spellings = (os.strerror(code), f"os error {code})", *FULL[code])
            if getattr(link, "errno", None) == code or any(spelling in str(link) for spelling in spellings):
                return code
        link = link.__cause__ or link.__context__
    named = isinstance(error, OSError) and error.errno not in (None, errno.EIO)
    if named or isinstance(error, (ValueError, TypeError, LookupError)):
        return None
    folder = next(parent for parent in (Path(path), *Path(path).absolute().parents) if parent.exists())
    return errno.ENOSPC if shutil.disk_usage(folder).free < NOTHING_LEFT else None


def write_all(file: int, content: bytes) -> None:
    """Write all bytes to a file descriptor.

    Raises:
        OSError: When the disk is full; a part of the bytes may be written.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


__all__ = ["check_whole", "explain_full_disk", "locked", "replaced", "staged", "write_all", "write_whole"]
