"""What every method offers: images in, targets out, and groups where it knows more of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from csist._types import FloatArray
from csist.physics.sensor import Sensor
from csist.targets import Targets

Progress = Callable[[int, int], None]
"""Called with (images done, images in all) now and then."""


class Answers(NamedTuple):
    """What a method says of a stack of images.

    Args:
        targets: one `Targets` per image, in order.
        groups: one group an image, in order, where the method knows more than targets (count probabilities, fit);
            else empty.
    """

    targets: list[Targets]
    groups: list[Any]


class Unmixer(Protocol):
    """A method that is ready to use; what it can do besides stands in `csist.methods.table`."""

    sensor: Sensor

    @property
    def block_size(self) -> int:
        """Images in a batch: a stack cut into blocks of whole batches gives the same bits as the whole stack."""

    def solve(self, images: FloatArray, progress: Progress | None = None, keep_samples: bool = False) -> Answers:
        """Targets, and groups where the method knows them, of each image of a stack (N, H, W) in counts.

        Args:
            images: (N, H, W) in counts.
            progress: called with (images done, images in all) now and then.
            keep_samples: give each group its posterior samples, where the method has them.
        """

    def predict(self, images: FloatArray) -> list[Targets]:
        """One `Targets` for each image of a stack (N, H, W) in counts, in order."""
