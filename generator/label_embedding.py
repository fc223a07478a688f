"""CcGAN's improved label input: a continuous label becomes a vector before the GAN sees it.

Ding et al. 2021 (arXiv 2011.07379, §4.3): x2y learns image → feature → label; then y2h learns
label → feature such that x2y's last layer, h2y, reads the label back. y2h is what stays.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.generator.config import EmbeddingTraining
from cgankd.nets.device import Progress, as_images
from cgankd.nets.minimise import minimise
from cgankd.nets.published import convolution, resnet34_body
from cgankd.shardset.errors import TrainingDiverged

EMBEDDING = 128
NOISE = 0.2  # on the labels that y2h learns, so that it learns those between them too
BOUND = 0.05  # largest mean reconstruction error, as a part of the range
READ_EVERY = 20  # steps between readings of the loss: each waits for the device


class LabelEmbedding(nn.Sequential):
    """y2h: `forward(targets)` → embeddings float32 `[n, EMBEDDING]`; targets in [0, 1], `[n]`.

    As published: five linear layers, group normalisation after all but the last.
    """

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs in (1, *[EMBEDDING] * 3):
            layers += [nn.Linear(inputs, EMBEDDING), nn.GroupNorm(8, EMBEDDING), nn.ReLU()]
        super().__init__(*layers, nn.Linear(EMBEDDING, EMBEDDING), nn.ReLU())

    def forward(self, targets: Tensor) -> Tensor:
        return super().forward(targets[:, None])


class ImageToLabel(nn.Module):
    """x2y: `forward(images)` → scaled labels `[n]`; `h2y` is its last step, from the feature."""

    def __init__(self, image_size: int, channels: int, config: EmbeddingTraining) -> None:
        super().__init__()
        if config.network == "resnet34":
            # He et al. 2016 (arXiv 1512.03385), and two linear layers on the mean of its maps.
            body = [
                *(resnet34_body(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
                *(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, EMBEDDING)),
            ]
        else:
            body = _small(image_size, channels)
        self.feature = nn.Sequential(*body, nn.BatchNorm1d(EMBEDDING), nn.ReLU())
        self.last = nn.Linear(EMBEDDING, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.h2y(self.feature(images))

    def h2y(self, features: Tensor) -> Tensor:
        """Scaled labels `[n]`, at least 0, of features `[n, EMBEDDING]`."""
        return F.relu(self.last(features))[:, 0]


def train_label_embedding(
    pixels: Tensor,
    targets: Tensor,
    config: EmbeddingTraining,
    seed: int,
    *,
    stop_after: int | None = None,
    progress: Progress = lambda done, total, values: None,
) -> tuple[LabelEmbedding, dict[str, float]]:
    """The trained y2h and two mean absolute errors as parts of the range: of labels there and
    back (`label_reconstruction_error`) and of x2y on its images (`image_label_error`).

    pixels uint8 `[n, c, s, s]` and targets float32 `[n]` in [0, 1], on the device to train on.
    `TrainingDiverged` where labels do not come back to within 0.05. `stop_after` ends the training
    of either network after that many steps, to time them: the errors are not measured then.
    """
    device = pixels.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ImageToLabel(pixels.shape[2], pixels.shape[1], config).to(device)
        embedding = LabelEmbedding().to(device)
    # Where the last ReLU starts at 0 for everything, it stays there.
    nn.init.constant_(net.last.bias, float(targets.mean()))
    draws = torch.Generator().manual_seed(seed)

    def picks() -> Tensor:
        return torch.randint(len(pixels), (config.batch,), generator=draws).to(device)

    def image_loss(step: int) -> Tensor:
        index = picks()
        return F.mse_loss(net(as_images(pixels[index])), targets[index])

    def label_loss(step: int) -> Tensor:
        noise = NOISE * torch.randn(config.batch, generator=draws).to(device)
        labels = (targets[picks()] + noise).clamp_(0, 1)
        return F.mse_loss(net.h2y(embedding(labels)), labels)

    total = config.image_steps + config.label_steps
    values: dict[str, float] = {}

    def learn(loss: Callable[[int], Tensor], network: nn.Module, steps: int, before: int) -> None:
        """Adam with a rate that falls to 0 along a cosine."""
        optimiser = torch.optim.Adam(network.parameters(), config.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

        def after(step: int, value: Tensor) -> None:
            if step % READ_EVERY == 1:
                values["label embedding loss"] = float(value)
            progress(before + step, total, dict(values))

        steps = steps if stop_after is None else min(steps, stop_after)
        minimise(loss, optimiser, steps, schedule=schedule, after=after)

    learn(image_loss, net, config.image_steps, 0)
    net.eval().requires_grad_(False)
    learn(label_loss, embedding, config.label_steps, config.image_steps)
    if stop_after is not None:
        return embedding, {}
    with torch.no_grad():
        labels = torch.linspace(0, 1, 201, device=device)
        back = float((net.h2y(embedding(labels)) - labels).abs().mean())
        predicted = torch.cat([net(as_images(part)) for part in pixels.split(512)])
    if not back <= BOUND:
        raise TrainingDiverged(
            f"generator training: the label embedding gives labels back with a mean error of "
            f"{back:.3g} of the range, expected at most {BOUND:g}; raise embedding.label_steps or "
            "embedding.image_steps, or lower embedding.lr"
        )
    error = float((predicted - targets).abs().mean())
    return embedding, {"label_reconstruction_error": back, "image_label_error": error}


def _small(image_size: int, channels: int) -> list[nn.Module]:
    """Convolutions that halve the size down to 4 … 7 pixels, and a linear layer on all of them."""
    layers: list[nn.Module] = []
    inputs, outputs, size = channels, 16, image_size
    while size > 7:
        layers += convolution(inputs, outputs, 2)
        inputs, outputs, size = outputs, min(2 * outputs, 128), -(-size // 2)
    return [*layers, nn.Flatten(), nn.Linear(inputs * size**2, EMBEDDING)]
