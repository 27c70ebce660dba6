"""RCAN: residual groups whose blocks weigh their channels.

Zhang et al., "Image Super-Resolution Using Very Deep Residual Channel Attention Networks", ECCV 2018
(arXiv 1807.02758). F0 = conv(y); groups F_g = F_{g-1} + W_g B_n(... B_1(F_{g-1})) and the long skip connection
F = F0 + W F_G; a block is B(x) = x + a X, X = conv(ReLU(conv(x))), with the channel attention
a = sigmoid(W_U ReLU(W_D z)), z the mean of each channel of X; s = conv(up(F)).

Differs from the authors' code: the benchmark's size (5 groups of 10 blocks, 32 features, reduction 8) instead of 10
groups of 20 blocks with 64; one grey channel; every ratio in one step; the attention's hidden units start above
zero, so that none is dead from the start.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from csist.methods.sr.blocks import Gate, LongSkip, ResidualBlock, convolution
from csist.physics.sensor import Sensor


class ChannelAttention(nn.Module):
    """Features times one weight per channel, which follows from the channels' means.

    Args:
        channels: number of features.
        reduction: features per hidden unit.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.gate = Gate(channels, reduction)

    def forward(self, features: Tensor) -> Tensor:
        """Weighted features, shaped like those that come in."""
        weights: Tensor = self.gate(features.mean((2, 3), keepdim=True))
        return features * weights


class ResidualGroup(nn.Module):
    """Some blocks and a convolution beside a skip connection.

    Args:
        channels: number of features.
        blocks: number of blocks.
        reduction: features per hidden unit of the attention.
    """

    def __init__(self, channels: int, blocks: int, reduction: int) -> None:
        super().__init__()
        body = [ResidualBlock(channels, ChannelAttention(channels, reduction)) for _ in range(blocks)]
        self.body = nn.Sequential(*body, convolution(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        """Features, shaped like those that come in."""
        found: Tensor = self.body(features)
        return features + found


class RCAN(LongSkip):
    """RCAN: 1,078,729 parameters at ratio 3.

    Args:
        sensor: the sensor whose images are unmixed.
        ratio: sub-pixel grid ratio.
        groups: number of residual groups.
        blocks: blocks per group.
        channels: number of features.
        reduction: features per hidden unit of the attention.
    """

    small_options: ClassVar[dict[str, Any]] = {"groups": 1, "blocks": 2}

    def __init__(
        self, sensor: Sensor, ratio: int, groups: int = 5, blocks: int = 10, channels: int = 32, reduction: int = 8
    ) -> None:
        groups_of_blocks = (ResidualGroup(channels, blocks, reduction) for _ in range(groups))
        super().__init__(sensor, ratio, channels, groups_of_blocks)
