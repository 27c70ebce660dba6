"""FOCUS: a map in one stage, from products of intensities and masks.

"FOCUS", arXiv 2607.16007, 2026. A source generation unit makes c x c cells per pixel: two convolutions with ReLU (5 x 5
to 64 features, 3 x 3 to 32), then two 3 x 3 convolutions side by side, one for intensities and one for a mask behind a
sigmoid, both laid out as cells and multiplied. A first unit goes from the image to the map; after a PReLU of one
weight a second one of factor 1 predicts what is added to it. The loss is

    mean (s' - s)^2 + 0.1 mean |sum s' - sum z| + 0.01 mean |s'|

in counts, on images that are given noise of a standard deviation between 0.001 and 0.05, drawn anew for each sample.
The released code adds it to images in counts, where it is next to nothing beside the rounding; so it is here.

Differs from the paper: the network sees images scaled by the benchmark's middle intensity; the trainer is the one of
all networks here (averaged weights, another length, no weight decay); the last layers start small, so that the map
starts near zero; where windows are trained on, sums are over the window, which holds a group's light.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from csist.methods.crop import Crop
from csist.methods.layers import INPUT_SCALE
from csist.methods.sr.blocks import FIRST_MAP_SHARE, SuperResolution, convolution
from csist.physics.sensor import Sensor

FLUX_WEIGHT = 0.1
SPARSITY_WEIGHT = 0.01
NOISE_RANGE = (0.001, 0.05)
"""Standard deviation of the training's noise in counts."""


class SourceGenerationUnit(nn.Module):
    """Cells (B, 1, cH, cW) from an image or map (B, 1, H, W): intensities times a mask.

    Args:
        ratio: cells per pixel, in each direction.
    """

    def __init__(self, ratio: int) -> None:
        super().__init__()
        self.first = convolution(1, 64, 5)
        self.second = convolution(64, 32)
        self.intensity = convolution(32, ratio**2)
        self.mask = convolution(32, ratio**2)
        self.ratio = ratio

    def forward(self, image: Tensor) -> Tensor:
        """The cells."""
        features = functional.relu(self.second(functional.relu(self.first(image))))
        intensity = functional.pixel_shuffle(self.intensity(features), self.ratio)
        return intensity * functional.pixel_shuffle(self.mask(features), self.ratio).sigmoid()


class FOCUS(SuperResolution):
    """FOCUS: 46,037 parameters at ratio 3.

    Args:
        sensor: the sensor whose images are unmixed; only its background and its shape are used.
        ratio: sub-pixel grid ratio.
    """

    learning_rate: ClassVar[float] = 2e-3  # few layers; the paper's 3e-4 is for 24 million samples

    def __init__(self, sensor: Sensor, ratio: int) -> None:
        super().__init__(sensor, ratio)
        self.generate = SourceGenerationUnit(ratio)
        self.activation = nn.PReLU()
        self.correct = SourceGenerationUnit(1)
        with torch.no_grad():
            for unit in (self.generate, self.correct):
                unit.intensity.weight.mul_(FIRST_MAP_SHARE)
                nn.init.zeros_(unit.intensity.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def enlarge(self, image: Tensor) -> Tensor:
        """Scaled map (B, 1, cH, cW) from scaled images (B, 1, H, W) without background."""
        cells = self.activation(self.generate(image))
        corrected: Tensor = cells + self.correct(cells)
        return corrected

    def loss_terms(
        self, image: Tensor, truth: Tensor, share: float = 1.0, crop: Crop | None = None
    ) -> tuple[Tensor, Tensor]:
        """(mean squared error in counts^2, terms of flux and sparsity in counts), of noisy images.

        Arguments are those of `GridMethod.loss_terms`; all samples take part in all terms.
        """
        part, wanted = (1.0, truth) if crop is None else (crop.part, crop.map(truth))
        counts = (image if crop is None else crop.image(image)) - self.sensor.background
        low, high = NOISE_RANGE
        noise_std = torch.empty(len(image), 1, 1, 1).uniform_(low, high).to(counts)
        noisy = counts + noise_std * torch.randn(counts.shape).to(counts)
        found = self.enlarge(noisy / INPUT_SCALE) * INPUT_SCALE
        discrepancy = part * ((found - wanted) ** 2).mean()
        flux = (found.sum((1, 2, 3)) - counts.sum((1, 2, 3))).abs().mean()
        return discrepancy, FLUX_WEIGHT * flux + part * SPARSITY_WEIGHT * found.abs().mean()
