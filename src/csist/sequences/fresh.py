"""Frames of a sequence that hold nothing new: of nothing but NaN, of one value, or a repetition of the one before."""

from __future__ import annotations

import numpy as np

from csist._types import FloatArray


class Fresh:
    """Tells whether frames, one after the other, hold something new, and keeps count of those that do not."""

    def __init__(self) -> None:
        self._before: FloatArray | None = None
        self._seen = self._missing = self._blank = self._repeated = 0

    def is_new(self, image: FloatArray) -> bool:
        """Whether the next frame (H, W) has several values, and others than the frame before."""
        before, self._before = self._before, image
        self._seen += 1
        missing = bool(np.isnan(image).all())
        blank = not missing and image.size > 1 and bool(np.nanmin(image) == np.nanmax(image))
        repeated = before is not None and not (missing or blank) and np.array_equal(image, before, equal_nan=True)
        self._missing += missing
        self._blank += blank
        self._repeated += repeated
        return not (missing or blank or repeated)

    def notes(self) -> list[str]:
        """What is wrong with the frames since the last call, one line for each kind."""
        kinds = (
            (self._missing, "contain only NaN"),
            (self._blank, "contain one value only"),
            (self._repeated, "repeat the frame before"),
        )
        lines = [f"{number} of {self._seen} frames {what} and are left out" for number, what in kinds if number]
        self._seen = self._missing = self._blank = self._repeated = 0
        return lines
