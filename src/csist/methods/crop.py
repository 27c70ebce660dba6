"""Small windows around the groups of a batch, for cheaper training of convolutional networks.

A group inside one pixel illuminates only a few pixels around it, and G is shift-invariant, so that a sample cropped to
this light trains a convolutional network like the whole sample, if each layer finds beside the window what it finds
there in the whole image. Where nothing shines, that is one value per feature, but not zero in a network with biases. A
dark sample, a window without light in the middle of an endless image, carries these values through the layers: it is
the first one of the batch, and `Crop.surround` lays its values around the others. Windows never cross the border of
the image, beyond which there are zeros, so that a group at the border keeps its true surroundings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

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
    """Windows of a batch, one per sample, all of the same size; and the dark one.

    Args:
        top: first row (B,) of each window in px.
        left: first column (B,) of each window in px.
        operator: G on a window of this size.
        flat_response: G^T G of a whole map of ones, (1, 1, cH, cW).
    """

    def __init__(self, top: Tensor, left: Tensor, operator: SteeringOperator, flat_response: Tensor) -> None:
        self.operator = operator
        (height, width), (rows, columns) = operator.shape, operator.map_shape
        self.map_shape = flat_response.shape[-2:]
        ratio = rows // height
        self.part = rows * columns / (self.map_shape[0] * self.map_shape[1])
        """Fraction of the cells of the map that lie in a window."""
        self._pixels = _spread(top, height), _spread(left, width)
        self._cells = _spread(ratio * top, rows), _spread(ratio * left, columns)
        whole = flat_response.expand(len(top), -1, -1, -1)
        middle = flat_response[..., self.map_shape[0] // 2, self.map_shape[1] // 2]
        self.flat_response = torch.cat([middle.expand(1, 1, rows, columns), self.map(whole)])
        """G^T G of a map of ones, (1 + B, 1, c size, c size): in the endless image and in each window."""
        row, column = (
            ((cells >= 0) & (cells < size)).to(whole.dtype)
            for cells, size in (
                (_spread(ratio * top - 1, rows + 2), self.map_shape[0]),
                (_spread(ratio * left - 1, columns + 2), self.map_shape[1]),
            )
        )
        covered = row[:, None, :, None] * column[:, None, None, :]  # 1 where the image goes on beside the window
        beside = 1.0 - functional.pad(whole.new_ones(1, 1, rows, columns), (1, 1, 1, 1))
        self._around = torch.cat([beside, beside * covered])

    def image(self, whole: Tensor) -> Tensor:
        """Return the windows (B, 1, size, size) of images (B, 1, H, W)."""
        return _cut(whole, *self._pixels)

    def map(self, whole: Tensor) -> Tensor:
        """Return the windows (B, 1, c size, c size) of maps (B, 1, cH, cW)."""
        return _cut(whole, *self._cells)

    def surround(self, features: Tensor) -> Tensor:
        """Return features with the row or column of cells beside each window that the whole image has there.

        Args:
            features: (N, C, c size, c size) of all windows, the dark one first; behind them those of the first ones
                once more, the dark one first, as `with_constrained` appends them.

        Returns:
            (N, C, c size + 2, c size + 2).
        """
        windows = len(self._around)
        more = len(features) - windows
        dark, around = features[:1, :, :1, :1].expand(windows, -1, -1, -1), self._around
        if more:
            dark = torch.cat([dark, features[windows : windows + 1, :, :1, :1].expand(more, -1, -1, -1)])
            around = torch.cat([around, around[:more]])
        return functional.pad(features, (1, 1, 1, 1)) + dark * around.to(features.dtype)

    def embed(self, cells: Tensor) -> Tensor:
        """Return whole maps (1 + B, 1, cH, cW) with the windows in place, and the value of the dark one elsewhere.

        Args:
            cells: (1 + B, 1, c size, c size), the dark one first.
        """
        rows, columns = self._cells
        samples = torch.arange(1, len(cells), device=cells.device)[:, None, None]
        whole = cells[:1, 0, :1, :1].expand(len(cells), *self.map_shape)
        return whole.index_put((samples, rows[:, :, None], columns[:, None, :]), cells[1:, 0])[:, None]


def with_dark(values: Tensor) -> Tensor:
    """`values` (B, 1, rows, columns) behind a dark sample, of zeros."""
    return torch.cat([torch.zeros_like(values[:1]), values])


class Cropper(nn.Module):
    """Module that chooses the window around the group of each sample.

    Args:
        sensor: sensor of the whole images.
        ratio: sub-pixel grid ratio.
        size: side of the windows in px.

    Raises:
        InputError: if the windows do not fit into the images.
    """

    flat_response: Tensor

    def __init__(self, sensor: Sensor, ratio: int, size: int) -> None:
        super().__init__()
        height, width = sensor.shape
        if not 1 <= size <= min(height, width):
            raise InputError(f"window must be between 1 and {min(height, width)} px, the image's side, got {size}")
        self.ratio, self.size, self.shape = ratio, size, (height, width)
        self.map_shape = (ratio * height, ratio * width)
        self.operator = SteeringOperator(sensor.with_shape((size, size)), ratio)
        whole = SteeringOperator(sensor, ratio)
        self.register_buffer("flat_response", whole.adjoint(whole(torch.ones(1, 1, *self.map_shape))), persistent=False)

    def forward(self, truth: Tensor) -> Crop:
        """Return the windows centred, as far as they fit, on the brightest cells of the true maps (B, 1, cH, cW)."""
        cell = truth.flatten(1).argmax(1)
        row, column = cell // self.map_shape[1] // self.ratio, cell % self.map_shape[1] // self.ratio
        top = (row - self.size // 2).clamp(0, self.shape[0] - self.size)
        left = (column - self.size // 2).clamp(0, self.shape[1] - self.size)
        return Crop(top, left, self.operator, self.flat_response)
