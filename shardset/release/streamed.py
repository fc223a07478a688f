"""A release's accepted images in a seeded order of our own, for sets larger than the disk.

The sample at a position is a function of seed and position alone, so a run that goes on from a
position sees just what an undisturbed one would have seen. Every epoch takes the Parquet files in
a new order and mixes the rows of a window of `WINDOW_FILES` files at a time: a window is in memory
as PNG bytes, a gigabyte at most of files as we build them, and the next is fetched meanwhile.

The streaming of `datasets` (5.2.0, `shuffle` and `state_dict`) does not do: it drops what is in its
shuffle buffer, so that an epoch of 600 rows that was resumed twice gave 522 of them, 14 twice.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa

from cgankd.shardset.errors import ReleaseError
from cgankd.shardset.files import derive_seed, sha256_file
from cgankd.shardset.hub.client import Hub
from cgankd.shardset.release.decoded import (
    IMAGES,
    Image,
    Rows,
    accepted_files,
    decoded,
    joined_rows,
    open_parquet,
    pngs_of,
    row_columns,
    rows_of,
)
from cgankd.shardset.release.manifest import FileEntry, Manifest

WINDOW_FILES = 4

Fetch = Callable[[FileEntry], AbstractContextManager[Path]]


class Stream:
    """The accepted images of a release, epoch after epoch, each epoch every image once.

    `fetch` lends each Parquet file for as long as it takes to read it.
    """

    def __init__(
        self,
        manifest: Manifest,
        fetch: Fetch,
        *,
        seed: int,
        logits: bool,
        window_files: int = WINDOW_FILES,
    ) -> None:
        self._files = accepted_files(manifest)
        self._space = manifest.space
        self._columns = row_columns(manifest.space, logits=logits)
        self._fetch = fetch
        self._seed = seed
        self._window_files = window_files
        self._epoch_of_plan = -1
        self._plan: list[_Window] = []
        self._order: tuple[_Window, np.ndarray] | None = None
        self._current: tuple[Sequence[FileEntry], _Loaded] | None = None
        self._next: tuple[Sequence[FileEntry], Future[_Loaded]] | None = None
        self._ahead = ThreadPoolExecutor(1)
        self._shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        """The images of an epoch."""
        return sum(entry.rows or 0 for entry in self._files)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._ahead.shutdown(cancel_futures=True)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width of every image: those of the first window's first."""
        if self._shape is None:
            self._shape = decoded([self._loaded(self._window_at(0)).image(0)]).shape[1:]
        return self._shape

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, Rows]:
        """Pixels uint8 `[n, c, h, w]` and rows `[n]` at positions start … stop − 1.

        Positions count over epochs: `len` is the first of the second one. Going on where the last
        call ended is fast; anywhere else costs the reading of a window.
        """
        pixels = np.empty((stop - start, *self.image_shape), np.uint8)
        parts = []
        for window in self._windows(start, stop):
            loaded = self._loaded(window)
            first, last = max(start, window.first), min(stop, window.first + window.count)
            order = self._order_of(window)[first - window.first : last - window.first]
            images = [loaded.image(row) for row in order.tolist()]
            decoded(images, pixels[first - start : last - start])
            parts.append(loaded.rows_at(order))
        return pixels, joined_rows(parts)

    def _windows(self, start: int, stop: int) -> Iterator["_Window"]:
        position = start
        while position < stop:
            window = self._window_at(position)
            yield window
            position = window.first + window.count

    def _window_at(self, position: int) -> "_Window":
        plan = self._plan_of(position // len(self))
        return next(w for w in plan if w.first <= position < w.first + w.count)

    def _plan_of(self, epoch: int) -> list["_Window"]:
        """The windows of an epoch, in order."""
        if self._epoch_of_plan != epoch:
            random = np.random.default_rng(derive_seed(self._seed, "files", epoch))
            files = [self._files[i] for i in random.permutation(len(self._files))]
            groups = [
                tuple(sorted(files[i : i + self._window_files], key=lambda entry: entry.path))
                for i in range(0, len(files), self._window_files)
            ]
            counts = [sum(entry.rows or 0 for entry in group) for group in groups]
            starts = accumulate(counts[:-1], initial=epoch * len(self))
            self._plan = [_Window(*window) for window in zip(groups, starts, counts, strict=True)]
            self._epoch_of_plan = epoch
        return self._plan

    def _order_of(self, window: "_Window") -> np.ndarray:
        """A window's rows, its files one after the other, in the order they are given out."""
        if self._order is None or self._order[0] != window:
            random = np.random.default_rng(derive_seed(self._seed, "rows", window.first))
            self._order = window, random.permutation(window.count)
        return self._order[1]

    def _loaded(self, window: "_Window") -> "_Loaded":
        if self._current is not None and self._current[0] == window.files:
            return self._current[1]
        self._current = None  # its memory goes before the next window's comes
        if self._next is not None and self._next[0] == window.files:
            loaded = self._next[1].result()
        else:
            loaded = self._load(window.files)
        self._current, self._next = (window.files, loaded), None
        after = window.first + window.count
        following = self._window_at(after).files
        if following != window.files:
            self._next = following, self._ahead.submit(self._load, following)
        return loaded

    def _load(self, files: Sequence[FileEntry]) -> "_Loaded":
        tables, rows = zip(*map(self._read, files), strict=True)
        return _Loaded(
            pngs=pa.chunked_array([pngs_of(table) for table in tables]),
            keys=np.concatenate([table["key"].to_numpy() for table in tables]),
            paths=[entry.path for entry in files for _ in range(entry.rows or 0)],
            rows=joined_rows(rows),
        )

    def _read(self, entry: FileEntry) -> tuple[pa.Table, Rows]:
        """A file's images and keys, and its labels and logits."""
        columns = [*self._columns, *IMAGES]
        with (
            self._fetch(entry) as path,
            open_parquet(path, entry.path, self._space, columns) as file,
        ):
            table = file.read(columns)
        if len(table) != entry.rows:
            raise ReleaseError(
                f"{entry.path} has {len(table)} rows, the manifest says {entry.rows}"
            )
        rows = rows_of(table.select(self._columns), self._space, entry.path)
        return table.select(list(IMAGES)), rows


@dataclass(frozen=True)
class _Window:
    """Some files of an epoch, by name, and the position of its first sample."""

    files: tuple[FileEntry, ...]
    first: int
    count: int


@dataclass(frozen=True)
class _Loaded:
    """The rows of a window's files, one after the other, its images as PNG bytes."""

    pngs: pa.ChunkedArray
    keys: np.ndarray
    paths: list[str]  # of each row's file
    rows: Rows

    def image(self, index: int) -> Image:
        """The image of a row."""
        return Image(self.pngs[index].as_py(), int(self.keys[index]), self.paths[index])

    def rows_at(self, indices: np.ndarray) -> Rows:
        """The labels and logits of these rows."""
        logits = self.rows.logits
        return Rows(self.rows.labels[indices], None if logits is None else logits[indices])


def from_folder(release: Path) -> Fetch:
    """Lends the files of a release folder where they lie."""

    @contextmanager
    def fetch(entry: FileEntry) -> Iterator[Path]:
        yield release / entry.path

    return fetch


def from_hub(hub: Hub, repo_id: str, commit: str) -> Fetch:
    """Lends the files of a dataset's commit from a temporary folder, each verified, then removed.

    `ReleaseError` for other bytes than the manifest's, `HubError` where the Hub fails.
    """

    @contextmanager
    def fetch(entry: FileEntry) -> Iterator[Path]:
        where = f"{repo_id}@{commit}: {entry.path}"
        with tempfile.TemporaryDirectory(prefix="cgankd-") as folder:
            with hub.explained(where):
                path = Path(
                    hub.api.hf_hub_download(
                        repo_id,
                        entry.path,
                        repo_type="dataset",
                        revision=commit,
                        local_dir=folder,
                    )
                )
            if path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
                raise ReleaseError(f"{where} has other bytes than the manifest says; run again")
            yield path

    return fetch
