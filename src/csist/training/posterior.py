"""Exact maps in training: as targets that are computed ahead, and as the line that no network can cross."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.files import write_text
from csist.grid import SubPixelGrid
from csist.methods.exact_map import exact_maps
from csist.metrics import cso_map
from csist.physics.symmetry import symmetries_of
from csist.training.callback import Reference
from csist.training.datamodule import OpenData

REFERENCE_FILE = "exact-map.json"

BLOCK_BATCHES = 8
"""Batches whose exact maps are computed together, ahead of the training; each is seen in all its orientations."""

Pair = tuple[FloatArray, NDArray[Any]]


class PosteriorMaps:
    """Training pairs of images and their exact maps, computed in a thread while the training uses the last ones.

    The continuous method takes longer for an image than a training step, so each image is used in all orientations:
    those of a block of batches one after the other, then the block in the next orientation.

    Args:
        data: what the training works on.
        grid: grid of the maps.
    """

    def __init__(self, data: OpenData, grid: SubPixelGrid) -> None:
        self.data, self.grid = data, grid
        self.symmetries = symmetries_of(data.sensor)
        self._pool = ThreadPoolExecutor(1)
        self._batches: dict[tuple[int, int, int, int], Future[Pair]] = {}

    def _make(self, number: int, size: int, rank: int, world: int) -> Pair:
        images, _ = self.data.source.batch(number, size, rank, world)
        return images, exact_maps(images, self.grid, self.data.sensor, self.data.prior)

    def batch(self, step: int, size: int, rank: int, world: int) -> Pair:
        """Images (size, H, W) and exact maps (size, cH, cW) of one step of one process."""
        block, place = divmod(step, BLOCK_BATCHES * len(self.symmetries))
        turn, number = divmod(place, BLOCK_BATCHES)
        first = block * BLOCK_BATCHES
        needed = [(each, size, rank, world) for each in range(first, first + 2 * BLOCK_BATCHES)]
        for key in needed:
            if key not in self._batches:
                self._batches[key] = self._pool.submit(self._make, *key)
        for key in [key for key in self._batches if key not in needed]:
            self._batches.pop(key).cancel()
        images, maps = self._batches[needed[number]].result()
        symmetry = self.symmetries[turn]
        return np.ascontiguousarray(symmetry.turn(images)), np.ascontiguousarray(symmetry.turn(maps))


def measure_exact_map(data: OpenData, grid: SubPixelGrid, folder: Path) -> Reference:
    """Score of the exact maps of the validation images; kept in the folder for later sessions."""
    images = np.asarray(data.validation.images, dtype=np.float64)
    content = hashlib.sha256(images.tobytes() + json.dumps([grid.ratio, data.prior.to_card()]).encode()).hexdigest()
    path = folder / REFERENCE_FILE
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known.get("content") == content:
            return Reference(known["cso_map"], known["squared_error"])
    maps = exact_maps(images, grid, data.sensor, data.prior)
    score = float(cso_map([grid.decode(cells) for cells in maps], data.validation.truths())["CSO-mAP"])
    reference = Reference(score, float(((maps - data.validation.maps(grid)) ** 2).mean()))
    kept = {"content": content, "cso_map": reference.cso_map, "squared_error": reference.squared_error}
    write_text(json.dumps(kept) + "\n", path)
    return reference
