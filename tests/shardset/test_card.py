"""The card says what the set is, to the Hub in its head and to people below it."""

import io

import numpy as np
import pyarrow as pa
import pytest
from datasets import DatasetInfo, load_dataset
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard
from huggingface_hub.repocard import metadata_load
from PIL import Image

from cgankd.shardset.release import card as card_module
from cgankd.shardset.release.card import sample_grid
from cgankd.shardset.release.manifest import read_manifest
from cgankd.shardset.release.tables import (
    TOP_LOGITS,
    features_of,
    release_schema,
    teacher_logits,
    top_of,
)
from cgankd.shardset.release.verify import verify_release
from cgankd.shardset.tables import read_numbered
from cgankd.shardset.testing import (
    tiny_continuous_plan,
    tiny_facts,
    tiny_pixels,
    tiny_plan,
    tiny_space,
    write_tiny_pool,
    write_tiny_release,
)

FULL = {
    **tiny_facts(),
    "license": "cc-by-4.0",
    "citation": "@article{a,\n  title = {``` | <b>}\n}",
    "homepage": "https://example.org/set",
    "generator_repo": "someone/generator",
    "production": {
        "plan_version": 1,
        "seed": 0,
        "batch": 4,
        "threads": 1,
        "precision": "float32",
        "device": "cpu",
        "shard_size": 10,
        "rounds": [24],
    },
    "stages": [{"step": "teacher", "network": "convnet", "validation accuracy": 81.25}],
    "check": {
        "judge": {"net": "judge, 64 features", "sha256": "5" * 64, "images": 100},
        "shares": {"memorised": 0.01, "label_score": None},
        "limits": {},
        "failures": ["memorised is 0.01, at most 0.001 was asked for."],
        "metrics": [
            {
                "metric": "fid",
                "net": "judge, 64 features",
                "selected": "",
                "split": "validation",
                "value": 12.5,
                "interval": [10.0, 15.0],
                "samples": 21,
            },
            {
                "metric": "teacher_agreement",
                "net": "teacher",
                "selected": "policy.rho",
                "split": None,
                "value": 0.9,
                "interval": None,
                "samples": 1,
            },
        ],
    },
}


@pytest.mark.parametrize("plan", [tiny_plan(), tiny_continuous_plan()])
def test_the_hubs_own_reader_takes_the_head(tmp_path, plan):
    """Configurations, features, splits and sizes are those that `datasets` then finds."""
    built = write_tiny_release(tmp_path, plan=plan)
    card = DatasetCard.load(built.folder / "README.md")
    infos = DatasetInfosDict.from_dataset_card_data(card.data)

    assert card.data.annotations_creators == ["machine-generated"]
    assert card.data.size_categories == ["n<1K"]
    assert [config["config_name"] for config in card.data.configs] == ["curated", "pool", "scores"]
    assert set(infos) == {"curated", "pool", "scores"}
    for config, info in infos.items():
        assert isinstance(info, DatasetInfo)
        loaded = load_dataset(str(built.folder), config, cache_dir=str(tmp_path / "cache"))
        assert loaded["train"].features == info.features
        assert len(loaded["train"]) == info.splits["train"].num_examples
        folders = {"curated": ["data/accepted"], "scores": ["scores"]}.get(config, ["data/*"])
        paths = [path for part in folders for path in built.folder.glob(f"{part}/*.parquet")]
        assert sum(path.stat().st_size for path in paths) == info.download_size


def test_every_fact_that_is_given_is_shown(tmp_path):
    """Licence, citation, steps, hashes, fidelity; nothing is said of what is not given."""
    text = (write_tiny_release(tmp_path, facts=FULL).folder / "README.md").read_text()

    assert metadata_load(tmp_path / "v1.0.0/README.md")["license"] == "cc-by-4.0"
    for line in (
        "Their licence: cc-by-4.0.",
        "Their home page: https://example.org/set.",
        "Generator: `someone/generator`.",
        "| teacher | network convnet, validation accuracy 81.25 |",
        "| fid | judge, 64 features | validation | 12.5 | 10 to 15 |",
        "| teacher\\_agreement | teacher (took part in selecting: policy.rho) | the set alone |",
        "Memorised: 0.01.",
        "Label score: –.",
        "Not met: memorised is 0.01, at most 0.001 was asked for.",
        "````\n@article{a,\n  title = {``` | <b>}\n}\n````",
        "arXiv 2104.03164",
        "cgankd verify REPO_ID@v1.0.0",
        "![A row of samples for each class",
    ):
        assert line in text, line
    assert "not stated" not in text
    assert "None" not in text


def test_what_the_publisher_does_not_state_is_not_invented(tmp_path):
    """It is said that it was not stated."""
    facts = {k: v for k, v in tiny_facts().items() if k != "license"}
    built = write_tiny_release(tmp_path, facts={**facts, "license": None, "citation": None})
    text = (built.folder / "README.md").read_text()

    assert "license" not in metadata_load(built.folder / "README.md")
    assert text.count("not stated by the publisher") == 3
    assert "which are not published with this version" in text


def test_a_licence_in_words_is_named_beside_other(tmp_path):
    """The Hub takes identifiers alone."""
    built = write_tiny_release(tmp_path, facts={**tiny_facts(), "license": "Ask\nus | first"})
    head = metadata_load(built.folder / "README.md")

    assert (head["license"], head["license_name"]) == ("other", "Ask us | first")
    assert "Their licence: Ask us \\| first." in (built.folder / "README.md").read_text()


@pytest.mark.parametrize(
    "spec", ["imagefolder:a`b", "x`\n\n# heading\n<script>", "hf:a/b|c``d", "---\n---"]
)
def test_a_source_from_outside_cannot_break_the_card(tmp_path, spec):
    """Code in Markdown ends with as many backticks as it began."""
    real = {**tiny_facts()["real"], "spec": spec}
    built = write_tiny_release(tmp_path, facts={**tiny_facts(), "real": real, "citation": spec})
    text = (built.folder / "README.md").read_text()

    line = next(line for line in text.splitlines() if line.startswith("Real images: "))
    fence = line.removeprefix("Real images: ").partition(spec[0])[0].strip()
    assert set(fence) == {"`"}
    assert line.endswith(f"{fence}.")
    assert fence not in line.removeprefix(f"Real images: {fence}").removesuffix(f"{fence}.").split()
    assert verify_release(built.folder) == []


def test_the_grid_shows_the_lowest_keys_of_each_class(tmp_path, monkeypatch):
    """A row for each class, enlarged by whole factors, from the stored PNGs."""
    monkeypatch.setattr(card_module, "GRID_COLUMNS", 3)
    plan = write_tiny_pool(tmp_path / "pool")
    kept = read_numbered(tmp_path / "pool")
    with Image.open(io.BytesIO(sample_grid(kept, tmp_path / "pool", tiny_space()))) as picture:
        grid = np.asarray(picture)

    assert grid.shape == (3 * 34, 3 * 34)
    for row in range(3):
        for column in range(3):
            cell = grid[row * 34 :, column * 34 :][:32:4, :32:4]
            assert np.array_equal(cell, tiny_pixels(plan, 8 * row + column, row)[0])


def test_large_samples_are_shrunk_for_the_grid(tmp_path):
    """A picture in a card need not be larger than a screen."""
    plan = tiny_plan(1, 2)
    write_tiny_pool(tmp_path / "pool", plan, size=128, channels=3)
    png = sample_grid(read_numbered(tmp_path / "pool"), tmp_path / "pool", tiny_space(2))

    with Image.open(io.BytesIO(png)) as picture:
        assert picture.mode == "RGB"
        assert picture.size == (10 * 66, 2 * 66)


def test_a_release_without_a_grid_in_the_manifest_is_no_image_folder(tmp_path):
    """The picture in `assets` is listed and is no sample."""
    built = write_tiny_release(tmp_path)
    paths = [entry.path for entry in read_manifest(built.folder).files]

    assert "assets/samples.png" in paths
    assert len(load_dataset(str(built.folder), cache_dir=str(tmp_path / "c"))["train"]) == 21


def test_many_classes_keep_their_largest_logits():
    """The softmax of what is stored is that of all logits, as far as float16 tells."""
    space = tiny_space(300)
    logits = np.random.default_rng(0).normal(0, 3, (7, 300)).astype(np.float16)
    lists = pa.chunked_array([pa.array(list(logits), pa.list_(pa.float16()))])
    labels, largest = top_of(lists, 300)
    table = pa.table({"teacher_top_labels": labels, "teacher_top_logits": largest})
    schema = release_schema("scores", space)

    assert "teacher_logits" not in schema.names
    assert schema.field("teacher_top_labels").type == labels.type
    assert schema.field("teacher_top_logits").type == largest.type
    names = [feature["name"] for feature in features_of("scores", space)]
    assert names == schema.names
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    found = np.exp(teacher_logits(table, space).astype(np.float64))
    assert np.abs(found.sum(axis=1) - 1).max() < 0.01
    for row in range(7):
        top = np.argsort(-exact[row])[:TOP_LOGITS]
        assert set(labels[row].as_py()) == set(top.tolist())
        assert np.abs(found[row][top] - exact[row][top]).max() < 2e-3


def test_few_classes_keep_all_logits():
    """As they are."""
    logits = np.arange(6, dtype=np.float16).reshape(2, 3)
    table = pa.table({"teacher_logits": pa.array(list(logits), pa.list_(pa.float16()))})

    assert teacher_logits(table, tiny_space()).tolist() == logits.tolist()


def test_a_release_of_many_classes_is_whole(tmp_path):
    """It loads and verifies, and its card explains the columns."""
    built = write_tiny_release(tmp_path, plan=tiny_plan(1, 201))
    train = load_dataset(str(built.folder), cache_dir=str(tmp_path / "cache"))["train"]

    assert verify_release(built.folder) == []
    assert len(train[0]["teacher_top_labels"]) == len(train[0]["teacher_top_logits"]) == TOP_LOGITS
    assert [row["teacher_top_labels"][0] for row in train] == train["teacher_label"][:]
    assert f"the {TOP_LOGITS} classes with the largest" in (built.folder / "README.md").read_text()
