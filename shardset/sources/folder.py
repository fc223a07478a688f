"""`imagefolder:FOLDER`, in Hugging Face's convention: a folder per class, or labels in a table.

https://huggingface.co/docs/datasets/image_dataset: ImageFolder, metadata.csv
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from cgankd.shardset.errors import SourceError
from cgankd.shardset.sources.listing import Listing

# Validation images join the training images: the run makes its own validation split.
IS_TEST = {"train": False, "validation": False, "valid": False, "val": False, "test": True}
TABLE = "metadata.csv"
COLUMNS = ("file_name", "label")


def list_folder(folder: Path) -> Listing:
    """The files of FOLDER/CLASS, or of FOLDER/train/CLASS and FOLDER/test/CLASS.

    Every file below a class folder is taken for a picture, names that start with a dot excepted:
    what is none is rejected by name later, instead of being passed over here.
    """
    where = f"imagefolder:{folder}"
    _check_folder(folder, where)
    parts = {name: _folders(folder / name) for name in IS_TEST if (folder / name).is_dir()}
    if "train" not in parts:
        parts = {"": _folders(folder)}
    elif others := {path.name for path in _folders(folder)} - parts.keys():
        raise SourceError(
            f"{where} has train/ and also {min(others)}/; expected only {', '.join(IS_TEST)} there"
        )
    names = tuple(sorted({path.name for classes in parts.values() for path in classes}))
    if not names:
        numbers = any((folder / part / TABLE).is_file() for part in ("", "train"))
        hint = f"; set task: regression for the numbers of its {TABLE}" if numbers else ""
        raise SourceError(
            f"{where} has no class folders; expected one folder of pictures per class "
            f"(FOLDER/CLASS/…, or FOLDER/train/CLASS/… and FOLDER/test/CLASS/…){hint}"
        )
    files, labels, is_test = [], [], []
    for part, classes in parts.items():
        for path in classes:
            found = sorted(_files(path))
            files += found
            labels += [names.index(path.name)] * len(found)
            is_test += [IS_TEST.get(part, False)] * len(found)
    return Listing(
        ids=tuple(file.relative_to(folder).as_posix() for file in files),
        labels=np.array(labels, np.int64),
        names=names,
        picture=files.__getitem__,
        is_test=np.array(is_test, bool) if "test" in parts else None,
    )


def list_numbered_folder(folder: Path) -> Listing:
    """The files that FOLDER/metadata.csv names, or FOLDER/train/metadata.csv and those beside it.

    Labels are the numbers of its column `label`. A file that is not there is rejected by name
    later; `SourceError` names the line of what cannot be read.
    """
    where = f"imagefolder:{folder}"
    _check_folder(folder, where)
    tables = [PurePosixPath(part) for part in IS_TEST if (folder / part / TABLE).is_file()]
    if PurePosixPath("train") in tables:
        for name in IS_TEST:
            if (folder / name).is_dir() and PurePosixPath(name) not in tables:
                raise SourceError(f"{where}: {name}/ has no {TABLE}; add it or remove the folder")
    elif (folder / TABLE).is_file():
        tables = [PurePosixPath()]
    else:
        raise SourceError(
            f"{where} has no {TABLE} with the columns {', '.join(COLUMNS)} (FOLDER/{TABLE}, or "
            f"FOLDER/train/{TABLE} and FOLDER/test/{TABLE}); folders of classes are for "
            "task: classification"
        )
    labels: dict[str, float] = {}
    for part in tables:
        for line, name, label in _rows(folder, part):
            if name in labels:
                raise SourceError(f"{where}: {part / TABLE} line {line} names {name} a second time")
            labels[name] = label
    parts = [name.partition("/")[0] for name in labels]
    has_test = {"train", "test"} <= set(parts)
    return Listing(
        ids=tuple(labels),
        labels=np.array(list(labels.values()), np.float64),
        names=None,
        picture=[folder / name for name in labels].__getitem__,
        is_test=np.array([part == "test" for part in parts]) if has_test else None,
    )


def _rows(folder: Path, part: PurePosixPath) -> Iterator[tuple[int, str, float]]:
    """Line, file (relative to the folder) and label of each row of one table."""
    table = part / TABLE
    where = f"imagefolder:{folder}: {table}"
    try:
        with open(folder / table, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            found = reader.fieldnames or ()
            for column in COLUMNS:
                if column not in found:
                    raise SourceError(
                        f"{where} has no column {column!r} (it has {', '.join(found) or 'none'})"
                    )
            for row in reader:
                line = f"{where} line {reader.line_num}"
                name, text = (row[column] or "" for column in COLUMNS)
                path = PurePosixPath(name)
                if not path.parts or path.is_absolute() or ".." in path.parts:
                    raise SourceError(f"{line}: file_name {name!r} is not inside the folder")
                try:
                    label = float(text)
                except ValueError:
                    raise SourceError(f"{line}: label {text!r} is not a number") from None
                yield reader.line_num, (part / path).as_posix(), label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{where} cannot be read ({error})") from error


def _check_folder(folder: Path, where: str) -> None:
    if not folder.is_dir():
        raise SourceError(f"{where}: there is no such folder")


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _files(folder: Path) -> Iterator[Path]:
    for parent, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))
