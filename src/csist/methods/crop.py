"""Small windows around the groups of a batch: training on them costs less, and is the same away from their sides.

A group inside one pixel lights no more than a few pixels around it, and G is the same everywhere: cut to a window
that holds this light, a sample teaches a convolutional network what the whole sample would. Windows never reach
over the image's border, so a group at the border keeps its true surroundings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from csist.checks import InputError
from csist.methods.operator import SteeringOperator
from csist.physics.sensor import Sensor


def _spread(first: Tensor, size: int) -> Tensor:
    """Indices (B, size) that count up from the first ones (B,)."""
    return first[:, None] + torch.arange(size, device=first.device)


def _cut(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Parts (B, 1, rows, columns) of (B, 1, H, W), each at its own indices (B, rows) and (B, columns)."""
    samples = torch.arange(len(values), device=values.device)[:, None, None]
    return values[:, 0][samples, rows[:, :, None], columns[:, None, :]][:, None]


class Crop:
    """Windows of a batch, one a sample, all of one size.

    Args:
        top: first row (B,) of each window in px.
        left: first column (B,) of each window in px.
        operator: G on such a window.
        map_shape: rows and columns of the whole map.
    """

    def __init__(self, top: Tensor, left: Tensor, operator: SteeringOperator, map_shape: tuple[int, int]) -> None:
        self.operator, self.map_shape = operator, map_shape
        (height, width), (rows, columns) = operator.shape, operator.map_shape
        ratio = rows // height
        self.part = rows * columns / (map_shape[0] * map_shape[1])
        """Part of the map's cells that lie in a window."""
        self._pixels = _spread(top, height), _spread(left, width)
        self._cells = _spread(ratio * top, rows), _spread(ratio * left, columns)

    def image(self, whole: Tensor) -> Tensor:
        """Windows (B, 1, size, size) of images (B, 1, H, W)."""
        return _cut(whole, *self._pixels)

    def map(self, whole: Tensor) -> Tensor:
        """Windows (B, 1, c size, c size) of maps (B, 1, cH, cW)."""
        return _cut(whole, *self._cells)

    def embed(self, cells: Tensor) -> Tensor:
        """Whole maps (B, 1, cH, cW) with these windows (B, 1, c size, c size) in their places, zero elsewhere."""
        rows, columns = self._cells
        samples = torch.arange(len(cells), device=cells.device)[:, None, None]
        whole = cells.new_zeros(len(cells), *self.map_shape)
        return whole.index_put((samples, rows[:, :, None], columns[:, None, :]), cells[:, 0])[:, None]


class Cropper(nn.Module):
    """Chooses the window around each sample's group.

    Args:
        sensor: the sensor of the whole images.
        ratio: sub-pixel grid ratio.
        size: side of the windows in px.

    Raises:
        InputError: if such windows do not fit into the images.
    """

    def __init__(self, sensor: Sensor, ratio: int, size: int) -> None:
        super().__init__()
        height, width = sensor.shape
        if not 1 <= size <= min(height, width):
            raise InputError(f"window must be between 1 and {min(height, width)} px, the image's side, got {size}")
        self.ratio, self.size, self.shape = ratio, size, (height, width)
        self.map_shape = (ratio * height, ratio * width)
        self.operator = SteeringOperator(sensor.with_shape((size, size)), ratio)

    def forward(self, truth: Tensor) -> Crop:
        """The windows with the brightest cell of the true maps (B, 1, cH, cW) as near to their middle as fits."""
        cell = truth.flatten(1).argmax(1)
        row, column = cell // self.map_shape[1] // self.ratio, cell % self.map_shape[1] // self.ratio
        top = (row - self.size // 2).clamp(0, self.shape[0] - self.size)
        left = (column - self.size // 2).clamp(0, self.shape[1] - self.size)
        return Crop(top, left, self.operator, self.map_shape)
