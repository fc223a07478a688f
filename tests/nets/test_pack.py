"""Packs: each member is what it would be alone, whoever trains beside it."""

import math

import numpy as np
import pytest
import torch

from cgankd.nets.batches import TrainingData
from cgankd.nets.checkpoint import Checkpoint
from cgankd.nets.networks import build_network
from cgankd.nets.pack import MEMBERS, Pack, PackOptimiser
from cgankd.nets.pack_training import Member, train_pack, trains_in_packs
from cgankd.nets.training import StudentTraining, train_network
from cgankd.shardset.errors import BadInput, TrainingDiverged
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.testing import tiny_space
from cgankd.student.methods import Hinton

CPU = torch.device("cpu")
QUICK = StudentTraining(network="convnet-1k", steps=30, batch=7, lr=0.05)  # 7: no round number
POSITIONS = ContinuousLabels(unit="mm", low=-3.0, high=3.0)


def images(seed, count=20, size=8, logits=False):
    """Random images in three classes, some real and some generated."""
    random = np.random.default_rng(seed)
    shape = (count, 1, size, size)
    more = random.normal(size=(2, count, 3)).astype(np.float32) if logits else (None, None)
    return TrainingData(
        random.integers(0, 256, shape, dtype=np.uint8),
        np.arange(count, dtype=np.int64) % 3,
        random.integers(0, 256, shape, dtype=np.uint8),
        np.arange(count, dtype=np.int64) % 3,
        *more,
    )


def members(count=MEMBERS, config=QUICK, **options):
    """Members with images, seeds and learning rates of their own."""
    return [
        Member(images(seed, **options), changed(config, lr=config.lr * (1 + seed / 4)), seed)
        for seed in range(count)
    ]


def changed(config, **fields):
    return config.model_copy(update=fields)


def packed(of, **options):
    return train_pack(of, **{"space": tiny_space(3), "device": CPU} | options)


def weights(network):
    return torch.cat([tensor.flatten() for tensor in network.state_dict().values()])


@pytest.mark.parametrize("size", [8, 20])
def test_a_member_computes_what_its_network_does(size):
    """At 20 px the maps are pooled as well; gradients agree as outputs do."""
    networks = [build_network("convnet-1k", outputs=3, channels=2, size=size) for _ in range(3)]
    pack = Pack(networks, (2, size, size))
    batch = torch.randn(3, 5, 2, size, size)
    outputs = pack(batch)
    outputs.square().sum().backward()

    for place, network in enumerate(networks):
        alone = network(batch[place])
        torch.testing.assert_close(outputs[place], alone)
        alone.square().sum().backward()
        kernels = network.layers[0].weight.grad.flatten()
        torch.testing.assert_close(pack.weights.grad[place][: len(kernels)], kernels)
        assert torch.equal(weights(pack.member(place)), weights(network))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_optimiser_is_pytorchs_with_a_rate_for_each_row(name):
    """Five steps down random gradients."""
    start, gradients = torch.randn(3, 16), torch.randn(5, 3, 16)
    rates = [0.1, 0.01, 0.3]
    rows = torch.nn.Parameter(start.clone())
    optimiser = PackOptimiser(rows, adam=name == "adam", momentum=0.8, weight_decay=0.01)
    optimiser.rates.copy_(torch.tensor(rates)[:, None])
    for step, gradient in enumerate(gradients, start=1):
        optimiser.step_number = step
        rows.grad = gradient.clone()
        optimiser.step()

    for row, rate in enumerate(rates):
        alone = torch.nn.Parameter(start[row].clone())
        if name == "adam":
            theirs = torch.optim.AdamW([alone], lr=rate, betas=(0.8, 0.999), weight_decay=0.01)
        else:
            theirs = torch.optim.SGD([alone], lr=rate, momentum=0.8, weight_decay=0.01)
        for gradient in gradients:
            alone.grad = gradient[row].clone()
            theirs.step()
        torch.testing.assert_close(rows[row], alone)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (QUICK, {}),
        (changed(QUICK, optimiser="adam", lr=0.003), {}),
        (changed(QUICK, augment="shift", ema_decay=None, schedule="step"), {}),
        (QUICK, {"method": Hinton()}),
    ],
    ids=["sgd", "adam", "shift", "hinton"],
)
def test_a_pack_trains_each_member_as_it_would_train_alone(config, options):
    """The same weights, history and figures up to rounding."""
    several = members(3, config, logits=bool(options))
    options = options | {"eval": lambda network: {"first": float(weights(network)[0])}}

    for member, (network, history) in zip(several, packed(several, **options), strict=True):
        alone, rows = train_network(
            member.data, member.config, space=tiny_space(3), seed=member.seed, device=CPU, **options
        )
        torch.testing.assert_close(weights(network), weights(alone), rtol=1e-3, atol=1e-4)
        assert [row.keys() for row in history] == [row.keys() for row in rows]
        for row, expected in zip(history, rows, strict=True):
            assert row == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_pack_learns_numbers_from_given_weights():
    """Continuous labels, and a start from a network's state."""
    data = images(0)
    labels = np.linspace(-3, 3, 20)
    data = TrainingData(data.real_pixels, labels)
    start = build_network("convnet-1k", outputs=1, channels=1, size=8).state_dict()
    config = changed(QUICK, generated_fraction=None, lr=0.01)
    options = {"space": POSITIONS, "device": CPU}
    for init in (None, start):
        ((network, _),) = train_pack([Member(data, config, 5, init)], **options)
        alone, _ = train_network(data, config, seed=5, init=init, **options)
        torch.testing.assert_close(weights(network), weights(alone), rtol=1e-3, atol=1e-4)


def test_a_member_depends_neither_on_its_place_nor_on_the_others():
    """The same bytes alone in a pack that is filled up, and at each place among others."""
    one, *others = members()
    ((alone, history),) = packed([one])

    for place in range(MEMBERS):
        around = [*others[:place], one, *others[place:]]
        network, rows = packed(around)[place]
        assert torch.equal(weights(network), weights(alone)), place
        assert rows == history


def test_members_that_share_images_get_the_bytes_of_those_that_do_not():
    """Two learning rates of one arm and seed share their batches."""
    first = Member(images(0), QUICK, 0)
    second = Member(images(0), changed(QUICK, lr=0.1), 0)
    sharing = Member(first.data, second.config, 0)

    assert torch.equal(
        weights(packed([first, second])[1][0]), weights(packed([first, sharing])[1][0])
    )


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_members_go_on_from_where_they_stopped_in_another_pack(optimiser, tmp_path):
    """Two of three that stopped go on, and end as if they had not."""
    config = changed(QUICK, optimiser=optimiser, lr=0.01)
    several = members(3, config)
    whole = packed(several)
    stopping = [
        Member(m.data, m.config, m.seed, checkpoint=Checkpoint(tmp_path / str(m.seed), {}))
        for m in several
    ]
    packed(stopping, until=12)
    assert [member.checkpoint.step for member in stopping] == [12, 12, 12]

    for (network, history), expected in zip(packed(stopping[:0:-1]), whole[:0:-1], strict=True):
        assert torch.equal(weights(network), weights(expected[0]))
        assert history == expected[1]


def test_a_member_that_diverges_leaves_the_others_alone():
    """It is named with its learning rate; its neighbour's bytes stay."""
    good, wild, *_ = members()
    wild = Member(wild.data, changed(QUICK, lr=1e20), wild.seed)
    ended, other = packed([wild, good])

    assert isinstance(ended, TrainingDiverged)
    assert "set lr below 1e+20" in str(ended)
    assert torch.equal(weights(other[0]), weights(packed([good])[0][0]))
    assert all(math.isfinite(row["loss"]) for row in other[1])


def test_what_cannot_be_one_pack_is_refused(tmp_path):
    """Too many members, other settings than the rate, or other steps to go on from."""
    one, two = members(2)
    with pytest.raises(BadInput, match=f"a pack has {MEMBERS} members, got {MEMBERS + 1}"):
        packed(members(MEMBERS + 1))
    with pytest.raises(BadInput, match="differ in lr alone"):
        packed([one, Member(two.data, changed(QUICK, momentum=0.5), 1)])
    on = Member(one.data, one.config, 0, checkpoint=Checkpoint(tmp_path / "0", {}))
    packed([on], until=12)
    with pytest.raises(BadInput, match="the same step"):
        packed([on, two])
    with pytest.raises(BadInput, match="a ResNet cannot be"):
        packed([Member(one.data, changed(QUICK, network="resnet8"), 0)])


def test_small_networks_train_in_packs_where_their_outputs_are_enough():
    """Large ones or images train alone, and so do methods that train a module of their own."""

    class WithModule(Hinton):
        def build(self, student, teacher):
            return torch.nn.Linear(2, 2)

    assert trains_in_packs(QUICK, None, 16)
    assert trains_in_packs(QUICK, Hinton(), 8)
    assert not trains_in_packs(QUICK, WithModule(), 8)
    assert not trains_in_packs(QUICK, None, 28)
    assert not trains_in_packs(changed(QUICK, network="resnet8"), None, 8)
