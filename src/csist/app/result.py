"""Result of a run: the answers of the methods, and the figures drawn from them so far."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from csist import plots
from csist._types import FloatArray
from csist.app.scene import Scene
from csist.app.settings import Settings
from csist.app.tables import by_group
from csist.app.work import Answer, Progress, Report, unmix_scene
from csist.words import counted

FIRST_GROUPS = 6
"""Number of groups of a frame that are drawn before any is asked for."""

_DRAWING = threading.Lock()
"""Matplotlib's settings are global to the process, so that figures of different users are drawn one at a time."""


@dataclass(frozen=True)
class Picture:
    """Figure on the page.

    Args:
        png: bytes of the PNG file.
        caption: caption of the figure.
        text: alternative text.
    """

    png: bytes = field(repr=False)
    caption: str
    text: str


@dataclass
class Result:
    """Result of a run, which grows with each answer.

    Args:
        scene: images that are unmixed.
        settings: settings of the run.
        version: version of the user's files.
        answers: results so far, image by image.
        finished: whether the run has ended.
    """

    scene: Scene
    settings: Settings
    version: int = 0
    answers: list[Answer] = field(default_factory=list)
    finished: bool = False
    _drawn: dict[tuple[str, int, int], Picture] = field(default_factory=dict, repr=False)

    @property
    def by_method(self) -> dict[str, list[Answer]]:
        """Results of each method that has any, in the order in which they were chosen."""
        found = {name: [each for each in self.answers if each.method == name] for name in self.settings.methods}
        return {name: own for name, own in found.items() if own}

    def at(self, place: int) -> list[Answer]:
        """Return the results of all methods on one image."""
        return [answer for answer in self.answers if answer.place == place]

    def key(self, answer: Answer) -> str:
        """Return the key of a result's picture, which the rows of its targets refer to."""
        return f"{self.settings.methods.index(answer.method)}-{answer.place}"

    def title(self, answer: Answer) -> str:
        """Return the caption of a result."""
        name = self.scene.image_name(answer.place)
        return f"{name}: {counted(len(answer.targets), 'target')} by {answer.method}"

    def groups(self, place: int) -> dict[int, str]:
        """Return the groups of an image of frames by their number, each with its letter and number of targets.

        A window is one group; it has none here.
        """
        if self.scene.windows:
            return {}
        numbers = [answer.targets.group for answer in self.at(place)]
        found, counts = np.unique(np.concatenate(numbers or [np.empty(0, np.int64)]), return_counts=True)
        return {
            int(number): f"{plots.group_letter(int(number))}: {counted(int(count), 'target')}"
            for number, count in zip(found, counts, strict=True)
            if number >= 0
        }

    def tracks(self, method: str) -> dict[int, FloatArray]:
        """Return x, y (n, 2) of the targets of each track of a method, by its number; single ones are left out."""
        targets = [by_group(answer.targets) for answer in self.by_method[method]]
        number = np.concatenate([each.track for each in targets])
        places = np.concatenate([np.stack([each.x, each.y], axis=1) for each in targets])
        found, counts = np.unique(number[number >= 0], return_counts=True)
        return {int(one): places[number == one] for one in found[counts > 1]}

    def window_picture(self, answer: Answer) -> Picture:
        """Draw the result of a window in four panels."""
        title = self.title(answer)
        return self._picture(
            (answer.method, answer.place, -1),
            answer.view,
            title,
            f"{title}: image, close-up, model and residual. The table lists the targets.",
        )

    def group_pictures(self, place: int, numbers: Sequence[int]) -> Iterator[Picture]:
        """Draw groups of a frame, in four panels each."""
        for answer in self.at(place):
            for number in numbers:
                if not (answer.targets.group == number).any():
                    continue
                view = plots.view_of_group(answer.view, number)
                count = int((answer.targets.group == number).sum())
                caption = f"Group {plots.group_letter(number)}: {counted(count, 'target')}"
                text = f"{caption}: image, close-up, model and residual."
                yield self._picture((answer.method, place, number), view, caption, text)

    def _picture(self, key: tuple[str, int, int], view: plots.View, caption: str, text: str) -> Picture:
        if key not in self._drawn:
            with _DRAWING:
                self._drawn[key] = Picture(plots.figure_png(plots.group_panel(view)), caption, text)
        return self._drawn[key]

    def sheet(self, place: int, numbers: Sequence[int]) -> bytes | None:
        """Return one PNG with all figures; of a frame the whole frame and these groups. None without answers."""
        if not self.answers:
            return None
        if self.scene.windows:
            pictures = [self.window_picture(answer).png for answer in self.answers]
            return plots.contact_sheet(pictures, columns=max(len(self.by_method), 2))
        answer = self.at(place)[0]
        shown = [number for number in numbers if (answer.targets.group == number).any()]
        views = [plots.view_of_group(answer.view, number) for number in shown]
        with _DRAWING:
            whole = plots.figure_png(plots.frame_overview(answer.view, views))
        return plots.contact_sheet([whole, *(each.png for each in self.group_pictures(place, numbers))], columns=2)

    def first_groups(self, place: int) -> list[int]:
        """Return the groups of a frame that are drawn before any is asked for: the most significant ones."""
        return list(self.groups(place))[:FIRST_GROUPS]


def results(scene: Scene, settings: Settings, report: Report, version: int = 0) -> Iterator[Result]:
    """Yield the result as it grows: after each answer, after each figure, and at the end.

    Raises:
        InputError: if a method cannot unmix these images.
        StoppedError: if `report` raises it.
    """
    result = Result(scene, settings, version)
    for answer in unmix_scene(scene, settings, report):
        result.answers.append(answer)
        if scene.windows:
            result.window_picture(answer)
        yield result
    if not scene.windows:
        groups = result.first_groups(0)
        for number, _ in enumerate(result.group_pictures(0, groups), 1):
            report(Progress("pictures", counted(number, "picture"), number, len(groups)))
    result.finished = True
    yield result
