"""Unmixing of the images of a scene with the chosen methods, in a background thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np

from csist._types import FloatArray
from csist.app.scene import Scene
from csist.app.settings import Settings
from csist.plots import View
from csist.scenes import ScenePrior
from csist.targets import Targets
from csist.unmixing import check_frame_method, window_recipe

Result = TypeVar("Result")

Report = Callable[[str, float, float], None]
"""Callback with a description, the amount done and the total amount; it raises `StoppedError` to end the work."""

PATIENCE_S = 0.1
"""Interval in seconds at which the watching thread checks the stop signal."""
UPDATE_S = 0.2
"""Shortest time in seconds between two progress reports that are passed on."""


class StoppedError(Exception):
    """The user has cancelled the work or left the page."""


@dataclass(frozen=True)
class Progress:
    """Progress of the work."""

    what: str
    done: float
    total: float


@dataclass(frozen=True, eq=False)
class Answer:
    """Result of one method on one image.

    Args:
        method: name of the method.
        place: index of the image in the scene.
        view: image, model, detections and truth, and posterior samples if the method has them.
        noise: standard deviation of a pixel in counts, (H, W) or a scalar array; None if it is not known.
    """

    method: str
    place: int
    view: View
    noise: FloatArray | None = None

    @property
    def targets(self) -> Targets:
        """Detections of the view."""
        return self.view.targets


def count_text(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count_text(1, "target"), count_text(0, "target")
    ('1 target', '0 targets')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def unmix_scene(scene: Scene, settings: Settings, report: Report) -> Iterator[Answer]:
    """Yield the results of all images, image by image; unsuitable settings fail before the first one.

    Raises:
        InputError: if a method cannot unmix these images.
    """
    prepare = _window_solver if scene.windows else _frame_solver
    solvers = {name: prepare(scene, settings, name, report) for name in settings.methods}
    total = len(scene.images) * len(solvers)
    for done, (place, name) in enumerate((place, name) for place in range(len(scene.images)) for name in solvers):
        report(f"{name}, image {scene.first + place}", done, total)
        yield solvers[name](place)


def _prior(settings: Settings) -> ScenePrior | None:
    return None if settings.prior == "flat" else ScenePrior.named(settings.prior)


def _window_solver(scene: Scene, settings: Settings, name: str, _: Report) -> Callable[[int], Answer]:
    # Imported here, because the first use compiles the solver or loads its compiled form.
    from csist.create import create_method
    from csist.methods.table import abilities

    can = abilities(name)
    options: dict[str, Any] = {"mode": settings.mode} if can.modes else {"ratio": settings.ratio}
    recipe = window_recipe(
        scene.images, scene.images.dtype, scene.sensor, _prior(settings) if can.prior else None, name,
        mask_nan=True, noise_std=scene.noise_std, **options,
    )  # fmt: skip
    method = create_method(**recipe)
    noise_std = recipe.get("noise_std")
    noise = np.asarray(recipe["sensor"].pixel_noise if noise_std is None else noise_std)

    def solve(place: int) -> Answer:
        image = scene.images[place]
        found, groups = method.solve(image[None], keep_samples=True)
        cloud = _cloud([group.samples for group in groups if group.samples is not None]) if groups else None
        truth = None if scene.truths is None else scene.truths[place]
        view = View(image, method.sensor.render(found[0]), found[0], truth, cloud=cloud)
        return Answer(name, place, view, noise)

    return solve


def _frame_solver(scene: Scene, settings: Settings, name: str, report: Report) -> Callable[[int], Answer]:
    from csist.frames import FrameOptions, solve_frame

    check_frame_method(name)
    options = FrameOptions(
        sensor=scene.sensor, prior=_prior(settings), mode=settings.mode, noise_std=scene.noise_std,
        psf=settings.psf_sigma, keep_samples=True,
    )  # fmt: skip

    def progress(done: int, total: int) -> None:
        report(f"{name}, blob {done} of {total}", done, total)

    def solve(place: int) -> Answer:
        result = solve_frame(scene.images[place], options, progress)
        cloud = _cloud([samples for group in result.groups for samples in group.samples])
        view = View(result.image, result.model(), result.targets, cloud=cloud)
        return Answer(name, place, view, result.noise)

    return solve


def _cloud(samples: list[FloatArray]) -> FloatArray:
    """Return the positions (n, 2) of posterior samples (m, count, 3)."""
    return np.concatenate([np.empty((0, 2)), *(each[..., :2].reshape(-1, 2) for each in samples)])


def watched(work: Callable[[Report], Iterator[Result]], stop: threading.Event) -> Iterator[Result | Progress]:
    """Run `work` in a thread, and yield its results and the progress between them.

    Args:
        work: function that takes a `Report` and yields results.
        stop: signal that ends the work; also set when the caller stops iterating.

    Raises:
        StoppedError: soon after `stop` is set; the thread may still finish its step.
        Exception: any exception raised by `work`.
    """
    items: SimpleQueue[Any] = SimpleQueue()
    ended = object()

    def report(what: str, done: float, total: float) -> None:
        if stop.is_set():
            raise StoppedError
        items.put(Progress(what, done, total))

    def run() -> None:
        try:
            for result in work(report):
                items.put(result)
                if stop.is_set():
                    return
            items.put(ended)
        except Exception as error:  # re-raised in the watching thread
            items.put(error)

    threading.Thread(target=run, daemon=True, name="csist-unmix").start()
    last = -UPDATE_S
    try:
        while (item := _next_item(items, stop)) is not ended:
            if isinstance(item, Progress):
                now = time.monotonic()
                if now - last < UPDATE_S:
                    continue
                last = now
            yield item
    finally:
        stop.set()


def _next_item(items: SimpleQueue[Any], stop: threading.Event) -> Any:
    """Return the next item from the thread; an exception in place of an item is raised.

    Raises:
        StoppedError: once `stop` is set.
    """
    while not stop.is_set():
        try:
            item = items.get(timeout=PATIENCE_S)
        except Empty:
            continue
        if isinstance(item, Exception):
            raise item
        return item
    raise StoppedError
