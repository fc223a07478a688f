"""`imagefolder:FOLDER`: a folder per class, in Hugging Face's convention."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shardset.errors import SourceError
from shardset.listing import Listing

# Validation images join the training images: the run makes its own validation split.
IS_TEST = {"train": False, "validation": False, "valid": False, "val": False, "test": True}


def list_folder(folder: Path) -> Listing:
    """The files of FOLDER/CLASS, or of FOLDER/train/CLASS and FOLDER/test/CLASS.

    Every file below a class folder is taken for a picture, names that start with a dot excepted:
    what is none is rejected by name later, instead of being passed over here.
    """
    where = f"imagefolder:{folder}"
    if not folder.is_dir():
        raise SourceError(f"{where}: there is no such folder")
    parts = {name: _folders(folder / name) for name in IS_TEST if (folder / name).is_dir()}
    if "train" not in parts:
        parts = {"": _folders(folder)}
    elif others := {path.name for path in _folders(folder)} - parts.keys():
        raise SourceError(
            f"{where} has train/ and also {min(others)}/; expected only {', '.join(IS_TEST)} there"
        )
    names = tuple(sorted({path.name for classes in parts.values() for path in classes}))
    if not names:
        raise SourceError(
            f"{where} has no class folders; expected one folder of pictures per class "
            "(FOLDER/CLASS/…, or FOLDER/train/CLASS/… and FOLDER/test/CLASS/…)"
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


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _files(folder: Path) -> Iterator[Path]:
    for parent, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))
