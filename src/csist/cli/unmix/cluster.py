"""The files of `csist unmix` spread over a Dask cluster.

This process reads every file once, for what depends on a file as a whole: its sensor, its noise, values that cannot
be used. A worker gets a path, the place of some images in that file and these findings, and reads no more than it
needs. Tasks of the files to come begin while those of the present one run, so that small files do not wait.
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
from csist.cli.unmix.blocks import Block, Solved, image_name
from csist.cli.unmix.files import OpenFile, check_frames
from csist.cli.unmix.frames import frame_view, settle_frames, unmix_frame
from csist.cli.unmix.settings import Settings
from csist.cli.unmix.windows import settle_windows, store_truths, unmix_windows, whole_batches, window_view
from csist.cluster import ClusterError, Task, begun

if TYPE_CHECKING:
    from distributed import Client

    from csist._types import FloatArray
    from csist.frames.options import FrameOptions
    from csist.io import ImageStack
    from csist.plots import View
    from csist.targets import Targets

WINDOWS_A_TASK = 128


@dataclass(frozen=True)
class Slice:
    """Some consecutive images of a file, as a worker finds them.

    Args:
        path: absolute.
        size: of the file in bytes.
        start: place of the first image.
        stop: place after the last one.
    """

    path: Path
    size: int
    start: int
    stop: int

    def read(self) -> FloatArray:
        """The images, (n, H, W) in counts.

        Raises:
            ClusterError: if this machine has no such file, or another one of that name.
        """
        from csist.files import one_line
        from csist.io.slices import read_slice

        try:
            size = self.path.stat().st_size
            if size != self.size:
                raise InputError(f"its file {self.path} has {size} bytes, not {self.size}")
            return read_slice(self.path, self.start, self.stop)
        except (InputError, OSError) as error:
            raise ClusterError(
                f"the worker on {socket.gethostname()} does not see the same file: {one_line(error)}; "
                "put the images where all machines find them under one path"
            ) from error


@dataclass(frozen=True, eq=False)
class _Part:
    """The images of one task.

    Args:
        images: where they are.
        draw: picture of an image (H, W) from its place in the file, its targets, and what else its task found.
        psf: what was found out about the PSF of the file.
    """

    images: Slice
    draw: Callable[[FloatArray, int, Targets, Solved], View | None]
    psf: dict[str, Any] | None

    def block(self, solved: Solved) -> Block:
        """What the task found; a picture reads its image again, so that none is kept."""
        start = self.images.start

        def view(index: int) -> View | None:
            return self.draw(self.images.read()[index], start + index, solved.targets[index], solved)

        psf = solved.psf or (None if start else self.psf)
        return Block(start, solved.targets, solved.groups, solved.masked, view, psf=psf)


Step = tuple[tuple[int, _Part | None], Any]
"""((place of the file, part of it), what): first a file's shape and notes, then its tasks; an error instead of any."""


def open_on_cluster(
    client: Client, files: Sequence[tuple[str, Path]], settings: Settings
) -> Iterator[Callable[[], OpenFile]]:
    """A function for each file, (name, path), in order, that opens it: its blocks come from the cluster.

    Raises:
        ClusterError: if the scheduler is gone.
    """
    for _, steps in groupby(begun(client, _steps(files, settings)), key=lambda step: step[0][0]):
        yield partial(_opened, steps)


def _opened(steps: Iterator[Step]) -> OpenFile:
    """A file from its steps: its description, then its parts, or what is wrong with it in the place of either."""
    _, description = next(steps)
    if isinstance(description, Exception):
        raise description
    shape, notes = description
    return OpenFile(shape, notes, _blocks(steps))


def _blocks(steps: Iterator[Step]) -> Iterator[Block]:
    for (_, part), answer in steps:
        if isinstance(answer, Exception):
            raise answer
        if part is not None:
            yield part.block(answer.result())


def _steps(files: Sequence[tuple[str, Path]], settings: Settings) -> Iterator[Step]:
    """The steps of all files, in order; an error is one of them, because the files behind it go on."""
    from csist.io import image_kind, read_image
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
            stack = read_image(path, name)
            yield (file, None), (stack.shape, stack.notes)
            if is_window(stack.shape):
                yield from _window_steps(file, stack, settings, run)
            else:
                yield from _frame_steps(file, stack, settings)
        except Exception as error:
            yield (file, None), error


def _slices(stack: ImageStack, images: int) -> Iterator[Slice]:
    """A file in parts of so many images."""
    path, size, count = stack.path.absolute(), stack.path.stat().st_size, len(stack)
    return (Slice(path, size, start, min(start + images, count)) for start in range(0, count, images))


def _window_steps(file: int, stack: ImageStack, settings: Settings, run: str) -> Iterator[Step]:
    recipe, psf = settle_windows(stack, settings)[1:]
    method = _method(run, **recipe)  # what cannot be made shows here, not on a worker
    truths = store_truths(stack)

    def draw(image: FloatArray, index: int, found: Targets, _: Solved) -> View:
        truth = None if truths is None else truths[index]
        return window_view(image_name(stack.name, "image", index, len(stack)), image, found, recipe["sensor"], truth)

    for part in _slices(stack, whole_batches(method, WINDOWS_A_TASK)):
        yield (file, _Part(part, draw, psf)), Task(_unmix_windows, (part, run, recipe))


def _frame_steps(file: int, stack: ImageStack, settings: Settings) -> Iterator[Step]:
    from csist.io.sequences import sequence_of_stack

    check_frames(stack, settings.method)
    options, psf = settle_frames(sequence_of_stack(stack), settings)
    options = replace(options, workers=1)  # a worker has as many tasks as it has threads

    def draw(image: FloatArray, index: int, _: Targets, solved: Solved) -> View | None:
        return frame_view(image_name(stack.name, "frame", index, len(stack)), image, solved)

    for part in _slices(stack, 1):
        yield (file, _Part(part, draw, psf)), Task(_unmix_frame, (part, len(stack), options))


# --- on a worker ------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _method(run: str, **recipe: Any) -> Any:
    """The method of `csist.unmixing.window_recipe`; made anew for each run, whose weight file may have changed."""
    from csist.create import create_method
    from csist.methods.table import abilities

    if abilities(recipe["name"]).threads:
        recipe["workers"] = 1  # a worker has as many tasks as it has threads
    return create_method(**recipe)


def _unmix_windows(part: Slice, run: str, recipe: dict[str, Any]) -> Solved:
    images = part.read()
    try:
        method = _method(run, **recipe)
    except InputError as error:
        raise ClusterError(f"the worker on {socket.gethostname()} cannot do what this machine can: {error}") from error
    return unmix_windows(method, images, part.start)


def _unmix_frame(part: Slice, count: int, options: FrameOptions) -> Solved:
    return unmix_frame(part.read()[0], part.start, count, options)
