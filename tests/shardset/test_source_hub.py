"""`hf:` sources: local datasets in the Hub's forms, and a pinned revision of a Hub on loopback."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import datasets
import numpy as np
import pytest
from PIL import Image

from cgankd.shardset.errors import SourceError
from cgankd.shardset.images import encode_png
from cgankd.shardset.sources.read import RealImages, SourceColumns, read_source

CLASSES = datasets.ClassLabel(names=["owl", "ant"])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 9, 9)).astype(np.uint8)


def write_parquet(
    folder: Path, split: str, rows: Mapping[str, Any], label: Any = CLASSES, image: Any = None
) -> None:
    """One Parquet file of a split: first column pictures, second column labels."""
    folder.mkdir(exist_ok=True)
    first, second = rows
    features = datasets.Features({first: image or datasets.Image(), second: label})
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def png_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    return [{"bytes": encode_png(pixels), "path": None} for pixels in pictures(count, seed)]


def write_two_splits(folder: Path) -> None:
    write_parquet(folder, "train", {"image": png_rows(5), "label": [0, 1, 0, 1, 1]})
    write_parquet(folder, "test", {"image": png_rows(2, seed=1), "label": [1, 0]})


def read(spec: str, **columns: Any) -> RealImages:
    return read_source(spec, size=None, channels=None, columns=SourceColumns(**columns))


def test_parquet_is_read_with_class_names_and_the_test_split(tmp_path: Path) -> None:
    """Pixels, labels, names and splits are those that were stored."""
    write_two_splits(tmp_path / "set")
    reals = read(f"hf:{tmp_path / 'set'}")
    expected = {f"train/{i}": pixels.tobytes() for i, pixels in enumerate(pictures(5))}
    expected |= {f"test/{i}": pixels.tobytes() for i, pixels in enumerate(pictures(2, seed=1))}

    assert {
        name: pixels.tobytes() for name, pixels in zip(reals.ids, reals.pixels, strict=True)
    } == expected
    assert reals.space.names == ("owl", "ant")
    assert dict(zip(reals.ids, reals.labels.tolist(), strict=True)) == {
        **dict(zip((f"train/{i}" for i in range(5)), [0, 1, 0, 1, 1], strict=True)),
        "test/0": 1,
        "test/1": 0,
    }
    assert reals.is_test is not None
    assert [name.startswith("test") for name in reals.ids] == reals.is_test.tolist()
    assert reals.revision is None


def test_other_names_of_columns_and_splits_are_obeyed(tmp_path: Path) -> None:
    """As in CIFAR-100 (img, fine_label), with a test split called valid."""
    rows = {"img": png_rows(4), "fine_label": [0, 1, 0, 1]}
    write_parquet(tmp_path / "set", "train", rows)
    write_parquet(tmp_path / "set", "valid", {"img": png_rows(2, 1), "fine_label": [0, 1]})
    columns = {"image": "img", "label": "fine_label"}
    named = read(f"hf:{tmp_path / 'set'}", **columns, test_split="validation")
    without = read(f"hf:{tmp_path / 'set'}", **columns)

    assert (len(named.ids), int(named.is_test.sum())) == (6, 2)  # type: ignore[union-attr]
    assert (len(without.ids), without.is_test) == (4, None)


@pytest.mark.parametrize(
    ("feature", "stored", "names"),
    [
        (datasets.Value("int64"), [7, 12, 7, 100], ("7", "12", "100")),
        (datasets.Value("string"), ["b", "a", "b", "c"], ("a", "b", "c")),
    ],
)
def test_integers_and_strings_become_classes(
    tmp_path: Path, feature: Any, stored: list[Any], names: tuple[str, ...]
) -> None:
    """Each value that occurs is a class, in order, under its own name."""
    write_parquet(tmp_path / "set", "train", {"image": png_rows(4), "label": stored}, feature)
    reals = read(f"hf:{tmp_path / 'set'}")

    assert reals.space.names == names
    for name, label in zip(reals.ids, reals.labels, strict=True):
        assert names[label] == str(stored[int(name.removeprefix("train/"))])


def test_rows_that_hold_no_usable_picture_are_rejected(tmp_path: Path) -> None:
    """A missing and a broken picture are named with their row."""
    rows = [*png_rows(4), {"bytes": b"broken", "path": None}, None]
    write_parquet(tmp_path / "set", "train", {"image": rows, "label": [0, 1, 0, 1, 0, 1]})

    assert {(image.id, image.reason) for image in read(f"hf:{tmp_path / 'set'}").rejected} == {
        ("train/4", "is not a picture in a format that is read here"),
        ("train/5", "has no image"),
    }


def test_undeclared_picture_bytes_are_read(tmp_path: Path) -> None:
    """A Parquet file that other tools wrote has plain binary columns."""
    rows = [row["bytes"] for row in png_rows(2)]
    image = datasets.Value("binary")
    write_parquet(tmp_path / "set", "train", {"image": rows, "label": [0, 1]}, image=image)

    assert len(read(f"hf:{tmp_path / 'set'}").ids) == 2


def test_a_local_image_folder_is_read_as_our_own_reader_reads_it(tmp_path: Path) -> None:
    """Hugging Face's reader and imagefolder: agree on content, names and broken files."""
    for split, seed in (("train", 0), ("test", 1)):
        for i, pixels in enumerate(pictures(6, seed)):
            path = tmp_path / "set" / split / ("ant", "owl")[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[0]).save(path)
    (tmp_path / "set" / "train" / "owl" / "9.png").write_bytes(b"broken")
    theirs, ours = (read(f"{kind}:{tmp_path / 'set'}") for kind in ("hf", "imagefolder"))

    assert theirs.fingerprint == ours.fingerprint
    assert [image.reason for image in theirs.rejected] == [image.reason for image in ours.rejected]


def write_unlabelled(folder: Path) -> None:
    write_two_splits(folder)
    write_parquet(folder, "test", {"image": png_rows(2), "label": [-1, -1]})


def write_numbers(folder: Path) -> None:
    rows = {"image": png_rows(2), "label": [0.5, 1.5]}
    write_parquet(folder, "train", rows, datasets.Value("float64"))


def write_texts(folder: Path) -> None:
    rows = {"image": ["a", "b"], "label": [0, 1]}
    write_parquet(folder, "train", rows, image=datasets.Value("string"))


def write_wrong_labels(folder: Path) -> None:
    rows = {"image": png_rows(2), "label": [0, 5]}
    write_parquet(folder, "train", rows, datasets.Value("int64"))
    (folder / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n"
        "    dtype:\n      class_label:\n        names:\n          '0': owl\n          '1': ant\n"
        "---\n"
    )


def write_damaged(folder: Path) -> None:
    folder.mkdir()
    (folder / "train.parquet").write_bytes(b"PAR1 but no more")


@pytest.mark.parametrize(
    ("write", "columns", "message"),
    [
        (
            write_two_splits,
            {"train_split": "training"},
            r"no split 'training' \(it has train, test",
        ),
        (write_two_splits, {"test_split": "valid"}, r"no split 'valid' .* set test_split"),
        (write_two_splits, {"test_split": "train"}, r"are both 'train'"),
        (write_two_splits, {"image": "img"}, r"no column 'img' .* \(it has image, label\)"),
        (write_two_splits, {"label": "fine"}, r"no column 'fine' .* name of the label column"),
        (write_unlabelled, {}, r"row 0 of split 'test' has no label .*test_split: null"),
        (write_numbers, {}, r"expected ClassLabel, integers or strings"),
        (write_texts, {}, r"column 'image' is Value\('string'\), expected images"),
        (write_damaged, {}, r"cannot be loaded: .*[Pp]arquet"),
        (write_wrong_labels, {}, r"labels go from 0 to 5, expected 0 to 1"),
        (lambda folder: folder.mkdir(), {}, r"cannot be loaded: .*data files"),
    ],
)
def test_a_dataset_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path,
    write: Any,
    columns: dict[str, str],
    message: str,
) -> None:
    """What is missing, what there is instead and what to set are said."""
    write(tmp_path / "set")

    with pytest.raises(SourceError, match=message) as caught:
        read(f"hf:{tmp_path / 'set'}", **columns)
    assert "\n" not in str(caught.value)


def test_an_unlabelled_test_split_can_be_left_out(tmp_path: Path) -> None:
    """test_split null: the run takes its test images from the train split."""
    write_unlabelled(tmp_path / "set")
    reals = read(f"hf:{tmp_path / 'set'}", test_split=None)

    assert (len(reals.ids), reals.is_test) == (5, None)


def test_a_local_folder_has_no_revisions(tmp_path: Path) -> None:
    """A revision that could only be ignored is refused."""
    write_two_splits(tmp_path / "set")

    with pytest.raises(SourceError, match="leave out @v1"):
        read(f"hf:{tmp_path / 'set'}@v1")


REPO = "someone/blocks"


@contextmanager
def loopback_hub(files: dict[str, bytes], revisions: dict[str, str]) -> Iterator[str]:
    """The address of a Hub that serves `files` at each commit of `revisions` {tag: commit}."""
    commits = set(revisions.values())

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            for revision in {*revisions, *commits}:
                commit = revisions.get(revision, revision)
                self.commit = commit
                infos = {f"/api/datasets/{REPO}/revision/{revision}"}
                if revision == "main":
                    infos.add(f"/api/datasets/{REPO}")
                if path in infos:
                    siblings = [{"rfilename": name} for name in files]
                    return self.answer_json({"id": REPO, "sha": commit, "siblings": siblings})
                prefix = f"/api/datasets/{REPO}/tree/{revision}"
                if path == prefix or path.startswith(prefix + "/"):
                    return self.answer_tree(path.removeprefix(prefix).strip("/"))
                prefix = f"/datasets/{REPO}/resolve/{revision}/"
                if path.startswith(prefix):
                    return self.answer_file(path.removeprefix(prefix))
            known = path.startswith((f"/api/datasets/{REPO}", f"/datasets/{REPO}"))
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound" if known else "RepoNotFound"})

        def answer_tree(self, folder: str) -> None:
            start = f"{folder}/" if folder else ""
            below = {name: name.removeprefix(start) for name in files if name.startswith(start)}
            folders = {start + rest.split("/")[0] for rest in below.values() if "/" in rest}
            found = [{"type": "directory", "path": name, "oid": "0" * 40} for name in folders] + [
                {"type": "file", "path": name, "size": len(files[name]), "oid": "0" * 40}
                for name, rest in below.items()
                if "/" not in rest
            ]
            if found:
                return self.answer_json(found)
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})

        def answer_file(self, name: str) -> None:
            commit = {"X-Repo-Commit": self.commit}
            if name not in files:
                return self.answer(404, b"", commit | {"X-Error-Code": "EntryNotFound"})
            etag = hashlib.sha256(files[name]).hexdigest()
            self.answer(200, files[name], commit | {"ETag": f'"{etag}"'})

        def answer_json(self, value: object) -> None:
            self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


READ = """
import sys
from cgankd.shardset.errors import SourceError
from cgankd.shardset.sources.read import SourceColumns, read_source
for spec in sys.argv[1:]:
    try:
        reals = read_source(spec, size=None, channels=None, columns=SourceColumns())
        print(len(reals.ids), reals.revision)
    except SourceError as error:
        print(error)
"""


def read_apart(home: Path, hub: dict[str, str], *specs: str) -> list[str]:
    """What a process of its own says to each specification; the libraries fix the Hub at import."""
    environment = {**os.environ, "HF_HOME": str(home), **hub}
    done = subprocess.run(
        [sys.executable, "-c", READ, *specs],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_a_hub_revision_is_pinned_and_never_replaced_by_what_is_cached(tmp_path: Path) -> None:
    """Tags become commits; without the Hub the cached commit is read, and no other in its place."""
    write_two_splits(tmp_path / "data")
    files = {f"data/{path.name}": path.read_bytes() for path in (tmp_path / "data").iterdir()}
    first, other = "a" * 40, "b" * 40
    with loopback_hub(files, {"main": first, "v1.0.0": first}) as address:
        tag, missing, stranger = read_apart(
            tmp_path / "home",
            {"HF_ENDPOINT": address},
            f"hf:{REPO}@v1.0.0",
            f"hf:{REPO}@v9",
            "hf:someone/else",
        )
    assert tag == f"7 {first}"
    assert missing == f"hf:{REPO}@v9: the dataset has no revision 'v9'"
    assert stranger == "hf:someone/else is no local folder, and no Hub dataset that you may read"

    # Offline stands for a Hub that cannot be reached; there the library would retry for long.
    cached, absent = read_apart(
        tmp_path / "home", {"HF_HUB_OFFLINE": "1"}, f"hf:{REPO}@v1.0.0", f"hf:{REPO}@{other}"
    )
    assert cached == f"7 {first}"
    assert absent.startswith(f"hf:{REPO}@{other}: the Hub does not answer")
    assert first in absent
