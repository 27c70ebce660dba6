"""The sample frames of the package: real thermal images to try csist on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def sample_frames() -> dict[str, Path]:
    """Return the sample frames of the package: (256, 320) px, 8-bit counts; `data/README.md` states their origin.

    Returns:
        Path of the PNG file of each name, in alphabetical order.

    >>> list(sample_frames())
    ['airplane_above_hills', 'airplane_clear_sky', 'drone_above_trees']
    """
    return {path.stem: path for path in sorted(Path(str(files("csist") / "data")).glob("*.png"))}
