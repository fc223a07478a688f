"""Producing shards: the same bytes whatever the order, the worker or the interruption."""

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from cgankd.generator import BigGAN, build_generator, load_generator
from cgankd.generator.produce import ProduceJob, made_again, produce_shard
from cgankd.shardset.errors import BadInput, CheckpointError, StaleStage
from cgankd.shardset.files import sha256_file
from cgankd.shardset.identity import latents
from cgankd.shardset.images import to_pixels
from cgankd.shardset.pool.plan import Plan, make_plan, write_plan
from cgankd.shardset.pool.shards import read_shard, verify_shard
from cgankd.shardset.testing import tiny_space
from cgankd.shardset.weights import save_weights

CPU = torch.device("cpu")
SHAPE = {
    **BigGAN(width=8, latent_dim=4).model_dump(),
    "image_size": 8,
    "channels": 1,
    "space": tiny_space(3).model_dump(mode="json"),
}


@pytest.fixture(scope="module")
def generator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained generator on disk, with statistics that are not the initial ones."""
    folder = tmp_path_factory.mktemp("generator")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build_generator(SHAPE).train()
        for _ in range(20):
            generator.sample(torch.randn(32, 4), torch.randint(3, (32,)))
    save_weights(folder, generator, SHAPE)
    return folder


def plan_of(
    count: int = 30,
    precision: Literal["float32", "bfloat16"] = "float32",
    batch: int = 16,
) -> Plan:
    """`count` samples of each of three classes in shards of 40."""
    return make_plan(
        seed=5,
        pool_id="0" * 16,
        shard_size=40,
        batch=batch,
        threads=1,
        precision=precision,
        per_label=dict.fromkeys(range(3), count),
    )


def jobs(generator_folder: Path, pool: Path, plan: Plan) -> list[ProduceJob]:
    write_plan(pool / "plan.json", plan)
    return [ProduceJob(generator_folder, pool, spec.index, "settings") for spec in plan.shards]


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir()}


def test_shards_hold_what_the_generator_makes_of_each_key(
    generator_folder: Path, tmp_path: Path
) -> None:
    """Pixels computed here key by key, from the key's own latent and label."""
    plan = plan_of()
    network = load_generator(generator_folder, CPU)
    expected_labels = np.repeat([0, 1, 2], 30)
    with torch.no_grad():
        expected = network.sample(
            torch.from_numpy(latents(5, 0, 90, 4)), torch.from_numpy(expected_labels)
        )

    markers = [produce_shard(job) for job in jobs(generator_folder, tmp_path, plan)]
    shards = [read_shard(tmp_path, index) for index in range(3)]

    assert [marker["count"] for marker in markers] == [40, 40, 10]
    assert [verify_shard(tmp_path, index) for index in range(3)] == markers
    pixels = np.concatenate([pixels for pixels, _ in shards])
    # Rounding may go either way where another batch size changed the last bit.
    assert np.abs(pixels.astype(int) - to_pixels(expected).astype(int)).max() <= 1
    rows = [row for _, table in shards for row in table.to_pylist()]
    assert [row["key"] for row in rows] == list(range(90))
    assert [row["label"] for row in rows] == expected_labels.tolist()
    assert [row["condition"] for row in rows] == expected_labels.tolist()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_order_and_process_change_no_byte(
    generator_folder: Path, tmp_path: Path, precision: Literal["float32", "bfloat16"]
) -> None:
    """Backwards in another process gives the files that forwards in this one gives."""
    plan = plan_of(precision=precision)
    for job in jobs(generator_folder, tmp_path / "forwards", plan):
        produce_shard(job)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.map(produce_shard, jobs(generator_folder, tmp_path / "backwards", plan)[::-1])

    assert hashes(tmp_path / "forwards") == hashes(tmp_path / "backwards")


def test_a_thread_beside_the_network_changes_no_byte(
    generator_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As beside a GPU, where latents and PNGs are made while the network works."""
    plan = plan_of()
    for job in jobs(generator_folder, tmp_path / "without", plan):
        produce_shard(job)
    monkeypatch.setattr("cgankd.generator.produce._beside", lambda device: ThreadPoolExecutor(1))
    for job in jobs(generator_folder, tmp_path / "with", plan):
        produce_shard(job)

    assert hashes(tmp_path / "without") == hashes(tmp_path / "with")


def test_a_top_up_leaves_old_shards_alone(generator_folder: Path, tmp_path: Path) -> None:
    """A shard that is done is not made again; the new round continues the keys."""
    plan = plan_of()
    for job in jobs(generator_folder, tmp_path, plan):
        produce_shard(job)
    before = {name: value for name, value in hashes(tmp_path).items() if name != "plan.json"}
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}

    for job in jobs(generator_folder, tmp_path, plan.topped_up({1: 5})):
        produce_shard(job)

    assert before.items() < hashes(tmp_path).items()
    assert (
        times.items() < {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}.items()
    )
    assert read_shard(tmp_path, 3)[1]["key"].to_pylist() == [90, 91, 92, 93, 94]


def test_a_shard_of_other_settings_is_refused(generator_folder: Path, tmp_path: Path) -> None:
    """Its marker carries the fingerprint it was made with."""
    job = jobs(generator_folder, tmp_path, plan_of())[0]
    produce_shard(job)

    with pytest.raises(StaleStage, match="made with other settings"):
        produce_shard(ProduceJob(job.generator_folder, tmp_path, 0, "other settings"))


def pixels_again(folder: Path, plan: Plan, keys: Sequence[int]) -> np.ndarray:
    """The pixels of any keys of a plan, in their order, made again from the weights."""
    batches = made_again(folder, plan, keys, CPU)
    made = {key: image for part, pixels in batches for key, image in zip(part, pixels, strict=True)}
    return np.stack([made[key] for key in keys])


def test_any_keys_are_made_again_to_the_byte(generator_folder: Path, tmp_path: Path) -> None:
    """In any order, from the weights and the plan alone; the short last batch included."""
    plan = plan_of(precision="bfloat16")
    for job in jobs(generator_folder, tmp_path, plan):
        produce_shard(job)
    keys = [89, 0, 41, 40, 39, 15, 16]
    stored = np.concatenate([read_shard(tmp_path, index)[0] for index in range(3)])

    again = pixels_again(generator_folder, plan, keys)

    assert np.array_equal(again, stored[keys])


def test_a_key_outside_the_plan_is_refused(generator_folder: Path) -> None:
    """With the keys that there are."""
    with pytest.raises(BadInput, match="key 90 is not in the plan, which holds 0 to 89"):
        pixels_again(generator_folder, plan_of(), [90])


def test_the_number_of_threads_is_the_plan_s_and_given_back(
    generator_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads change float bytes, so the plan's count holds for the shard and no longer."""
    calls: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)

    produce_shard(jobs(generator_folder, tmp_path, plan_of())[0])

    assert calls == [1, 7]


def test_a_failure_leaves_no_half_shard(
    generator_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error beside the network reaches the caller, and only the plan is there afterwards."""

    def fail(pixels: np.ndarray) -> list[bytes]:
        raise BadInput("this image cannot be written")

    monkeypatch.setattr("cgankd.generator.produce.encode_pngs", fail)
    job = jobs(generator_folder, tmp_path, plan_of())[0]

    with pytest.raises(BadInput, match="cannot be written"):
        produce_shard(job)

    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_kill_9_and_a_rerun_give_the_bytes_of_an_undisturbed_run(
    generator_folder: Path, tmp_path: Path
) -> None:
    """Killed while a shard is written: no marker vouches for it, and it is made anew."""
    plan = plan_of(count=4000, batch=8).model_copy(update={"shard_size": 6000})
    disturbed = jobs(generator_folder, tmp_path / "disturbed", plan)
    process = multiprocessing.get_context("spawn").Process(
        target=produce_shard, args=(disturbed[0],)
    )
    process.start()
    partial = tmp_path / "disturbed" / "000000.tar.partial"
    while not (partial.exists() and partial.stat().st_size):
        assert process.exitcode is None, "the shard was finished before it could be killed"
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    left = {path.name for path in (tmp_path / "disturbed").iterdir()}
    for job in [*disturbed, *jobs(generator_folder, tmp_path / "undisturbed", plan)]:
        produce_shard(job)

    assert left == {"plan.json", "000000.tar.partial"}
    assert hashes(tmp_path / "disturbed") == hashes(tmp_path / "undisturbed")


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path: Path) -> None:
    """In one line, with the first tensor that differs."""
    save_weights(tmp_path, build_generator(SHAPE), {**SHAPE, "space": tiny_space(4).model_dump()})

    with pytest.raises(CheckpointError, match=r"do not fit .*bias\.weight") as caught:
        load_generator(tmp_path, CPU)

    assert "\n" not in str(caught.value)


def test_a_generator_saved_before_kinds_had_their_name_still_loads(
    generator_folder: Path, tmp_path: Path
) -> None:
    """format_version 1 called the kind `network`; the samples are the same."""
    shape = {name: value for name, value in SHAPE.items() if name != "kind"}
    state = load_generator(generator_folder, CPU).state_dict()
    save_weights(tmp_path, state, {"format_version": 1, "network": "biggan-small", **shape})

    again = pixels_again(tmp_path, plan_of(), range(20))

    assert np.array_equal(again, pixels_again(generator_folder, plan_of(), range(20)))
