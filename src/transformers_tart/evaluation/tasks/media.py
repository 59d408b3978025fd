"""Encoded images, recordings and the like: in folders of classes, in cells of tables, and in data sets of the Hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transformers_tart.evaluation.tasks.rows import SPLIT_NAMES, Rows, Splits, split_of
from transformers_tart.inputs.modality import MODALITIES, Modality


if TYPE_CHECKING:
    from datasets import Dataset

ENDINGS = {suffix: each for each in MODALITIES for suffix in each.suffixes}


def read_folders(path: Path) -> Splits | None:
    """Read a folder of images or recordings: a folder for each class, perhaps inside folders of splits.

    Returns:
        [`Splits`]: or `None` if the folder holds neither folders nor media files.

    Raises:
        ValueError: If classes are empty, or files are of two modalities or of none.
    """
    folders = _subfolders(path)
    if not folders and not _media_files(path):
        return None
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
        found = " and ".join(each.plural for each in MODALITIES if each in modalities)
        raise ValueError(f"The folder {path} holds {found}; a task has one of them.")
    rows = {split: _file_rows(found) for split, found in files.items()}
    return Splits(modalities.pop(), rows["train"], rows.get("test"))


def _subfolders(path: Path) -> list[Path]:
    return [folder for folder in sorted(path.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]


def _media_files(path: Path) -> list[Path]:
    return [file for file in sorted(path.iterdir()) if file.is_file() and file.suffix.lower() in ENDINGS]


def _class_files(folder: Path) -> list[Path]:
    """Return the files of all classes, each in the folder of its class."""
    classes, loose = _subfolders(folder), [file.name for file in _media_files(folder)]
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


def _file_rows(files: Sequence[Path]) -> Rows:
    return Rows([file.parent.name for file in files], lambda indices: [_read_file(files[i]) for i in indices])


def dataset_rows(split: "Dataset", column: str, label: str, modality: Modality, where: str) -> Rows:
    """Read the labels of a data set; its images or recordings are read when drawn, and never decoded."""
    encoded = modality.keep_encoded(split.select_columns([column]), column)
    return Rows(
        split.select_columns([label])[:][label],
        lambda indices: [read_cell(row[column], where) for row in encoded.select(indices)],
    )


def read_cell(cell: object, where: str, folder: Path | None = None) -> bytes:
    """Return the encoded file of a row, given as bytes, as a path relative to `folder`, or as `{"bytes", "path"}`.

    Raises:
        ValueError: If there is no such file, or it is empty.
    """
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes) and cell:
        return cell
    if not isinstance(cell, str) or not cell:
        raise ValueError(
            f"A row of {where} holds {type(cell).__name__}; it must hold the bytes of an encoded file, or its path."
        )
    file = Path(cell) if folder is None else folder / cell
    if not file.is_file():
        raise ValueError(f"A row of {where} names the file {file}, which does not exist; correct the path.")
    return _read_file(file)


def _read_file(file: Path) -> bytes:
    content = file.read_bytes()
    if not content:
        raise ValueError(f"The file {file} is empty; leave it out.")
    return content


__all__ = ["dataset_rows", "read_cell", "read_folders"]
