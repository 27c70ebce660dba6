"""What a network costs: multiply-adds of its forward pass, by the convention of the published tables.

One multiplication with its addition counts once; convolutions and matrix products are counted, element-wise work is
not. The branch of the symmetry constraint runs in training only and is left out. Published figures are for a batch
of 64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(network: nn.Module, images: Tensor) -> float:
    """Multiply-adds for an image, counted in one forward pass of a batch (B, 1, H, W).

    >>> multiply_adds(nn.Conv2d(1, 4, 3, padding=1), torch.zeros(2, 1, 5, 6)) == 5 * 6 * 9 * 4
    True
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.forward(images)  # not the compiled form of it, which hides its operations
    return float(counter.get_total_flops() / 2 / len(images))
