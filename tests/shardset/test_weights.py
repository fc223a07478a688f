"""Weights come back bit for bit; other people's files are read without running their code."""

import argparse
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from cgankd.shardset.errors import CheckpointError
from cgankd.shardset.files import sha256_file
from cgankd.shardset.weights import load_foreign, load_weights, save_weights, weights_sha256

EXPECTED = {"conv.weight": (2, 1, 3, 3), "conv.bias": (2,), "step": ()}


def a_state():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in EXPECTED.items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def test_weights_and_config_survive_the_disk(tmp_path):
    """A module's state comes back with its configuration, and the hash is that of the file."""
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    digest = save_weights(tmp_path / "net", module, {"width": 2})

    state, config = load_weights(tmp_path / "net")
    assert same(dict(module.state_dict()), state)
    assert config == {"width": 2}
    assert digest == weights_sha256(tmp_path / "net")
    assert digest == sha256_file(tmp_path / "net" / "model.safetensors")


def test_the_same_weights_give_the_same_bytes(tmp_path):
    """Order and memory layout of the tensors do not show in the file."""
    state = a_state()
    turned = {name: state[name] for name in reversed(state)}
    turned["conv.weight"] = turned["conv.weight"].to(memory_format=torch.channels_last)

    assert save_weights(tmp_path / "a", state, {}) == save_weights(tmp_path / "b", turned, {})


def test_tied_weights_are_saved_as_two(tmp_path):
    """Two names for one tensor are no error."""
    tensor = torch.ones(3)
    save_weights(tmp_path, {"a": tensor, "b": tensor}, {})

    assert same({"a": tensor, "b": tensor}, load_weights(tmp_path)[0])


def test_missing_and_cut_weights_are_named(tmp_path):
    """One line says which file."""
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load_weights(tmp_path)
    save_weights(tmp_path, a_state(), {})
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is cut"):
        load_weights(tmp_path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 240, "opt": argparse.Namespace(lr=0.1)},
        lambda state: {"state_dict": {f"module.{name}": t for name, t in state.items()}},
        lambda state: {"net_state_dict": state, "optimizer_state_dict": {"lr": 1}},
        lambda state: {"netG_state_dict": state, "netD_state_dict": {}},
    ],
    ids=["plain", "RepDistiller", "data-parallel", "cGAN-KD", "GAN"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_foreign_checkpoints_are_unwrapped(tmp_path, wrap, zipped):
    """The usual ways to store a state all give the state, in new and old file formats."""
    path = tmp_path / "net.pth"
    torch.save(wrap(a_state()), path, _use_new_zipfile_serialization=zipped)

    assert same(a_state(), load_foreign(path, EXPECTED))


def test_foreign_safetensors_are_read(tmp_path):
    """The format is told by the file's ending."""
    save_file(a_state(), tmp_path / "net.safetensors")

    assert same(a_state(), load_foreign(tmp_path / "net.safetensors", EXPECTED))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("step"), r"of its 3 tensors 1 missing \(step\);"),
        (lambda s: s.clear() or s.update(x=torch.ones(1)), r"3 missing \(conv.weight, …\), 1 unex"),
        (lambda s: s.update(fc=torch.ones(1)), r"1 unexpected \(fc\)"),
        (
            lambda s: s.update(step=torch.ones(4)),
            r"1 of another shape \(step \[4\] instead of \[\]",
        ),
        (lambda s: s.update(step=7), r"1 missing \(step\)"),
    ],
    ids=["missing", "another network", "unexpected", "shape", "not a tensor"],
)
def test_what_does_not_fit_is_counted_and_named(tmp_path, change, message):
    """One line names the first of each kind and how many there are."""
    state = a_state()
    change(state)
    torch.save(state, tmp_path / "net.pth")

    with pytest.raises(CheckpointError, match=message) as caught:
        load_foreign(tmp_path / "net.pth", EXPECTED)
    assert "\n" not in str(caught.value)


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused_unopened(tmp_path, zipped):
    """Nothing is executed, and the user learns what to ask for."""
    path = tmp_path / "net.pth"
    state = {**a_state(), "x": Bomb(tmp_path / "executed")}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)

    with pytest.raises(CheckpointError, match="wants to run code") as caught:
        load_foreign(path, EXPECTED)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False)  # the bomb is a live one
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"hello", b"PK\x03\x04" + bytes(100), pickle.dumps([1, 2])]
)
def test_files_that_are_no_checkpoint_are_refused(tmp_path, data):
    """Whatever the bytes, the answer is one line."""
    (tmp_path / "net.pth").write_bytes(data)

    with pytest.raises(CheckpointError, match=r"net\.pth") as caught:
        load_foreign(tmp_path / "net.pth", EXPECTED)
    assert "\n" not in str(caught.value)


def test_a_cut_checkpoint_and_a_missing_one_are_refused(tmp_path):
    """A download that stopped half way is recognised."""
    path = tmp_path / "net.pth"
    with pytest.raises(CheckpointError, match="is missing"):
        load_foreign(path, EXPECTED)
    torch.save(a_state(), path)
    assert zipfile.is_zipfile(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is cut or not a PyTorch checkpoint"):
        load_foreign(path, EXPECTED)
