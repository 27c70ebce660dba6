"""Parts that the super-resolution networks share.

All of them are fully convolutional, so that they work on images of any size, and any ratio c. Convolutions keep
PyTorch's initial weights (uniform, variance 1 / (3 inputs)): a residual branch then starts small beside its skip
connection. The last one is smaller still, so that the map starts near zero, as a map of a few targets is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from csist.methods.base import GridMethod
from csist.methods.layers import INPUT_SCALE, to_map
from csist.physics.sensor import Sensor

ALIVE_BIAS = 0.1
"""Initial bias of a gate's few hidden units: what they see differs little between samples, so that a unit which
starts below zero would stay there for all of them."""

FIRST_MAP_SHARE = 0.1
"""What is left of the last convolution's initial weights: with all of them, the first loss is two to three times that
of an empty map."""


class SuperResolution(GridMethod):
    """Base of the super-resolution networks: background and scale. A subclass implements `enlarge`.

    Args:
        sensor: the sensor whose images are unmixed; only its background and its shape are used.
        ratio: sub-pixel grid ratio.
    """

    small_options: ClassVar[dict[str, Any]] = {}
    """Options of a small version, for quick tests."""
    learning_rate: ClassVar[float] = 5e-4
    """Peak for training, half the trainer's own: they are deep and have no normalisation."""

    def enlarge(self, image: Tensor) -> Tensor:
        """Scaled map (B, 1, cH, cW) from scaled images (B, 1, H, W) without background."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, cH, cW) of intensities in counts from images (B, 1, H, W) in counts, of any size."""
        return self.enlarge((image - self.sensor.background) / INPUT_SCALE) * INPUT_SCALE


def convolution(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    """A convolution with bias that keeps the image's size; `size` is odd."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


def map_convolution(channels: int) -> nn.Conv2d:
    """The last layer, from features to a map, which starts near zero."""
    layer = convolution(channels, 1)
    with torch.no_grad():
        layer.weight.mul_(FIRST_MAP_SHARE)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class Upsampler(nn.Sequential):
    """Features (B, C, cH, cW) from (B, C, H, W): a convolution to C c^2 features, laid out as c x c cells per pixel.

    Shi et al., CVPR 2016 (arXiv 1609.05158), eq. 3-4; in one step, whatever the ratio.

    Args:
        channels: number of features C.
        ratio: sub-pixel grid ratio c.
    """

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__(convolution(channels, channels * ratio**2), nn.PixelShuffle(ratio))


class Gate(nn.Module):
    """Weights between 0 and 1, one per channel, from one number per channel: 1 x 1, ReLU, 1 x 1, sigmoid.

    Args:
        channels: number of features.
        reduction: features per hidden unit.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = convolution(channels, channels // reduction, 1)
        self.expand = convolution(channels // reduction, channels, 1)
        nn.init.constant_(self.squeeze.bias, ALIVE_BIAS)  # type: ignore[arg-type]

    def forward(self, statistic: Tensor) -> Tensor:
        """Weights (B, C, 1, 1) from a statistic (B, C, 1, 1) of the features."""
        return torch.sigmoid(self.expand(functional.relu(self.squeeze(statistic))))


class ResidualBlock(nn.Module):
    """x + A(conv(ReLU(conv(x)))), without batch normalisation.

    Args:
        channels: number of features.
        attention: A; None for the identity.
    """

    def __init__(self, channels: int, attention: nn.Module | None = None) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = convolution(channels, channels)
        self.attention = nn.Identity() if attention is None else attention

    def forward(self, features: Tensor) -> Tensor:
        """Features, shaped like those that come in."""
        found: Tensor = self.attention(self.second(functional.relu(self.first(features))))
        return features + found


class LongSkip(SuperResolution):
    """Base of the networks s = conv(up(F)) with F = F0 + conv(body(F0)) and F0 = conv(y).

    Args:
        sensor: the sensor whose images are unmixed.
        ratio: sub-pixel grid ratio.
        channels: number of features.
        body: modules from features to features, one after the other.
    """

    def __init__(self, sensor: Sensor, ratio: int, channels: int, body: Iterable[nn.Module]) -> None:
        super().__init__(sensor, ratio)
        self.head = convolution(1, channels)
        self.body = nn.Sequential(*body, convolution(channels, channels))
        self.upsampler = Upsampler(channels, ratio)
        self.tail = map_convolution(channels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def enlarge(self, image: Tensor) -> Tensor:
        """Scaled map (B, 1, cH, cW) from scaled images (B, 1, H, W) without background."""
        shallow = self.head(image)
        return to_map(self.tail, self.upsampler(shallow + self.body(shallow)))
