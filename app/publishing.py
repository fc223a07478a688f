"""The Hub: publishing a release or a trained student, fetching a release, and saying whether one is
whole.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgankd.app.console import Console
from cgankd.shardset.errors import BadInput, CheckFailed, CheckpointError, ReleaseError
from cgankd.shardset.files import sha256_file, write_bytes
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
from cgankd.shardset.release.card import LICENSE, rendered, yaml_text
from cgankd.shardset.release.manifest import CARD, MANIFEST, Manifest, read_manifest
from cgankd.shardset.release.verify import verify_release
from cgankd.shardset.release.versions import FIRST, numbers_of

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
        title = message or f"Release {manifest.version}"
        facts[plan.repo_type] = _send(
            hub, plan, console, private=private, dry_run=dry_run, message=title
        )
    if not dry_run:
        sha256 = files[MANIFEST].sha256
        pin = Pin(commit=facts["dataset"]["commit"], manifest_sha256=sha256)
        write_pin(hub.endpoint, where.repo_id, manifest.version, pin)
        console.note(f"check it with: cgankd verify {where.repo_id}@{manifest.version}")
    return facts


def publish_student(
    student: Path,
    target: str,
    *,
    console: Console,
    private: bool = False,
    dry_run: bool = False,
    license: str | None = None,
) -> Facts:
    """Facts of a student that is now a version of a model repository, or would be with `dry_run`.

    `target` is `user/name[@v1.0.0]`; without a version it is the next minor one, or the one that
    holds these very files: nothing but weights, config and a card that says what it learnt from.
    The licence is named only where it is stated.
    """
    from cgankd.app.evaluating import read_evaluation
    from cgankd.nets.networks import load_network
    from cgankd.shardset.weights import CONFIG, WEIGHTS, weights_sha256

    where = hub_id(target)
    if where.is_commit:
        raise BadInput(f"{target}: a student is published under a version such as {FIRST}")
    _, config = load_network(student)
    if not isinstance(config.get("dataset"), dict):
        raise CheckpointError(
            f"{student / CONFIG} names no dataset; publish what `train-student` has written"
        )
    hub = Hub()
    with tempfile.TemporaryDirectory(prefix="cgankd-") as folder:
        evaluation = read_evaluation(student)
        results = evaluation.results if evaluation else ()
        text = student_card(config, weights_sha256(student), results, where.repo_id, license)
        card = Path(folder) / CARD
        write_bytes(card, text.encode())
        paths = {WEIGHTS: student / WEIGHTS, CONFIG: student / CONFIG, CARD: card}
        files = {name: local_file(path) for name, path in paths.items()}
        version = where.revision or _next_version(hub, where.repo_id, files)
        plan = plan_publication(
            hub, where.repo_id, version, files, repo_type="model", private=private
        )
        message = f"Student {version}"
        sent = _send(hub, plan, console, private=private, dry_run=dry_run, message=message)
    return {"version": version, "dry_run": dry_run, **sent}


def pull(spec: str, out: Path, *, console: Console, offline: bool = False) -> Facts:
    """A verified copy of a release in a plain folder, whole or not at all."""
    if out.exists():
        raise BadInput(f"{out} exists; give a new folder")
    release = opened(spec, offline=offline)
    copy_release(release, out)
    size = sum(entry.bytes for entry in release.manifest.files)
    console.note(
        f"{out}: {release.version}, {sum(release.manifest.accepted):,} images, {size:,} bytes"
    )
    return {
        "folder": str(out),
        "repo_id": release.repo_id,
        "version": release.version,
        "commit": release.commit,
        "manifest_sha256": sha256_file(out / MANIFEST),
    }


def verify_on_hub(spec: str, *, console: Console, offline: bool) -> Facts:
    """That a version of the Hub is whole: listing, bytes, and all that `verify` asks of a folder;
    else `ReleaseError` with what is not.
    """
    from huggingface_hub import constants

    release = opened(spec, offline=offline)
    # The cache holds links, which a release may not.
    with tempfile.TemporaryDirectory(prefix=".cgankd-", dir=constants.HF_HUB_CACHE) as plain:
        copy_release(release, Path(plain) / "release", link_or_copy)
    console.note(
        f"{release.repo_id}@{release.version}, commit {release.commit}: every file is as its "
        "manifest says"
    )
    return {"verified": [f"{release.repo_id}@{release.version}"], "commit": release.commit}


def _publishable(folder: Path, version: str | None, allow_failures: bool) -> Manifest:
    """The manifest of a folder that may be published under a version."""
    manifest = read_manifest(folder)
    if version is not None and version != manifest.version:
        raise BadInput(
            f"{folder} is {manifest.version}, not {version}; publish it under its own version"
        )
    if problems := verify_release(folder):
        raise ReleaseError(f"{folder}: {problems[0]}; not published")
    if allow_failures:
        return manifest
    if manifest.lineage.check is None:
        raise CheckFailed(
            f"{folder}: its selection was never checked for copies of training images; run "
            "`cgankd check` and `cgankd release` on its run, or publish it all the same with "
            "--allow-failures"
        )
    if failures := manifest.lineage.check.failures:
        raise CheckFailed(
            f"{folder}: its selection failed its check ({' '.join(failures)}); select "
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
    named = manifest.lineage.generator_repo
    if named != repo_id:
        raise BadInput(
            f"--generator-repo {repo_id}: the release names {named or 'no such repository'}; a "
            f"release never changes, so build one with --set release.generator_repo={repo_id}"
        )
    missing = [name for name in GENERATOR_FILES if not (folder / name).is_file()]
    if missing:
        raise BadInput(f"--generator {folder}: it has no {' and no '.join(missing)}")
    files = {name: local_file(folder / name) for name in GENERATOR_FILES}
    weights = manifest.lineage.weights
    expected = None if weights is None else weights.generator
    if files["model.safetensors"].sha256 != expected:
        raise BadInput(
            f"--generator {folder}: model.safetensors is not the generator that made this release; "
            f"its sha256 must be {expected}"
        )
    return files


def student_card(
    config: Mapping[str, Any],
    sha256: str,
    results: Sequence[Any],
    name: str,
    license: str | None,
) -> str:
    """The model card of a student with this `config.json`: its data, training and the
    `Result`s of `evaluate`.
    """
    dataset = config["dataset"]
    head: dict[str, Any] = {
        "library_name": "cgan-kd",
        "tags": ["cgan-kd", "knowledge-distillation", "synthetic"],
    }
    if config["label_space"]["task"] == "classification":
        head["pipeline_tag"] = "image-classification"
    if dataset["id"] is not None:
        head["datasets"] = [dataset["id"]]
    if license is not None:
        known = LICENSE.fullmatch(license)
        head |= {"license": license} if known else {"license": "other", "license_name": license}
    return rendered(
        "card_student.md.j2",
        head=yaml_text(head),
        name=name,
        config=config,
        dataset=dataset,
        space=config["label_space"],
        sha256=sha256,
        results=results,
    )


def _send(
    hub: Hub, plan: Publication, console: Console, *, private: bool, dry_run: bool, message: str
) -> Facts:
    """Files and bytes of each kind of change, also printed, and the commit that sent them; none
    with `dry_run`.
    """
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
    facts: Facts = {
        "repo_id": plan.repo_id,
        "new_repository": not plan.exists,
        "published_before": plan.tagged is not None,
        "files": dict(files),
        "bytes": dict(sizes),
        "changes": {change.path: change.kind for change in plan.changes},
    }
    if not dry_run:
        facts["commit"] = publish(hub, plan, private=private, message=message)
        done = "was published before" if plan.tagged else "published"
        console.note(f"{plan.repo_id}@{plan.version}: {done}, commit {facts['commit']}")
    return facts


def _next_version(hub: Hub, repo_id: str, files: Mapping[str, LocalFile]) -> str:
    """The highest version if it holds these files, else the minor version after it."""
    repo = hub.repo(repo_id, "model")
    if repo is None or not repo.versions:
        return FIRST
    highest = list(repo.versions)[-1]
    there = hub.files(repo_id, repo.versions[highest], "model")
    same = (name in there and there[name].holds(f.path, f.sha256) for name, f in files.items())
    if all(same):
        return highest
    major, minor, _ = numbers_of(highest)
    return f"v{major}.{minor + 1}.0"
