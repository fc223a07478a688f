"""A step of the game: what its two players are given, what the discriminator sees, what both pay.

With classes, images and labels are drawn as they are. With continuous labels the discriminator is
given a target label with a real image and a generated one from the target's vicinity: the hard
and soft vicinal losses (HVDL, SVDL) of CcGAN (Ding et al. 2021, arXiv 2011.07379, §4, eqs. 9 and
10). Few images have exactly one continuous label, so those around it count too: within κ (hard),
or weighted by exp(−κ d²) of their distance d (soft), labels scaled to [0, 1].

Real and generated images alike are augmented differentiably, after Zhao et al. 2020 (arXiv
2006.10738): colour, translation by up to 1/8 and a cut-out square of half the size. The random
numbers are given, so a step can be repeated; nothing is gathered or scattered, so the gradient is
the same in every run.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cgankd.generator.config import Augmentation, GeneratorTraining, LossName, Vicinity
from cgankd.shardset.labels import ClassLabels, ContinuousLabels, LabelSpace

GRID_CLASSES, GRID_VALUES = 16, 9  # rows of the sample grid
LEAST_WEIGHT = 1e-3  # of the soft vicinity: what weighs less is not drawn
REDRAWS = 16  # of a target label's noise, where no image lies in the vicinity
UNIFORMS = 7  # of an augmented image: brightness, saturation, contrast, and two places each


class GanLoss(NamedTuple):
    """What the discriminator pays for real and generated images, and what the generator pays.

    Every function takes scores float `[n]` and returns one value per sample, `[n]`.

    >>> LOSSES["hinge"].real(torch.tensor([-1.0, 0.5, 2.0]))
    tensor([2.0000, 0.5000, 0.0000])
    """

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


LOSSES: dict[LossName, GanLoss] = {
    # max(0, 1 − D(x)), max(0, 1 + D(G(z))) and −D(G(z)): Lim & Ye 2017 (arXiv 1705.02894), used
    # by BigGAN.
    "hinge": GanLoss(
        real=lambda scores: F.relu(1 - scores),
        fake=lambda scores: F.relu(1 + scores),
        generator=lambda scores: -scores,
    ),
    # −log σ(D(x)), −log(1 − σ(D(G(z)))) and −log σ(D(G(z))): the binary cross-entropy of
    # Goodfellow et al. 2014 (arXiv 1406.2661) with its non-saturating form for the generator;
    # scores are logits.
    "vanilla": GanLoss(
        real=lambda scores: F.softplus(-scores),
        fake=lambda scores: F.softplus(scores),
        generator=lambda scores: F.softplus(-scores),
    ),
}


class Pairs(NamedTuple):
    """One discriminator step, `[batch]` each; conditions are the space's targets."""

    images: Tensor  # indices of the real images, int64
    real_conditions: Tensor  # the discriminator's, of the real images
    fake_conditions: Tensor  # the discriminator's, of the generated images
    generator_conditions: Tensor  # the generator's, and both players' in the generator's step
    weight_real: Tensor | float = 1.0  # of each image's share in the loss
    weight_fake: Tensor | float = 1.0


class ClassConditions:
    """Real images and the generator's classes, drawn apart, both by the prior."""

    def __init__(
        self,
        labels: np.ndarray,
        space: ClassLabels,
        training: GeneratorTraining,
        device: torch.device,
    ) -> None:
        self.labels = torch.from_numpy(space.targets(labels)).to(device)
        self.quantiles = _sampling_quantiles(labels, training.prior).to(device)
        self.shown = torch.arange(min(space.outputs, GRID_CLASSES)).to(device)

    def draw(self, draws: torch.Generator, steps: int, batch: int) -> list[Pairs]:
        """The pairs of each of `steps` discriminator steps."""
        uniforms = torch.rand((2, steps, batch), generator=draws)
        real, fake = _pick(self.quantiles, uniforms.to(self.labels.device, non_blocking=True))
        return [
            Pairs(images, self.labels[images], self.labels[others], self.labels[others])
            for images, others in zip(real, fake, strict=True)
        ]


class VicinalConditions:
    """Targets are labels of the prior with noise; everything shown lies in their vicinity.

    As in the published code, an image is drawn uniformly from the vicinity and a soft vicinity's
    weights are not normalised. Unlike there, the generator learns from the last step's images at
    the labels they were given; the published one draws labels and images anew for it.
    """

    def __init__(
        self,
        labels: np.ndarray,
        space: ContinuousLabels,
        training: GeneratorTraining,
        device: torch.device,
    ) -> None:
        scaled = space.scaled(labels)
        order = np.argsort(scaled, kind="stable")
        # Sorted, a vicinity is an interval of images, whose ends a binary search finds.
        self.order = torch.from_numpy(order).to(device)
        self.scaled = torch.from_numpy(scaled[order]).to(device)
        self.quantiles = _sampling_quantiles(scaled[order], training.prior).to(device)
        self.soft = training.vicinity == "soft"
        self.sigma = kernel_sigma(scaled) if training.sigma is None else training.sigma
        self.kappa = vicinity_kappa(scaled, training.kappa, training.vicinity)
        self.reach = reach(self.kappa, training.vicinity)
        self.shown = torch.linspace(0, 1, GRID_VALUES).to(device)

    def draw(self, draws: torch.Generator, steps: int, batch: int) -> list[Pairs]:
        """The pairs of each of `steps` discriminator steps."""
        device = self.scaled.device
        uniforms = torch.rand((3, steps, batch), generator=draws).to(device)
        noise = torch.randn((REDRAWS, steps, batch), generator=draws, dtype=torch.float64)
        noise[-1] = 0  # the label itself, whose image is there
        labels = self.scaled[_pick(self.quantiles, uniforms[0])]
        targets = labels + self.sigma * noise.to(device)
        # Where the sorted images of each target's vicinity begin and end.
        first = torch.searchsorted(self.scaled, targets - self.reach)
        last = torch.searchsorted(self.scaled, targets + self.reach, right=True)
        # The first draw with an image in its vicinity: argmax is the first of the largest.
        draw = (last > first).int().argmax(0, keepdim=True)
        targets, first, last = (x.gather(0, draw)[0] for x in (targets, first, last))
        places = first + (uniforms[1] * (last - first)).long().clamp_max_(last - first - 1)
        # The generator's label is uniform on the vicinity's part of [0, 1].
        low, high = (targets - self.reach).clamp_min(0), (targets + self.reach).clamp_max(1)
        given = low + uniforms[2] * (high - low)
        target = targets.float()
        columns = [self.order[places], target, target, given.float()]
        if self.soft:
            columns += [self._weight(self.scaled[places] - targets), self._weight(given - targets)]
        return [Pairs(*rows) for rows in zip(*columns, strict=True)]

    def _weight(self, distances: Tensor) -> Tensor:
        """exp(−κ d²) of distances d between labels, float32."""
        return torch.exp(-self.kappa * distances.square()).float()


Conditions = ClassConditions | VicinalConditions


def conditions(
    labels: np.ndarray, space: LabelSpace, training: GeneratorTraining, device: torch.device
) -> Conditions:
    """How a space pairs its labels: raw ones `[n]`, of the real images in their order."""
    if isinstance(space, ContinuousLabels):
        return VicinalConditions(labels, space, training, device)
    return ClassConditions(labels, space, training, device)


def _sampling_quantiles(labels: np.ndarray, prior: str) -> Tensor:
    """Where each image's share of [0, 1) ends: equal shares, or equal shares for each label."""
    _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares = 1 / counts[place] if prior == "balanced" else np.ones(len(labels))
    return torch.from_numpy(np.cumsum(shares) / np.sum(shares)).float()


def _pick(quantiles: Tensor, uniforms: Tensor) -> Tensor:
    """Indices of images, each with the probability that the prior gives it."""
    return torch.searchsorted(quantiles, uniforms, right=True).clamp_max_(len(quantiles) - 1)


def kernel_sigma(scaled: np.ndarray) -> float:
    """The deviation σ of the noise on a target label; labels float `[n]` in [0, 1].

    >>> round(kernel_sigma(np.array([0.0, 0.5, 1.0])), 4)
    0.3474
    """
    # Silverman's rule of thumb for a kernel density: σ = 1.06 · std · N^(−1/5).
    return float(1.06 * np.std(scaled) * len(scaled) ** -0.2)


def vicinity_kappa(scaled: np.ndarray, kappa: float, kind: Vicinity) -> float:
    """κ of a vicinity: `kappa` itself where positive; −m is m times the labels' largest gap.

    The gap is that between consecutive unique labels of float `[n]` in [0, 1]; a soft vicinity
    takes one over its square.

    >>> vicinity_kappa(np.array([0.0, 0.25, 1.0]), -2, "hard")
    1.5
    """
    if kappa > 0:
        return kappa
    # Hard: κ = m · max gap. Soft: κ = 1 / (m · max gap)².
    width = -kappa * float(np.diff(np.unique(scaled)).max())
    return width if kind == "hard" else width**-2


def reach(kappa: float, kind: Vicinity) -> float:
    """How far from a label its vicinity reaches: κ, or where the weight has fallen to 0.001."""
    # exp(−κ d²) = w at d = √(−ln w / κ).
    return kappa if kind == "hard" else math.sqrt(-math.log(LEAST_WEIGHT) / kappa)


def augment(
    images: Float[Tensor, "n c h w"], uniforms: Float[Tensor, "n 7"], kinds: Sequence[Augmentation]
) -> Float[Tensor, "n c h w"]:
    """Images float `[n, c, h, w]`, augmented; uniforms float `[n, UNIFORMS]` in [0, 1).

    >>> augment(torch.ones(1, 1, 4, 4), torch.zeros(1, UNIFORMS), ["cutout"])[0, 0, :2]
    tensor([[0., 1., 1., 1.],
            [1., 1., 1., 1.]])
    """
    if "colour" in kinds:
        images = _colour(images, uniforms[:, :3])
    if "translation" in kinds:
        images = _translate(images, uniforms[:, 3:5])
    if "cutout" in kinds:
        images = _cut_out(images, uniforms[:, 5:7])
    return images


def _colour(images: Tensor, uniforms: Tensor) -> Tensor:
    """Brightness ±½, saturation ×0…2 (where there is colour), contrast ×½…1½."""
    brightness, saturation, contrast = uniforms[:, :, None, None, None].unbind(1)
    images = images + (brightness - 0.5)
    if images.shape[1] > 1:
        images = torch.lerp(images.mean(1, keepdim=True), images, 2 * saturation)
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast + 0.5)


def _translate(images: Tensor, uniforms: Tensor) -> Tensor:
    """Whole pixels up to an eighth of the size each way; what comes in from outside is 0."""
    # A shift along an axis is a product with a 0/1 matrix: exact, and its gradient is one too.
    rows = _shift_matrices(images.shape[2], uniforms[:, 0]).to(images.dtype)
    columns = _shift_matrices(images.shape[3], uniforms[:, 1]).to(images.dtype)
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def _shift_matrices(size: int, uniforms: Tensor) -> Tensor:
    """Matrices `[n, size, size]` that move a vector by up to ±size/8."""
    reach = max(1, round(size / 8))
    shifts = (uniforms * (2 * reach + 1)).floor().long() - reach
    places = torch.arange(size, device=uniforms.device)
    return places[None, :, None] == places[None, None, :] + shifts[:, None, None]


def _cut_out(images: Tensor, uniforms: Tensor) -> Tensor:
    """A square of half the size becomes 0; its centre is anywhere, so part may lie outside."""
    inside_rows = _in_window(images.shape[2], uniforms[:, 0])[:, None, :, None]
    inside_columns = _in_window(images.shape[3], uniforms[:, 1])[:, None, None, :]
    return images.masked_fill(inside_rows & inside_columns, 0.0)


def _in_window(size: int, uniforms: Tensor) -> Tensor:
    """Which of `size` places lie in a window of size/2 around a random place, bool `[n, size]`."""
    half = (size // 2) // 2
    start = (uniforms * (size + 1)).floor()[:, None] - half
    places = torch.arange(size, device=uniforms.device)[None]
    return (places >= start) & (places < start + size // 2)
