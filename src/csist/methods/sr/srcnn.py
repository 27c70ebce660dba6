"""SRCNN: an enlarged image, sharpened by three convolutions.

Dong et al., "Image Super-Resolution Using Deep Convolutional Networks", IEEE TPAMI 38(2), 2016 (arXiv 1501.00092).
The image is enlarged by bicubic interpolation to Y; then F1 = max(0, W1 * Y + B1) (eq. 1),
F2 = max(0, W2 * F1 + B2) (eq. 2) and F = W3 * F2 + B3 (eq. 3), with 64 and 32 features.

Differs from the authors' code: kernels are 3-3-3 instead of 9-1-5, which is what the benchmark's 19,393 parameters
mean; borders are padded with zeros, so that the map keeps its size; the interpolation is PyTorch's, whose cubic has
the parameter -0.75; all layers train at one rate.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from csist.methods.layers import to_map
from csist.methods.sr.blocks import SuperResolution, convolution, map_convolution
from csist.physics.sensor import Sensor


class SRCNN(SuperResolution):
    """SRCNN: 19,393 parameters, whatever the ratio.

    Args:
        sensor: the sensor whose images are unmixed.
        ratio: sub-pixel grid ratio.
    """

    learning_rate: ClassVar[float] = 2e-3  # few layers, so it takes more

    def __init__(self, sensor: Sensor, ratio: int) -> None:
        super().__init__(sensor, ratio)
        self.first = convolution(1, 64)
        self.second = convolution(64, 32)
        self.tail = map_convolution(32)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def enlarge(self, image: Tensor) -> Tensor:
        """Scaled map (B, 1, cH, cW) from scaled images (B, 1, H, W) without background."""
        shape = [self.ratio * side for side in image.shape[2:]]
        features = functional.interpolate(image, size=shape, mode="bicubic", align_corners=False)
        features = functional.relu(self.second(functional.relu(self.first(features))))
        return to_map(self.tail, features)
