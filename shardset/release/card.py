"""The dataset card: `README.md` of a release, rendered from its own manifest, and the picture of
its samples: a few of each class, or part of the range.
"""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image
from pydantic import BaseModel

from cgankd.shardset.images import channels_first, decode_png, encode_png
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.release.manifest import REPORT, SAMPLES, Manifest
from cgankd.shardset.release.tables import (
    ACCEPTED,
    MOST_LOGITS,
    REJECTED,
    SCORES,
    TOP_LOGITS,
    features_of,
    images_of,
)

# https://huggingface.co/docs/hub/datasets-cards, size_categories; upper bounds
SIZES = {
    10**3: "n<1K",
    10**4: "1K<n<10K",
    10**5: "10K<n<100K",
    10**6: "100K<n<1M",
    10**7: "1M<n<10M",
    10**8: "10M<n<100M",
}
CONFIGS = {
    "curated": (ACCEPTED,),
    "pool": (ACCEPTED, REJECTED),
    "scores": (SCORES,),
}
# The identifiers of https://huggingface.co/docs/hub/repositories-licenses look like this; any
# other text is a name.
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
NOT_STATED = "not stated by the publisher"
GRID_COLUMNS = 10  # images of a group, those with the lowest keys
GRID_ROWS = 20  # groups, those with the lowest labels
CELL_LEAST = 32  # px; smaller images are enlarged by whole factors
CELL_MOST = 64  # px; larger ones are shrunk
GRID_GAP = 2
GRID_BACKGROUND = 255


@dataclass(frozen=True)
class DataFolder:
    """What the Parquet files below a folder hold: rows, bytes before compression, and on disk."""

    rows: int
    bytes: int
    on_disk: int


def render_card(
    manifest: Manifest,
    curation: Mapping[str, Any],
    data: Mapping[str, DataFolder],
    report: Mapping[str, Any] | None = None,
) -> str:
    """The card's Markdown with its YAML head; `data` has the folders that a release contains."""
    return rendered(
        "card.md.j2",
        head=yaml_text(head_of(manifest, data)),
        manifest=manifest,
        lineage=manifest.lineage,
        curation=curation,
        report=report,
        name=name_of(manifest),
        accepted=sum(manifest.accepted),
        rejected=sum(manifest.rejected),
        constants={
            "not_stated": NOT_STATED,
            "samples": SAMPLES,
            "report": REPORT,
            "most_logits": MOST_LOGITS,
            "top_logits": TOP_LOGITS,
        },
    )


def rendered(template: str, **values: Any) -> str:
    """A template of this package, filled in; what comes from outside goes through its filters."""
    import jinja2

    # Markdown, not HTML: outside text is escaped by `text`, `code` and `fenced`.
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters |= {"text": _text, "code": _code, "fenced": _fenced, "yaml": yaml_text}
    source = (resources.files("cgankd.shardset") / "templates" / template).read_text("utf-8")
    return environment.from_string(source).render(**values)


def data_folders(folder: Path) -> dict[str, DataFolder]:
    """What lies below each data folder of a release that has any."""
    by_place: dict[str, DataFolder] = {}
    for path in sorted(folder.rglob("*.parquet")):
        place = path.parent.relative_to(folder).as_posix()
        file = pq.read_metadata(path)
        size = sum(file.row_group(group).total_byte_size for group in range(file.num_row_groups))
        before = by_place.get(place, DataFolder(0, 0, 0))
        by_place[place] = DataFolder(
            before.rows + file.num_rows, before.bytes + size, before.on_disk + path.stat().st_size
        )
    return by_place


def head_of(manifest: Manifest, data: Mapping[str, DataFolder]) -> dict[str, Any]:
    """The fields of the card's YAML head, by which the Hub and `datasets` know the set."""
    classes = manifest.space.task == "classification"
    total = sum(manifest.accepted)
    return {
        **common_head(manifest),
        "pretty_name": name_of(manifest),
        "task_categories": ["image-classification" if classes else "other"],
        "size_categories": [next((n for bound, n in SIZES.items() if total < bound), "n>100M")],
        "configs": configs_of(data),
        "dataset_info": infos_of(data, manifest.space),
    }


def common_head(manifest: Manifest) -> dict[str, Any]:
    """What the heads of a release and of its tar copy share."""
    license_ = manifest.lineage.license
    head: dict[str, Any] = {
        "annotations_creators": ["machine-generated"],
        "tags": [
            "synthetic",
            "cgan-kd",
            "knowledge-distillation",
            *([] if manifest.space.task == "classification" else ["regression"]),
        ],
    }
    if license_ and LICENSE.fullmatch(license_):
        head["license"] = license_
    elif license_:
        head |= {"license": "other", "license_name": _one_line(license_)}
    return head


def configs_of(data: Mapping[str, DataFolder]) -> list[dict[str, Any]]:
    """Which files each configuration of a release reads; `curated` if none is named."""
    configs = []
    for config, present in _present(data).items():
        paths = [f"{folder}/train-*.parquet" for folder in present]
        entry = {"config_name": config, "data_files": [{"split": "train", "path": paths}]}
        configs.append({**entry, "default": True} if config == "curated" else entry)
    return configs


def infos_of(data: Mapping[str, DataFolder], space: LabelSpace) -> list[dict[str, Any]]:
    """Columns, rows and bytes of each configuration."""
    infos = []
    for config, present in _present(data).items():
        size = sum(data[folder].bytes for folder in present)
        split = {
            "name": "train",
            "num_bytes": size,
            "num_examples": sum(data[folder].rows for folder in present),
        }
        infos.append(
            {
                "config_name": config,
                "features": features_of(present[0], space),
                "splits": [split],
                "download_size": sum(data[folder].on_disk for folder in present),
                "dataset_size": size,
            }
        )
    return infos


def _present(data: Mapping[str, DataFolder]) -> dict[str, list[str]]:
    by_config = {config: [f for f in folders if f in data] for config, folders in CONFIGS.items()}
    if len(by_config["pool"]) == 1:
        del by_config["pool"]  # it would be the curated set under another name
    return {config: folders for config, folders in by_config.items() if folders}


def name_of(manifest: Manifest) -> str:
    """What the set is called, in one line."""
    return _one_line(manifest.lineage.name or f"pool {manifest.pool_id}")


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())


def _text(value: Any) -> str:
    """A value as plain text inside one table cell or line of Markdown."""
    if isinstance(value, float):
        value = f"{value:.6g}"
    escaped = html.escape(_one_line(value), quote=False)
    return "".join(f"\\{char}" if char in "\\`*_[]|#~" else char for char in escaped)


def _code(value: Any) -> str:
    """A value as code inside one line or table cell of Markdown."""
    line = _one_line(value).replace("|", "\\|")
    fence = "`" * (_longest_run(line) + 1)
    return f"{fence}{line}{fence}" if len(fence) == 1 else f"{fence} {line} {fence}"


def _fenced(value: Any) -> str:
    """A value's lines as a block of code."""
    text = str(value).strip()
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def yaml_text(value: Any) -> str:
    """A value as YAML, in the order of its keys; a record's fields by name."""
    if isinstance(value, BaseModel):
        value = dict(sorted(value.model_dump(mode="json").items()))
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100).rstrip()


def sample_grid(kept: pa.Table, pool: Path, space: LabelSpace) -> bytes:
    """The PNG of a grid with a row for each group of the label space that has samples."""
    groups = space.group_of(kept["label"].to_numpy())
    shown = [
        np.flatnonzero(groups == group)[:GRID_COLUMNS] for group in np.unique(groups)[:GRID_ROWS]
    ]
    images = images_of(pool, kept.take(np.concatenate(shown))).field("bytes").to_pylist()
    cells = iter([_shrunk(decode_png(image)) for image in images])
    rows = [[next(cells) for _ in row] for row in shown]
    channels, height, width = rows[0][0].shape
    factor = -(-CELL_LEAST // min(height, width))
    down, right = height * factor + GRID_GAP, width * factor + GRID_GAP
    grid = np.full((channels, len(rows) * down, GRID_COLUMNS * right), GRID_BACKGROUND, np.uint8)
    for i, row in enumerate(rows):
        for j, pixels in enumerate(row):
            large = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
            place = (
                slice(i * down, (i + 1) * down - GRID_GAP),
                slice(j * right, (j + 1) * right - GRID_GAP),
            )
            grid[:, *place] = large
    return encode_png(grid)


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """The pixels `[c, h, w]` with no side over `CELL_MOST`."""
    if max(pixels.shape[1:]) <= CELL_MOST:
        return pixels
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    picture.thumbnail((CELL_MOST, CELL_MOST))
    return channels_first(np.array(picture))
