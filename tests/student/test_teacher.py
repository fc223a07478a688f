"""Teachers from folders, checkpoints, exported programs and functions."""

import argparse
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from cgankd.nets.networks import build_network, save_network
from cgankd.shardset.errors import BadInput, CheckpointError
from cgankd.student.evaluate import outputs_of
from cgankd.student.export import export_network
from cgankd.student.teacher import load_teacher

CPU = torch.device("cpu")
IMAGES = torch.rand(5, 1, 8, 8) * 2 - 1


def network(name="resnet8", channels=1, outputs=3):
    """A network whose running statistics are not those it starts with."""
    module = build_network(name, outputs=outputs, channels=channels, size=8)
    module.train()(torch.rand(16, channels, 8, 8))
    return module.eval()


def load(spec, **options):
    options = {"outputs": 3, "channels": 1, "size": 8, "device": CPU} | options
    return load_teacher(str(spec), **options)


def test_folder_of_this_package_gives_its_network(tmp_path):
    """Without gradients, in float32."""
    module = network()
    save_network(tmp_path, module, name="resnet8", outputs=3, channels=1, size=8)
    logits = load(tmp_path)(IMAGES)
    torch.testing.assert_close(logits, module(IMAGES))
    assert not logits.requires_grad
    assert load(tmp_path, precision="bfloat16")(IMAGES).dtype == torch.float32


def test_teacher_can_be_evaluated_like_a_network(tmp_path):
    """It takes the images that the evaluation makes of pixels."""
    module = network()
    save_network(tmp_path, module, name="resnet8", outputs=3, channels=1, size=8)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    np.testing.assert_allclose(
        outputs_of(load(tmp_path), pixels), outputs_of(module, pixels), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 240, "model": state, "accuracy": 0.7, "optimizer": {}},
        lambda state: {"opt": argparse.Namespace(model="resnet8"), "model": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    ],
    ids=["best", "last", "parallel"],
)
def test_checkpoint_of_repdistiller_gives_its_network(tmp_path, wrap):
    """In each of the wrappings that its scripts write."""
    module = network()
    torch.save(wrap(module.state_dict()), tmp_path / "ckpt_epoch_240.pth")
    teacher = load(tmp_path / "ckpt_epoch_240.pth", network="resnet8")
    torch.testing.assert_close(teacher(IMAGES), module(IMAGES))


def test_foreign_normalisation_is_applied(tmp_path):
    """Images become pixels in [0, 1], then the teacher's mean and deviation apply."""
    module = network(channels=3)
    torch.save(module.state_dict(), tmp_path / "teacher.pth")
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    teacher = load(tmp_path / "teacher.pth", network="resnet8", channels=3, mean=mean, std=std)
    images = torch.rand(5, 3, 8, 8) * 2 - 1
    normalised = torch.stack([((images[:, c] + 1) / 2 - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(teacher(images), module(normalised), rtol=1e-4, atol=1e-5)


def test_exported_network_comes_back_for_any_batch(tmp_path):
    """Written by this package, read without it or as a teacher."""
    module = network("convnet-80k").to(memory_format=torch.channels_last).train()
    export_network(module, tmp_path / "model.pt2", channels=1, size=8)
    assert module.training
    module.eval()
    alone = torch.export.load(tmp_path / "model.pt2").module()
    teacher = load(tmp_path / "model.pt2")
    for count in (1, 5):
        expected = module(IMAGES[:count])
        torch.testing.assert_close(alone(IMAGES[:count]), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(teacher(IMAGES[:count]), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(BadInput, match=r"fails on images \[2, 3, 8, 8\]"):
        load(tmp_path / "model.pt2", channels=3)


MODULE = """
import torch

def linear():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(64, 3))

def constant():
    return lambda images: torch.ones(len(images), 3)

def number():
    return 3

def narrow():
    return lambda images: torch.ones(len(images), 2)

def broken():
    return lambda images: images @ torch.ones(5, 5)
"""


def test_function_of_a_module_gives_its_network(tmp_path, monkeypatch):
    """Found in the working directory; a network is put into evaluation mode."""
    (tmp_path / "own_teacher.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    teacher = load("own_teacher:linear")
    assert torch.equal(teacher(IMAGES), teacher(IMAGES))
    assert load("own_teacher:constant")(IMAGES).tolist() == [[1.0] * 3] * 5
    for spec, message in (
        ("own_teacher:nothing", "has no attribute 'nothing'"),
        ("no_such_teacher:linear", "No module named 'no_such_teacher'"),
        ("own_teacher:number", "returned a int"),
        ("own_teacher:narrow", r"returns \[2, 2\] .* expected \[2, 3\]"),
        ("own_teacher:broken", r"fails on images \[2, 1, 8, 8\]"),
    ):
        with pytest.raises(BadInput, match=message):
            load(spec)


def test_teacher_of_other_classes_is_refused(tmp_path):
    """The number of its outputs is tried before anything is scored."""
    save_network(tmp_path, network(), name="resnet8", outputs=3, channels=1, size=8)
    with pytest.raises(BadInput, match="a logit for each of the same 4 classes"):
        load(tmp_path, outputs=4)


def test_what_is_no_teacher_is_refused(tmp_path):
    """Each in one line that says what is missing."""
    torch.save(network().state_dict(), tmp_path / "teacher.pth")
    (tmp_path / "cut.pt2").write_bytes(b"PK nothing")
    for spec, options, message in (
        (tmp_path / "teacher.pth", {}, "needs the name of its network"),
        (tmp_path / "teacher.pth", {"network": "resnet20"}, "does not fit the network"),
        (tmp_path / "absent", {}, "not there"),
        (tmp_path / "absent.pt2", {}, "is missing"),
        (tmp_path / "cut.pt2", {}, "cut or not a torch.export file"),
        (tmp_path / "teacher.pth", {"network": "resnet8", "mean": (0.5,)}, "both mean and std"),
        (
            tmp_path / "teacher.pth",
            {"network": "resnet8", "mean": (0.5,), "std": (0.2, 0.2, 0.2)},
            "std has 3 values for 1 channels",
        ),
    ):
        with pytest.raises(BadInput, match=message):
            load(spec, **options)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickle_that_wants_to_run_code_is_never_run(tmp_path):
    """Neither as a checkpoint nor hidden in an exported program."""
    sprung = tmp_path / "sprung"
    torch.save({"model": network().state_dict(), "opt": Trap(sprung)}, tmp_path / "trap.pth")
    with pytest.raises(CheckpointError, match="wants to run code"):
        load(tmp_path / "trap.pth", network="resnet8")

    export_network(network("convnet-1k"), tmp_path / "good.pt2", channels=1, size=8)
    data = io.BytesIO()
    torch.save((Trap(sprung),), data)
    with (
        zipfile.ZipFile(tmp_path / "good.pt2") as good,
        zipfile.ZipFile(tmp_path / "trap.pt2", "w") as trap,
        zipfile.ZipFile(tmp_path / "custom.pt2", "w") as custom,
        zipfile.ZipFile(tmp_path / "weights.pt2", "w") as weights,
    ):
        for name in good.namelist():
            content = good.read(name)
            trap.writestr(name, data.getvalue() if name.endswith(".pt") else content)
            custom.writestr(name, content)
            is_weights = name.endswith("weights_config.json")
            weights.writestr(
                name,
                content.replace(b'"use_pickle": false', b'"use_pickle": true')
                if is_weights
                else content,
            )
        root = good.namelist()[0].partition("/")[0]
        custom.writestr(f"{root}/data/constants/opaque_obj_0", pickle.dumps(Trap(sprung)))
    for name in ("trap.pt2", "custom.pt2", "weights.pt2"):
        with pytest.raises(CheckpointError, match="could run code"):
            load(tmp_path / name)
    assert not sprung.exists()


def test_exported_program_that_torch_cannot_read_is_refused(tmp_path):
    """A whole archive without a program in it."""
    with zipfile.ZipFile(tmp_path / "empty.pt2", "w") as archive:
        archive.writestr("archive/version", "1")
    with pytest.raises(CheckpointError, match="cannot be read by torch"):
        load(tmp_path / "empty.pt2")
