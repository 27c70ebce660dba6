"""Cost of a network: multiply-adds of its forward pass, by the convention of the published tables.

A multiplication with its addition counts once. Convolutions and matrix products are counted, element-wise operations
are not. The branch of the symmetry constraint, used only in training, is left out. Published figures are for a batch of
`COUNTED_BATCH`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

COUNTED_BATCH = 64
"""Batch size for which the literature states multiply-adds."""


def costs(network: nn.Module, shape: tuple[int, int]) -> dict[str, Any]:
    """Return parameters and multiply_adds_per_image for images of shape (H, W) in a batch of `COUNTED_BATCH`."""
    return {
        "parameters": sum(each.numel() for each in network.parameters()),
        "multiply_adds_per_image": multiply_adds(network, torch.zeros(COUNTED_BATCH, 1, *shape)),
    }


def multiply_adds(network: nn.Module, images: Tensor) -> float:
    """Return the multiply-adds per image, counted in one forward pass of a batch (B, 1, H, W).

    >>> multiply_adds(nn.Conv2d(1, 4, 3, padding=1), torch.zeros(2, 1, 5, 6)) == 5 * 6 * 9 * 4
    True
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.forward(images)  # not the compiled form, which hides the operations
    return float(counter.get_total_flops() / 2 / len(images))
