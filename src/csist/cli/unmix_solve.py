"""One file of `csist unmix`: its windows or frames, unmixed block by block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csist.checks import InputError
from csist.cli.unmix_settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from csist.io import ImageStack
    from csist.physics.psf import PSF
    from csist.physics.sensor import Sensor
    from csist.plots import View
    from csist.targets import Targets

    FloatArray = NDArray[np.float64]

GROUP_PLACE = ("column", "row", "peaks", "significance")
"""Where a group of a frame is; columns of the table of groups that windows do not have."""


@dataclass(frozen=True, eq=False)
class Block:
    """Some consecutive images of a file, unmixed."""

    start: int
    targets: list[Targets]
    groups: list[dict[str, Any]]
    masked: int
    view: Callable[[int], View]
    """Picture of an image, by its place in the block."""


@dataclass(frozen=True, eq=False)
class OpenFile:
    """A file of images, and the blocks in which it is unmixed while they are asked for."""

    shape: tuple[int, ...]
    """(N, H, W)."""
    notes: tuple[str, ...]
    blocks: Iterator[Block]


def open_file(path: Path, name: str, settings: Settings) -> OpenFile:
    """A file that is unmixed in this process.

    Raises:
        InputError: if it cannot be read.
    """
    from csist.io import read_image

    stack = read_image(path, name)
    return OpenFile(stack.shape, file_notes(stack, settings), solve_file(stack, settings))


def file_notes(stack: ImageStack, settings: Settings) -> tuple[str, ...]:
    """What the user should know about how a file is read and used, one line each."""
    from csist.unmixing import is_window

    if settings.background is None or is_window(stack.shape):
        return stack.notes
    return *stack.notes, "--background is for windows, that of a frame is measured"


def _solve_windows(stack: ImageStack, settings: Settings) -> Iterator[Block]:
    """The windows of a file in blocks of about a second: progress, and no long wait after Ctrl-C."""
    import numpy as np

    from csist.unmixing import window_method

    images = np.array(stack[:])  # a mapped file's array is read-only, which torch does not take
    method = window_method(images, **window_arguments(stack, images, settings))
    truths = store_truths(stack.path) if stack.kind == "store" else None
    start, size = 0, whole_batches(method, 32)
    while start < len(images):
        block = images[start : start + size]
        begun = time.perf_counter()
        found, groups, masked = unmix_windows(method, block, start)

        def view(index: int, start: int = start, block: FloatArray = block, found: list[Targets] = found) -> View:
            truth = None if truths is None else truths[start + index]
            name = image_name(stack.name, "image", start + index, len(images))
            return window_view(name, block[index], found[index], method.sensor, truth)

        yield Block(start, found, groups, masked, view)
        start += len(block)
        if time.perf_counter() - begun < 0.5 and size < 4096:
            size *= 2


def whole_batches(method: Any, windows: int) -> int:
    """At least so many windows, and whole batches of a grid method.

    Its last bits depend on which windows are in a batch; in blocks of whole batches they are always the same.
    """
    batch = getattr(getattr(method, "method", method), "batch_size", 1)
    return -(-windows // batch) * int(batch)


def window_arguments(stack: ImageStack, images: FloatArray, settings: Settings) -> dict[str, Any]:
    """What `csist.unmixing.window_method` has to know of a file's windows (N, H, W) besides themselves."""
    return {
        "dtype": stack.data.dtype,
        "sensor": settings.sensor_for(stack, images),
        "prior": settings.prior,
        "method": settings.method,
        "mask_nan": settings.mask_nan,
        "noise_std": settings.noise_for(stack),
        **settings.method_options,
    }


def unmix_windows(method: Any, images: FloatArray, start: int) -> tuple[list[Targets], list[dict[str, Any]], int]:
    """Targets, rows of the table of groups, and number of masked pixels of windows (n, H, W).

    Args:
        method: of `csist.unmixing.window_method`.
        images: the windows in counts.
        start: place of the first one in its file.
    """
    import numpy as np

    from csist.methods.continuous import Continuous

    groups: list[dict[str, Any]] = []
    if isinstance(method, Continuous):
        found, known = method.solve(images)
        groups = [{"frame": start + i, "group": 0, **_group_row(group)} for i, group in enumerate(known)]
    else:
        found = method.predict(images)
    return found, groups, int(np.isnan(images).sum())


def store_truths(path: Path) -> list[Targets]:
    """The true targets of the images that a store holds."""
    from csist.datasets.dataset import load

    return load(path)["test"].targets


def image_name(name: str, kind: str, index: int, count: int) -> str:
    """Name of one image of a file of `count` for people; `kind` is what it is called."""
    return f"{name}, {kind} {index}" if count > 1 else name


def window_view(name: str, image: FloatArray, found: Targets, sensor: Sensor, truth: Targets | None) -> View:
    """Picture of a window (H, W)."""
    from csist.plots import View

    return View(image, sensor.render(found), found, truth, f"{name}: {_count(found)}")


def frame_view(name: str, frame: FloatArray, found: Targets, sensor: Sensor | None, psf: PSF | None) -> View:
    """Picture of a frame (H, W)."""
    from csist.plots import View
    from csist.unmixing import frame_model

    return View(frame, frame_model(frame, found, sensor, psf), found, None, f"{name}: {_count(found)}")


def _count(targets: Targets) -> str:
    return f"{len(targets)} target{'' if len(targets) == 1 else 's'}"


def _group_row(group: Any) -> dict[str, Any]:
    """Columns of the table of groups, from what a solver knows of one."""
    probability = {f"p_{k}": float(value) for k, value in enumerate(group.count_probability)}
    place = {name: getattr(group, name) for name in GROUP_PLACE if hasattr(group, name)}
    return {
        **place,
        "count": int(group.count),
        "chi_squared": float(group.chi_squared),
        "degrees_of_freedom": int(group.degrees_of_freedom),
        "flags": int(group.flags),
        **probability,
    }


def solve_file(stack: ImageStack, settings: Settings) -> Iterator[Block]:
    """All images of a file; what is wrong with its values shows before the first one is unmixed."""
    from csist.unmixing import is_window

    if is_window(stack.shape):
        yield from _solve_windows(stack, settings)
    else:
        check_frames(stack, settings)
        yield from _solve_frames(stack, settings)


def check_frames(stack: ImageStack, settings: Settings) -> None:
    """Check that the frames of a file can be unmixed.

    Raises:
        InputError: if the method is not for frames, or a value is infinite or a whole frame NaN.
    """
    import numpy as np

    from csist.unmixing import check_frame_method

    check_frame_method(settings.method)
    for index, frame in enumerate(stack):  # reading it finds infinities
        if np.isnan(frame).all():
            raise InputError(f"{stack.path}: frame {index} holds nothing but NaN, remove it")


def frame_arguments(stack: ImageStack, settings: Settings) -> dict[str, Any]:
    """What `csist.unmixing.solve_frame` has to know of a file's frames besides themselves."""
    return {
        "sensor": settings.sensor or stack.sensor,
        "prior": settings.prior,
        "noise_std": settings.noise_std,
        "psf": settings.psf,
        **settings.method_options,
    }


def unmix_frame(
    frame: FloatArray, index: int, count: int, arguments: dict[str, Any]
) -> tuple[list[Targets], list[dict[str, Any]], int]:
    """Targets, rows of the table of groups, and number of masked pixels of a frame (H, W).

    Args:
        frame: the frame in counts.
        index: its place in its file.
        count: frames of that file.
        arguments: of `frame_arguments`, perhaps with more.

    Raises:
        InputError: if the frame cannot be used.
    """
    from csist.unmixing import count_masked, solve_frame

    try:
        found, known = solve_frame(frame, **arguments)
    except InputError as error:
        raise InputError(f"frame {index}: {error}" if count > 1 else str(error)) from error
    groups = [{"frame": index, "group": group.number, **_group_row(group)} for group in known]
    return [found], groups, count_masked(frame, arguments["sensor"], arguments["psf"])


def _solve_frames(stack: ImageStack, settings: Settings) -> Iterator[Block]:
    """The frames of a file, one by one."""
    arguments = frame_arguments(stack, settings)
    for index, frame in enumerate(stack):
        found, groups, masked = unmix_frame(frame, index, len(stack), arguments)

        def view(_: int, index: int = index, frame: FloatArray = frame, found: Targets = found[0]) -> View:
            name = image_name(stack.name, "frame", index, len(stack))
            return frame_view(name, frame, found, arguments["sensor"], arguments["psf"])

        yield Block(index, found, groups, masked, view)
