"""One file of `csist unmix`: its windows or frames, unmixed block by block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from csist.checks import InputError
from csist.cli.unmix_settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from csist.io import ImageStack
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


def _solve_windows(stack: ImageStack, settings: Settings) -> Iterator[Block]:
    """The windows of a file in blocks of about a second: progress, and no long wait after Ctrl-C."""
    import numpy as np

    from csist.methods.continuous import Continuous
    from csist.plots import View
    from csist.unmixing import window_method

    images = np.array(stack[:])  # a mapped file's array is read-only, which torch does not take
    method = window_method(
        images, stack.data.dtype, settings.sensor_for(stack, images), settings.prior, settings.method,
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
            groups = [{"frame": start + i, "group": 0, **_group_row(group)} for i, group in enumerate(known)]
        else:
            found = method.predict(block)

        def view(index: int, start: int = start, block: FloatArray = block, found: list[Targets] = found) -> View:
            model = method.sensor.render(found[index])
            truth = None if truths is None else truths[start + index]
            number = f", image {start + index}" if len(images) > 1 else ""
            return View(block[index], model, found[index], truth, f"{stack.name}{number}: {_count(found[index])}")

        yield Block(start, found, groups, int(np.isnan(block).sum()), view)
        start += len(block)
        if time.perf_counter() - begun < 0.5:
            size = min(2 * size, 4096)


def _store_truths(stack: ImageStack) -> list[Targets] | None:
    if stack.kind != "store":
        return None
    from csist.datasets.dataset import load

    return load(stack.path)["test"].targets


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
    import numpy as np

    from csist.unmixing import check_frame_method, is_window

    if is_window(stack.shape):
        yield from _solve_windows(stack, settings)
        return
    check_frame_method(settings.method)
    for index, frame in enumerate(stack):  # reading it finds infinities
        if np.isnan(frame).all():
            raise InputError(f"{stack.path}: frame {index} holds nothing but NaN, remove it")
    yield from _solve_frames(stack, settings)


def _solve_frames(stack: ImageStack, settings: Settings) -> Iterator[Block]:
    """The frames of a file, one by one."""
    from csist.plots import View
    from csist.unmixing import count_masked, frame_model, solve_frame

    sensor = settings.sensor or stack.sensor
    options = {**settings.method_options, "noise_std": settings.noise_std, "psf": settings.psf}
    for index in range(len(stack)):
        frame = stack[index]
        try:
            found, known = solve_frame(frame, sensor, settings.prior, **options)
        except InputError as error:
            raise InputError(f"frame {index}: {error}" if len(stack) > 1 else str(error)) from error
        groups = [{"frame": index, "group": group.number, **_group_row(group)} for group in known]

        def view(_: int, index: int = index, frame: FloatArray = frame, found: Targets = found) -> View:
            number = f", frame {index}" if len(stack) > 1 else ""
            model = frame_model(frame, found, sensor, settings.psf)
            return View(frame, model, found, None, f"{stack.name}{number}: {_count(found)}")

        yield Block(index, [found], groups, count_masked(frame, sensor, settings.psf), view)
