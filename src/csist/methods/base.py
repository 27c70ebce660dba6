"""What every method offers: images in, one `Targets` an image out.

A grid method is a torch module from image to map, (B, 1, H, W) -> (B, 1, cH, cW), both in counts; its
read-out drops weak cells and reports the rest. A continuous method goes from image to targets directly.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csist.grid import READ_OUT_THRESHOLD, SubPixelGrid
from csist.physics.sensor import Sensor
from csist.targets import Targets

FloatArray = NDArray[np.float64]


class Unmixer(Protocol):
    """A method that is ready to use."""

    sensor: Sensor

    def predict(self, images: FloatArray) -> list[Targets]:
        """One `Targets` for each image of a stack (N, H, W) in counts, in order."""


class GridMethod(nn.Module):
    """Base of the methods that answer with a map on the sub-pixel grid.

    Args:
        sensor: the sensor whose images are unmixed; fixes PSF and image shape.
        ratio: sub-pixel grid ratio.
    """

    batch_size = 256

    def __init__(self, sensor: Sensor, ratio: int) -> None:
        super().__init__()
        self.sensor = sensor
        self.grid = SubPixelGrid(sensor.shape, ratio)

    @property
    def ratio(self) -> int:
        """Sub-pixel grid ratio."""
        return self.grid.ratio

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, cH, cW) of intensities in counts from images (B, 1, H, W) in counts."""
        raise NotImplementedError

    @torch.no_grad()
    def predict_maps(self, images: FloatArray) -> FloatArray:
        """Maps (N, cH, cW) for images (N, H, W), in batches, without touching the training state."""
        was_training = self.training
        self.eval()
        like = next(self.parameters(), next(self.buffers(), torch.zeros(1)))
        maps = [np.empty((0, *self.grid.map_shape))]
        for start in range(0, len(images), self.batch_size):
            batch = torch.from_numpy(np.array(images[start : start + self.batch_size, None])).to(like)
            maps.append(self(batch)[:, 0].double().cpu().numpy())
        self.train(was_training)
        return np.concatenate(maps)

    def predict(self, images: FloatArray, threshold: float = READ_OUT_THRESHOLD) -> list[Targets]:
        """Detections of each image: every cell of at least `threshold` counts, score = its value."""
        return [self.grid.decode(cells, threshold) for cells in self.predict_maps(images)]
