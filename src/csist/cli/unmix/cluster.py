"""Distribution of the files of `csist unmix` over a Dask cluster.

This process reads every file once to determine what depends on the whole file: sensor, noise and invalid values. A
worker gets a path, a range of images and these settings, and reads only the images that it needs. Tasks of later files
are submitted while those of the current one run, so that small files keep the cluster busy.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from csist.checks import InputError
from csist.cli.unmix.blocks import Block, Solved, above_score, empty_text, image_name, in_file
from csist.cli.unmix.files import OpenFile, asked_times, check_frames, further_columns, notes_of
from csist.cli.unmix.frames import frame_view, settle_frames, unmix_frame, with_places
from csist.cli.unmix.measured import Measured, measured_windows
from csist.cli.unmix.places import WindowPlaces
from csist.cli.unmix.settings import Settings
from csist.cli.unmix.windows import settle_windows, solve_block, store_truths, whole_batches, window_view
from csist.cluster import ClusterError, Task, submit_ahead

if TYPE_CHECKING:
    from distributed import Client

    from csist._types import FloatArray
    from csist.frames.options import FrameOptions
    from csist.io import ImageStack, ReadOptions
    from csist.plots import View
    from csist.targets import Targets

WINDOWS_PER_TASK = 128


@dataclass(frozen=True)
class Slice:
    """Range of consecutive images of a file, to be read by a worker.

    Args:
        path: absolute.
        size: of the file in bytes.
        start: place of the first image.
        stop: place after the last one.
        options: what of the file is read.
    """

    path: Path
    size: int
    start: int
    stop: int
    options: ReadOptions

    def errors(self) -> FloatArray | None:
        """Standard deviation of the pixels of the same images, (n, H, W) in counts; None if it is not known."""
        from csist.io.slices import read_error_slice

        return read_error_slice(self.path, self.start, self.stop, self.options)

    def read(self) -> FloatArray:
        """Read the images, (n, H, W) in counts.

        Raises:
            ClusterError: if the file does not exist on this machine or differs in size.
        """
        from csist.files import one_line
        from csist.io.slices import read_slice

        try:
            size = self.path.stat().st_size
            if size != self.size:
                raise InputError(f"its file {self.path} has {size} bytes, not {self.size}")
            return read_slice(self.path, self.start, self.stop, self.options)
        except (InputError, OSError) as error:
            raise ClusterError(
                f"the worker on {socket.gethostname()} does not see the same file: {one_line(error)}; "
                "put the images where all machines can read them under the same path"
            ) from error


@dataclass(frozen=True, eq=False)
class _Part:
    """Images of one task.

    Args:
        images: range of images in a file.
        draw: function that returns the view of an image (H, W), given its index in the file, its targets and the
            results of its task.
        psf: summary of the measured PSF of the file.
        measured: what its windows were unmixed with; None for frames, whose results say it.
    """

    images: Slice
    draw: Callable[[FloatArray, int, Targets, Solved], View | None]
    psf: dict[str, Any] | None
    measured: Measured | None = None

    def block(self, solved: Solved) -> Block:
        """Build the block from the result of the task; views read their image again, so that none stays in memory."""
        start = self.images.start

        def view(index: int) -> View | None:
            return self.draw(self.images.read()[index], start + index, solved.targets[index], solved)

        psf = solved.psf or (None if start else self.psf)
        known = solved.measured or (None if start else self.measured)
        block = Block(start, solved.targets, solved.groups, solved.masked, view)
        block = replace(block, psf=psf, kinds=solved.kinds, measured=known)
        return in_file(block, self.images.options.origin)


Step = tuple[tuple[int, _Part | None], Any]
"""((index of the file, part of it), value): the values of a file are its shape, notes, what gives further columns and
times, then its tasks; any of them may be an exception instead."""


def open_on_cluster(
    client: Client, files: Sequence[tuple[str, Path]], settings: Settings
) -> Iterator[Callable[[], OpenFile]]:
    """Yield a function for each file, (name, path), in order, that opens it; its blocks come from the cluster.

    Raises:
        ClusterError: if the scheduler is gone.
    """
    for _, steps in groupby(submit_ahead(client, _steps(files, settings)), key=lambda step: step[0][0]):
        yield partial(_opened, steps, settings)


def _opened(steps: Iterator[Step], settings: Settings) -> OpenFile:
    """Open a file from its steps: its description and then its parts, raising an exception in place of either."""
    _, description = next(steps)
    if isinstance(description, Exception):
        raise description
    shape, notes, further, times = description
    blocks = (above_score(block, settings.min_score) for block in _blocks(steps))
    return OpenFile(shape, notes, blocks, further, None, times, settings.reading.frames[0])


def _blocks(steps: Iterator[Step]) -> Iterator[Block]:
    for (_, part), answer in steps:
        if isinstance(answer, Exception):
            raise answer
        if part is not None:
            yield part.block(answer.result())


def _steps(files: Sequence[tuple[str, Path]], settings: Settings) -> Iterator[Step]:
    """Yield the steps of all files, in order; errors are yielded as well, so that later files continue."""
    from csist.io import image_kind, read_image
    from csist.io.sequences import sequence_of_stack
    from csist.windows import is_window

    if settings.weights is not None:
        settings = replace(settings, weights=settings.weights.absolute())
    run = uuid4().hex
    for file, (name, path) in enumerate(files):
        try:
            if image_kind(path) == "video":
                raise InputError(
                    f"{path} is a video, which is read from its start by one process: leave out --engine dask, "
                    "or save its frames as images"
                )
            stack = read_image(path, name, settings.reading)
            notes = [*stack.notes, *notes_of(stack, stack.name, settings)]
            known = further_columns(stack, settings), asked_times(sequence_of_stack(stack), settings)
            yield (file, None), (stack.shape, notes, *known)
            if is_window(stack.shape):
                yield from _window_steps(file, stack, settings, run, notes)
            else:
                yield from _frame_steps(file, stack, settings, notes)
        except Exception as error:
            yield (file, None), error


def _slices(stack: ImageStack, images: int) -> Iterator[Slice]:
    """Divide a file into parts of `images` images."""
    path, size, count = stack.path.absolute(), stack.path.stat().st_size, len(stack)
    return (Slice(path, size, start, min(start + images, count), stack.options) for start in range(0, count, images))


def _window_steps(file: int, stack: ImageStack, settings: Settings, run: str, notes: list[str]) -> Iterator[Step]:
    recipe, psf = settle_windows(stack, settings, notes)[1:]
    method = _method(run, **recipe)  # what cannot be made shows here, not on a worker
    truths, places = store_truths(stack), WindowPlaces.of(stack, settings)
    known = measured_windows(stack, settings, recipe["sensor"], recipe.get("noise_std"))

    def draw(image: FloatArray, index: int, found: Targets, _: Solved) -> View:
        truth = None if truths is None else truths[index]
        return window_view(image_name(stack.name, "image", index, len(stack)), image, found, recipe["sensor"], truth)

    for part in _slices(stack, whole_batches(method, WINDOWS_PER_TASK)):
        own = places.part(slice(part.start, part.stop))
        yield (file, _Part(part, draw, psf, known)), Task(_unmix_windows, (part, run, recipe, own))


def _frame_steps(file: int, stack: ImageStack, settings: Settings, notes: list[str]) -> Iterator[Step]:
    from csist.io.sequences import sequence_of_stack

    empty = check_frames(stack, settings.method)
    if empty:
        notes.append(empty_text(empty, "frame"))
    options, psf = settle_frames(sequence_of_stack(stack), settings)
    options = replace(options, workers=1)  # a worker runs one task per thread

    def draw(image: FloatArray, index: int, _: Targets, solved: Solved) -> View | None:
        return frame_view(image_name(stack.name, "frame", index, len(stack)), image, solved)

    for part in _slices(stack, 1):
        own, at = with_places(options, stack, stack.name, part.start, settings)
        yield (file, _Part(part, draw, psf)), Task(_unmix_frame, (part, len(stack), own, at))


# --- on a worker ------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _method(run: str, **recipe: Any) -> Any:
    """Build the method of `csist.unmixing.window_recipe`, once per run: weight files may change between runs."""
    from csist.create import create_method
    from csist.methods.table import abilities

    if abilities(recipe["name"]).threads:
        recipe["workers"] = 1  # a worker runs one task per thread
    return create_method(**recipe)


def _unmix_windows(part: Slice, run: str, recipe: dict[str, Any], places: WindowPlaces) -> Solved:
    images = part.read()
    try:
        method = _method(run, **recipe)
    except InputError as error:
        raise ClusterError(
            f"the worker on {socket.gethostname()} cannot build the method, but this machine can: {error}"
        ) from error
    return solve_block(method, recipe.get("noise_std", 0.0), images, part.start, part.errors(), places=places)


def _unmix_frame(part: Slice, count: int, options: FrameOptions, at: FloatArray | None) -> Solved:
    frame, error = part.read()[0], part.errors()
    return unmix_frame(frame, part.start, count, options, None if error is None else error[0], at=at)
