"""EDSR: residual blocks without batch normalisation, enlarged at the end.

Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPR Workshops 2017
(arXiv 1707.02921). The paper's single-scale baseline: F0 = conv(y), F = F0 + conv(B_16(... B_1(F0))) with residual
blocks B(x) = x + conv(ReLU(conv(x))) (fig. 2c) of 64 features, and s = conv(up(F)) (fig. 3).

Differs from the authors' code: one grey channel, so no mean colour is subtracted; every ratio, 4 too, is reached in
one step.
"""

from __future__ import annotations

from typing import Any, ClassVar

from csist.methods.sr.blocks import LongSkip, ResidualBlock
from csist.physics.sensor import Sensor


class EDSR(LongSkip):
    """EDSR: 1,552,193 parameters at ratio 3.

    Args:
        sensor: the sensor whose images are unmixed.
        ratio: sub-pixel grid ratio.
        blocks: number of residual blocks.
        channels: number of features.
    """

    small_options: ClassVar[dict[str, Any]] = {"blocks": 2}

    def __init__(self, sensor: Sensor, ratio: int, blocks: int = 16, channels: int = 64) -> None:
        super().__init__(sensor, ratio, channels, (ResidualBlock(channels) for _ in range(blocks)))
