"""Sequences of frames that are read one after the other: a stack, a folder of images, a video.

No more than the frames in use are in memory, however long the sequence is; going through it again reads it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import InputError
from csist.files import one_line, reading
from csist.io import Header, ImageStack, ReadOptions, read_frames
from csist.io.folders import FrameReader, missing_numbers
from csist.io.formats import check_choices, check_pixels, split_selector
from csist.io.images import maps_of_frames
from csist.io.movies import converted
from csist.io.pictures import grey
from csist.io.times import stamping, typical_interval
from csist.physics.sensor import Sensor

if TYPE_CHECKING:
    from av import VideoFrame

Labelled = tuple[str, FloatArray]

NEUTRAL, COLOUR_STEP = 128, 3
"""Chroma of grey in 8 bit, and what compression may add to it."""
LOOKED_AT = 5
"""Files of a folder from which the size of its images and the interval between them are taken before the first is
unmixed."""
_HIGH_BITS = r"p[024]1[02]"
"""Pixel formats whose 10 or 12 bits are the highest of 16."""


def _unknown(_: int) -> None:
    """Noise of the pixels of a frame of which nothing is known."""


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
        header: what the file says of the instrument.
        headers: what the file of each frame says, where each frame has its own, filled while they are read.
        failed: (file, reason) of frames that cannot be read, which are NaN; filled while they are read.
        error: standard deviation of the pixels of a frame (H, W), given its number; None where it is not known.
        times: of the frames in s since the first one of the file, increasing, filled while they are read; empty where
            the file has none.
        interval_s: typical interval between frames in s; None where the file has no times.
        rate: frames per second that a video states; None where it states none.
    """

    name: str
    path: Path
    shape: tuple[int, int, int]
    source: Callable[[], Iterator[Labelled]] = field(repr=False)
    notes: list[str] = field(default_factory=list)
    sensor: Sensor | None = None
    header: Header = field(default_factory=Header)
    headers: list[Header] = field(default_factory=list, repr=False)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    error: Callable[[int], FloatArray | None] = field(default=_unknown, repr=False)
    times: list[float] = field(default_factory=list)
    interval_s: float | None = None
    rate: float | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Labelled]:
        return self.source()

    def in_intervals(self, first: int, number: int = 1) -> FloatArray:
        """Times (n,) of frames that were read, in typical intervals; their numbers where the file has no times.

        Velocities then are in px per frame in both cases, and a motion prior means the same.
        """
        if self.interval_s is None:
            return np.arange(first, first + number, dtype=np.float64)
        return np.array(self.times[first : first + number]) / self.interval_s


def sequence_of_stack(stack: ImageStack) -> FrameSequence:
    """The images of a file as a sequence."""
    notes = list(stack.notes)
    return FrameSequence(
        stack.name,
        stack.path,
        stack.shape,
        lambda: ((stack.name, frame) for frame in stack),
        notes,
        stack.sensor,
        stack.header,
        error=stack.errors,
        times=[] if stack.times is None else stack.times.tolist(),
        interval_s=stack.interval_s,
    )


def sequence_of_folder(path: str | Path, options: ReadOptions | None = None) -> FrameSequence:
    """The images of a folder, in natural order of their names, as one sequence.

    A file that cannot be read is a frame of NaN, which keeps the numbers and times of the others.

    Args:
        path: the folder.
        options: what is read of it; frames are numbered through all images.

    Raises:
        InputError: if the folder holds no image, none of its first ones can be read, or, while it is read, if an image
            is of another size.
    """
    options = options or ReadOptions()
    reader = read_frames(path, replace(options, frames=(0, None)))
    first = _first_readable(reader)
    for text in (options.error, options.weight):
        if text is not None and not Path(split_selector(text)[0]).is_file():
            raise InputError(f"a sequence has one error map for all its images: give a file, got {text}")
    _, rows, columns = first.shape
    notes = [note.removeprefix(f"{reader.path}: ") for note in reader.notes]
    interval_s = _interval_of_files(reader, first)
    gap = missing_numbers([name for name, _ in reader.files]) if interval_s is None else None
    if gap is not None:
        notes.append(f"{gap}, frames count as equally spaced in time: put an image of NaN into each gap")
    times: list[float] = []
    headers: list[Header] = []
    failed: list[tuple[Path, str]] = []

    def source() -> Iterator[Labelled]:
        stamp, number = stamping(times, interval_s, options.frames[0], notes), count()
        headers.clear()
        failed.clear()

        def enter(stated: float, header: Header) -> None:
            stamp(stated)
            if next(number) >= options.frames[0]:
                headers.append(header)

        for place, (name, file) in enumerate(reader.files):
            try:
                stack = reader.read(place)
                image = stack[0]
            except InputError as error:
                failed.append((file, one_line(error)))
                enter(np.nan, Header())
                yield name, np.full((rows, columns), np.nan)
                continue
            if stack.shape[1:] != (rows, columns):
                raise InputError(
                    f"{stack.path} is {stack.shape[1]} x {stack.shape[2]} px, the images before it are {rows} x "
                    f"{columns}: a sequence has one size, leave it out or leave out --sequence"
                )
            notes.extend(f"{note} ({stack.name})" for note in stack.notes if not any(note in said for said in notes))
            for index in range(len(stack)):
                enter(_moment(stack), stack.header)
                yield name, stack[index] if index else image

    images = len(reader) if len(first) == 1 else 0
    return FrameSequence(
        Path(path).name or str(path),
        Path(path),
        (_cut_count(images, options, Path(path)), rows, columns),
        lambda: islice(source(), *options.frames),
        notes,
        first.sensor,
        first.header,
        headers,
        failed,
        lambda _: first.errors(0),
        times,
        interval_s,
    )


def _first_readable(reader: FrameReader) -> ImageStack:
    """The first image of a folder that can be read, of its first few.

    Raises:
        InputError: what is wrong with the first one, if there is none.
    """
    refused: InputError | None = None
    for place in range(min(LOOKED_AT, len(reader))):
        try:
            return reader.read(place)
        except InputError as error:
            refused = refused or error
    raise refused or InputError(f"the folder {reader.path} holds no image")


def _moment(stack: ImageStack) -> float:
    """When the image of a file was taken, in s; NaN where it does not say so, or holds several."""
    return np.nan if stack.header.moment_s is None or len(stack) > 1 else stack.header.moment_s


def _interval_of_files(reader: FrameReader, first: ImageStack) -> float | None:
    """Typical interval in s between the images of a folder, by the first of them; None where they state no times."""
    if np.isnan(_moment(first)):
        return None
    moments = []
    for place in range(min(LOOKED_AT, len(reader))):
        with suppress(InputError):  # what is wrong with a file is said where it is used
            moments.append(_moment(reader.read(place)))
    return typical_interval(moments)


def _cut_count(count: int, options: ReadOptions, path: Path) -> int:
    """How many frames are read of so many; 0 where that is not known."""
    return len(range(count)[options.cut_frames(count, path)]) if count else 0


def sequence_of_video(path: str | Path, name: str | None = None, options: ReadOptions | None = None) -> FrameSequence:
    """The luma of a video's frames, as stored (8-bit video has 16 to 235 there, or 0 to 255), in its full depth.

    A video that breaks off ends at its last whole frame, with a note.

    Args:
        path: the video.
        name: name to give it, the file name if None.
        options: what is read of it.

    Raises:
        InputError: if the file is missing, holds no video or cannot be decoded, or if PyAV is not installed.
    """
    path = Path(path)
    options = options or ReadOptions()
    if not path.is_file():
        raise InputError(f"cannot read {path}: there is no such file")
    check_choices("video", path, options)
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
        check_pixels((stream.height, stream.width), path, options)
        announced = int(stream.frames)
        first = next(container.decode(stream), None)
        if first is None:
            raise InputError(f"cannot read {path}: it holds no frame that can be decoded")
        size = first.height, first.width
        rate = float(stream.average_rate) if stream.average_rate else None
        interval_s = 1.0 / rate if rate and first.time is not None else None
        notes = ["colour video, its luma is used"] if is_coloured(first) else []
    region = options.cut_pixels(size, path)
    begin, end = options.frames
    times: list[float] = []
    maps = maps_of_frames(size, path, options, notes)

    def source() -> Iterator[Labelled]:
        done = 0
        stamp = stamping(times, interval_s, begin, notes)
        with av.open(str(path)) as container:
            try:
                for frame in container.decode(container.streams.video[0]):
                    if end is not None and done >= end:
                        return
                    if (frame.height, frame.width) != size:
                        raise InputError(f"{path}: frame {done} is {frame.height} x {frame.width} px, the first "
                                         f"{size[0]} x {size[1]}: split the video")  # fmt: skip
                    stamp(np.nan if frame.time is None else float(frame.time))
                    if done >= begin:
                        yield name, maps.applied(luma(frame)[region][None], slice(None))[0]
                    done += 1
            except av.FFmpegError as error:
                notes.append(f"the video breaks off after {done} frames ({one_line(error)[:80]})")
                return
        if done < announced:
            notes.append(f"the video breaks off after {done} of {announced} frames")

    rows, columns = (len(range(*part.indices(side))) for part, side in zip(region, size, strict=True))
    shape = (_cut_count(announced, options, path), rows, columns)
    return FrameSequence(
        name, path, shape, source, notes, error=lambda _: maps.errors(0), times=times, interval_s=interval_s, rate=rate
    )


def luma(frame: VideoFrame) -> FloatArray:
    """Luma (H, W) of a video frame, of an RGB one the luminance, in the depth of its pixels."""
    layout = frame.format
    bits = max(component.bits for component in layout.components)
    if layout.is_rgb or layout.has_palette:
        return grey(_colours(frame, bits), []).astype(np.float64)
    if bits < 8:  # several pixels a byte
        return _plane(converted(frame, "gray"), 0).astype(np.float64)
    if bits > 16:  # floating point
        return np.asarray(frame.to_ndarray(), dtype=np.float64)
    if not (layout.is_planar or len(layout.components) == 1):
        if bits > 8:
            return (_plane(converted(frame, "yuv444p16le"), 0) >> (16 - bits)).astype(np.float64)
        frame = converted(frame, "yuv444p")  # interleaved: only the order of the bytes changes
    values = _plane(frame, 0)
    if re.match(_HIGH_BITS, layout.name):
        values = values >> (16 - bits)
    return values.astype(np.float64)


def _colours(frame: VideoFrame, bits: int) -> NDArray[Any]:
    """Red, green and blue (H, W, 3) as stored."""
    if bits > 16:
        return np.asarray(converted(frame, "gbrpf32le").to_ndarray())
    if bits > 8:
        deep: NDArray[Any] = converted(frame, "rgb48le").to_ndarray()
        return np.asarray(deep >> (16 - bits))
    return np.asarray(converted(frame, "rgb24").to_ndarray())


def _plane(frame: VideoFrame, index: int) -> NDArray[Any]:
    plane = frame.planes[index]
    kind = f"{'>' if frame.format.is_big_endian else '<'}u{1 if frame.format.components[index].bits <= 8 else 2}"
    lines = np.frombuffer(memoryview(plane), dtype=kind).reshape(plane.height, -1)
    return np.asarray(lines[:, : plane.width])


def is_coloured(frame: VideoFrame) -> bool:
    """Whether a video frame shows colours, beyond what compression does to grey."""
    if len(frame.format.components) < 3:
        return False
    plain = converted(frame, "yuv444p")
    return any(bool((np.abs(_plane(plain, index).astype(int) - NEUTRAL) > COLOUR_STEP).any()) for index in (1, 2))
