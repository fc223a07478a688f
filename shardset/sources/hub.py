"""`hf:ID_OR_PATH[@revision]`: a dataset of the Hugging Face Hub, or a local one, by `datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from cgankd.shardset.errors import SourceError
from cgankd.shardset.images import BadImage
from cgankd.shardset.records import Record
from cgankd.shardset.sources.listing import Listing, Picture, Task

if TYPE_CHECKING:
    from datasets import Dataset


class SourceColumns(Record):
    """Where a Hub dataset keeps its pictures, labels and splits; other sources ignore it."""

    image: str = Field(default="image", min_length=1, description="column of the pictures")
    label: str = Field(default="label", min_length=1, description="column of the labels")
    train_split: str = Field(default="train", min_length=1, description="split of the budget")
    test_split: str | None = Field(
        default="test",
        min_length=1,
        description='test split ("test" itself may be missing); null: take test images from train',
    )


def list_hub(where: str, columns: SourceColumns, task: Task) -> Listing:
    """The rows of the train split and, where there is one, of the test split.

    A revision of the Hub is resolved to a commit first and the loaded data must be of that commit:
    `datasets` alone would quietly take whatever is cached when the Hub cannot be reached
    (huggingface/datasets#7928).
    """
    splits, revision = _load(where)
    chosen = _choose(where, splits, columns)
    names: tuple[str, ...] | None = None
    if task == "regression" and not _is_classes(chosen, columns.label):
        labels = _numbers(where, chosen, columns.label)
    else:
        names, labels = _labels(where, chosen, columns.label)
    pictures = [_pictures(where, split, columns.image) for split in chosen.values()]
    starts = np.cumsum([0, *map(len, pictures)])

    def picture(i: int) -> Picture:
        part = int(np.searchsorted(starts, i, side="right")) - 1
        stored = pictures[part][int(i - starts[part])][columns.image] or {}
        if stored.get("bytes"):
            return bytes(stored["bytes"])
        if stored.get("path"):
            return Path(stored["path"])
        raise BadImage("has no image")

    return Listing(
        ids=tuple(f"{name}/{row}" for name, split in chosen.items() for row in range(len(split))),
        labels=labels,
        names=names,
        picture=picture,
        is_test=np.arange(starts[-1]) >= starts[1] if len(chosen) == 2 else None,
        revision=revision,
    )


def _load(where: str) -> tuple[Any, str | None]:
    """The splits by name, and the commit they are of (None for a local folder)."""
    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetGenerationError, DatasetsError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HFValidationError,
        HTTPError,  # of the HTTP library it uses, whose name has changed before
        RepositoryNotFoundError,
        RevisionNotFoundError,
        RevisionResolutionError,
    )

    commit = None
    name, _, revision = where.rpartition("@") if "@" in where else (where, "", "")
    try:
        if Path(where).exists():
            builder = load_dataset_builder(where)
        elif Path(name).exists():
            raise SourceError(f"hf:{where}: a local folder has no revisions; leave out @{revision}")
        else:
            api = HfApi()
            resolved = api.resolve_revision(name, repo_type="dataset", revision=revision or None)
            commit = resolved.resolved  # its str is what was asked for
            builder = load_dataset_builder(name, revision=commit)
            if builder.hash != commit:
                raise SourceError(
                    f"hf:{where}: the Hub does not answer and the copy at hand is of revision "
                    f"{builder.hash}, expected {commit}; try again when the Hub can be reached"
                )
        builder.download_and_prepare()
        return builder.as_dataset(), commit
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise SourceError(
            f"hf:{where} is no local folder, and no Hub dataset that you may read"
        ) from error
    except RevisionNotFoundError as error:
        raise SourceError(f"hf:{where}: the dataset has no revision {revision!r}") from error
    except (
        OSError,
        ValueError,
        RuntimeError,
        DatasetsError,
        HTTPError,
        RevisionResolutionError,
    ) as error:
        reason = error.__cause__ or error if isinstance(error, DatasetGenerationError) else error
        raise SourceError(
            f"hf:{where} cannot be loaded: {' '.join(str(reason).split())}"
        ) from error


def _choose(where: str, splits: Any, columns: SourceColumns) -> dict[str, Dataset]:
    """The train split and, if any, the test split, under their own names."""
    wanted = {"train_split": columns.train_split}
    if columns.test_split == columns.train_split:
        raise SourceError(
            f"hf:{where}: train_split and test_split are both {columns.train_split!r}"
        )
    # Many datasets have no test split; a name that was given on purpose must exist.
    if columns.test_split is not None and (columns.test_split != "test" or "test" in splits):
        wanted["test_split"] = columns.test_split
    for field, name in wanted.items():
        if name not in splits:
            raise SourceError(
                f"hf:{where} has no split {name!r} (it has {', '.join(splits)}); set {field}"
            )
    chosen = {name: splits[name] for name in wanted.values()}
    for name, split in chosen.items():
        for field, column in (("image", columns.image), ("label", columns.label)):
            if column not in split.column_names:
                raise SourceError(
                    f"hf:{where} has no column {column!r} in split {name!r} "
                    f"(it has {', '.join(split.column_names)}); set the name of the {field} column"
                )
    return chosen


def _pictures(where: str, split: Dataset, column: str) -> Dataset:
    """The split's image column, undecoded: rows `{column: {bytes, path}}`."""
    from datasets import Image, Value

    feature = split.features[column]
    binary = isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")
    if not isinstance(feature, Image) and not binary:
        raise SourceError(f"hf:{where}: column {column!r} is {feature}, expected images")
    return split.select_columns([column]).cast_column(column, Image(decode=False))


def _labels(
    where: str, chosen: dict[str, Dataset], column: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """The class names and the int64 labels of all splits: ClassLabel, integers or strings."""
    from datasets import ClassLabel

    feature = next(iter(chosen.values())).features[column]
    values: list[Any] = []
    for name, split in chosen.items():
        for row, value in enumerate(split[column]):
            if value is None or value == -1:  # what the Hub's unlabelled test splits hold
                raise SourceError(
                    f"hf:{where}: row {row} of split {name!r} has no label in column {column!r}; "
                    "use a labelled split (test_split: null takes test images from the train split)"
                )
            values.append(value)
    names: tuple[str, ...]
    if isinstance(feature, ClassLabel):
        names = tuple(feature.names)
        if values and not 0 <= min(values) <= max(values) < len(names):
            raise SourceError(
                f"hf:{where}: labels go from {min(values)} to {max(values)}, "
                f"expected 0 to {len(names) - 1}"
            )
    elif all(type(value) is int for value in values) or all(type(v) is str for v in values):
        classes = sorted(set(values))
        index = {value: i for i, value in enumerate(classes)}
        names = tuple(map(str, classes))
        values = [index[value] for value in values]
    else:
        raise SourceError(
            f"hf:{where}: column {column!r} is {feature}, expected ClassLabel, integers or "
            "strings; set task: regression for numbers"
        )
    return names, np.array(values, np.int64)


def _is_classes(chosen: dict[str, Dataset], column: str) -> bool:
    from datasets import ClassLabel

    return any(isinstance(split.features[column], ClassLabel) for split in chosen.values())


def _numbers(where: str, chosen: dict[str, Dataset], column: str) -> np.ndarray:
    """The labels of all splits, float64 `[n]`; a row without one has NaN."""
    values = [value for split in chosen.values() for value in split[column]]
    if not all(value is None or type(value) in (int, float) for value in values):
        feature = next(iter(chosen.values())).features[column]
        raise SourceError(f"hf:{where}: column {column!r} is {feature}, expected numbers")
    return np.array([np.nan if value is None else value for value in values], np.float64)
