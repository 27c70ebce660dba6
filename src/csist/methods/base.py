"""Base class of the methods on the sub-pixel grid.

A grid method is a torch module from image to map, (B, 1, H, W) -> (B, 1, cH, cW), both in counts. Its read-out drops
weak cells and reports the others, either each cell as a detection or the cells of one target merged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from csist._types import FloatArray
from csist.checks import InputError, check_stack
from csist.grid import SubPixelGrid
from csist.methods.crop import Crop
from csist.methods.unmixer import Answers, Progress
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, suited
from csist.targets import Targets

BATCH_CELLS = 35_000
"""Number of map cells in a batch. With 64 channels, feature maps of this size take 9 MB. From 32 MiB on, the allocator
returns them to the system, which clears new memory for each layer: half the speed (`benchmarks/bench_methods.py`)."""

READ_OUTS = {"cells": SubPixelGrid.decode, "centroid": SubPixelGrid.centroids}
"""Names of the read-outs of a map."""


def solve_in_blocks(
    predict: Callable[[FloatArray], list[Targets]], images: FloatArray, block_size: int, progress: Progress | None
) -> Answers:
    """Return the targets of a stack (N, H, W), without groups, in blocks of whole batches between progress reports."""
    targets: list[Targets] = []
    for start in range(0, len(images), block_size):
        targets += predict(images[start : start + block_size])
        if progress is not None:
            progress(len(targets), len(images))
    return Answers(targets, [])


class GridMethod(nn.Module):
    """Base class of the methods that compute a map on the sub-pixel grid.

    Args:
        sensor: sensor of the images; sets the PSF and image shape.
        ratio: sub-pixel grid ratio.
    """

    batch_size: int
    """Batch size of `predict_maps`, chosen for a CPU; accelerators need larger batches. A subclass sets it after
    `super().__init__`."""
    exportable = True
    """Whether a fixed graph computes the map of every batch, as an ONNX file requires."""
    learning_rate: ClassVar[float] = 1e-3
    """Default peak learning rate of the training."""
    optimiser: ClassVar[str] = "adam"
    """Default optimiser of the training, see `csist.training.TrainingConfig`."""
    gradient_clip: ClassVar[str | float] = "none"
    """Default gradient clipping of the training: a number, "running" or "none"."""

    def __init__(self, sensor: Sensor, ratio: int) -> None:
        super().__init__()
        self.sensor = sensor
        self.grid = SubPixelGrid(sensor.shape, ratio)
        self.batch_size = max(1, BATCH_CELLS // (self.grid.map_shape[0] * self.grid.map_shape[1]))

    def suit(self, prior: ScenePrior | None) -> None:
        """Take the read-out threshold for the targets of a prior, see `csist.scenes.suited`."""
        self.grid = suited(self.grid, prior, self.sensor)

    @property
    def ratio(self) -> int:
        """Sub-pixel grid ratio."""
        return self.grid.ratio

    def forward(self, image: Tensor) -> Tensor:
        """Compute the map (B, 1, cH, cW) in counts of images (B, 1, H, W) in counts."""
        raise NotImplementedError

    def loss_terms(
        self, image: Tensor, truth: Tensor, share: float = 1.0, crop: Crop | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (discrepancy, constraint) in counts^2, whose sum is minimised; here the mean squared error and 0.

        Args:
            image: (B, 1, H, W) in counts.
            truth: true maps, (B, 1, cH, cW) in counts.
            share: fraction of the batch for which the constraint is computed.
            crop: windows to which the computation is limited; the mean is over the whole map, taken as zero elsewhere.
        """
        if crop is None:
            return ((self(image) - truth) ** 2).mean(), image.new_zeros(())
        found = self(crop.image(image))
        return crop.part * ((found - crop.map(truth)) ** 2).mean(), image.new_zeros(())

    @torch.no_grad()
    def predict_maps(self, images: FloatArray) -> FloatArray:
        """Compute the maps (N, cH, cW) of images (N, H, W) in batches, without changing the training state.

        Raises:
            InputError: if the images have another size than the sensor, or hold values that are not finite.
        """
        images = self._checked(images)
        was_training = self.training
        self.eval()
        like = next(self.parameters(), next(self.buffers(), torch.zeros(1)))
        maps = [np.empty((0, *self.grid.map_shape))]
        for start in range(0, len(images), self.batch_size):
            batch = torch.from_numpy(np.array(images[start : start + self.batch_size, None])).to(like)
            maps.append(self(batch)[:, 0].double().cpu().numpy())
        self.train(was_training)
        return np.concatenate(maps)

    def _checked(self, images: FloatArray) -> FloatArray:
        stack = check_stack(images, "images")
        if stack.shape[1:] != self.grid.shape:
            raise InputError(
                f"images must have the {self.grid.shape[0]} x {self.grid.shape[1]} px of the method's sensor, "
                f"got {stack.shape[1]} x {stack.shape[2]}"
            )
        if np.isnan(stack).any():
            first = int(np.isnan(stack).any(axis=(1, 2)).argmax())
            raise InputError(f"image {first} holds NaN, which no map allows for: use the method continuous")
        return stack

    @property
    def block_size(self) -> int:
        """Number of images in a batch."""
        return self.batch_size

    def solve(self, images: FloatArray, progress: Progress | None = None, keep_samples: bool = False) -> Answers:
        """Return the detections, without groups, of each image of a stack (N, H, W) by the published read-out."""
        return solve_in_blocks(self.predict, images, self.block_size, progress)

    def predict(self, images: FloatArray, threshold: float | None = None, readout: str = "cells") -> list[Targets]:
        """Return the detections of each image, scored by their intensity on the map.

        Args:
            images: (N, H, W) in counts.
            threshold: smallest value in counts of a cell that counts as a detection; None for that of the grid.
            readout: "cells", the published read-out, in which every remaining cell is a detection, or "centroid",
                which merges the cells explained by one target, see `SubPixelGrid.centroids`.

        Raises:
            InputError: if the read-out is unknown.
        """
        if readout not in READ_OUTS:
            raise InputError(f"readout must be one of {', '.join(READ_OUTS)}, got {readout!r}")
        return [READ_OUTS[readout](self.grid, cells, threshold) for cells in self.predict_maps(images)]

    def read(self, images: FloatArray, maps: FloatArray) -> list[Targets]:
        """Return the detections from existing maps (N, cH, cW) of images (N, H, W) by the published read-out."""
        return [self.grid.decode(cells) for cells in maps]
