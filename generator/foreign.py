"""Other people's BigGAN generators: `G_ema.pth` of ajbrock/BigGAN-PyTorch becomes one of ours."""

from pathlib import Path

from cgankd.generator.biggan import build_generator
from cgankd.generator.config import GeneratorConfig
from cgankd.generator.train import FORMAT_VERSION
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.weights import load_foreign, save_weights

PUBLISHED = GeneratorConfig(network="biggan-cifar", width=64, latent_dim=128)


def adopt_generator(
    path: Path,
    folder: Path,
    *,
    space: LabelSpace,
    image_size: int = 32,
    channels: int = 3,
    config: GeneratorConfig = PUBLISHED,
) -> str:
    """The sha256 of the weights now in `folder`, taken from a checkpoint file.

    The file is read without running code; `CheckpointError` names keys or shapes that do not fit.
    """
    shape = {
        **config.model_dump(),
        "image_size": image_size,
        "channels": channels,
        "space": space.model_dump(mode="json"),
    }
    expected = {
        name: tuple(value.shape) for name, value in build_generator(shape).state_dict().items()
    }
    state = load_foreign(path, expected)
    return save_weights(folder, state, {"format_version": FORMAT_VERSION, **shape})
