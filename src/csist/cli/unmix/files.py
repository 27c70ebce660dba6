"""Files, folders and videos of `csist unmix`, opened and unmixed block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csist.checks import InputError
from csist.cli.unmix.blocks import Block, above_score, in_file
from csist.cli.unmix.joint import joint_sequence, joint_windows
from csist.cli.unmix.places import place_notes
from csist.cli.unmix.settings import Settings
from csist.cli.unmix.windows import solve_windows

if TYPE_CHECKING:
    from csist._types import FloatArray
    from csist.io import ImageStack, Quantities
    from csist.io.sequences import FrameSequence
    from csist.targets import Targets


@dataclass(frozen=True, eq=False)
class OpenFile:
    """File of images whose blocks are unmixed lazily."""

    shape: tuple[int, int, int]
    """Shape (N, H, W); N is 0 if the file does not state the number of images."""
    notes: Sequence[str]
    """Notes for the user, one line each; more may be added while blocks are read."""
    blocks: Iterator[Block]
    further: Callable[[int, Targets], dict[str, FloatArray]] | None = None
    """Further columns of the targets of an image, given its number in the file; None where none are asked for."""
    rate: float | None = None
    """Frames per second, where the file states it."""
    times: Sequence[float] = ()
    """Times in s of the images that are read, where they are asked for; more may be added while blocks are read."""
    origin: int = 0
    """Number in the file of the first image that is read."""
    sky: Callable[[], Any] | None = None
    """Sky coordinates of the part of an image that is read, an `astropy.wcs.WCS`; None where there are none."""
    failed: Sequence[tuple[Path, str]] = ()
    """(file, reason) of images that could not be read; more may be added while blocks are read."""

    def time(self, number: int) -> float | None:
        """Time in s of an image by its number in the file; None where times are not asked for."""
        return self.times[number - self.origin] if self.times else None

    def columns(self, number: int, targets: Targets) -> dict[str, FloatArray] | None:
        """The further columns of the targets of an image; None where none are asked for.

        Args:
            number: of the image in the file.
            targets: of it, in the coordinates of the file.
        """
        import numpy as np

        from csist.io.quantities import TIME_COLUMN

        known = {} if self.further is None else self.further(number, targets)
        time = self.time(number)
        if time is not None:
            known = {TIME_COLUMN: np.full(len(targets), time), **known}
        return known or None


def further_columns(
    images: ImageStack | FrameSequence, settings: Settings
) -> Callable[[int, Targets], dict[str, FloatArray]] | None:
    """What gives the columns that options add to the targets of an image, given its number in the file.

    Raises:
        InputError: if the file does not state what they need.
    """
    from csist.io.sequences import FrameSequence

    wanted = settings.quantities
    if not wanted.columns:
        return None
    if wanted.mjd and len(images) != 1 and not images.path.is_dir():
        raise InputError(f"{images.path} states one moment for all its images: leave out --mjd")
    gain = settings.instrument.gain_of(images)
    wanted.check(images.header, gain)
    if isinstance(images, FrameSequence) and images.path.is_dir():
        return partial(_columns_of_frame, images, wanted, gain, settings.reading.frames[0])
    return lambda _, targets: wanted.of(targets, images.header, gain)


def _columns_of_frame(
    sequence: FrameSequence, wanted: Quantities, gain: float | None, origin: int, number: int, targets: Targets
) -> dict[str, FloatArray]:
    """Further columns of a frame of a folder, whose image has its own moment and place in the sky."""
    header = sequence.headers[number - origin]
    try:
        wanted.check(header, gain)
    except InputError as missing:
        reason = str(missing).partition(": leave out")[0]
        note = f"frame {number}: {reason}: its columns are NaN there, and in other frames like it"
        if len(targets) and not any(said.endswith("in other frames like it") for said in sequence.notes):
            sequence.notes.append(note)
    return wanted.of(targets, header, gain)


def notes_of(images: ImageStack | FrameSequence, name: str, settings: Settings) -> list[str]:
    """What the user should know of the sensor, the positions and the units of a file."""
    from csist.windows import WINDOW_SIDE_PX, is_window

    notes = [*settings.instrument.notes(images), *place_notes(images, name, settings)]
    if settings.quantities.photons and settings.instrument.gain_of(images) is None:
        notes.append("fluxes are in counts, as the gain is not known: --gain makes them photons")
    reading, stated = settings.reading, settings.instrument.detector
    if "gain" in stated and (reading.error is not None or reading.weight is not None):
        notes.append("--gain adds no noise beside an error map, which holds the photons of the targets")
    is_stated = settings.instrument.sensor is not None or settings.instrument.background is not None
    if reading.roi is not None and is_window(images.shape) and not is_stated:
        notes.append(f"up to {WINDOW_SIDE_PX} px a side are a window, whose background is not measured: widen --roi")
    return notes


def sky_of(stack: ImageStack | FrameSequence, settings: Settings) -> Any:
    """Sky coordinates of the part of a file's images that is read, an `astropy.wcs.WCS`; None where it has none.

    Raises:
        InputError: if its header is damaged.
    """
    wcs = None if stack.path.is_dir() else stack.header.wcs()
    if wcs is not None:
        wcs.wcs.crpix = wcs.wcs.crpix - settings.reading.origin[1:]
    return wcs


def asked_times(sequence: FrameSequence, settings: Settings) -> Sequence[float]:
    """Times of the images of a file, if they are asked for; more may be added while it is read.

    Raises:
        InputError: if the file states none.
    """
    from csist.io.times import check_timed

    if not settings.quantities.times:
        return ()
    check_timed(sequence.interval_s, len(sequence), str(sequence.path))
    return sequence.times


def open_file(path: Path, name: str, settings: Settings) -> OpenFile:
    """Open a file of images, or a folder or video as a sequence, to be unmixed in this process.

    Raises:
        InputError: if it cannot be read.
    """
    from csist.io import image_kind, read_image
    from csist.io.sequences import FrameSequence, sequence_of_folder, sequence_of_stack, sequence_of_video

    stack: ImageStack | FrameSequence
    if path.is_dir():
        stack = sequence_of_folder(path, settings.reading)
    else:
        is_video = image_kind(path) == "video"
        stack = (sequence_of_video if is_video else read_image)(path, name, settings.reading)
    sky = cache(partial(sky_of, stack, settings))
    if isinstance(stack, FrameSequence):  # more notes may come while it is read
        stack.notes.extend(notes_of(stack, name, settings))
        blocks = _placed(_solve_sequence(stack, settings), settings)
        further, times = further_columns(stack, settings), asked_times(stack, settings)
        origin = settings.reading.frames[0]
        return OpenFile(stack.shape, stack.notes, blocks, further, stack.rate, times, origin, sky, stack.failed)
    sequence = sequence_of_stack(stack)
    sequence.notes.extend(notes_of(sequence, name, settings))
    blocks = _placed(_solve_stack(stack, sequence, settings), settings)
    further, times = further_columns(stack, settings), asked_times(sequence, settings)
    return OpenFile(stack.shape, sequence.notes, blocks, further, None, times, settings.reading.frames[0], sky)


def _placed(blocks: Iterator[Block], settings: Settings) -> Iterator[Block]:
    return (above_score(in_file(block, settings.reading.origin), settings.min_score) for block in blocks)


def check_frames(stack: ImageStack, method: str) -> list[int]:
    """Numbers of the frames without any value; all are read once, which finds infinities too.

    Raises:
        InputError: if the file cannot be used, or the method is not for frames.
    """
    import numpy as np

    from csist.unmixing import check_frame_method

    check_frame_method(method)
    empty = [index for index, frame in enumerate(stack) if np.isnan(frame).all()]
    if len(empty) == len(stack):
        raise InputError(f"{stack.path} contains only NaN: it has no pixel that can be used")
    return empty


def _solve_sequence(sequence: FrameSequence, settings: Settings) -> Iterator[Block]:
    """All images of a sequence that is read as it comes."""
    from csist.cli.unmix.frames import solve_sequence
    from csist.unmixing import check_frame_method
    from csist.windows import WINDOW_SIDE_PX, is_window

    if settings.joint is not None:
        yield from _solve_jointly(sequence, settings)
        return
    if is_window(sequence.shape):
        raise InputError(
            f"{sequence.path} holds windows of {sequence.shape[1]} x {sequence.shape[2]} px, a sequence needs frames "
            f"larger than {WINDOW_SIDE_PX} px: add --joint 20, or leave out --sequence"
        )
    check_frame_method(settings.method)
    yield from solve_sequence(sequence, settings)


def _solve_stack(stack: ImageStack, sequence: FrameSequence, settings: Settings) -> Iterator[Block]:
    """All images of a file; what is wrong with its values shows before the first one is unmixed."""
    from csist.cli.unmix.frames import solve_sequence
    from csist.windows import is_window

    if is_window(stack.shape) and settings.joint is not None:
        _check_step(sequence, settings)
        yield from joint_windows(stack, sequence, settings)
        return
    if is_window(stack.shape):
        yield from solve_windows(stack, settings, sequence.notes)
        return
    check_frames(stack, settings.method)
    yield from _solve_jointly(sequence, settings) if settings.joint is not None else solve_sequence(sequence, settings)


def _solve_jointly(sequence: FrameSequence, settings: Settings) -> Iterator[Block]:
    """All images of a sequence, several of them together."""
    from csist.cli.unmix.joint_frames import joint_frames
    from csist.windows import is_window

    if not is_window(sequence.shape):
        yield from joint_frames(sequence, settings)
        return
    _check_step(sequence, settings)
    yield from joint_sequence(sequence, settings, sequence.notes)


def _check_step(sequence: FrameSequence, settings: Settings) -> None:
    """Check that windows are not to slide.

    Raises:
        InputError: if they are.
    """
    if settings.joint_step not in (None, settings.joint):
        raise InputError(f"--joint-step is for whole frames, {sequence.path} holds windows: leave it out")
