"""One file of `csist unmix`: its windows or frames, unmixed block by block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from csist.checks import InputError
from csist.cli.unmix_settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from csist.io import ImageStack
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


def _solve_windows(stack: ImageStack, settings: Settings) -> Iterator[Block]:
    """The windows of a file in blocks of about a second: progress, and no long wait after Ctrl-C."""
    import numpy as np

    from csist.methods.continuous import Continuous
    from csist.plots import View
    from csist.unmixing import window_method

    images = np.array(stack[:])  # a mapped file's array is read-only, which torch does not take
    sensor, psf = settings.sensor_for(stack, images), None
    if settings.psf_measured:
        from csist.methods.continuous.calibrate import calibrate

        found_out = calibrate(images, sensor, settings.prior, settings.noise_for(stack), workers=settings.workers)
        level = found_out.background if settings.background is None else settings.background
        sensor = replace(found_out.sensor, background=level)
        psf = psf_row(found_out.sigma_px, found_out.sigma_px_std, found_out.images_used)
    method = window_method(
        images, stack.data.dtype, sensor, settings.prior, settings.method,
        mask_nan=settings.mask_nan, noise_std=settings.noise_for(stack), **settings.method_options,
    )  # fmt: skip
    truths = _store_truths(stack)
    start, size = 0, 32
    while start < len(images):
        block = images[start : start + size]
        begun = time.perf_counter()
        groups: list[dict[str, Any]] = []
        if isinstance(method, Continuous):
            found, known = method.solve(block)
            groups = [{"frame": start + i, "group": 0, **group_row(group)} for i, group in enumerate(known)]
        else:
            found = method.predict(block)

        def view(index: int, start: int = start, block: FloatArray = block, found: list[Targets] = found) -> View:
            model = method.sensor.render(found[index])
            truth = None if truths is None else truths[start + index]
            number = f", image {start + index}" if len(images) > 1 else ""
            return View(block[index], model, found[index], truth, f"{stack.name}{number}: {count_text(found[index])}")

        yield Block(start, found, groups, int(np.isnan(block).sum()), view, psf=psf if start == 0 else None)
        start += len(block)
        if time.perf_counter() - begun < 0.5:
            size = min(2 * size, 4096)


def _store_truths(stack: ImageStack) -> list[Targets] | None:
    if stack.kind != "store":
        return None
    from csist.datasets.dataset import load

    return load(stack.path)["test"].targets


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


def _check_frames(stack: ImageStack) -> None:
    """Read all frames once, which finds infinities, and refuse one without a value."""
    import numpy as np

    for index, frame in enumerate(stack):
        if np.isnan(frame).all():
            raise InputError(f"{stack.path}: frame {index} holds nothing but NaN, remove it")


def solve_file(stack: ImageStack | FrameSequence, settings: Settings) -> Iterator[Block]:
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
    check_frame_method(settings.method)
    _check_frames(stack)
    yield from solve_sequence(sequence_of_stack(stack), settings)
