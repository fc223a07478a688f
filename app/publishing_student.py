"""A trained student as a version of a model repository, with a card that says what it learnt from.

Nothing but weights, config and card is sent.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgankd.app.console import Console
from cgankd.app.context import Facts
from cgankd.app.evaluating import Evaluation, read_evaluation
from cgankd.nets.networks import load_network
from cgankd.shardset.errors import BadInput, CheckpointError
from cgankd.shardset.files import write_bytes
from cgankd.shardset.hub.client import Hub
from cgankd.shardset.hub.ids import hub_id
from cgankd.shardset.hub.publish import LocalFile, local_file, plan_publication, publish
from cgankd.shardset.release.card import LICENSE, rendered, yaml_text
from cgankd.shardset.release.manifest import CARD
from cgankd.shardset.release.versions import FIRST, numbers_of
from cgankd.shardset.weights import CONFIG, WEIGHTS, weights_sha256


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
    holds these very files. The licence is named only where it is stated.
    """
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
        card = Path(folder) / CARD
        text = student_card(
            config, weights_sha256(student), read_evaluation(student), where.repo_id, license
        )
        write_bytes(card, text.encode())
        paths = {WEIGHTS: student / WEIGHTS, CONFIG: student / CONFIG, CARD: card}
        files = {name: local_file(path) for name, path in paths.items()}
        version = where.revision or _next_version(hub, where.repo_id, files)
        plan = plan_publication(
            hub, where.repo_id, version, files, repo_type="model", private=private
        )
        console.table(
            f"{where.repo_id} {version}",
            ["file", "change", "bytes"],
            [[change.path, change.kind, change.bytes] for change in plan.changes],
        )
        facts: Facts = {
            "repo_id": where.repo_id,
            "version": version,
            "dry_run": dry_run,
            "published_before": plan.tagged is not None,
            "changes": {change.path: change.kind for change in plan.changes},
        }
        if not dry_run:
            message = f"Student {version}"
            facts["commit"] = publish(hub, plan, private=private, message=message)
            done = "was published before" if plan.tagged else "published"
            console.note(f"{where.repo_id}@{version}: {done}, commit {facts['commit']}")
    return facts


def student_card(
    config: Mapping[str, Any],
    sha256: str,
    evaluation: Evaluation | None,
    name: str,
    license: str | None,
) -> str:
    """The model card of a student with this `config.json`: its data, training and test results."""
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
        results=evaluation.results if evaluation else (),
    )


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
