"""SAN: residual groups whose channels are weighed by their covariance, between two non-local modules.

Dai et al., "Second-Order Attention Network for Single Image Super-Resolution", CVPR 2019
(https://doi.org/10.1109/CVPR.2019.01132). X = conv(y); the non-local module R gives S = R(X), the source of the
share-source skip connections: F_0 = S, F_g = H_g(F_{g-1}) + gamma S, gamma trained from 0; then
s = conv(up(X + R(F_G))), with one R for both. A group is H(x) = w x + conv(A(B_m(... B_1(x)))) of residual blocks B
and second-order channel attention A: the covariance Sigma of the channels over the image, its square root by
Newton-Schulz iteration, the mean of each of its rows, and one weight per channel from these by two 1 x 1 convolutions.
The square root (Li et al., "Towards Faster Training of Global Covariance Pooling Networks", CVPR 2018,
arXiv 1712.01034): A = Sigma / tr Sigma, Y_0 = A, Z_0 = I, T = (3 I - Z Y) / 2, Y <- Y T, Z <- T Z, and
Sigma^(1/2) = sqrt(tr Sigma) Y.

R lets a position attend to all positions of its region: x_i + W sum_j softmax_j(theta(x_i) . phi(x_j)) g(x_j). The
authors always cut their images into 2 x 2 regions. Here there are as few regions of the same size, up to a pixel, as
keep them within 6 px per side: 2 x 2 on 11 x 11 px, one on windows of 6, more on larger images, so that cost and
meaning of a region do not depend on the image's size.

Differs from the authors' code: the trace has a small constant added, so that constant features, whose covariance is
zero, get zero and finite gradients; all this stays in full precision under automatic mixed precision; W starts
small instead of at zero, so that theta, phi and g learn from the first step; the weight w of a group's skip
connection, which the code holds but does not use, is used and starts at 1; hidden units of the attention start
above zero. 38,032 numbers of the published count do nothing and exist only with `published_code=True`: a convolution
after the groups and an attention in R, which the forward pass never calls, and the bias of phi, which the softmax
cancels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from csist.methods.layers import full_precision, to_map
from csist.methods.sr.blocks import Gate, ResidualBlock, SuperResolution, Upsampler, convolution, map_convolution
from csist.physics.sensor import Sensor

ITERATIONS = 5
"""Newton-Schulz steps."""

SMALLEST_TRACE = 1e-6
"""Added to the trace of a covariance, for features that are constant."""

LARGEST_REGION_PX = 6
"""Side of a region that the non-local module sees at a time."""

INNER_SHARE = 8
"""Features of the network a feature of the non-local module."""

INITIAL_NON_LOCAL = 1e-2
"""Standard deviation of W's initial weights."""


def covariance(features: Tensor) -> Tensor:
    """Covariance (B, C, C) of the channels of features (B, C, H, W) over their positions."""
    flat = features.flatten(2)
    centred = flat - flat.mean(2, keepdim=True)
    return centred @ centred.transpose(1, 2) / flat.shape[2]


def matrix_square_root(matrices: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Square roots of symmetric positive semi-definite matrices (B, C, C), to a few digits.

    An eigenvalue is approached from below, the more slowly the smaller it is beside the trace: five steps take it
    to 99 % of its root at a tenth of the trace, but only to 7.6 times its share where it is tiny.
    """
    identity = torch.eye(matrices.shape[1], dtype=matrices.dtype, device=matrices.device)
    trace = matrices.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + SMALLEST_TRACE
    root = matrices / trace
    inverse = identity.expand_as(matrices)
    for _ in range(iterations):
        step = 1.5 * identity - 0.5 * inverse @ root
        root, inverse = root @ step, step @ inverse
    return root * trace.sqrt()


class SecondOrderAttention(nn.Module):
    """Features times one weight per channel, which follows from the channels' covariance.

    Args:
        channels: number of features.
        reduction: features per hidden unit.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.gate = Gate(channels, reduction)

    def forward(self, features: Tensor) -> Tensor:
        """Weighted features, shaped like those that come in."""
        with full_precision(features.device.type):
            statistic = matrix_square_root(covariance(features.to(self.gate.squeeze.weight.dtype))).mean(1)
            weights: Tensor = self.gate(statistic[:, :, None, None])
        return features * weights.to(features.dtype)


def regions(sides: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Rows and columns of each region of an image with these sides, equal up to a pixel.

    >>> regions((5, 11))
    [(slice(0, 5, None), slice(0, 5, None)), (slice(0, 5, None), slice(5, 11, None))]
    """
    parts = []
    for side in sides:
        count = -(-side // LARGEST_REGION_PX)
        edges = [side * n // count for n in range(count + 1)]
        parts.append([slice(begin, end) for begin, end in pairwise(edges)])
    return [(rows, columns) for rows in parts[0] for columns in parts[1]]


class RegionNonLocal(nn.Module):
    """Every position of a region attends to all others of it, beside a skip connection.

    Args:
        channels: number of features.
        published_code: also hold what the release holds and never uses.
    """

    def __init__(self, channels: int, published_code: bool) -> None:
        super().__init__()
        inner = channels // INNER_SHARE
        self.query = convolution(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1, bias=published_code)
        self.value = convolution(channels, inner, 1)
        self.back = convolution(inner, channels, 1)
        nn.init.normal_(self.back.weight, std=INITIAL_NON_LOCAL)
        nn.init.zeros_(self.back.bias)  # type: ignore[arg-type]
        if published_code:
            self.unused = SecondOrderAttention(channels, INNER_SHARE)

    def forward(self, features: Tensor) -> Tensor:
        """Features, shaped like those that come in."""
        query, key, value = self.query(features), self.key(features), self.value(features)
        attended = torch.empty_like(query)
        for rows, columns in regions((features.shape[2], features.shape[3])):
            part = query[:, :, rows, columns]
            shares = (part.flatten(2).transpose(1, 2) @ key[:, :, rows, columns].flatten(2)).softmax(2)
            found = value[:, :, rows, columns].flatten(2) @ shares.transpose(1, 2)
            attended[:, :, rows, columns] = found.view(part.shape).to(attended.dtype)
        back: Tensor = self.back(attended)
        return features + back


class AttentionGroup(nn.Module):
    """Residual blocks, second-order attention and a convolution beside a weighted skip connection.

    Args:
        channels: number of features.
        blocks: number of residual blocks.
        reduction: features per hidden unit of the attention.
    """

    def __init__(self, channels: int, blocks: int, reduction: int) -> None:
        super().__init__()
        body = [ResidualBlock(channels) for _ in range(blocks)]
        attention = SecondOrderAttention(channels, reduction)
        self.body = nn.Sequential(*body, attention, convolution(channels, channels))
        self.skip = nn.Parameter(torch.ones(1))

    def forward(self, features: Tensor) -> Tensor:
        """Features, shaped like those that come in."""
        found: Tensor = self.body(features)
        return self.skip * features + found


class SAN(SuperResolution):
    """SAN: 4,403,588 parameters at ratio 3.

    Args:
        sensor: the sensor whose images are unmixed.
        ratio: sub-pixel grid ratio.
        groups: number of residual groups.
        blocks: blocks per group.
        channels: number of features.
        reduction: features per hidden unit of the attention.
        published_code: also hold what the release holds and never uses (4,441,620 parameters).
    """

    small_options: ClassVar[dict[str, Any]] = {"groups": 1, "blocks": 1}
    learning_rate: ClassVar[float] = 2e-4  # the deepest one here; the paper has 1e-4 for 20 groups of 10 blocks

    def __init__(
        self,
        sensor: Sensor,
        ratio: int,
        *,
        groups: int = 10,
        blocks: int = 5,
        channels: int = 64,
        reduction: int = 16,
        published_code: bool = False,
    ) -> None:
        super().__init__(sensor, ratio)
        self.head = convolution(1, channels)
        self.non_local = RegionNonLocal(channels, published_code)
        self.groups = nn.ModuleList(AttentionGroup(channels, blocks, reduction) for _ in range(groups))
        self.shared_skip = nn.Parameter(torch.zeros(1))
        if published_code:
            self.unused = convolution(channels, channels)
        self.upsampler = Upsampler(channels, ratio)
        self.tail = map_convolution(channels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def enlarge(self, image: Tensor) -> Tensor:
        """Scaled map (B, 1, cH, cW) from scaled images (B, 1, H, W) without background."""
        shallow = self.head(image)
        source = self.non_local(shallow)
        features = source
        for group in self.groups:
            features = group(features) + self.shared_skip * source
        return to_map(self.tail, self.upsampler(shallow + self.non_local(features)))
