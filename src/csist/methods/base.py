"""Base of the methods on the sub-pixel grid.

A grid method is a torch module from image to map, (B, 1, H, W) -> (B, 1, cH, cW), both in counts; its
read-out drops weak cells and reports the rest, each by itself or those of one target together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from csist._types import FloatArray
from csist.checks import InputError
from csist.grid import READ_OUT_THRESHOLD, SubPixelGrid
from csist.methods.crop import Crop
from csist.methods.unmixer import Answers, Progress
from csist.physics.sensor import Sensor
from csist.targets import Targets

BATCH_CELLS = 35_000
"""Cells of the maps of a batch. With 64 channels such feature maps take 9 MB. From 32 MiB on the allocator gives them
back to the system, which clears new memory for each layer: half as fast (`benchmarks/bench_methods.py`)."""

READ_OUTS = {"cells": SubPixelGrid.decode, "centroid": SubPixelGrid.centroids}
"""Ways from a map to targets, by name."""


def solve_in_blocks(
    predict: Callable[[FloatArray], list[Targets]], images: FloatArray, block_size: int, progress: Progress | None
) -> Answers:
    """The targets of a stack (N, H, W), whole batches at a time so that progress can be told; no groups."""
    targets: list[Targets] = []
    for start in range(0, len(images), block_size):
        targets += predict(images[start : start + block_size])
        if progress is not None:
            progress(len(targets), len(images))
    return Answers(targets, [])


class GridMethod(nn.Module):
    """Base of the methods that answer with a map on the sub-pixel grid.

    Args:
        sensor: the sensor whose images are unmixed; fixes PSF and image shape.
        ratio: sub-pixel grid ratio.
    """

    batch_size: int
    """Images that `predict_maps` computes at a time, chosen for a CPU; an accelerator wants more. A subclass that
    sets it does so after `super().__init__`."""
    exportable = True
    """Whether one fixed graph computes the map of every batch; without, there is no ONNX file of the method."""
    learning_rate: ClassVar[float] = 1e-3
    """Peak of the training's learning rate, unless another one is asked for."""
    optimiser: ClassVar[str] = "adam"
    """Its optimiser: see `csist.training.TrainingConfig`."""
    gradient_clip: ClassVar[str | float] = "none"
    """Its largest norm of the gradient: a number, "running" or "none"."""

    def __init__(self, sensor: Sensor, ratio: int) -> None:
        super().__init__()
        self.sensor = sensor
        self.grid = SubPixelGrid(sensor.shape, ratio)
        self.batch_size = max(1, BATCH_CELLS // (self.grid.map_shape[0] * self.grid.map_shape[1]))

    @property
    def ratio(self) -> int:
        """Sub-pixel grid ratio."""
        return self.grid.ratio

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, cH, cW) of intensities in counts from images (B, 1, H, W) in counts."""
        raise NotImplementedError

    def loss_terms(
        self, image: Tensor, truth: Tensor, share: float = 1.0, crop: Crop | None = None
    ) -> tuple[Tensor, Tensor]:
        """(discrepancy, constraint) in counts^2; their sum is minimised. Here the mean squared error, and 0.

        Args:
            image: (B, 1, H, W) in counts.
            truth: maps to learn, (B, 1, cH, cW) in counts.
            share: part of the batch of which the constraint is computed.
            crop: where given, only these windows are computed: the mean over the whole map, were all else zero.
        """
        if crop is None:
            return ((self(image) - truth) ** 2).mean(), image.new_zeros(())
        found = self(crop.image(image))
        return crop.part * ((found - crop.map(truth)) ** 2).mean(), image.new_zeros(())

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

    @property
    def block_size(self) -> int:
        """Images in a batch."""
        return self.batch_size

    def solve(self, images: FloatArray, progress: Progress | None = None, keep_samples: bool = False) -> Answers:
        """The detections of each image of a stack (N, H, W) in counts by the published read-out; no groups."""
        return solve_in_blocks(self.predict, images, self.block_size, progress)

    def predict(
        self, images: FloatArray, threshold: float = READ_OUT_THRESHOLD, readout: str = "cells"
    ) -> list[Targets]:
        """Detections of each image; their score is their intensity on the map.

        Args:
            images: (N, H, W) in counts.
            threshold: cells below are dropped, in counts.
            readout: "cells", the published one: every cell left is a detection; or "centroid": those that one
                target explains are merged, see `SubPixelGrid.centroids`.

        Raises:
            InputError: if the read-out is unknown.
        """
        if readout not in READ_OUTS:
            raise InputError(f"readout must be one of {', '.join(READ_OUTS)}, got {readout!r}")
        return [READ_OUTS[readout](self.grid, cells, threshold) for cells in self.predict_maps(images)]

    def read(self, images: FloatArray, maps: FloatArray) -> list[Targets]:
        """Detections from maps (N, cH, cW) of images (N, H, W) that are there already, by the published read-out."""
        return [self.grid.decode(cells) for cells in maps]
