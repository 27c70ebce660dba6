"""Start of the unfolded networks: a stage that passes its gradient step through unchanged.

In a stage s = F~(soft(F(r), theta)) nothing carries r past the learned transform, so that one with random weights hides
the image from the stages behind it, and training spends its first thousands of samples on learning the identity.
Started as the identity, the untrained network is plain gradient descent from its linear start, and training only adds
to it. The start costs nothing: all weights but those of two channels stay random.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from csist.checks import InputError

STARTS = ("identity", "xavier")
"""Weights of an unfolded network before training: `identity` as described here, `xavier` random ones, as published."""


def check_start(start: str) -> str:
    """The way to start, if it is one of `STARTS`.

    Raises:
        InputError: if it is not.
    """
    if start not in STARTS:
        raise InputError(f"start must be one of {', '.join(STARTS)}, got {start!r}")
    return start


@torch.no_grad()
def pass_through(forward: tuple[nn.Conv2d, nn.Conv2d], mirror: tuple[nn.Conv2d, nn.Conv2d], share: float = 1.0) -> None:
    """Set the weights of a transform F and its mirror F~ so that F~(F(r)) = r; without a threshold in between.

    F carries +r in its first channel and -r in its second one; a ReLU leaves the positive part of r in one and the
    negative part in the other. The second layer of F and the first of F~ take differences of the two, so that what is
    the same in both, such as the dynamic branch of DISTA-Net, cancels. The last layer of F~ puts the parts together;
    its weights of all other channels are zero, and learn from the first step on.

    Args:
        forward: 3 x 3 convolutions without bias, 1 to C and C to C channels, with a ReLU between them.
        mirror: the same, C to C and C to 1 channels.
        share: factor on what leaves F, which the mirror makes good.
    """
    first, second, back, last = (layer.weight for layer in (*forward, *mirror))
    sign = torch.tensor([1.0, -1.0])
    middle = first.shape[-1] // 2
    _centre(first, sign[:, None], middle)
    _centre(second, torch.outer(sign, sign), middle)
    _centre(back, 0.5 * torch.outer(sign, sign), middle)
    last.zero_()
    last[0, :2, middle, middle] = sign.to(last) / share


def _centre(weight: Tensor, values: Tensor, middle: int) -> None:
    """First output channels of which only the kernels' centres of the first input channels are not zero."""
    rows, columns = values.shape
    weight[:rows] = 0.0
    weight[:rows, :columns, middle, middle] = values.to(weight)
