"""Who is paired with whom in a step: which real images, and what the two players are told.

With classes, images and labels are drawn as they are. With continuous labels the discriminator is
told a target label and shown a real image and a generated one from the target's vicinity: the
hard and soft vicinal losses (HVDL, SVDL) of CcGAN (arXiv 2011.07379, eqs. 9 and 10).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cgankd.generator.config import GeneratorTraining
from cgankd.generator.vicinity import kernel_sigma, reach, vicinity_kappa
from cgankd.shardset.labels import ClassLabels, ContinuousLabels, LabelSpace

GRID_CLASSES, GRID_VALUES = 16, 9  # rows of the sample grid
REDRAWS = 16  # of a target label's noise, where no image lies in the vicinity


class Pairs(NamedTuple):
    """One discriminator step, `[batch]` each; what is told are targets, int64 or float32."""

    images: Tensor  # indices of the real images
    told_real: Tensor  # to the discriminator, of the real images
    told_fake: Tensor  # to the discriminator, of the generated images
    given: Tensor  # to the generator, and to the discriminator while the generator learns
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
        images, models = _pick(self.quantiles, uniforms.to(self.labels.device, non_blocking=True))
        return [
            Pairs(image, self.labels[image], self.labels[model], self.labels[model])
            for image, model in zip(images, models, strict=True)
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
        first, last = self._interval(targets)
        # The first draw with an image in its vicinity: argmax is the first of the largest.
        chosen = (last > first).int().argmax(0, keepdim=True)
        targets, first, last = (x.gather(0, chosen)[0] for x in (targets, first, last))
        places = first + (uniforms[1] * (last - first)).long().clamp_max_(last - first - 1)
        low, high = (targets - self.reach).clamp_min(0), (targets + self.reach).clamp_max(1)
        given = low + uniforms[2] * (high - low)
        told = targets.float()
        columns = [self.order[places], told, told, given.float()]
        if self.soft:
            columns += [self._weight(self.scaled[places] - targets), self._weight(given - targets)]
        return [Pairs(*rows) for rows in zip(*columns, strict=True)]

    def _interval(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Where the sorted images of each target's vicinity begin and end."""
        first = torch.searchsorted(self.scaled, targets - self.reach)
        return first, torch.searchsorted(self.scaled, targets + self.reach, right=True)

    def _weight(self, distances: Tensor) -> Tensor:
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
