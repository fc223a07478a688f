"""VGG networks with batch normalisation for small images, named as in RepDistiller."""

import torch
import torch.nn.functional as F
from torch import nn

from cgankd.nets.network import Network, initialise_convolutions, pooled

WIDTHS = (64, 128, 256, 512, 512)
LARGE = 64  # from this size on, a fourth pooling keeps the last block as cheap as at 32 px


class VGG(Network):
    """Five blocks with as many convolutions as `convolutions` says, halved in size between."""

    def __init__(self, *, convolutions: tuple[int, ...], outputs: int, channels: int) -> None:
        super().__init__()
        inputs = (channels, *WIDTHS)
        for index, (width, count) in enumerate(zip(WIDTHS, convolutions, strict=True)):
            self.add_module(f"block{index}", _block(inputs[index], width, count))
        self.classifier = nn.Linear(WIDTHS[-1], outputs)
        initialise_convolutions(self)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        halvings = 4 if images.shape[2] >= LARGE else 3
        maps = images
        for index in range(len(WIDTHS)):
            maps = F.relu(self.get_submodule(f"block{index}")(maps), inplace=True)
            if index < halvings:
                maps = F.max_pool2d(maps, 2)
        return pooled(maps)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images))


def _block(inputs: int, outputs: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(convolutions):
        layers += [nn.Conv2d(outputs if index else inputs, outputs, kernel_size=3, padding=1)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])  # the caller applies the last ReLU
