"""Images and recordings in files of one's own: a folder for each class, or tables with a column of files."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers_tart.evaluation.tasks.media import MediaData, MediaRows, concatenate, read_cell, read_file
from transformers_tart.evaluation.tasks.rows import SPLIT_NAMES, split_of, splits_of, stream_rows
from transformers_tart.inputs.tables import FORMATS, file_format


ENDINGS = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".mp3"), "audio"),
}
COLUMNS = ("image", "audio")
ROWS_AT_A_TIME = 256  # of a parquet file, so that it need not fit into memory


def find_media(path: Path) -> MediaData | None:
    r"""
    The images or recordings of a file or folder.

    Args:
        path (`Path`):
            A table with the columns `image` or `audio`, `label` and perhaps `split`; a folder with such tables `train`
            and `test`; or one with folders of files, one for each class, which may stand in folders `train` and
            `test`.

    Returns:
        [`MediaData`]: or `None`, where these are texts.

    Raises:
        ValueError: On images and recordings in one task, classes without files, and files that are neither.
    """
    if path.is_file():
        table = _read_table(path)
        return None if table is None else table.divided()
    tables = [file for file in sorted(path.iterdir()) if file.is_file() and split_of(file) and _is_table(file)]
    if tables:
        return _join_tables(path, tables)
    folders = _subfolders(path)
    return _read_folders(path, folders) if folders or _media_files(path) else None


@dataclass(frozen=True)
class _Table:
    """A table of images or recordings."""

    path: Path
    data: MediaData
    splits: Sequence[object] | None

    def divided(self) -> MediaData:
        """By its column of splits, where it has one."""
        if self.splits is None:
            return self.data
        train, test = (self.data.train.select(chosen) for chosen in splits_of(self.splits, self.path))
        return MediaData(self.data.modality, train, test, self.data.class_names)


def _is_table(file: Path) -> bool:
    return Path(file.name.lower().removesuffix(".gz")).suffix in FORMATS


def _read_table(path: Path) -> _Table | None:
    """A table of images or recordings; `None` where it is one of texts."""
    if path.stat().st_size and file_format(str(path)) == "parquet" and path.suffix != ".gz":
        return _read_parquet(path)
    first = next(stream_rows(path), {})
    modality = _media_column(first, path)
    if modality is None:
        return None
    rows = list(stream_rows(path))
    cells = [row[modality] for row in rows]

    def read(indices: Sequence[int]) -> list[bytes]:
        return [read_cell(cells[i], str(path), path.parent) for i in indices]

    splits = [row["split"] for row in rows] if "split" in first else None
    return _Table(path, MediaData(modality, MediaRows([row["label"] for row in rows], read)), splits)


def _read_parquet(path: Path) -> _Table | None:
    from datasets import Features
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            schema = file.schema_arrow
            modality = _media_column(schema.names, path)
            others = file.read(columns=[name for name in ("label", "split") if name in schema.names]).to_pydict()
    except ArrowInvalid as err:
        raise ValueError(f"{path} cannot be read as a table: {err}") from err
    if modality is None:
        return None

    def read(indices: Sequence[int]) -> list[bytes]:
        wanted, found, start = set(indices), {}, 0
        with ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_AT_A_TIME, columns=[modality]):
                for i in wanted.intersection(range(start, start + batch.num_rows)):
                    found[i] = read_cell(batch.column(0)[i - start].as_py(), str(path), path.parent)
                start += batch.num_rows
        return [found[i] for i in indices]

    names = getattr(Features.from_arrow_schema(schema).get("label"), "names", None)
    data = MediaData(modality, MediaRows(others["label"], read), class_names=None if names is None else tuple(names))
    return _Table(path, data, others.get("split"))


def _media_column(columns: Collection[str], path: Path) -> str | None:
    """Which column is classified; `None`: the texts."""
    found = [name for name in COLUMNS if name in columns]
    if not found or "text" in columns:
        return None
    if len(found) > 1:
        raise ValueError(f"{path} has the columns {found}; a task has one of them.")
    if "label" not in columns:
        raise ValueError(f"{path} has the columns {sorted(columns)}, without label.")
    return found[0]


def _join_tables(path: Path, files: Sequence[Path]) -> MediaData | None:
    """Tables named after splits."""
    tables = {file: _read_table(file) for file in files}
    if all(table is None for table in tables.values()):
        return None
    held = {file.name: "text" if table is None else table.data.modality for file, table in tables.items()}
    if len(set(held.values())) > 1:
        raise ValueError(f"The files of {path} hold {held}; all must hold the same.")
    given = [(split_of(file), table.data) for file, table in tables.items() if table is not None]
    splits = {split: [data for own, data in given if own == split] for split in ("train", "test")}
    if not all(splits.values()):
        raise ValueError(f"The folder {path} must hold a file train and a file test; it holds {sorted(held)}.")
    train, test = (concatenate([data.train for data in parts]) for parts in splits.values())
    return MediaData(given[0][1].modality, train, test, given[0][1].class_names)


def _subfolders(path: Path) -> list[Path]:
    return [folder for folder in sorted(path.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]


def _media_files(path: Path) -> list[Path]:
    return [file for file in sorted(path.iterdir()) if file.is_file() and file.suffix.lower() in ENDINGS]


def _read_folders(path: Path, folders: Sequence[Path]) -> MediaData:
    """Folders of classes, in folders of splits or without."""
    named = [folder for folder in folders if split_of(folder)]
    # a class may be called "train", but then it stands beside others and holds files
    if folders and (len(named) == len(folders) or any(_subfolders(folder) for folder in named)):
        splits = {split: [f for f in named if split_of(f) == split] for split in ("train", "test")}
        if not all(splits.values()):
            raise ValueError(
                f"The folder {path} must hold a folder train and a folder test, or a folder for each class; it holds "
                f"{[folder.name for folder in folders]}. Names of splits are {sorted(SPLIT_NAMES)}."
            )
        files = {split: [file for f in parents for file in _class_files(f)] for split, parents in splits.items()}
    else:
        files = {"train": _class_files(path)}
    modalities = {ENDINGS[file.suffix.lower()] for found in files.values() for file in found}
    if len(modalities) > 1:
        raise ValueError(f"The folder {path} holds images and recordings; a task has one of them.")
    rows = {split: _file_rows(found) for split, found in files.items()}
    return MediaData(modalities.pop(), rows["train"], rows.get("test"))


def _class_files(folder: Path) -> list[Path]:
    """The files of all classes, each in the folder of its class."""
    classes = _subfolders(folder)
    loose = [file.name for file in _media_files(folder)]
    if loose or not classes:
        raise ValueError(
            f"The folder {folder} must hold a folder for each class, named as the class; it holds the files "
            f"{loose[:3]} and the folders {[own.name for own in classes]}."
        )
    files = []
    for own in classes:
        found = [file for file in sorted(own.iterdir()) if not file.name.startswith(".")]
        odd = [file.name for file in found if not file.is_file() or file.suffix.lower() not in ENDINGS]
        if odd or not found:
            raise ValueError(
                f"The folder {own} of a class holds {odd[:3] if odd else 'no files'}; it must hold files with the "
                f"endings {sorted(ENDINGS)}, and nothing else."
            )
        files.extend(found)
    return files


def _file_rows(files: Sequence[Path]) -> MediaRows:
    return MediaRows([file.parent.name for file in files], lambda indices: [read_file(files[i]) for i in indices])


__all__ = ["find_media"]
