"""The nets that describe images."""

import numpy as np
import pytest
import torch

from cgankd.curation.density_ratio import RatioConfig
from cgankd.nets.feature_nets import (
    ResNet34,
    Small,
    SparseAutoencoder,
    features_of,
    train_feature_net,
    with_kind,
)
from cgankd.shardset.errors import TrainingDiverged
from cgankd.shardset.labels import ClassLabels, ContinuousLabels

FOUR = ClassLabels(names=tuple("abcd"))
CPU = torch.device("cpu")
QUICK = Small(width=8, dim=12, steps=60, batch=32)


def train(data, config=QUICK, precision="float32", seed=0):
    return train_feature_net(*data, config, space=FOUR, seed=seed, device=CPU, precision=precision)


@pytest.fixture(scope="module")
def generated(known_ratio):
    data = known_ratio(2, 60)
    return data.fake_pixels, data.fake_labels


def test_published_net_has_the_published_parameters():
    """ResNet-34 with a feature layer of 3,072 for CIFAR-100: 26,296,484 parameters."""
    with torch.device("meta"):
        net = ResNet34(dim=3072).net(outputs=100, channels=3, size=32)
    assert sum(value.numel() for value in net.parameters()) == 26_296_484


@pytest.mark.parametrize("size", [8, 13, 28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_net_takes_any_size(size, channels):
    """8 px and up, grey or colour, give features of the asked length."""
    net = QUICK.net(outputs=4, channels=channels, size=size).eval()
    images = torch.zeros(2, channels, size, size)
    features = net.features(images)
    assert features.shape == (2, 12)
    assert net.head(features).shape == (2, 4)


def test_residual_net_gives_features():
    """The published net runs on 32 px images."""
    net = ResNet34(dim=16).net(outputs=4, channels=1, size=32).eval()
    assert net.features(torch.zeros(1, 1, 32, 32)).shape == (1, 16)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_learns_the_classes(generated, precision):
    """In either precision; in bfloat16 a stale copy of the weights would learn nothing."""
    net = train(generated, precision=precision)
    pixels, labels = generated
    with torch.inference_mode():
        logits = net.head(net.features(torch.from_numpy(pixels) / 127.5 - 1))
    assert float((logits.argmax(1).numpy() == labels).mean()) > 0.85


def test_same_seed_same_weights(generated):
    """Training is a function of data, configuration and seed, whatever was drawn before."""
    first = train(generated).state_dict()
    torch.rand(3)
    second, other = train(generated).state_dict(), train(generated, seed=1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["feature.weight"], other["feature.weight"])


def test_training_leaves_the_callers_random_numbers_alone(generated):
    """The global generator stands where it stood."""
    before = torch.random.get_rng_state()
    train(generated)
    assert torch.equal(before, torch.random.get_rng_state())


def test_features_do_not_depend_on_how_many_images_came(generated):
    """A last, short batch is padded: each image has the bits it has in a full one."""
    net = train(generated)
    pixels = generated[0][:11]

    def features(some):
        return features_of(net, some, device=CPU, precision="float32", batch=8)

    together = features(pixels)
    assert np.array_equal(together[8:], features(pixels[8:]))
    assert np.array_equal(together[:3], features(pixels[:3]))


def test_a_diverging_loss_stops_and_names_the_setting(generated):
    """A learning rate that blows up ends in one line that says what to lower."""
    config = Small(width=8, dim=12, steps=200, batch=32, learning_rate=1e12)
    with pytest.raises(TrainingDiverged, match=r"lower ratio\.features\.learning_rate"):
        train(generated, config)


@pytest.mark.parametrize("size", [8, 13, 16, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_autoencoder_takes_any_size(size, channels):
    """It gives features ≥ 0, a scaled label, and paints an image of the size it was given."""
    config = SparseAutoencoder(width=8, dim=12)
    net = config.net(outputs=1, channels=channels, size=size).eval()
    images = torch.randn(2, channels, size, size)
    features = net.features(images)
    assert features.shape == (2, 12)
    assert bool((features >= 0).all())
    assert net.head(features).shape == (2, 1)
    assert net.decoder(features).shape == images.shape


def test_autoencoder_loss_is_the_weighted_sum():
    """Squared errors of image and scaled label, and the mean feature, in NumPy."""
    config = SparseAutoencoder(width=8, dim=12, sparsity=0.3, label_weight=2.0)
    net = config.net(outputs=1, channels=1, size=8).eval()
    images, targets = torch.randn(5, 1, 8, 8), torch.rand(5)
    with torch.no_grad():
        features = net.features(images)
        painted, told = net.decoder(features).numpy(), net.head(features).numpy()[:, 0]
        found = float(net.loss(images, targets))
    squares = ((painted - images.numpy()) ** 2).mean() + 2 * ((told - targets.numpy()) ** 2).mean()
    assert found == pytest.approx(squares + 0.3 * features.numpy().mean(), rel=1e-5)


@pytest.mark.parametrize("kind", [Small, SparseAutoencoder])
def test_training_learns_continuous_labels(known_ratio, kind):
    """The mean error is far below that of guessing the middle of the range (0.75)."""
    data = known_ratio(2, 100, continuous=True)
    config = kind(width=16, dim=32, steps=200, batch=64)
    space = ContinuousLabels(unit="bar", low=0, high=3)
    net = train_feature_net(
        data.fake_pixels, data.fake_labels, config,
        space=space, seed=0, device=CPU, precision="float32",
    )  # fmt: skip
    with torch.inference_mode():
        features = net.features(torch.from_numpy(data.fake_pixels) / 127.5 - 1)
        predicted = space.unscaled(net.head(features).numpy()[:, 0])
    assert np.abs(predicted - data.fake_labels).mean() < 0.25


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("small", Small(width=16, dim=32)),
        ("resnet34", ResNet34(dim=32)),
        ("sparse-autoencoder", SparseAutoencoder(width=16, dim=32, sparsity=0.5)),
    ],
)
def test_older_settings_name_those_of_every_kind(network, expected):
    """As recipes and fitted ratios of before hold them; what the net does not have is left out."""
    old = {"network": network, "width": 16, "dim": 32, "sparsity": 0.5, "label_weight": 1.0}
    assert RatioConfig(features=old).features == expected


def test_settings_of_another_kind_are_refused():
    """Where the kind is called `kind`, and whatever no kind has."""
    for features in ({"kind": "resnet34", "width": 16}, {"network": "resnet34", "widht": 16}):
        with pytest.raises(ValueError, match=r"widt?ht?\n +Extra inputs are not permitted"):
            RatioConfig(features=features)
    assert with_kind(3) == 3
