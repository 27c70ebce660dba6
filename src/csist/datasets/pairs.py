"""Pairs of image and true map as a torch dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csist.grid import SubPixelGrid
from csist.io.store import Split

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    TensorPairs = Dataset[tuple[Tensor, Tensor]]
else:
    TensorPairs = object  # a map-style dataset needs no base class, which avoids importing torch


class WindowDataset(TensorPairs):
    """Pairs for training a grid method: image (1, H, W) and true map (1, cH, cW), float32 in counts.

    Args:
        split: images and true targets, read into memory at once.
        ratio: sub-pixel grid ratio c.

    Raises:
        InputError: if the ratio is out of range.
    """

    def __init__(self, split: Split, ratio: int) -> None:
        self.grid = SubPixelGrid(split.sensor.shape, ratio)
        self._images = split.images.astype(np.float32)
        self._targets = split.targets

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        import torch

        cells = self.grid.encode(self._targets[index]).astype(np.float32)
        return torch.tensor(self._images[index, None]), torch.from_numpy(cells[None])
