"""The dataset card: `README.md` of a release, rendered from its own manifest."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from shardset.manifest import Manifest

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
    "curated": ("data/accepted",),
    "pool": ("data/accepted", "data/rejected"),
    "scores": ("scores",),
}


@dataclass(frozen=True)
class DataFolder:
    """What the Parquet files below a folder hold: rows, and bytes before compression."""

    rows: int
    bytes: int


def render_card(
    manifest: Manifest, curation: Mapping[str, Any], data: Mapping[str, DataFolder]
) -> str:
    """The card's Markdown with its YAML head; `data` has the folders that a release contains."""
    import jinja2

    # Markdown, not HTML: what comes from outside is escaped by the filter `text`.
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["text"] = _text
    environment.filters["yaml"] = _yaml
    template = (resources.files("shardset") / "templates" / "card.md.j2").read_text("utf-8")
    return environment.from_string(template).render(
        head=_yaml(_head(manifest, data)),
        manifest=manifest,
        facts=manifest.facts,
        curation=curation,
        name=_name(manifest),
        accepted=sum(manifest.accepted),
        rejected=sum(manifest.rejected),
    )


def _head(manifest: Manifest, data: Mapping[str, DataFolder]) -> dict[str, Any]:
    configs, infos = [], []
    for config, folders in CONFIGS.items():
        present = [folder for folder in folders if folder in data]
        if config == "pool" and len(present) == 1:
            continue  # without the rejected images it would be the curated set under another name
        paths = [f"{folder}/train-*.parquet" for folder in present]
        entry = {"config_name": config, "data_files": [{"split": "train", "path": paths}]}
        configs.append({**entry, "default": True} if config == "curated" else entry)
        split = {
            "name": "train",
            "num_bytes": sum(data[folder].bytes for folder in present),
            "num_examples": sum(data[folder].rows for folder in present),
        }
        infos.append({"config_name": config, "splits": [split]})
    total = sum(manifest.accepted)
    size = next((name for bound, name in SIZES.items() if total < bound), "n>100M")
    classes = manifest.space.task == "classification"
    head: dict[str, Any] = {
        "pretty_name": _name(manifest),
        "annotations_creators": ["machine-generated"],
        "task_categories": ["image-classification" if classes else "other"],
        "size_categories": [size],
        "tags": [
            "synthetic",
            "cgan-kd",
            "knowledge-distillation",
            *([] if classes else ["regression"]),
        ],
        "configs": configs,
        "dataset_info": infos,
    }
    if "license" in manifest.facts:
        head["license"] = manifest.facts["license"]
    return head


def _name(manifest: Manifest) -> str:
    return str(manifest.facts.get("name", f"pool {manifest.pool_id}"))


def _text(value: Any) -> str:
    """A value as plain text inside one table cell or line of Markdown."""
    line = " ".join(str(value).split())
    escaped = html.escape(line, quote=False)
    return "".join(f"\\{char}" if char in "\\`*_[]|#" else char for char in escaped)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100).rstrip()
