"""Training pairs, addressed by the number of the step, so that training resumes exactly where it stood."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import lightning as lightning_package
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from csist._types import FloatArray
from csist.checks import InputError
from csist.grid import SubPixelGrid, encode_arrays
from csist.io.store import load
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, simulate, targets_from_arrays
from csist.targets import Targets
from csist.training.config import TrainingConfig
from csist.trajectories import prior_of_frames

VALIDATION_SEED = 1_000_003
CHUNK_BATCHES = 32
"""Batches that are simulated at a time, ahead of the training, in a thread."""


@dataclass(frozen=True)
class Labelled:
    """Images (N, H, W) in counts and the targets (N, Kmax, 3) in them, NaN-padded."""

    images: NDArray[Any]
    targets: FloatArray

    def __post_init__(self) -> None:
        if (
            self.images.ndim != 3
            or self.targets.ndim != 3
            or len(self.images) != len(self.targets)
            or not len(self.images)
        ):
            raise InputError(
                f"images (N, H, W) and targets (N, Kmax, 3) of equal, non-zero length are needed, "
                f"got {self.images.shape} and {self.targets.shape}"
            )

    def maps(self, grid: SubPixelGrid) -> FloatArray:
        """True maps (N, cH, cW) in counts."""
        return encode_arrays(grid, self.targets).astype(np.float64)

    def truths(self) -> list[Targets]:
        """One `Targets` an image."""
        return targets_from_arrays(self.targets, (~np.isnan(self.targets[:, :, 0])).sum(axis=1))


class Source(Protocol):
    """Where training batches come from; `batch` depends on nothing but its arguments."""

    def batch(self, step: int, size: int, rank: int, world: int) -> tuple[FloatArray, FloatArray]:
        """Images (size, H, W) and padded targets (size, Kmax, 3) of one step of one process."""


class StoredSource:
    """A finite set of images, gone through in a new random order each time.

    Args:
        data: images and targets.
        seed: of the orders.
    """

    def __init__(self, data: Labelled, seed: int) -> None:
        self.data = data
        self.seed = seed
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    def _position(self, sample: int) -> int:
        turn, place = divmod(sample, len(self.data.images))
        if turn != self._order[0]:
            self._order = (turn, np.random.default_rng([self.seed, turn]).permutation(len(self.data.images)))
        return int(self._order[1][place])

    def batch(self, step: int, size: int, rank: int, world: int) -> tuple[FloatArray, FloatArray]:
        """Images (size, H, W) and padded targets (size, Kmax, 3) of one step of one process."""
        first = (step * world + rank) * size
        chosen = [self._position(sample) for sample in range(first, first + size)]
        return self.data.images[chosen].astype(np.float64), self.data.targets[chosen]


class SimulatedSource:
    """New scenes without end, generated on the fly in chunks; a thread makes the next chunk while the last one is used.

    Args:
        prior: scene prior.
        sensor: sensor.
        seed: of the scenes and the noise.
    """

    def __init__(self, prior: ScenePrior, sensor: Sensor, seed: int) -> None:
        self.prior, self.sensor, self.seed = prior, sensor, seed
        self._pool = ThreadPoolExecutor(1)
        self._chunks: dict[tuple[int, int, int], Future[tuple[FloatArray, FloatArray]]] = {}

    def _chunk(self, key: tuple[int, int, int]) -> Future[tuple[FloatArray, FloatArray]]:
        if key not in self._chunks:
            number, size, rank = key
            rng = np.random.default_rng([self.seed, number, rank])
            self._chunks[key] = self._pool.submit(simulate, self.prior, self.sensor, CHUNK_BATCHES * size, rng)
        return self._chunks[key]

    def batch(self, step: int, size: int, rank: int, world: int) -> tuple[FloatArray, FloatArray]:
        """Images (size, H, W) and padded targets (size, Kmax, 3) of one step of one process."""
        number, place = divmod(step, CHUNK_BATCHES)
        images, targets = self._chunk((number, size, rank)).result()
        self._chunk((number + 1, size, rank))
        for key in [key for key in self._chunks if key[0] not in (number, number + 1)]:
            del self._chunks[key]
        chosen = slice(place * size, (place + 1) * size)
        return images[chosen], targets[chosen]


class MapSource(Protocol):
    """Where training batches with their maps come from; `batch` depends on nothing but its arguments."""

    def batch(self, step: int, size: int, rank: int, world: int) -> tuple[FloatArray, NDArray[Any]]:
        """Images (size, H, W) and maps to learn (size, cH, cW) of one step of one process."""


class LabelMaps:
    """Training pairs of images and their true maps.

    Args:
        source: of images and targets.
        grid: grid of the maps.
    """

    def __init__(self, source: Source, grid: SubPixelGrid) -> None:
        self.source, self.grid = source, grid

    def batch(self, step: int, size: int, rank: int, world: int) -> tuple[FloatArray, NDArray[Any]]:
        """Images (size, H, W) and true maps (size, cH, cW) of one step of one process."""
        images, targets = self.source.batch(step, size, rank, world)
        return images, encode_arrays(self.grid, targets)


class BatchStream(IterableDataset[tuple[Tensor, Tensor]]):
    """One epoch of batches, starting at whatever step the training has reached.

    Args:
        source: training pairs.
        size: samples in a batch of one process.
        steps: batches in an epoch.
        position: answers with (step reached, rank, number of processes).
    """

    def __init__(self, source: MapSource, size: int, steps: int, position: Callable[[], tuple[int, int, int]]) -> None:
        self.source, self.size, self.steps, self.position = source, size, steps, position

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        first, rank, world = self.position()
        for step in range(first, first + self.steps):
            images, maps = self.source.batch(step, self.size, rank, world)
            yield tuple(torch.as_tensor(each[:, None], dtype=torch.float32) for each in (images, maps))  # type: ignore[misc]


class UnmixingData(lightning_package.LightningDataModule):
    """Training batches for Lightning.

    Args:
        source: training pairs.
        batch_size: samples per step, of one process.
        steps: batches in an epoch.
    """

    def __init__(self, source: MapSource, batch_size: int, steps: int) -> None:
        super().__init__()
        self.source, self.batch_size, self.steps = source, batch_size, steps

    def _position(self) -> tuple[int, int, int]:
        trainer: Any = self.trainer
        return trainer.global_step, trainer.global_rank, trainer.world_size

    def train_dataloader(self) -> DataLoader[Any]:
        """Endless in principle; one epoch of `steps` batches at a time."""
        stream = BatchStream(self.source, self.batch_size, self.steps, self._position)
        return DataLoader(stream, batch_size=None)


@dataclass(frozen=True)
class OpenData:
    """What a training works on.

    Args:
        source: of training images and targets.
        validation: validation images.
        sensor: that took both.
        prior: law of their scenes.
    """

    source: Source
    validation: Labelled
    sensor: Sensor
    prior: ScenePrior


def open_data(config: TrainingConfig) -> OpenData:
    """Data of a store, or simulated where the settings name none.

    Raises:
        InputError: if a sensor or prior is given for a store, which has its own, or it lacks a split.
    """
    if config.data is None:
        sensor, prior = config.sensor or Sensor(), config.prior or ScenePrior.csist_100k()
        validation = Labelled(*simulate(prior, sensor, config.val_limit, np.random.default_rng(VALIDATION_SEED)))
        return OpenData(SimulatedSource(prior, sensor, config.seed), validation, sensor, prior)
    if config.sensor is not None or config.prior is not None:
        raise InputError(f"{config.data} has its own sensor and prior: give them only where data is left out")
    store = load(config.data)
    train, val = store["train"], store["val"].limit(config.val_limit)
    source = StoredSource(Labelled(train.counts, train.target_arrays[0]), config.seed)
    prior = prior_of_frames(store.prior, store.motion)
    return OpenData(source, Labelled(val.images, val.target_arrays[0]), store.sensor, prior)
