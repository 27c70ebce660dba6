"""Protocol of all methods: from images to targets, with groups if the method describes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from csist._types import FloatArray
from csist.physics.sensor import Sensor
from csist.targets import Targets

Progress = Callable[[int, int], None]
"""Callback that is called from time to time with (images done, images in all)."""


class Answers(NamedTuple):
    """Results of a method on a stack of images.

    Args:
        targets: one `Targets` per image, in order.
        groups: one group per image, in order, if the method reports more than targets (count probabilities, fit);
            otherwise empty.
    """

    targets: list[Targets]
    groups: list[Any]


class Unmixer(Protocol):
    """Method that is ready to use; its capabilities are listed in `csist.methods.table`."""

    sensor: Sensor

    @property
    def block_size(self) -> int:
        """Batch size: a stack in blocks of whole batches gives the same bits as the whole stack at once."""

    def solve(
        self, images: FloatArray, progress: Progress | None = None, keep_samples: bool = False, **options: Any
    ) -> Answers:
        """Return the targets, and the groups if the method reports them, of each image of a stack.

        Args:
            images: (N, H, W) in counts.
            progress: called from time to time with (images done, images in all).
            keep_samples: whether to keep the posterior samples of each group, if the method has them.
            **options: `error`, the noise of each pixel, for methods that take `noise_maps`.
        """

    def predict(self, images: FloatArray) -> list[Targets]:
        """Return one `Targets` per image of a stack (N, H, W) in counts, in order."""
