"""Sequences of frames that are read one after the other: a stack, a folder of images, a video.

No more than the frames in use are in memory, however long the sequence is; going through it again reads it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import InputError
from csist.files import one_line, reading
from csist.io import LUMINANCE, ImageStack, read_frames
from csist.physics.sensor import Sensor

if TYPE_CHECKING:
    from av import VideoFrame
Labelled = tuple[str, FloatArray]

NEUTRAL, COLOUR_STEP = 128, 3
"""Chroma of grey in 8 bit, and what compression may add to it."""


@dataclass(frozen=True, eq=False)
class FrameSequence:
    """Frames of one size, in order; iteration gives (name of the image, frame (H, W) float64).

    Args:
        name: what the sequence is called in tables.
        path: where it is.
        shape: (N, H, W); N is 0 where the file does not say how many there are.
        source: starts reading from the first frame.
        notes: what the user should know, one line each; more may come while frames are read.
        sensor: the sensor that the file itself states.
    """

    name: str
    path: Path
    shape: tuple[int, int, int]
    source: Callable[[], Iterator[Labelled]] = field(repr=False)
    notes: list[str] = field(default_factory=list)
    sensor: Sensor | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Labelled]:
        return self.source()


def sequence_of_stack(stack: ImageStack) -> FrameSequence:
    """The images of a file as a sequence."""
    notes = list(stack.notes)
    return FrameSequence(
        stack.name, stack.path, stack.shape, lambda: ((stack.name, frame) for frame in stack), notes, stack.sensor
    )


def sequence_of_folder(path: str | Path) -> FrameSequence:
    """The images of a folder, in natural order of their names, as one sequence.

    Raises:
        InputError: if the folder holds no image, its first one is bad or holds windows, or, while it is read, if an
            image is bad or of another size.
    """
    reader = read_frames(path)
    first = next(iter(reader))
    _, rows, columns = first.shape
    notes = [note.removeprefix(f"{reader.path}: ") for note in reader.notes]

    def source() -> Iterator[Labelled]:
        for stack in reader:
            if stack.shape[1:] != (rows, columns):
                raise InputError(
                    f"{stack.path} is {stack.shape[1]} x {stack.shape[2]} px, the images before it are {rows} x "
                    f"{columns}: a sequence has one size, leave it out or leave out --sequence"
                )
            notes.extend(f"{note} ({stack.name})" for note in stack.notes if not any(note in said for said in notes))
            yield from ((stack.name, frame) for frame in stack)

    count = len(reader) if len(first) == 1 else 0
    return FrameSequence(Path(path).name or str(path), Path(path), (count, rows, columns), source, notes, first.sensor)


def sequence_of_video(path: str | Path, name: str | None = None) -> FrameSequence:
    """The luma of a video's frames, as stored (8-bit video has 16 to 235 there, or 0 to 255).

    A video that breaks off ends at its last whole frame, with a note.

    Raises:
        InputError: if the file is missing, holds no video or cannot be decoded, or if PyAV is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"cannot read {path}: there is no such file")
    try:
        import av
    except ImportError as error:
        raise InputError(
            f"cannot read {path}: video needs the extra `video`, pip install 'csist[video]', "
            "or save its frames as PNG into a folder"
        ) from error
    name = path.name if name is None else name
    with reading(path), av.open(str(path)) as container:
        if not container.streams.video:
            raise InputError(f"cannot read {path}: it holds no video")
        stream = container.streams.video[0]
        announced = int(stream.frames)
        first = next(container.decode(stream), None)
        if first is None:
            raise InputError(f"cannot read {path}: it holds no frame that can be decoded")
        shape = (announced, first.height, first.width)
        notes = ["colour video, its luma is used"] if _is_coloured(first) else []

    def source() -> Iterator[Labelled]:
        done = 0
        with av.open(str(path)) as container:
            try:
                for frame in container.decode(container.streams.video[0]):
                    luma = _luma(frame)
                    if luma.shape != shape[1:]:
                        raise InputError(f"{path}: frame {done} is {luma.shape[0]} x {luma.shape[1]} px, the first "
                                         f"{shape[1]} x {shape[2]}: split the video")  # fmt: skip
                    yield name, luma
                    done += 1
            except av.FFmpegError as error:
                notes.append(f"the video breaks off after {done} frames ({one_line(error)[:80]})")
                return
        if done < announced:
            notes.append(f"the video breaks off after {done} of {announced} frames")

    return FrameSequence(name, path, shape, source, notes)


def _luma(frame: VideoFrame) -> FloatArray:
    """Luma (H, W) of a video frame, of an RGB one the luminance."""
    layout = frame.format
    if layout.is_rgb or layout.has_palette:
        return np.asarray(frame.to_ndarray(format="rgb24").astype(np.float64) @ np.array(LUMINANCE))
    if not (layout.is_planar or len(layout.components) == 1):
        frame = frame.reformat(format="yuv444p")  # interleaved: only the order of the bytes changes
    return _plane(frame, 0).astype(np.float64)


def _plane(frame: VideoFrame, index: int) -> NDArray[Any]:
    plane = frame.planes[index]
    kind = f"{'>' if frame.format.is_big_endian else '<'}u{1 if frame.format.components[index].bits <= 8 else 2}"
    lines = np.frombuffer(memoryview(plane), dtype=kind).reshape(plane.height, -1)
    return np.asarray(lines[:, : plane.width])


def _is_coloured(frame: VideoFrame) -> bool:
    if len(frame.format.components) < 3:
        return False
    colours = frame.to_ndarray(format="yuv420p")[frame.height :] if frame.height % 2 == 0 else np.array([NEUTRAL])
    return bool((np.abs(colours.astype(int) - NEUTRAL) > COLOUR_STEP).any())
