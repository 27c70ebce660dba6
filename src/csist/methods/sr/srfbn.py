"""SRFBN: features that go up to the map's grid and back again, fed back to the block they came from.

Li et al., "Feedback Network for Image Super-Resolution", CVPR 2019 (arXiv 1903.09814). F_in = 1x1(3x3(y)); at each
step t the feedback block gives F_out^t = f(F_out^{t-1}, F_in), and the map is s = up_bilinear(y) + conv(deconv(F_out)).
Inside the block, L_0 = 1x1[F_out^{t-1}, F_in]; group g goes up, H_g = up(1x1[L_0 ... L_{g-1}]), and down,
L_g = down(1x1[H_1 ... H_g]); F_out = 1x1[L_1 ... L_G]. Up and down are a transposed and a plain convolution with
kernels of c + 4 cells and stride c. Every layer but the last ends in a PReLU.

Differs from the authors' code: the benchmark's size (32 features, 3 groups, 1 step, so that F_in stands for the
feedback); with more steps the loss sees the last one only; the interpolated image is divided by c^2, because the
counts of a pixel are shared by its cells; one grey channel. `published_code=True` gives the benchmark's release, which
works on counts minus 127.5 and adds the interpolated image as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from csist.checks import InputError
from csist.methods.layers import INPUT_SCALE, to_map
from csist.methods.published import laid, matched
from csist.methods.sr.blocks import SuperResolution, convolution, map_convolution
from csist.physics.sensor import Sensor

SLOPE = 0.2
"""Initial slope of the PReLU below zero."""

PUBLISHED_MEAN = 127.5
"""Counts that the release takes off the image and puts on the map."""

PUBLISHED_RATIO = 3
"""The release's projections fit no other ratio."""

PUBLISHED_BLOCKS = {
    "upBlocks": ("up", 0), "downBlocks": ("down", 0), "uptranBlocks": ("compress_low", 1),
    "downtranBlocks": ("compress_high", 1),
}  # fmt: skip
"""Lists in the release's feedback block, ours, and what is added to the number of a block."""

PUBLISHED_LAYERS = {
    "conv_in": "head.0", "feat_in": "head.1", "block.compress_in": "block.compress_in",
    "block.compress_out": "block.compress_out", "out": "upsampler",
}  # fmt: skip
"""Layers with a PReLU behind them, numbered 0 and 1, in the release and here."""

PUBLISHED_NAME = (
    rf"block\.({'|'.join(PUBLISHED_BLOCKS)})\.(\d+)\.([01]\.(?:weight|bias))"
    rf"|({'|'.join(map(re.escape, PUBLISHED_LAYERS))})\.([01]\.(?:weight|bias))"
    r"|conv_out\.0\.(weight|bias)|(?:sub|add)_mean\.(?:weight|bias)"
)

OVERLAP = 4
"""Width of a projection's kernel beyond the ratio, in cells."""


def _activated(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    """The layer and a PReLU; initial weights that keep the variance (He et al., ICCV 2015), no bias to begin with."""
    # A cell is reached by every stride-th tap only, along each axis.
    strides = layer.stride[0] * layer.stride[1] if isinstance(layer, nn.ConvTranspose2d) else 1
    inputs = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1] / strides
    nn.init.normal_(layer.weight, std=(2.0 / ((1.0 + SLOPE**2) * inputs)) ** 0.5)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.PReLU(init=SLOPE))


def _up(channels: int, ratio: int) -> nn.Sequential:
    """From the image's grid to the map's."""
    return _activated(nn.ConvTranspose2d(channels, channels, ratio + OVERLAP, ratio, OVERLAP // 2))


def _down(channels: int, ratio: int) -> nn.Sequential:
    """From the map's grid to the image's."""
    return _activated(nn.Conv2d(channels, channels, ratio + OVERLAP, ratio, OVERLAP // 2))


def _compress(count: int, channels: int) -> nn.Module:
    """From `count` sets of features to one; a single set stays as it is."""
    return nn.Identity() if count == 1 else _activated(convolution(count * channels, channels, 1))


class FeedbackBlock(nn.Module):
    """Projection groups with dense connections.

    Args:
        channels: number of features.
        groups: number of projection groups.
        ratio: sub-pixel grid ratio.
    """

    def __init__(self, channels: int, groups: int, ratio: int) -> None:
        super().__init__()
        self.compress_in = _compress(2, channels)
        self.compress_low = nn.ModuleList(_compress(n + 1, channels) for n in range(groups))
        self.up = nn.ModuleList(_up(channels, ratio) for _ in range(groups))
        self.compress_high = nn.ModuleList(_compress(n + 1, channels) for n in range(groups))
        self.down = nn.ModuleList(_down(channels, ratio) for _ in range(groups))
        self.compress_out = _activated(convolution(groups * channels, channels, 1))

    def forward(self, features: Tensor, feedback: Tensor) -> Tensor:
        """F_out (B, C, H, W) from F_in and the last step's F_out."""
        low = [self.compress_in(torch.cat([features, feedback], 1))]
        high: list[Tensor] = []
        for compress_low, up, compress_high, down in zip(
            self.compress_low, self.up, self.compress_high, self.down, strict=True
        ):
            high.append(up(compress_low(torch.cat(low, 1))))
            low.append(down(compress_high(torch.cat(high, 1))))
        found: Tensor = self.compress_out(torch.cat(low[1:], 1))
        return found


class SRFBN(SuperResolution):
    """SRFBN: 372,720 parameters at ratio 3.

    Args:
        sensor: the sensor whose images are unmixed.
        ratio: sub-pixel grid ratio.
        groups: projection groups of the feedback block.
        steps: times the block runs.
        channels: number of features.
        published_code: the released form, for the authors' weight files: counts are not scaled.

    Raises:
        InputError: if `published_code` is set for another ratio than 3.
    """

    small_options: ClassVar[dict[str, Any]] = {"groups": 2}
    learning_rate: ClassVar[float] = 1e-3  # over a first 60 steps it learns faster than with 4e-4, as steadily

    def __init__(
        self,
        sensor: Sensor,
        ratio: int,
        groups: int = 3,
        steps: int = 1,
        channels: int = 32,
        *,
        published_code: bool = False,
    ) -> None:
        if published_code and ratio != PUBLISHED_RATIO:
            raise InputError(f"published_code=True is for ratio {PUBLISHED_RATIO}, got {ratio}")
        super().__init__(sensor, ratio)
        self.published_code = published_code
        self.steps = steps
        self.head = nn.Sequential(
            _activated(convolution(1, 4 * channels)), _activated(convolution(4 * channels, channels, 1))
        )
        self.block = FeedbackBlock(channels, groups, ratio)
        self.upsampler = _up(channels, ratio)
        self.tail = map_convolution(channels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def enlarge(self, image: Tensor) -> Tensor:
        """Scaled map (B, 1, cH, cW) from scaled images (B, 1, H, W) without background."""
        if self.published_code:
            raw = self._enlarge(image * INPUT_SCALE - PUBLISHED_MEAN, 1.0)
            return (raw + PUBLISHED_MEAN) / INPUT_SCALE
        return self._enlarge(image, 1.0 / self.ratio**2)

    def _enlarge(self, image: Tensor, share: float) -> Tensor:
        """Map from images, with a share of the interpolated image in it."""
        features = self.head(image)
        feedback = features
        for _ in range(self.steps):
            feedback = self.block(features, feedback)
        shape = [self.ratio * side for side in image.shape[2:]]
        skip = functional.interpolate(image, size=shape, mode="bilinear", align_corners=False)
        return share * skip + to_map(self.tail, self.upsampler(feedback))

    @staticmethod
    def published_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Options with which a network takes these tensors, if they have the authors' names; else none."""
        groups = {match[1] for match in (re.search(r"block\.upBlocks\.(\d+)\.", key) for key in state) if match}
        return {"published_code": True, "groups": len(groups)} if groups else {}

    def translate_published(self, state: Mapping[str, Tensor], transposed: bool = False) -> dict[str, Tensor]:
        """This network's state from the benchmark's (keys `conv_in.0.weight`, `block.upBlocks.0.0.weight` and so on).

        Args:
            state: tensors of their file.
            transposed: whether their maps were indexed [x, y], see `DISTANet.translate_published`.

        Raises:
            InputError: if the keys are not theirs, or this network is not built as theirs.
        """
        translated = {}
        for match, value in matched(state, PUBLISHED_NAME, "SRFBN"):
            _, blocks, number, inner, layer, part, last = match.groups()
            if blocks is not None:
                name, shift = PUBLISHED_BLOCKS[blocks]
                key = f"block.{name}.{int(number) + shift}.{inner}"
            elif layer is not None:
                key = f"{PUBLISHED_LAYERS[layer]}.{part}"
            elif last is not None:
                key = f"tail.{last}"
            else:
                continue  # the constants of the mean
            # A PReLU and the last bias are vectors of one number, as there.
            translated[key] = laid(value, transposed) if value.ndim > 1 else value
        if not self.published_code:
            raise InputError(
                "these are the authors' weights, which take counts: build the method with published_code=True"
            )
        return translated
