"""One file of `csist unmix`: its windows or frames, unmixed block by block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csist.checks import InputError
from csist.cli.unmix_settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from csist.io import ImageStack
    from csist.physics.sensor import Sensor
    from csist.plots import View
    from csist.sequences import FrameSequence
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
    name: str | None = None
    """Of the image, where a sequence has one for each frame."""
    psf: dict[str, Any] | None = None
    """What was found out about the PSF; the first block of a file has it."""


@dataclass(frozen=True, eq=False)
class OpenFile:
    """A file of images, and the blocks in which it is unmixed while they are asked for."""

    shape: tuple[int, int, int]
    """(N, H, W); N is 0 where the file does not say how many there are."""
    notes: Sequence[str]
    """What the user should know, one line each; more may come while blocks are asked for."""
    blocks: Iterator[Block]


def open_file(path: Path, name: str, settings: Settings) -> OpenFile:
    """A file's images, or the sequence that a folder or video is, to be unmixed in this process.

    Raises:
        InputError: if it cannot be read.
    """
    from csist.io import image_kind, read_image
    from csist.sequences import sequence_of_folder, sequence_of_video

    stack: ImageStack | FrameSequence
    if path.is_dir():
        stack = sequence_of_folder(path)
    else:
        stack = sequence_of_video(path, name) if image_kind(path) == "video" else read_image(path, name)
    return OpenFile(stack.shape, stack.notes, _solve_file(stack, settings))


def _solve_windows(stack: ImageStack, settings: Settings) -> Iterator[Block]:
    """The windows of a file in blocks of about a second: progress, and no long wait after Ctrl-C."""
    from csist.methods.registry import create_method

    images, recipe, psf = settle_windows(stack, settings)
    method = create_method(**recipe)
    truths = store_truths(stack)
    start, size = 0, whole_batches(method, 32)
    while start < len(images):
        block = images[start : start + size]
        begun = time.perf_counter()
        found, groups, masked = unmix_windows(method, block, start)

        def view(index: int, start: int = start, block: FloatArray = block, found: list[Targets] = found) -> View:
            truth = None if truths is None else truths[start + index]
            name = image_name(stack.name, "image", start + index, len(images))
            return window_view(name, block[index], found[index], method.sensor, truth)

        yield Block(start, found, groups, masked, view, psf=psf if start == 0 else None)
        start += len(block)
        if time.perf_counter() - begun < 0.5 and size < 4096:
            size *= 2


def settle_windows(stack: ImageStack, settings: Settings) -> tuple[FloatArray, dict[str, Any], dict[str, Any] | None]:
    """What depends on all windows of a file together: its noise, its PSF, what is wrong with its values.

    Returns:
        The windows (N, H, W) in counts, the arguments of `create_method`, and what was found out about the PSF.

    Raises:
        InputError: if the windows cannot be used.
    """
    import numpy as np

    from csist.unmixing import window_recipe

    images = np.array(stack[:])  # a mapped file's array is read-only, which torch does not take
    sensor, psf = settings.sensor_for(stack, images), None
    if settings.psf_measured == "empirical":
        raise InputError("an empirical PSF is measured on whole frames: for windows use --psf auto")
    if settings.psf_measured:
        from csist.methods.continuous.calibrate import calibrate

        found_out = calibrate(images, sensor, settings.prior, settings.noise_for(stack), workers=settings.workers)
        level = found_out.background if settings.background is None else settings.background
        sensor = replace(found_out.sensor, background=level)
        psf = psf_row(found_out.sigma_px, found_out.sigma_px_std, found_out.images_used)
    recipe = window_recipe(
        images, stack.data.dtype, sensor, settings.prior, settings.method,
        mask_nan=settings.mask_nan, noise_std=settings.noise_for(stack), **settings.method_options,
    )  # fmt: skip
    return images, recipe, psf


def whole_batches(method: Any, windows: int) -> int:
    """At least so many windows, and whole batches of a grid method.

    Its last bits depend on which windows are in a batch; in blocks of whole batches they are always the same.
    """
    batch = getattr(getattr(method, "method", method), "batch_size", 1)
    return -(-windows // batch) * int(batch)


def unmix_windows(method: Any, images: FloatArray, start: int) -> tuple[list[Targets], list[dict[str, Any]], int]:
    """Targets, rows of the table of groups, and number of masked pixels of windows.

    Args:
        method: made by the recipe of `settle_windows`.
        images: (n, H, W) in counts.
        start: place of the first one in its file.
    """
    import numpy as np

    from csist.methods.continuous import Continuous

    groups: list[dict[str, Any]] = []
    if isinstance(method, Continuous):
        found, known = method.solve(images)
        groups = [{"frame": start + i, "group": 0, **group_row(group)} for i, group in enumerate(known)]
    else:
        found = method.predict(images)
    return found, groups, int(np.isnan(images).sum())


def store_truths(stack: ImageStack) -> list[Targets] | None:
    """The true targets of a store's images; None of other files."""
    if stack.kind != "store":
        return None
    from csist.datasets.dataset import load

    return load(stack.path)["test"].targets


def image_name(name: str, kind: str, index: int, count: int) -> str:
    """Name for people of an image of a file of `count`, 0 where that is not known; `kind` is what it is called."""
    return name if count == 1 else f"{name}, {kind} {index}"


def window_view(name: str, image: FloatArray, found: Targets, sensor: Sensor, truth: Targets | None) -> View:
    """Picture of a window (H, W)."""
    from csist.plots import View

    return View(image, sensor.render(found), found, truth, f"{name}: {count_text(found)}")


def count_text(targets: Targets) -> str:
    """How many targets, in words."""
    return f"{len(targets)} target{'' if len(targets) == 1 else 's'}"


def group_row(group: Any) -> dict[str, Any]:
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


def psf_row(sigma_px: float, sigma_px_std: float, sources: int) -> dict[str, Any]:
    """What is told of a measured PSF."""
    return {"sigma_px": sigma_px, "sigma_px_std": sigma_px_std, "sources": sources}


def check_frames(stack: ImageStack, method: str) -> None:
    """Read all frames once, which finds infinities, and refuse one without a value.

    Raises:
        InputError: if one cannot be used, or the method is not for frames.
    """
    import numpy as np

    from csist.unmixing import check_frame_method

    check_frame_method(method)
    for index, frame in enumerate(stack):
        if np.isnan(frame).all():
            raise InputError(f"{stack.path}: frame {index} holds nothing but NaN, remove it")


def _solve_file(stack: ImageStack | FrameSequence, settings: Settings) -> Iterator[Block]:
    """All images of a file or sequence; what is wrong with a file's values shows before the first one is unmixed."""
    from csist.cli.unmix_sequence import solve_sequence
    from csist.io import ImageStack
    from csist.sequences import sequence_of_stack
    from csist.unmixing import WINDOW_SIDE_PX, check_frame_method, is_window

    if not isinstance(stack, ImageStack):
        if is_window(stack.shape):
            raise InputError(
                f"{stack.path} holds windows of {stack.shape[1]} x {stack.shape[2]} px, a sequence needs frames larger "
                f"than {WINDOW_SIDE_PX} px: leave out --sequence, or save them as one .npy stack"
            )
        check_frame_method(settings.method)
        yield from solve_sequence(stack, settings)
        return

    if is_window(stack.shape):
        yield from _solve_windows(stack, settings)
        return
    check_frames(stack, settings.method)
    yield from solve_sequence(sequence_of_stack(stack), settings)
