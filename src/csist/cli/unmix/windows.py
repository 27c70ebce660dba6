"""Windows of `csist unmix`, processed block by block."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from csist.checks import InputError
from csist.cli.unmix.blocks import Block, Solved, empty_text, group_row, image_name, psf_row
from csist.cli.unmix.measured import measured_windows
from csist.cli.unmix.places import WindowPlaces
from csist.cli.unmix.settings import Settings
from csist.words import counted

if TYPE_CHECKING:
    from csist._types import FloatArray
    from csist.io import ImageStack
    from csist.methods.unmixer import Unmixer
    from csist.physics.sensor import Sensor
    from csist.plots import View
    from csist.targets import Targets


def solve_windows(stack: ImageStack, settings: Settings, notes: list[str]) -> Iterator[Block]:
    """The windows of a file in blocks of about a second: progress, and no long wait after Ctrl-C."""
    from csist.create import create_method

    images, recipe, psf = settle_windows(stack, settings, notes)
    method = create_method(**recipe)
    truths = store_truths(stack)
    places = WindowPlaces.of(stack, settings)
    known = measured_windows(stack, settings, recipe["sensor"], recipe.get("noise_std"))
    start, size = 0, whole_batches(method, 32)
    while start < len(images):
        block = images[start : start + size]
        started = time.perf_counter()
        part = slice(start, start + len(block))
        solved = solve_block(
            method, recipe.get("noise_std", 0.0), block, start, stack.errors(part), places=places.part(part)
        )

        def view(index: int, start: int = start, block: FloatArray = block, solved: Solved = solved) -> View:
            truth = None if truths is None else truths[start + index]
            name = image_name(stack.name, "image", start + index, len(images))
            return window_view(name, block[index], solved.targets[index], method.sensor, truth)

        found = Block(start, solved.targets, solved.groups, solved.masked, view)
        yield found if start else replace(found, psf=psf, measured=known)
        start += len(block)
        if time.perf_counter() - started < 0.5 and size < 4096:
            size *= 2


def settle_windows(
    stack: ImageStack, settings: Settings, notes: list[str]
) -> tuple[FloatArray, dict[str, Any], dict[str, Any] | None]:
    """What depends on all windows of a file together: its noise, its PSF, what is wrong with its values.

    Args:
        stack: the windows.
        settings: of the command.
        notes: gets what the user should know.

    Returns:
        The windows (N, H, W) in counts, the arguments of `create_method`, and the summary of a measured PSF.

    Raises:
        InputError: if the windows cannot be used.
    """
    import numpy as np

    from csist.unmixing import window_recipe

    everything = np.array(stack[:])  # a mapped file's array is read-only, which torch does not take
    empty = np.flatnonzero(np.isnan(everything).all(axis=(1, 2)))
    images = np.delete(everything, empty, axis=0)
    if len(everything) and not len(images):
        raise InputError(f"{stack.path} contains only NaN: it has no pixel that can be used")
    if len(empty) and not settings.joint:  # of a sequence, such a frame has the targets of those around it
        notes.append(empty_text(empty.tolist(), "image"))
    instrument = settings.instrument
    sensor, psf = instrument.window_sensor(stack, images, stack.data.dtype), None
    noise = instrument.window_noise(stack, sensor)
    if instrument.psf_measured == "empirical":
        raise InputError("an empirical PSF is measured on whole frames: for windows use --psf auto")
    if instrument.psf_measured:
        from csist.methods.continuous.calibrate import calibrate

        measured = calibrate(images, sensor, settings.prior, noise, workers=settings.workers)
        level = measured.background if instrument.background is None else instrument.background
        sensor = replace(measured.sensor, background=level)
        psf = psf_row(measured.sigma_px, measured.sigma_px_std, measured.images_used)
    recipe = window_recipe(
        images, stack.data.dtype, sensor, settings.prior, settings.method,
        mask_nan=settings.masks, noise_std=noise, **settings.method_options,
    )  # fmt: skip
    return everything, recipe, psf


def whole_batches(method: Unmixer, windows: int) -> int:
    """Round a number of windows up to whole batches of a grid method.

    The last bits of the result of a grid method depend on the composition of its batches; blocks of whole batches make
    them reproducible.
    """
    return -(-windows // method.block_size) * method.block_size


def solve_block(
    method: Unmixer,
    noise_std: float,
    images: FloatArray,
    start: int,
    error: FloatArray | None,
    *,
    places: WindowPlaces,
) -> Solved:
    """Unmix windows, or measure the fluxes at positions that are given for them.

    Args:
        method: made by the recipe of `settle_windows`.
        noise_std: noise of a pixel in counts; only fluxes at given positions need it.
        images: (n, H, W) in counts.
        start: place of the first one in its file.
        error: (n, H, W) standard deviation of each pixel in counts, if it is known.
        places: positions given for these windows.
    """
    if places.at is None:
        return unmix_windows(method, images, start, error, named=places.start)
    return measure_windows(method.sensor, noise_std, images, places.at, error)


def measure_windows(
    sensor: Sensor, noise_std: float, images: FloatArray, at: Sequence[FloatArray], error: FloatArray | None = None
) -> Solved:
    """Fluxes at given positions of windows.

    Args:
        sensor: of the windows.
        noise_std: noise of a pixel in counts.
        images: (n, H, W) in counts.
        at: positions (m, 2), x and y in px, for each window.
        error: (n, H, W) standard deviation of each pixel in counts, if it is known.
    """
    import numpy as np

    from csist.photometry import window_fluxes

    maps = [None] * len(images) if error is None else list(error)
    targets = [
        window_fluxes(image, places, sensor, noise_std, own)
        for image, places, own in zip(images, at, maps, strict=True)
    ]
    return Solved(targets, [], int(np.isnan(images).sum()))


def unmix_windows(
    method: Unmixer,
    images: FloatArray,
    start: int,
    error: FloatArray | None = None,
    *,
    named: Sequence[FloatArray] | None = None,
) -> Solved:
    """Unmix windows.

    Args:
        method: made by the recipe of `settle_windows`.
        images: (n, H, W) in counts; there is nothing in one that is NaN everywhere.
        start: place of the first one in its file.
        error: (n, H, W) standard deviation of each pixel in counts, if it is known.
        named: positions (m, 2), x and y in px, at which targets are tried in each window; None for none.
    """
    import numpy as np

    from csist.targets import Targets

    held = np.flatnonzero(~np.isnan(images).all(axis=(1, 2))).tolist()
    known: dict[str, Any] = {} if error is None else {"error": error[held]}
    known |= {} if named is None else {"start": [named[place] for place in held]}
    answers = method.solve(images[held], **known)
    targets = [Targets.empty() for _ in images]
    for place, found in zip(held, answers.targets, strict=True):
        targets[place] = found
    groups = [
        {"frame": start + place, "group": 0, **group_row(group)}
        for place, group in zip(held, answers.groups, strict=False)  # some methods know nothing of groups
    ]
    return Solved(targets, groups, int(np.isnan(images).sum()))


def store_truths(stack: ImageStack) -> list[Targets] | None:
    """Return the true targets of the images of a store; None for other files."""
    if stack.kind != "store":
        return None
    from csist.io.store import load

    return load(stack.path)["test"].targets


def window_view(name: str, image: FloatArray, found: Targets, sensor: Sensor, truth: Targets | None) -> View:
    """Return the view of a window (H, W)."""
    import numpy as np

    from csist.plots import View

    return View(
        image,
        sensor.render(found.replace(intensity=np.nan_to_num(found.intensity))),
        found,
        truth,
        f"{name}: {counted(len(found), 'target')}",
    )
