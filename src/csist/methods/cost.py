"""What a network costs: multiply-adds of its forward pass, by the convention of the published tables.

One multiplication with its addition counts once; convolutions and matrix products are counted, element-wise work is
not. The branch of the symmetry constraint runs in training only and is left out. Published figures are for a batch
of `COUNTED_BATCH`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

COUNTED_BATCH = 64
"""Images at once for which the literature states multiply-adds."""


def costs(network: nn.Module, shape: tuple[int, int]) -> dict[str, Any]:
    """Parameters, and multiply-adds for an image (H, W) of this shape in a batch of `COUNTED_BATCH`, by these names."""
    return {
        "parameters": sum(each.numel() for each in network.parameters()),
        "multiply_adds_per_image": multiply_adds(network, torch.zeros(COUNTED_BATCH, 1, *shape)),
    }


def multiply_adds(network: nn.Module, images: Tensor) -> float:
    """Multiply-adds for an image, counted in one forward pass of a batch (B, 1, H, W).

    >>> multiply_adds(nn.Conv2d(1, 4, 3, padding=1), torch.zeros(2, 1, 5, 6)) == 5 * 6 * 9 * 4
    True
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.forward(images)  # not the compiled form of it, which hides its operations
    return float(counter.get_total_flops() / 2 / len(images))
