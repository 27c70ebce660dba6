"""Unmixing of the images of a scene with the chosen methods, in a background thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np

from csist._types import FloatArray
from csist.app.facts import frame_facts, window_facts
from csist.app.scene import Scene
from csist.app.settings import Settings
from csist.frames.options import CONTRAST, CROWDED, MATCHED, MEASURED_PSFS
from csist.plots import View
from csist.scenes import ScenePrior
from csist.targets import Targets
from csist.tracks.link import Linker
from csist.unmixing import check_frame_method, check_noise_map, window_recipe
from csist.words import counted

Result = TypeVar("Result")

FRAME_SCORES = {
    CONTRAST: "probability of a target",
    MATCHED: "rank from 0 to 1",
    CROWDED: "probability of a target within 0.25 px",
}
"""What the score of a target in a frame is, by the detector."""

PATIENCE_S = 0.1
"""Interval in seconds at which the watching thread checks the stop signal."""
UPDATE_S = 0.2
"""Shortest time in seconds between two progress reports that are passed on."""


class StoppedError(Exception):
    """The user has cancelled the work or left the page."""


@dataclass(frozen=True)
class Progress:
    """Progress of a method, or of another part of the work.

    Args:
        method: name of the method or part.
        what: current step in a few words.
        done: images done; a part of one counts as a fraction.
        total: images in all.
    """

    method: str
    what: str
    done: float
    total: float


Report = Callable[[Progress], None]
"""Callback for progress; it raises `StoppedError` to end the work."""


@dataclass(frozen=True, eq=False)
class Answer:
    """Result of one method on one image.

    Args:
        method: name of the method.
        place: index of the image in the scene.
        view: image, model, detections and truth, and posterior samples if the method has them.
        score: what the score of a target is.
        count_probability: probability of the reported count of each group, or of its extended source or streak, by the
            number of the group.
        facts: what the image was unmixed with, in sentences.
        empty_reason: why there are no targets; empty where there are some, or where the method does not say.
    """

    method: str
    place: int
    view: View
    score: str = ""
    count_probability: Mapping[int, float] = field(default_factory=dict)
    facts: tuple[str, ...] = ()
    empty_reason: str = ""

    @property
    def targets(self) -> Targets:
        """Detections of the view."""
        return self.view.targets


def unmix_scene(scene: Scene, settings: Settings, report: Report) -> Iterator[Answer]:
    """Yield the results of all images, image by image; unsuitable settings fail before the first one.

    In a sequence of frames, the targets of each method get the numbers of their tracks.

    Raises:
        InputError: if a method cannot unmix these images.
    """
    prepare = _window_solver if scene.windows else _frame_solver
    solvers = {name: prepare(scene, settings, name, report) for name in settings.methods}
    linkers = {name: Linker() for name in solvers} if scene.sequence else {}
    total = len(scene.images)
    for place in range(total):
        for name, solve in solvers.items():
            report(Progress(name, f"image {scene.first + place}", place, total))
            answer = _above(solve(place), settings.min_score)
            if name in linkers:
                tracks = linkers[name].update(place, answer.targets)
                view = replace(answer.view, targets=answer.targets.replace(track=tracks))
                answer = replace(answer, view=view)
            report(Progress(name, counted(place + 1, "image"), place + 1, total))
            yield answer


def _above(answer: Answer, least: float) -> Answer:
    """Return a result without the targets below a score."""
    if least == 0.0:
        return answer
    kept = answer.targets[~(answer.targets.score < least)]
    lost = len(answer.targets) - len(kept)
    reason = answer.empty_reason
    if lost and not len(kept):
        reason = f"{counted(lost, 'target')} with a score below {least:g}"
    return replace(answer, view=replace(answer.view, targets=kept), empty_reason=reason)


def _prior(settings: Settings) -> ScenePrior | None:
    return None if settings.prior == "flat" else ScenePrior.named(settings.prior)


def _window_solver(scene: Scene, settings: Settings, name: str, _: Report) -> Callable[[int], Answer]:
    # Imported here, because the first use compiles the solver or loads its compiled form.
    from csist.create import create_method
    from csist.methods.table import abilities

    can = abilities(name)
    check_noise_map(name, scene.errors is not None)
    options: dict[str, Any] = {"mode": settings.mode} if can.modes else {"ratio": settings.ratio}
    recipe = window_recipe(
        scene.images, scene.images.dtype, scene.sensor, _prior(settings) if can.prior else None, name,
        mask_nan=True, noise_std=scene.noise_std, **options,
    )  # fmt: skip
    method = create_method(**recipe)
    noise_std = recipe.get("noise_std")
    noise = np.asarray(recipe["sensor"].pixel_noise if noise_std is None else noise_std)
    facts = window_facts(recipe["sensor"], noise_std, scene.psf_known)

    def solve(place: int) -> Answer:
        image = scene.images[place]
        known = {} if scene.errors is None else {"error": scene.errors[place][None]}
        found, groups = method.solve(image[None], keep_samples=True, **known)
        cloud = _cloud([group.samples for group in groups if group.samples is not None]) if groups else None
        truth = None if scene.truths is None else scene.truths[place]
        used = noise if scene.errors is None else scene.errors[place]
        view = View(image, method.sensor.render(found[0]), found[0], truth, cloud=cloud, noise=used)
        chances = {int(number): _chance(group) for group in groups for number in found[0].group}
        return Answer(name, place, view, can.score, chances, facts)

    return solve


def _frame_solver(scene: Scene, settings: Settings, name: str, report: Report) -> Callable[[int], Answer]:
    from csist.frames import FrameOptions, solve_frame

    check_frame_method(name)
    options = FrameOptions(
        sensor=scene.sensor, sensor_has_psf=scene.sensor_has_psf, prior=_prior(settings), mode=settings.mode,
        noise_std=scene.noise_std, psf=settings.psf if settings.psf in MEASURED_PSFS else settings.stated_psf,
        false_alarm_rate=settings.false_alarm_rate, keep_samples=True,
    )  # fmt: skip

    def solve(place: int) -> Answer:
        def progress(done: int, total: int) -> None:
            what = f"image {scene.first + place}, blob {done} of {total}"
            report(Progress(name, what, place + done / total, len(scene.images)))

        error = None if scene.errors is None else scene.errors[place]
        result = solve_frame(scene.images[place], options, progress, error)
        cloud = _cloud([samples for group in result.groups for samples in group.samples])
        view = View(result.image, result.model(), result.targets, cloud=cloud, noise=result.noise)
        chances = {group.number: _chance(group) for group in result.groups}
        return Answer(
            name, place, view, FRAME_SCORES[result.detector], chances,
            facts=frame_facts(result, scene.noise_std is not None or error is not None),
            empty_reason=result.empty_reason,
        )  # fmt: skip

    return solve


def _chance(group: Any) -> float:
    """Return the probability of what is reported of a group, a count or a wide source; NaN if it is not estimated."""
    if getattr(group, "sources", ()):
        return float(max(group.extended_probability, group.streak_probability))
    inside = group.count < len(group.count_probability)
    return float(group.count_probability[group.count]) if inside else float("nan")


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

    def report(progress: Progress) -> None:
        if stop.is_set():
            raise StoppedError
        items.put(progress)

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
                # The last step of a method is always passed on.
                if now - last < UPDATE_S and item.done < item.total:
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
