"""The family of generators: one class in one file each, and here their union by `kind`.

A class's fields are its settings, in a recipe under `generator.network`; its `generator(images)`
builds the network. To add a kind, write its file and name it in `GeneratorKind`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field, TypeAdapter

from cgankd.generator.biggan import BigGAN
from cgankd.generator.ccgan import CcGAN
from cgankd.generator.interface import Generator, ImageSpace
from cgankd.nets.device import placed
from cgankd.nets.networks import fill_network
from cgankd.shardset.errors import CheckpointError
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.weights import CONFIG, load_foreign, load_weights, save_weights

FORMAT_VERSION = 2  # of a saved generator's config.json; 1 called the kind `network`
DEFAULT_KIND = "biggan-small"
PUBLISHED = BigGAN(kind="biggan-cifar", width=64, latent_dim=128)


def with_kind(settings: Any) -> Any:
    """Settings as they are written now: `kind`, which was once called `network` and has a default.

    >>> with_kind({"network": "sagan", "width": 64})
    {'kind': 'sagan', 'width': 64}
    """
    if not isinstance(settings, Mapping):
        return settings
    settings = dict(settings)
    kind = settings.pop("network", settings.pop("kind", DEFAULT_KIND))
    return {"kind": kind, **settings}


GeneratorKind = Annotated[BigGAN | CcGAN, Field(discriminator="kind"), BeforeValidator(with_kind)]


def in_words(kind: GeneratorKind) -> str:
    """A generator's settings in a line.

    >>> in_words(BigGAN(kind="biggan-cifar", width=64))
    'biggan-cifar, width 64, latent_dim 64'
    """
    settings = kind.model_dump(mode="json")
    return ", ".join([settings.pop("kind"), *(f"{name} {settings[name]}" for name in settings)])


def saved_form(kind: GeneratorKind, images: ImageSpace) -> dict[str, Any]:
    """What `config.json` says of a generator: its settings and what it makes."""
    return {
        "format_version": FORMAT_VERSION,
        **kind.model_dump(mode="json"),
        "image_size": images.size,
        "channels": images.channels,
        "space": images.space.model_dump(mode="json"),
    }


def build_generator(config: Mapping[str, Any]) -> Generator:
    """The generator that a `config.json` describes, freshly initialised.

    `ValueError` or `KeyError` where it describes none.

    >>> classes = {"task": "classification", "names": ["cat", "dog"]}
    >>> saved = {"kind": "sngan", "width": 8, "latent_dim": 4, "space": classes}
    >>> generator = build_generator({**saved, "image_size": 8, "channels": 3})
    >>> z = torch.from_numpy(generator.draws(seed=0, keys=range(2)))
    >>> generator.sample(z, torch.tensor([0, 1])).shape
    torch.Size([2, 3, 8, 8])
    """
    settings = dict(config)
    settings.pop("format_version", None)
    space: LabelSpace = TypeAdapter(LabelSpace).validate_python(settings.pop("space"))
    images = ImageSpace(settings.pop("image_size"), settings.pop("channels"), space)
    kind: GeneratorKind = TypeAdapter(GeneratorKind).validate_python(settings)
    return kind.generator(images)


def load_generator(folder: Path, device: torch.device) -> Generator:
    """The generator of a folder, on `device` and in evaluation mode; `CheckpointError` if it has
    none.
    """
    state, config = load_weights(folder)
    try:
        network = build_generator(config)
    except (KeyError, TypeError, ValueError) as error:  # ValueError: also what pydantic raises
        raise CheckpointError(
            f"{folder / CONFIG} does not describe a generator: {' '.join(str(error).split())[:200]}"
        ) from error
    fill_network(network, state, where=f"{folder}: the weights and config.json disagree")
    return placed(network, device).eval()


def adopt_generator(
    path: Path, folder: Path, images: ImageSpace, kind: GeneratorKind = PUBLISHED
) -> str:
    """The sha256 of the weights now in `folder`, taken from somebody else's checkpoint, such as
    the `G_ema.pth` of ajbrock/BigGAN-PyTorch.

    The file is read without running code; `CheckpointError` names keys or shapes that do not fit.
    """
    expected = {
        name: tuple(value.shape) for name, value in kind.generator(images).state_dict().items()
    }
    return save_weights(folder, load_foreign(path, expected), saved_form(kind, images))
