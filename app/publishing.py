"""Releases and the Hub: publishing one, fetching one, and saying whether one is whole."""

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgankd.app.console import Console
from cgankd.shardset.errors import BadInput, CheckFailed, ReleaseError
from cgankd.shardset.files import sha256_file
from cgankd.shardset.hub.client import Hub
from cgankd.shardset.hub.ids import Pin, hub_id, write_pin
from cgankd.shardset.hub.publish import (
    LocalFile,
    Publication,
    local_file,
    plan_publication,
    publish,
    release_files,
)
from cgankd.shardset.hub.read import copy_release, link_or_copy, opened
from cgankd.shardset.release.manifest import MANIFEST, Manifest, Weights, read_manifest
from cgankd.shardset.release.verify import verify_release

Facts = dict[str, Any]

GENERATOR_FILES = ("model.safetensors", "config.json")


def publish_release(
    folder: Path,
    target: str,
    *,
    console: Console,
    private: bool = False,
    dry_run: bool = False,
    generator: Path | None = None,
    generator_repo: str | None = None,
    message: str | None = None,
    allow_failures: bool = False,
) -> Facts:
    """Facts of a release that is now a version on the Hub, or with `dry_run` what would be sent.

    All is checked first: the bytes, the check of the selection, the version, the token and what the
    repository holds. The generator's weights go first, to a model repository of their own.
    """
    where = hub_id(target)
    manifest = _publishable(folder, where.revision, allow_failures)
    weights = _generator_files(manifest, generator, generator_repo)
    hub = Hub()
    plans = []
    if generator_repo is not None:
        plans.append(
            plan_publication(
                hub, generator_repo, manifest.version, weights, repo_type="model", private=private
            )
        )
    files = release_files(folder, manifest)
    plans.append(plan_publication(hub, where.repo_id, manifest.version, files, private=private))
    _check_layout(plans[-1], manifest)
    facts: Facts = {"version": manifest.version, "dry_run": dry_run}
    for plan in plans:
        told = _show(plan, console)
        if not dry_run:
            title = message or f"Release {manifest.version}"
            told["commit"] = publish(hub, plan, private=private, message=title)
            done = "was published before" if plan.tagged else "published"
            console.note(f"{plan.repo_id}@{plan.version}: {done}, commit {told['commit']}")
        facts[plan.repo_type] = told
    if not dry_run:
        sha256 = files[MANIFEST].sha256
        pin = Pin(commit=facts["dataset"]["commit"], manifest_sha256=sha256)
        write_pin(hub.endpoint, where.repo_id, manifest.version, pin)
        console.note(f"check it with: cgankd verify {where.repo_id}@{manifest.version}")
    return facts


def pull(spec: str, out: Path, *, console: Console, offline: bool = False) -> Facts:
    """A verified copy of a release in a plain folder, whole or not at all."""
    if out.exists():
        raise BadInput(f"{out} exists; give a new folder")
    found = opened(spec, offline=offline)
    copy_release(found, out)
    size = sum(entry.bytes for entry in found.manifest.files)
    console.note(f"{out}: {found.version}, {sum(found.manifest.accepted):,} images, {size:,} bytes")
    return {
        "folder": str(out),
        "repo_id": found.repo_id,
        "version": found.version,
        "commit": found.commit,
        "manifest_sha256": sha256_file(out / MANIFEST),
    }


def verify_on_hub(spec: str, *, console: Console, offline: bool) -> Facts:
    """That a version of the Hub is whole: listing, bytes, and all that `verify` asks of a folder;
    else `ReleaseError` with what is not.
    """
    from huggingface_hub import constants

    found = opened(spec, offline=offline)
    # The cache holds links, which a release may not.
    with tempfile.TemporaryDirectory(prefix=".cgankd-", dir=constants.HF_HUB_CACHE) as plain:
        copy_release(found, Path(plain) / "release", link_or_copy)
    console.note(
        f"{found.repo_id}@{found.version}, commit {found.commit}: every file is as its manifest "
        "says"
    )
    return {"verified": [f"{found.repo_id}@{found.version}"], "commit": found.commit}


def _publishable(folder: Path, version: str | None, allow_failures: bool) -> Manifest:
    """The manifest of a folder that may be published under a version."""
    manifest = read_manifest(folder)
    if version is not None and version != manifest.version:
        raise BadInput(
            f"{folder} is {manifest.version}, not {version}; publish it under its own version"
        )
    if problems := verify_release(folder):
        raise ReleaseError(f"{folder}: {problems[0]}; not published")
    check = manifest.facts.get("check")
    failures = check.get("failures") if isinstance(check, Mapping) else None
    if allow_failures:
        return manifest
    if failures is None:
        raise CheckFailed(
            f"{folder}: its selection was never checked for copies of training images; run "
            "`cgankd check` and `cgankd release` on its run, or publish it all the same with "
            "--allow-failures"
        )
    if failures:
        raise CheckFailed(
            f"{folder}: its selection failed its check ({' '.join(map(str, failures))}); select "
            "again, or publish it all the same with --allow-failures"
        )
    return manifest


def _check_layout(plan: Publication, manifest: Manifest) -> None:
    """`BadInput` where Parquet would replace tars, or tars Parquet: each has its own repository."""
    other = ".parquet" if manifest.layout == "webdataset" else ".tar"
    if any(change.kind == "deleted" and change.path.endswith(other) for change in plan.changes):
        raise BadInput(
            f"{plan.repo_id} holds {other} files, and this release has the {manifest.layout} "
            "layout; give it a repository of its own, such as user/name-wds for tars"
        )


def _generator_files(
    manifest: Manifest, folder: Path | None, repo_id: str | None
) -> dict[str, LocalFile]:
    """The weights that a release names, to be published beside it; none if not asked for."""
    if (folder is None) != (repo_id is None):
        raise BadInput("--generator and --generator-repo go together; give both or none")
    if folder is None or repo_id is None:
        return {}
    if hub_id(repo_id).revision is not None:
        raise BadInput(f"--generator-repo {repo_id}: leave out the version, it is the release's")
    named = manifest.facts.get("generator_repo")
    if named != repo_id:
        raise BadInput(
            f"--generator-repo {repo_id}: the release names {named or 'no such repository'}; a "
            f"release never changes, so build one with --set release.generator_repo={repo_id}"
        )
    missing = [name for name in GENERATOR_FILES if not (folder / name).is_file()]
    if missing:
        raise BadInput(f"--generator {folder}: it has no {' and no '.join(missing)}")
    files = {name: local_file(folder / name) for name in GENERATOR_FILES}
    weights = manifest.part("weights", Weights)
    expected = None if weights is None else weights.generator
    if files["model.safetensors"].sha256 != expected:
        raise BadInput(
            f"--generator {folder}: model.safetensors is not the generator that made this release; "
            f"its sha256 must be {expected}"
        )
    return files


def _show(plan: Publication, console: Console) -> dict[str, Any]:
    """Files and bytes of each kind of change, also printed."""
    files = Counter(change.kind for change in plan.changes)
    sizes: Counter[str] = Counter()
    for change in plan.changes:
        sizes[change.kind] += change.bytes
    console.table(
        f"{plan.repo_id} {plan.version}",
        ["file", "change", "bytes"],
        [[change.path, change.kind, change.bytes] for change in plan.changes],
    )
    counted = ", ".join(f"{n} {kind} ({sizes[kind]:,} bytes)" for kind, n in files.items())
    console.note(f"{plan.repo_id}@{plan.version}: {counted}")
    return {
        "repo_id": plan.repo_id,
        "new_repository": not plan.exists,
        "published_before": plan.tagged is not None,
        "files": dict(files),
        "bytes": dict(sizes),
        "changes": {change.path: change.kind for change in plan.changes},
    }
