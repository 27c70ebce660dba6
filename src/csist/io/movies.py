"""Videos written frame by frame, as H.264 in MP4 or Matroska."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csist.checks import InputError
from csist.files import atomic_path, check_writable

if TYPE_CHECKING:
    from av import VideoFrame

CONTAINERS = {".mp4": "mp4", ".mkv": "matroska"}
ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""Encoders in the order of preference; not every build of FFmpeg has all."""
DEFAULT_RATE = 25.0
"""Frames per second where the source states none."""
LARGEST_DENOMINATOR = 1001
"""That of the broadcast rates, such as 30000/1001."""


def check_movie(path: str | Path) -> Path:
    """The path if a video can be written there.

    Raises:
        InputError: if its name does not end in .mp4 or .mkv, it cannot be written, or PyAV is not installed.
    """
    path = check_writable(path, tuple(CONTAINERS))
    if find_spec("av") is None:
        raise InputError(f"cannot write {path}: video needs the extra `video`, pip install 'csist[video]'")
    return path


@contextmanager
def movie_writer(
    path: str | Path, sides: tuple[int, int], rate: float | None = None
) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Write a video, which appears at its path when the block ends without an error.

    Args:
        path: of the video, .mp4 or .mkv.
        sides: rows and columns of its frames; even numbers.
        rate: frames per second; None for `DEFAULT_RATE`.

    Yields:
        A function that adds a frame (H, W, 3), red, green and blue.

    Raises:
        InputError: if it cannot be written.
    """
    import av

    path = check_movie(path)
    with (
        atomic_path(path) as partial,
        av.open(str(partial), "w", format=CONTAINERS[path.suffix.lower()]) as container,
    ):
        name = next(each for each in ENCODERS if each in av.codecs_available)
        stream: Any = container.add_stream(
            name, rate=Fraction(rate or DEFAULT_RATE).limit_denominator(LARGEST_DENOMINATOR)
        )
        stream.height, stream.width = sides
        stream.pix_fmt = "yuv420p"

        def add(picture: NDArray[np.uint8]) -> None:
            frame = converted(av.VideoFrame.from_ndarray(picture, format="rgb24"), "yuv420p")
            container.mux(stream.encode(frame))

        yield add
        container.mux(stream.encode())


def converted(frame: VideoFrame, pixels: str) -> VideoFrame:
    """The frame in another pixel format.

    In one thread: with several, FFmpeg's converter now and then gives wrong values at the start of a row.
    """
    return frame.reformat(format=pixels, threads=1)
