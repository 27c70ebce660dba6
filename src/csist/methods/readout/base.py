"""Base class of the read-outs of the map of a grid method."""

from __future__ import annotations

from typing import Any

from csist._types import FloatArray
from csist.methods.base import GridMethod, solve_in_blocks
from csist.methods.unmixer import Answers, Progress
from csist.targets import Targets


class ReadOut:
    """Grid method with a read-out of its maps.

    Args:
        method: the grid method.
    """

    def __init__(self, method: GridMethod) -> None:
        self.method = method
        self.sensor = method.sensor

    @property
    def block_size(self) -> int:
        """Batch size of the grid method."""
        return self.method.block_size

    def solve(self, images: FloatArray, progress: Progress | None = None, keep_samples: bool = False) -> Answers:
        """Return the targets of each image of a stack (N, H, W) in counts, without groups."""
        return solve_in_blocks(self.predict, images, self.block_size, progress)

    def predict(self, images: FloatArray, *options: Any, **named: Any) -> list[Targets]:
        """Return one `Targets` per image of a stack (N, H, W) in counts, in order; options are those of `read`."""
        return self.read(images, self.method.predict_maps(images), *options, **named)

    def read(self, images: FloatArray, maps: FloatArray) -> list[Targets]:
        """Return one `Targets` per image from existing maps (N, cH, cW)."""
        raise NotImplementedError
