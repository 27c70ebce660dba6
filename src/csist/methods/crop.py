"""Small windows around the groups of a batch, for cheaper training of convolutional networks.

A group inside one pixel illuminates only a few pixels around it, and G is shift-invariant. Away from the sides of the
window, a sample cropped to this light therefore trains a convolutional network like the whole sample. Windows never
cross the border of the image, so that a group at the border keeps its true surroundings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from csist.checks import InputError
from csist.methods.operator import SteeringOperator
from csist.physics.sensor import Sensor


def _spread(first: Tensor, size: int) -> Tensor:
    """Return the indices (B, size) of ranges that start at `first` (B,)."""
    return first[:, None] + torch.arange(size, device=first.device)


def _cut(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the parts (B, 1, rows, columns) of (B, 1, H, W) at the indices (B, rows) and (B, columns)."""
    samples = torch.arange(len(values), device=values.device)[:, None, None]
    return values[:, 0][samples, rows[:, :, None], columns[:, None, :]][:, None]


class Crop:
    """Windows of a batch, one per sample, all of the same size.

    Args:
        top: first row (B,) of each window in px.
        left: first column (B,) of each window in px.
        operator: G on a window of this size.
        map_shape: (rows, columns) of the whole map.
    """

    def __init__(self, top: Tensor, left: Tensor, operator: SteeringOperator, map_shape: tuple[int, int]) -> None:
        self.operator, self.map_shape = operator, map_shape
        (height, width), (rows, columns) = operator.shape, operator.map_shape
        ratio = rows // height
        self.part = rows * columns / (map_shape[0] * map_shape[1])
        """Fraction of the cells of the map that lie in a window."""
        self._pixels = _spread(top, height), _spread(left, width)
        self._cells = _spread(ratio * top, rows), _spread(ratio * left, columns)

    def image(self, whole: Tensor) -> Tensor:
        """Return the windows (B, 1, size, size) of images (B, 1, H, W)."""
        return _cut(whole, *self._pixels)

    def map(self, whole: Tensor) -> Tensor:
        """Return the windows (B, 1, c size, c size) of maps (B, 1, cH, cW)."""
        return _cut(whole, *self._cells)

    def embed(self, cells: Tensor) -> Tensor:
        """Return whole maps (B, 1, cH, cW) with the windows (B, 1, c size, c size) in place and zero elsewhere."""
        rows, columns = self._cells
        samples = torch.arange(len(cells), device=cells.device)[:, None, None]
        whole = cells.new_zeros(len(cells), *self.map_shape)
        return whole.index_put((samples, rows[:, :, None], columns[:, None, :]), cells[:, 0])[:, None]


class Cropper(nn.Module):
    """Module that chooses the window around the group of each sample.

    Args:
        sensor: sensor of the whole images.
        ratio: sub-pixel grid ratio.
        size: side of the windows in px.

    Raises:
        InputError: if the windows do not fit into the images.
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
        """Return the windows centred, as far as they fit, on the brightest cells of the true maps (B, 1, cH, cW)."""
        cell = truth.flatten(1).argmax(1)
        row, column = cell // self.map_shape[1] // self.ratio, cell % self.map_shape[1] // self.ratio
        top = (row - self.size // 2).clamp(0, self.shape[0] - self.size)
        left = (column - self.size // 2).clamp(0, self.shape[1] - self.size)
        return Crop(top, left, self.operator, self.map_shape)
