"""What follows a grid method's map."""

from __future__ import annotations

from typing import Any

from csist._types import FloatArray
from csist.methods.base import GridMethod, solve_in_blocks
from csist.methods.unmixer import Answers, Progress
from csist.targets import Targets


class ReadOut:
    """A grid method and what becomes of its maps.

    Args:
        method: the grid method.
    """

    def __init__(self, method: GridMethod) -> None:
        self.method = method
        self.sensor = method.sensor

    @property
    def block_size(self) -> int:
        """Images in a batch of the grid method."""
        return self.method.block_size

    def solve(self, images: FloatArray, progress: Progress | None = None, keep_samples: bool = False) -> Answers:
        """The targets of each image of a stack (N, H, W) in counts; no groups."""
        return solve_in_blocks(self.predict, images, self.block_size, progress)

    def predict(self, images: FloatArray, *options: Any, **named: Any) -> list[Targets]:
        """One `Targets` for each image of a stack (N, H, W) in counts, in order; options are those of `read`."""
        return self.read(images, self.method.predict_maps(images), *options, **named)

    def read(self, images: FloatArray, maps: FloatArray) -> list[Targets]:
        """The same from maps (N, cH, cW) that are there already."""
        raise NotImplementedError
