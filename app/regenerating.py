"""Samples made again from their rows and the generator's weights, and compared with these rows."""

import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cgankd.app.console import Console
from cgankd.generator.produce import PIXEL_LIBRARIES, made_again
from cgankd.shardset.errors import BadInput, CheckpointError, ReleaseError
from cgankd.shardset.files import write_bytes
from cgankd.shardset.hub.client import Hub
from cgankd.shardset.identity import key_text
from cgankd.shardset.images import encode_pngs, pixel_sha256
from cgankd.shardset.samples import Production, open_samples
from cgankd.shardset.weights import CONFIG, WEIGHTS, weights_sha256

SHOWN = 5  # keys in one line


def regenerate(
    where: str | Path,
    *,
    console: Console,
    keys: str | None = None,
    keys_file: Path | None = None,
    verify: bool = False,
    out: Path | None = None,
    generator: Path | None = None,
) -> dict[str, Any]:
    """What `cgankd regenerate --json` prints: how many samples were made again, and the keys whose
    pixels are not those that `where` records. With `verify` such a key is a `ReleaseError`.

    Images go to `out` as `{key}.png`. All that can be refused is refused before any is made.
    """
    if out is None and not verify:
        raise BadInput("nothing to do with the samples: give --verify, --out FOLDER, or both")
    if out is not None and out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file; give a folder for the images")
    asked = key_ranges(keys, keys_file)
    produced = open_samples(str(where), images=False).production()
    wanted = _existing(produced, asked)
    folder = _generator_of(produced, generator)
    device = _device_of(produced)
    hashes = produced.rows["pixel_sha256"].take(pa.array(wanted)).to_pylist()
    recorded = dict(zip(wanted.tolist(), hashes, strict=True))
    different: list[int] = []
    done = 0
    with console.task("regenerate") as progress:
        for made, pixels in made_again(folder, produced.plan, wanted.tolist(), device):
            images = zip(made, pixels, strict=True)
            different += [key for key, image in images if pixel_sha256(image) != recorded[key]]
            if out is not None:
                for key, png in zip(made, encode_pngs(pixels), strict=True):
                    write_bytes(out / f"{key_text(key)}.png", png)
            done += len(made)
            progress(done, len(wanted), {})
    if different:
        message = (
            f"{len(different):,} of {len(wanted):,} samples have other pixels than {where} records "
            f"({_some(different)}); {_why(produced, device)}"
        )
        if verify:
            raise ReleaseError(message)
        console.note(message)
    else:
        console.note(
            f"{len(wanted):,} of {len(wanted):,} samples have the pixels that {where} records"
        )
    return {
        "made": len(wanted),
        "equal": len(wanted) - len(different),
        "different": different,
        "device": device.type,
        "folder": None if out is None else str(out),
    }


def key_ranges(keys: str | None, keys_file: Path | None = None) -> list[range]:
    """The keys that `12,15-20` (both ends included) and a file of such lists name.

    `BadInput` for a word that is no key or range, or where there is none at all.
    """
    texts = {} if keys is None else {"--keys": keys}
    if keys_file is not None:
        try:
            texts[str(keys_file)] = keys_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(
                f"{keys_file} cannot be read; give a text file of keys such as 12,15-20"
            ) from error
    ranges = []
    for where, text in texts.items():
        for word in filter(None, re.split(r"[\s,]+", text)):
            match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", word)
            if match is None:
                raise BadInput(f"{where}: {word!r} is neither a key nor a range; write 12 or 15-20")
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                raise BadInput(f"{where}: {word} ends before it begins; write {last}-{first}")
            ranges.append(range(first, last + 1))
    if not ranges:
        raise BadInput("no key was given; give --keys 12,15-20 or --keys-file FILE")
    return ranges


def _existing(produced: Production, asked: Sequence[range]) -> np.ndarray:
    """The keys asked for, ascending and each once; `BadInput` for one that has no image."""
    count = produced.plan.count
    last = max(keys[-1] for keys in asked)
    if last >= count:  # before ranges are written out: one may name a thousand million keys
        raise BadInput(
            f"{produced.where} has no key {key_text(last)}; it has {key_text(0)} to "
            f"{key_text(count - 1)}"
        )
    wanted = np.unique(np.concatenate([np.arange(keys.start, keys.stop) for keys in asked]))
    status = np.asarray(produced.rows["status"].to_pylist())
    failed = wanted[status[wanted] != "ok"]
    if failed.size:
        raise BadInput(
            f"{failed.size:,} of the keys failed when they were produced and have no image "
            f"({_some(failed.tolist())}); leave them out"
        )
    return wanted


def _generator_of(produced: Production, given: Path | None) -> Path:
    """The folder of the very weights that made the pool; downloaded where they are on the Hub."""
    folder = given or produced.generator
    if folder is None and produced.generator_repo is None:
        raise BadInput(
            f"{produced.where} names no repository with its generator's weights; give them with "
            f"--generator FOLDER ({WEIGHTS} and {CONFIG}, as in a run's generator folder)"
        )
    if folder is None:
        folder = _downloaded(produced)
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise BadInput(f"{folder / name} is missing; give the generator's folder: --generator")
    sha256 = weights_sha256(folder)
    if sha256 != produced.generator_sha256:
        raise CheckpointError(
            f"{folder / WEIGHTS} did not make {produced.where}: its sha256 is {sha256[:16]}…, not "
            f"{str(produced.generator_sha256)[:16]}…; give the right folder: --generator FOLDER"
        )
    return folder


def _downloaded(produced: Production) -> Path:
    """The weights in the linked model repo, at the tag of the release's own version."""
    repo_id, tag = produced.generator_repo, produced.version
    assert repo_id is not None
    assert tag is not None
    hub = Hub()
    repo = hub.repo(repo_id, "model")
    if repo is None or tag not in repo.versions:
        there = "no such repository that you may read" if repo is None else f"no version {tag}"
        raise BadInput(
            f"{produced.where}: {hub.endpoint} has {there} for its generator, {repo_id}; give the "
            "weights with --generator FOLDER"
        )
    with hub.explained(f"{repo_id}@{tag}"):
        files = [
            Path(hub.api.hf_hub_download(repo_id, name, revision=repo.versions[tag]))
            for name in (WEIGHTS, CONFIG)
        ]
    return files[0].parent


def _device_of(produced: Production) -> torch.device:
    """The recorded type of device, where this machine has it."""
    there = produced.device == "cuda" and torch.cuda.is_available()
    return torch.device("cuda" if there else "cpu")


def _why(produced: Production, device: torch.device) -> str:
    """What may explain other pixels: the same ones are promised per device and versions alone."""
    here = {"device": device.type, **{name: version(name) for name in PIXEL_LIBRARIES}}
    recorded = {**produced.libraries, "device": produced.device}
    others = [
        f"{name} {recorded[name]} (here {value})"
        for name, value in here.items()
        if recorded.get(name, value) != value
    ]
    if others:
        return f"make them again with what produced them: {', '.join(others)}"
    same = ", ".join(f"{name} {value}" for name, value in here.items() if name in recorded)
    unrecorded = [f"{name} (here {here[name]})" for name in PIXEL_LIBRARIES if name not in recorded]
    if unrecorded:
        return f"{same} is as recorded; versions are not recorded of {', '.join(unrecorded)}"
    return f"{same} are as recorded: the record was changed, or this processor rounds otherwise"


def _some(keys: Sequence[int]) -> str:
    """The first keys, as they are written everywhere."""
    return ", ".join(map(key_text, keys[:SHOWN])) + (", …" if len(keys) > SHOWN else "")
