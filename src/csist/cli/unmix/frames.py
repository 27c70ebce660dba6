"""Frames of `csist unmix`, processed sequentially or in parallel, and their tracks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from csist.checks import InputError
from csist.cli.unmix.blocks import Block, Solved, empty_text, group_row, image_name, psf_row
from csist.cli.unmix.measured import measured_frame, measured_positions
from csist.cli.unmix.places import places_in
from csist.cli.unmix.settings import Settings
from csist.frames.masks.words import KIND_WORDS
from csist.frames.options import as_positions
from csist.words import counted

if TYPE_CHECKING:
    from csist._types import FloatArray
    from csist.frames.options import FrameOptions
    from csist.frames.psf_estimate import PSFEstimate
    from csist.frames.result import FrameResult
    from csist.io import ImageStack
    from csist.io.sequences import FrameSequence
    from csist.plots import View
    from csist.targets import Targets

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2
"""Frames read ahead per worker: no worker waits, and few frames are in memory."""


def solve_sequence(sequence: FrameSequence, settings: Settings) -> Iterator[Block]:
    """Unmix the frames of a sequence in order; the results do not depend on `settings.workers`."""
    import numpy as np

    options, psf = settle_frames(sequence, settings)
    workers = settings.workers or 1
    if workers > 1 and len(sequence) != 1:
        options = replace(options, workers=1)
    empty: list[int] = []

    def solve(numbered: tuple[int, tuple[str, FloatArray]]) -> Block:
        index, (name, frame) = numbered
        if np.isnan(frame).all():
            empty.append(index)
        own, at = with_places(options, sequence, name, index, settings)
        solved = unmix_frame(frame, index, len(sequence), own, sequence.error(index), at=at)

        def view(_: int) -> View | None:
            return frame_view(image_name(name, "frame", index, len(sequence)), frame, solved)

        known = solved.psf or (psf if index == 0 else None)
        block = Block(index, solved.targets, solved.groups, solved.masked, view, name, known)
        return replace(block, kinds=solved.kinds, measured=solved.measured)

    yield from _in_order(solve, enumerate(frames_of(sequence, settings.temporal)), workers)
    if empty:
        sequence.notes.append(empty_text(empty, "frame"))


def with_places(
    options: FrameOptions, images: ImageStack | FrameSequence, name: str, index: int, settings: Settings
) -> tuple[FrameOptions, FloatArray | None]:
    """The options of one frame with the positions to start from, and those (n, 2) where fluxes are measured.

    Args:
        options: of all frames.
        images: file or sequence of the frame.
        name: of the image.
        index: of the frame among those that are read.
        settings: of the command.
    """
    at, start = (places_in(table, images, name, index, settings) for table in (settings.at, settings.start))
    return options if start is None else replace(options, start=as_positions(start)), at


def settle_frames(sequence: FrameSequence, settings: Settings) -> tuple[FrameOptions, dict[str, Any] | None]:
    """Return the options for all frames of a sequence, and the summary of a measured PSF.

    The PSF of a single frame is measured when the frame is unmixed.

    Raises:
        InputError: if the PSF is to be measured but cannot be.
    """
    options = settings.frame_options(sequence)
    if settings.instrument.psf_measured is None or len(sequence) == 1:
        return options, None
    measured = _measure_psf(sequence, options)
    known = replace(measured, profile=measured.profile[:0])  # only pictures of the PSF need the pixels
    return replace(options, psf=known), _measured_row(measured)


def _measured_row(measured: PSFEstimate) -> dict[str, Any]:
    row = psf_row(measured.sigma_px, measured.sigma_px_std, measured.sources)
    shape = measured.elliptical
    axes = {} if shape is None else {name: getattr(shape, name) for name in ("sigma_x_px", "sigma_y_px", "angle_deg")}
    return row | {"frames": measured.frames} | axes


def unmix_frame(
    frame: FloatArray,
    index: int,
    count: int,
    options: FrameOptions,
    error: FloatArray | None = None,
    *,
    at: FloatArray | None = None,
    keep: Callable[[FrameResult], None] | None = None,
) -> Solved:
    """Unmix a frame, or measure the fluxes at given positions.

    Args:
        frame: (H, W) in counts; a frame that is NaN everywhere has no targets.
        index: index of the frame in its sequence.
        count: number of frames in the sequence; 0 if unknown.
        options: options of the frame.
        error: (H, W) standard deviation of each pixel in counts, if it is known.
        at: positions (n, 2), x and y in px, for fluxes only; None to unmix the frame.
        keep: called with the result of unmixing.

    Raises:
        InputError: if the frame cannot be used.
    """
    import numpy as np

    from csist.frames.solve import solve_frame
    from csist.targets import Targets

    if np.isnan(frame).all():
        return Solved([Targets.empty() if at is None else unmeasured(at)], [], frame.size)
    try:
        if at is not None:
            return _measure_frame(frame, at, options, error)
        result = solve_frame(frame, options, error=error)
        if keep is not None:
            keep(result)
    except InputError as refused:
        raise InputError(f"frame {index}: {refused}" if count != 1 else str(refused)) from refused
    groups = [{"frame": index, "group": group.number, **group_row(group)} for group in result.groups]
    measured = result.psf_estimate if isinstance(options.psf, str) else None
    psf = None if measured is None else _measured_row(measured)
    masks = {kind: result.pixels.of(kind) for kind, count in result.pixel_counts.items() if count}
    known = measured_frame(result, options, error is not None)
    return Solved([result.targets], groups, int(result.mask.sum()), result.drawing.compact(), psf, masks, known)


def _measure_frame(frame: FloatArray, at: FloatArray, options: FrameOptions, error: FloatArray | None) -> Solved:
    """Fluxes at positions (n, 2) of a frame."""
    from csist.frames.result import FrameModel, ModelPart, whole_region
    from csist.photometry import measure_frame_at

    targets, measured, psf = measure_frame_at(frame, at[:, 0], at[:, 1], options, error)
    shape = (frame.shape[0], frame.shape[1])
    whole = whole_region(shape)
    model = FrameModel(shape, [ModelPart(whole, whole, measured.background, psf.psf, targets)])
    row = None if psf.estimate is None or not isinstance(options.psf, str) else _measured_row(psf.estimate)
    masked = int(measured.pixels.masked.sum())
    known = measured_positions(model, psf, options, error is not None)
    return Solved([targets], [], masked, model.compact(), row, measured=known)


def unmeasured(at: FloatArray) -> Targets:
    """Targets at positions (n, 2) of an image without a value."""
    import numpy as np

    from csist.targets import Flag, Targets

    return Targets(at[:, 0], at[:, 1], np.full(len(at), np.nan), flags=np.full(len(at), int(Flag.MASKED)))


def frame_view(name: str, frame: FloatArray, solved: Solved) -> View | None:
    """Return the view of a frame (H, W) with the model of its fit; None if it holds no value."""
    from csist.plots import View

    if solved.model is None:
        return None
    (found,) = solved.targets
    masks = {KIND_WORDS.get(kind, kind): mask for kind, mask in solved.masks.items()}
    return View(frame, solved.model.draw(), found, None, f"{name}: {counted(len(found), 'target')}", masks=masks)


def frames_of(sequence: FrameSequence, temporal: int | None) -> Iterator[tuple[str, FloatArray]]:
    """Return the named frames, with the static background removed if `temporal` is given."""
    if temporal is None:
        return iter(sequence)
    from csist.tracks.static import without_static

    if len(sequence) == 1:
        raise InputError(f"{sequence.path} is one frame, --temporal needs a sequence: add --sequence for a folder")
    names: deque[str] = deque()

    def unnamed() -> Iterator[FloatArray]:
        for name, frame in sequence:
            names.append(name)
            yield frame

    return ((names.popleft(), frame) for frame in without_static(unnamed(), temporal))


def _measure_psf(sequence: FrameSequence, options: FrameOptions) -> PSFEstimate:
    """Measure the PSF on evenly spaced frames, or on the first ones if the number of frames is unknown."""
    import numpy as np

    from csist.frames.psf.measure import MOST_FRAMES, estimate_psf, spread_evenly

    chosen = set(spread_evenly(len(sequence) or MOST_FRAMES))
    looked_at = (frame for index, (_, frame) in enumerate(islice(sequence, max(chosen) + 1)) if index in chosen)
    return estimate_psf(
        (frame for frame in looked_at if not np.isnan(frame).all()), options.ceiling, options.noise_std,
        empirical=options.psf == "empirical",
    )  # fmt: skip


def _in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield results in the order of the items, computed in parallel with few items read ahead."""
    if workers == 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
