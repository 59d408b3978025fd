"""Files that are whole or not there, and errors of a full disk."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


FULL = (errno.ENOSPC, errno.EDQUOT)
NOTHING_LEFT = 1 << 14  # bytes; a disk with less is full


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Write a text file that is never seen half written.

    Raises:
        OSError: When the disk is full or the file cannot be written; what was there before stays.
    """
    partial = Path(f"{os.fspath(path)}.partial")
    try:
        with explain_full_disk(path), open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def explain_full_disk(path: str | os.PathLike) -> Iterator[None]:
    """Raise an `OSError` that names the path when the block fails because the disk or a quota is exhausted.

    safetensors, torch, lmdb and tokenizers raise their own kinds of errors then, some without a reason. Clean up what
    was written half outside the block: where an error does not give its reason, the space that is left decides.
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
            # Rust libraries give the number in the message alone
            if getattr(link, "errno", None) == code or f"os error {code})" in str(link):
                return code
        link = link.__cause__ or link.__context__
    named = isinstance(error, OSError) and error.errno not in (None, errno.EIO)
    if named or isinstance(error, (ValueError, TypeError, LookupError)):
        return None
    folder = next(parent for parent in (Path(path), *Path(path).absolute().parents) if parent.exists())
    return errno.ENOSPC if shutil.disk_usage(folder).free < NOTHING_LEFT else None


__all__ = ["explain_full_disk", "write_whole"]
