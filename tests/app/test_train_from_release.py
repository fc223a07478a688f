"""Students from a release: by folder or Hub id, pinned, offline, streamed, killed, published."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import HfApi, hf_hub_download
from PIL import Image

from cgankd.app import evaluating, publishing
from cgankd.app.console import Console
from cgankd.app.evaluating import read_evaluation
from cgankd.app.recipe import load_recipe
from cgankd.app.train_from_release import Reading
from cgankd.app.train_from_release import train as trained
from cgankd.shardset.errors import BadInput, CheckpointError, HubError, ReleaseError, StaleStage
from cgankd.shardset.files import read_json, sha256_file
from cgankd.shardset.images import pixel_sha256
from cgankd.shardset.release.manifest import MANIFEST, salted_hashes
from cgankd.shardset.testing import tiny_facts, tiny_plan, write_tiny_release
from tests.hub.faults import Fault
from tests.hub.server import client_environment
from tests.shardset.hubs import REPO, TOKEN, hub_and_client, published, tags

STEPS = "student.steps=[24]"
BATCH = "student.training.batch=16"
PARQUET = "data/accepted/train-00000-of-00001.parquet"
SALT = "a salt"


def photos(folder, seed, count=12):
    """An imagefolder of three classes, 8 × 8 grey, and the pixel hash of each of its images."""
    random = np.random.default_rng(seed)
    hashes = []
    for label in range(3):
        (folder / f"class {label}").mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 60, (8, 8), dtype=np.uint8)
            pixels[label] += 180
            Image.fromarray(pixels).save(folder / f"class {label}" / f"{number}.png")
            hashes.append(pixel_sha256(pixels[None]))
    return hashes


def facts(test_hashes=()):
    recipe = load_recipe("digits", [STEPS, BATCH, "arms=[no-kd]", "budget.per_class=6"])
    real = {"spec": "imagefolder:photos", "revision": None, "fingerprint": "2" * 64}
    hashes = {"train": [], "validation": [], "test": salted_hashes(test_hashes, SALT)}
    return {
        **tiny_facts(3),
        "recipe": recipe.model_dump(mode="json"),
        "real": {**real, "split_seed": 0, "salt": SALT, "hashes": hashes},
    }


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A release whose recipe trains students for 24 steps."""
    out = tmp_path_factory.mktemp("release")
    return write_tiny_release(out, plan=tiny_plan(30), facts=facts()).folder


@pytest.fixture
def hub(release, tmp_path, monkeypatch):
    """A Hub that has the release, and a client that has read nothing."""
    with hub_and_client(tmp_path, monkeypatch) as hub:
        published(release)
        yield hub


def train(dataset, out, tmp_path, **more):
    settings = {"real": "none", "method": "labels", "overrides": (), "seed": 0, "device": "cpu"}
    how = ("offline", "streaming", "cache")
    return trained(
        str(dataset),
        "convnet-1k",
        out,
        console=Console(),
        **{**settings, **{name: more[name] for name in more if name not in how}},
        reading=Reading(
            **{"cache": tmp_path / "cache", **{name: more[name] for name in how if name in more}}
        ),
    )


@pytest.mark.parametrize("method", ["labels", "hinton"])
@pytest.mark.parametrize("streaming", [False, True])
def test_folder_and_hub_id_give_the_same_student(release, hub, tmp_path, method, streaming):
    """Weights byte for byte; the config says which commit it was."""
    how = {"method": method, "streaming": streaming}
    local = train(release, tmp_path / "local", tmp_path, **how)
    remote = train(f"{REPO}@v1.0.0", tmp_path / "remote", tmp_path, **how)

    assert local["sha256"] == remote["sha256"]
    assert read_json(tmp_path / "remote" / "config.json")["dataset"] == {
        "id": REPO,
        "version": "v1.0.0",
        "commit": tags()["v1.0.0"],
        "manifest_sha256": sha256_file(release / MANIFEST),
        "streamed": streaming,
    }
    assert read_json(tmp_path / "local" / "config.json")["dataset"]["commit"] is None
    assert not (tmp_path / "remote" / "checkpoint.safetensors").exists()


def test_a_student_learns_from_the_teachers_logits(release, tmp_path):
    """Also where the recipe says nothing of distillation."""
    labels = train(release, tmp_path / "labels", tmp_path)
    off = ["student.training.distillation=null"]
    hinton = train(release, tmp_path / "hinton", tmp_path, method="hinton", overrides=off)

    assert labels["method"] is None
    assert hinton["method"]["kind"] == "hinton"
    assert labels["sha256"] != hinton["sha256"]


def test_streamed_files_are_not_kept(hub, tmp_path):
    """Neither encoded nor decoded."""
    train(REPO, tmp_path / "out", tmp_path, streaming=True)

    assert list((tmp_path / "home").rglob("*.parquet")) == []
    assert not (tmp_path / "cache").exists()


def test_the_next_student_decodes_nothing(release, tmp_path, monkeypatch):
    """The decoded images serve every student of the release."""
    train(release, tmp_path / "one", tmp_path)
    monkeypatch.setattr("cgankd.shardset.release.decoded._decode", None)
    train(release, tmp_path / "two", tmp_path, seed=1)

    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_decoded_images_lie_beside_the_hub_clients_cache(release, hub, tmp_path):
    """Where nothing else is asked for."""
    train(release, tmp_path / "out", tmp_path, cache=None)

    assert len(list((tmp_path / "home" / "cgankd" / "decoded").glob("*.npy"))) == 1


def test_a_hub_that_is_down_serves_nothing_from_its_cache(hub, tmp_path):
    """Unless --offline asks for that, and then exactly the version that was read."""
    first = train(f"{REPO}@v1.0.0", tmp_path / "first", tmp_path)
    hub.stop()
    with pytest.raises(HubError, match="does not answer"):
        train(f"{REPO}@v1.0.0", tmp_path / "down", tmp_path)
    assert not (tmp_path / "down").exists()

    offline = train(f"{REPO}@v1.0.0", tmp_path / "offline", tmp_path, offline=True)
    assert offline["sha256"] == first["sha256"]
    assert offline["dataset"] == first["dataset"]
    with pytest.raises(BadInput, match=r"v1.0.1 was never read here"):
        train(f"{REPO}@v1.0.1", tmp_path / "other", tmp_path, offline=True)


def test_offline_asks_the_hub_nothing(hub, tmp_path):
    """Not even whether it is there."""
    train(f"{REPO}@v1.0.0", tmp_path / "first", tmp_path)
    hub.requests.clear()
    train(f"{REPO}@v1.0.0", tmp_path / "offline", tmp_path, offline=True)

    assert hub.requests == []


def test_offline_and_streaming_exclude_each_other(hub, tmp_path):
    """In one line."""
    with pytest.raises(BadInput, match=r"--streaming .* --offline"):
        train(REPO, tmp_path / "out", tmp_path, offline=True, streaming=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "hinton", "real": "imagefolder:photos"},
        {"method": "soft"},
        {"overrides": ["student.training.lrs=1"]},
    ],
)
def test_what_cannot_be_is_refused_before_images_are_fetched(hub, tmp_path, wrong):
    """Settings that exclude each other, or do not exist."""
    hub.requests.clear()
    with pytest.raises(BadInput):
        train(f"{REPO}@v1.0.0", tmp_path / "out", tmp_path, **wrong)

    assert not any("accepted" in path for method, path in hub.requests if method == "GET")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.training.steps=100", "student.steps decides"),
        ("student.training.lr=0.1", "student.learning_rates decides"),
        ("student.training.network=convnet-11k", "--student decides"),
        ("student.training.regression_loss=l1", "labels that are numbers"),
        ("student.training.generated_fraction=0.2", "--real SOURCE"),
        ("student.training.distillation.temperature=2", "--method hinton"),
        ("budget.test_fraction=0.3", "--real SOURCE"),
        ("seeds=[1]", "train-student reads student.training, student.steps"),
    ],
)
def test_a_field_that_cannot_matter_is_refused_by_name(hub, tmp_path, override, message):
    """`student.training.steps` was accepted and had no effect."""
    with pytest.raises(BadInput, match=f"--set {re.escape(override.partition('=')[0])}.*{message}"):
        train(f"{REPO}@v1.0.0", tmp_path / "out", tmp_path, overrides=[override])


def test_a_tag_that_moved_is_refused(hub, release, tmp_path):
    """The version is what it was when it was first read here."""
    train(f"{REPO}@v1.0.0", tmp_path / "first", tmp_path)
    other = write_tiny_release(tmp_path / "other", "v1.1.0", plan=tiny_plan(9), facts=facts())
    commit = published(other.folder)
    HfApi().delete_tag(REPO, tag="v1.0.0", repo_type="dataset")
    HfApi().create_tag(REPO, tag="v1.0.0", revision=commit, repo_type="dataset")

    with pytest.raises(ReleaseError, match="the tag moved"):
        train(f"{REPO}@v1.0.0", tmp_path / "second", tmp_path)


def test_a_version_that_does_not_exist_is_refused(hub, tmp_path):
    """`load_dataset` would serve another one from its cache when the Hub is down."""
    with pytest.raises(BadInput, match=r"no version v9.0.0; it has v1.0.0"):
        train(f"{REPO}@v9.0.0", tmp_path / "out", tmp_path)


@pytest.mark.parametrize("offline", [False, True])
def test_a_corrupted_cache_of_the_hub_client_is_refused(hub, tmp_path, offline):
    """The bytes are compared each time."""
    train(REPO + "@v1.0.0", tmp_path / "first", tmp_path)
    (path,) = (tmp_path / "home" / "hub").rglob("snapshots/*/data/accepted/*.parquet")
    path = path.resolve()
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])

    with pytest.raises(ReleaseError, match=PARQUET):
        train(f"{REPO}@v1.0.0", tmp_path / "second", tmp_path, offline=offline)


def test_a_damaged_folder_is_refused(tmp_path):
    """Before anything is decoded."""
    folder = write_tiny_release(tmp_path / "own", facts=facts()).folder
    (folder / PARQUET).write_bytes((folder / PARQUET).read_bytes()[:-1])

    with pytest.raises(ReleaseError, match=PARQUET):
        train(folder, tmp_path / "out", tmp_path)
    assert not (tmp_path / "cache").exists()


def test_real_images_are_mixed_in(release, tmp_path):
    """Decoded or streamed; the student differs from the one without."""
    photos(tmp_path / "photos", 1)
    real = f"imagefolder:{tmp_path / 'photos'}"
    alone = train(release, tmp_path / "alone", tmp_path)
    for streaming in (False, True):
        out = tmp_path / f"mixed-{streaming}"
        mixed = train(release, out, tmp_path, real=real, streaming=streaming)
        assert mixed["sha256"] != alone["sha256"]
        assert str(tmp_path) not in (out / "config.json").read_text()


def test_reals_that_are_test_images_of_the_release_are_refused(tmp_path):
    """By their salted hashes."""
    hashes = photos(tmp_path / "photos", 1)
    folder = write_tiny_release(tmp_path / "own", facts=facts(hashes)).folder

    with pytest.raises(BadInput, match="training images are test images of this release"):
        train(folder, tmp_path / "out", tmp_path, real=f"imagefolder:{tmp_path / 'photos'}")


COMMAND = """
import sys
from pathlib import Path
from cgankd.app.console import Console
from cgankd.app.train_from_release import Reading, train

dataset, out, streaming = sys.argv[1:4]
train(
    dataset, "convnet-1k", Path(out), console=Console(), real="none", method="hinton",
    overrides=["student.steps=[1000]"], seed=3, device="cpu", checkpoint_seconds=0,
    reading=Reading(streaming=streaming == "yes", cache=Path(out + "-cache")),
)
"""


@pytest.mark.parametrize("streaming", ["yes", "no"])
def test_a_killed_training_ends_as_if_it_had_not_been(hub, tmp_path, streaming):
    """SIGKILL between checkpoints, then the same again: the same weights and history."""
    reading = Reading(streaming=streaming == "yes", cache=tmp_path / "cache")
    settings = {
        "console": Console(), "real": "none", "method": "hinton", "seed": 3, "device": "cpu",
        "overrides": ["student.steps=[1000]"], "reading": reading,
    }  # fmt: skip
    trained(f"{REPO}@v1.0.0", "convnet-1k", tmp_path / "whole", **settings)
    out = tmp_path / "killed"
    command = [sys.executable, "-c", COMMAND, f"{REPO}@v1.0.0", str(out), streaming]
    environment = client_environment(hub, tmp_path / "home", token=TOKEN)
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while not (out / "checkpoint.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert not (out / "model.safetensors").exists()
    trained(f"{REPO}@v1.0.0", "convnet-1k", out, **settings)

    for name in ("model.safetensors", "config.json", "metrics.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_checkpoint_of_other_settings_is_refused(release, tmp_path, monkeypatch):
    """With the setting that changed."""
    interrupted(release, tmp_path, monkeypatch)
    with pytest.raises(StaleStage, match="began with seed 0, now it is 1"):
        train(release, tmp_path / "out", tmp_path, seed=1)


def test_a_checkpoint_of_other_real_images_is_refused(release, tmp_path, monkeypatch):
    """Under the same name."""
    photos(tmp_path / "photos", 1)
    real = f"imagefolder:{tmp_path / 'photos'}"
    interrupted(release, tmp_path, monkeypatch, real=real)
    shutil.rmtree(tmp_path / "photos")
    photos(tmp_path / "photos", 2)
    with pytest.raises(StaleStage, match="began with reals"):
        train(release, tmp_path / "out", tmp_path, real=real)


def test_a_damaged_checkpoint_is_refused(release, tmp_path, monkeypatch):
    """In one line, with what to do."""
    path = interrupted(release, tmp_path, monkeypatch)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="is damaged; remove it to start anew"):
        train(release, tmp_path / "out", tmp_path)


def interrupted(release, tmp_path, monkeypatch, real="none"):
    """The checkpoint of a training that was interrupted at its end."""
    with monkeypatch.context() as patch:
        patch.setattr("cgankd.app.train_from_release.write_metrics", None)
        with pytest.raises(TypeError):
            train_with_checkpoints(release, tmp_path, real)
    return tmp_path / "out" / "checkpoint.safetensors"


def train_with_checkpoints(release, tmp_path, real):
    trained(
        str(release), "convnet-1k", tmp_path / "out", console=Console(), real=real,
        method="labels", overrides=(), seed=0, device="cpu", checkpoint_seconds=0,
        reading=Reading(cache=tmp_path / "cache"),
    )  # fmt: skip


def test_evaluations_lie_beside_the_model_until_it_changes(release, tmp_path):
    """One per source; without the place where the images lie."""
    for seed in (1, 2):
        photos(tmp_path / f"photos-{seed}", seed)
    out = tmp_path / "out"
    train(release, out, tmp_path)
    for seed in (1, 2, 1):
        found = evaluating.evaluate(
            out,
            f"imagefolder:{tmp_path / f'photos-{seed}'}",
            console=Console(),
            overrides=(),
            device="cpu",
        )
    evaluation = read_evaluation(out)

    assert evaluation is not None
    assert [result.source for result in evaluation.results] == [
        "imagefolder:photos-2",
        "imagefolder:photos-1",
    ]
    last = evaluation.results[-1]
    assert {**last.figures, "images": last.images} == found
    assert str(tmp_path) not in (out / "evaluation.json").read_text()

    train(release, tmp_path / "other", tmp_path, seed=1)
    (out / "model.safetensors").write_bytes((tmp_path / "other/model.safetensors").read_bytes())
    assert read_evaluation(out) is None


@pytest.fixture
def student(hub, tmp_path):
    """A student of the Hub's release, evaluated."""
    photos(tmp_path / "photos", 1)
    train(f"{REPO}@v1.0.0", tmp_path / "student", tmp_path)
    evaluating.evaluate(
        tmp_path / "student",
        f"imagefolder:{tmp_path / 'photos'}",
        console=Console(),
        overrides=(),
        device="cpu",
    )
    return tmp_path / "student"


def publish(student, target="user/pupil", **more):
    return publishing.publish_student(student, target, console=Console(), **more)


def card_of(repo_id, revision):
    text = Path(hf_hub_download(repo_id, "README.md", revision=revision)).read_text("utf-8")
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    return yaml.safe_load(head), body


def test_a_student_is_published_with_what_it_learnt_from(student, tmp_path):
    """Weights, config, a card with the dataset's commit and the test results; nothing else."""
    told = publish(student, license="mit")
    head, body = card_of("user/pupil", "v1.0.0")
    accuracy = read_evaluation(student).results[0].figures["accuracy"]

    assert told["version"] == "v1.0.0"
    assert tags("user/pupil", "model") == {"v1.0.0": told["commit"]}
    assert set(HfApi().list_repo_files("user/pupil")) - {".gitattributes"} == {
        "model.safetensors",
        "config.json",
        "README.md",
    }
    assert (head["datasets"], head["license"]) == ([REPO], "mit")
    assert tags()["v1.0.0"] in body
    assert f"{accuracy:.4g}" in body
    assert "imagefolder:photos" in body
    assert str(tmp_path) not in body
    weights = hf_hub_download("user/pupil", "model.safetensors", revision="v1.0.0")
    assert sha256_file(Path(weights)) == sha256_file(student / "model.safetensors")


def test_publishing_a_student_again_changes_nothing(student):
    """A changed one is the next version; a taken version is refused."""
    first = publish(student)
    again = publish(student)
    assert again["published_before"]
    assert again["commit"] == first["commit"]

    assert publish(student, license="mit")["version"] == "v1.1.0"
    with pytest.raises(BadInput, match=r"another v1.0.0 already"):
        publish(student, "user/pupil@v1.0.0", license="mit")


def test_a_students_licence_is_never_invented(student):
    """Not stated, not there; a text is a name."""
    publish(student)
    assert "license" not in card_of("user/pupil", "v1.0.0")[0]

    publish(student, license="Own terms")
    head, _ = card_of("user/pupil", "v1.1.0")
    assert (head["license"], head["license_name"]) == ("other", "Own terms")


def test_a_dry_run_sends_nothing(student, hub):
    """It says what would be sent."""
    hub.requests.clear()
    told = publish(student, dry_run=True)

    assert set(told["changes"].values()) == {"added"}
    assert {method for method, _ in hub.requests} <= {"GET", "HEAD"}


def test_a_student_is_private_on_request(student):
    """And public otherwise."""
    publish(student, private=True)

    assert HfApi().repo_info("user/pupil").private


def test_a_lost_answer_of_the_commit_is_not_published_twice(student, hub):
    """The server had applied it."""
    hub.faults.append(Fault(r"/commit/main", method="POST", after=True, status=503))
    told = publish(student)

    assert [c.title for c in HfApi().list_repo_commits("user/pupil")].count("Student v1.0.0") == 1
    assert tags("user/pupil", "model") == {"v1.0.0": told["commit"]}


def test_a_network_without_a_dataset_is_not_published(hub, student):
    """A teacher, say."""
    config = read_json(student / "config.json")
    (student / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if name != "dataset"})
    )
    with pytest.raises(CheckpointError, match="names no dataset"):
        publish(student)
