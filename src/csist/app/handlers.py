"""Answers to the events of the page: from a session and the values of the controls to updates of components."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import gradio as gr

from csist.app import page
from csist.app.form import NOTHING_HELD, method_choices, open_sections, show_groups, show_shapes
from csist.app.result import Result, results
from csist.app.scene import Scene, make_scene
from csist.app.sessions import Sessions
from csist.app.settings import LIMITS, Settings, from_query, in_words
from csist.app.uploads import describe_upload, open_upload
from csist.app.work import Progress, Report, StoppedError, watched
from csist.checks import InputError
from csist.files import one_line

logger = logging.getLogger(__name__)

OLD = "The settings have changed: these results are of the earlier ones. Press Unmix to renew them."

FRAMES_OF_VIDEO = 10
"""Number of frames of a video that are unmixed unless the user says otherwise."""


def settings_of(values: tuple[Any, ...]) -> Settings:
    """Return the settings of the controls' values, in the order of the settings.

    Raises:
        InputError: if a value cannot be used.
    """
    return Settings(**{each.name: value for each, value in zip(fields(Settings), values, strict=True)})


def sentence(error: Exception) -> str:
    """Return an error message as a sentence with the labels of the page."""
    text = in_words(one_line(error))
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


class Handlers:
    """Event handlers.

    Args:
        sessions: sessions of the users.
    """

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def restore(self, parameters: dict[str, str]) -> list[Any]:
        """Restore the settings of a link: controls, groups, sections, PSF shapes, status, run button."""
        status = page.notice("Ready.")
        try:
            settings = from_query(parameters)
            if settings.query():
                status = page.notice("Settings restored from the link.")
        except InputError as error:
            settings, status = Settings(), page.complaint(f"The link cannot be used: {error}.")
        values: dict[str, Any] = {each.name: getattr(settings, each.name) for each in fields(Settings)}
        values["methods"] = list(settings.methods)
        for name in ("frame", "frames"):
            values[name] = gr.update(value=values[name], maximum=max(values[name], LIMITS[name][0] + 1))
        return [
            *values.values(),
            *show_groups(settings.source, 2 if settings.changed(("frame", "frames")) else 1),
            *open_sections(settings),
            *show_shapes(settings.psf),
            status,
            gr.update(interactive=True),
        ]

    def watch(self, session: str, values: tuple[Any, ...]) -> list[Any]:
        """Follow a change of the settings: mark of old results, preview, choice of methods."""
        result: Result | None = self.sessions.recall(session)
        try:
            settings = settings_of(values)
        except InputError as error:
            return [page.complaint(sentence(error)), gr.update(), gr.update()]
        version = self.sessions.version(session)
        same_files = result is not None and result.version == version
        if result is not None and same_files and result.settings == settings:
            return ["", "", gr.update()]
        mark = "" if result is None else page.outdated(OLD)
        same_image = result is not None and same_files and result.settings.same_image(settings)
        try:
            scene = make_scene(settings, self.sessions.files(session))
        except InputError as error:
            waiting = settings.source == "upload" and self.sessions.files(session).image is None
            return [mark if waiting else mark + page.complaint(sentence(error)), "", gr.update()]
        mark += _objection(scene, settings)
        choices = gr.update(choices=method_choices(frames=not scene.windows))
        return [mark, gr.update() if same_image else page.preview(scene), choices]

    def settle(self, session: str, values: tuple[Any, ...]) -> list[Any]:
        """Follow what has changed during a run, as `watch`; nothing if the run has no result."""
        return [gr.update()] * 3 if self.sessions.recall(session) is None else self.watch(session, values)

    def receive(self, session: str, received: str) -> list[Any]:
        """Accept an uploaded image: upload area, description, image sliders, source, groups, status."""
        path = self.sessions.keep(session, Path(received))
        try:
            stack = open_upload(path)
        except InputError as error:
            self.sessions.forget(session, "image")
            held, status = NOTHING_HELD, page.complaint(sentence(error))
            return [None, held, gr.update(), gr.update(), "upload", *show_groups("upload"), status]
        count = len(stack)
        held = page.notice(describe_upload(stack)) + "".join(map(page.notice, stack.notes))
        most = LIMITS["frames"][1]
        first = gr.update(value=0, maximum=max(count - 1, 1))
        number = min(FRAMES_OF_VIDEO, count) if stack.kind == "video" else 1
        frames = gr.update(value=number, maximum=max(min(count, most), 2))
        return [None, held, first, frames, "upload", *show_groups("upload", count), page.notice("Ready.")]

    def receive_map(self, session: str, kind: str, received: str | None) -> str:
        """Accept or remove an error map or a mask; return the status."""
        if received is None:
            self.sessions.forget(session, kind)
            return page.notice("Ready.")
        path = self.sessions.keep(session, Path(received), kind)
        try:
            stack = open_upload(path)
        except InputError as error:
            self.sessions.forget(session, kind)
            return page.complaint(sentence(error))
        return page.notice(f"{describe_upload(stack)} is used with your own file.")

    def unmix(self, session: str, values: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
        """Yield updates of the page during the work, by the names of the components."""
        signal = self.sessions.begin(session)
        self.sessions.remember(session, None)
        yield {
            **_busy(True),
            "status": page.progress_bars([Progress("image", "reading", 0, 1)]),
            **dict.fromkeys(("mark", "preview", "pictures", "close_ups", "tables", "files"), ""),
            "asked": gr.update(visible=False),
            "shown": gr.update(visible=False),
        }
        status = page.notice("Done.")
        try:
            settings = settings_of(values)
            version = self.sessions.version(session)
            scene = make_scene(settings, self.sessions.files(session))

            def work(report: Report) -> Iterator[Result]:
                return results(scene, settings, report, version)

            steps = page.waiting(settings)
            for event in watched(work, signal):
                if isinstance(event, Progress):
                    steps[event.method] = event
                    yield {"status": page.progress_bars(steps.values())}
                elif event.finished:
                    self.sessions.remember(session, event)
                    yield self._finished(event)
                else:
                    yield {"tables": page.tables(event)}
        except StoppedError:
            status = page.notice("Cancelled.")
        except InputError as error:
            status = page.complaint(sentence(error))
        except MemoryError:
            status = page.complaint("Out of memory: use a smaller image.")
        except Exception as error:
            logger.exception("unmixing failed")
            text = f"Internal error, please report it with the output of the server: {type(error).__name__}."
            status = page.complaint(text)
        yield {**_busy(False), "status": status}

    def _finished(self, result: Result) -> dict[str, Any]:
        scene, chosen = result.scene, result.first_groups(0)
        first, last = scene.first, scene.first + len(scene.images) - 1
        return {
            "pictures": page.pictures(result),
            "close_ups": page.close_ups(result.group_pictures(0, chosen)),
            "tables": page.tables(result),
            "files": page.downloads(result, 0, chosen),
            "asked": _choice_of_groups(result, 0, chosen),
            "shown": gr.update(visible=scene.sequence, minimum=first, maximum=max(last, first + 1), value=first),
        }

    def show(self, session: str, number: float) -> dict[str, Any]:
        """Show another image of a sequence of frames."""
        result: Result | None = self.sessions.recall(session)
        if result is None or not result.scene.sequence:
            return {}
        place = min(max(int(number) - result.scene.first, 0), len(result.scene.images) - 1)
        chosen = result.first_groups(place)
        return {
            "pictures": page.pictures(result, place),
            "close_ups": page.close_ups(result.group_pictures(place, chosen)),
            "files": page.downloads(result, place, chosen),
            "asked": _choice_of_groups(result, place, chosen),
        }

    def ask(self, session: str, groups: list[int], number: float) -> dict[str, Any]:
        """Draw the groups that are asked for."""
        result: Result | None = self.sessions.recall(session)
        if result is None or result.scene.windows:
            return {}
        place = min(max(int(number) - result.scene.first, 0), len(result.scene.images) - 1)
        return {
            "close_ups": page.close_ups(result.group_pictures(place, groups)),
            "files": page.downloads(result, place, groups),
        }


def _busy(working: bool) -> dict[str, Any]:
    return {"run": gr.update(interactive=not working), "cancel": gr.update(interactive=working)}


def _choice_of_groups(result: Result, place: int, chosen: list[int]) -> Any:
    choices = [(label, number) for number, label in result.groups(place).items()]
    return gr.update(choices=choices, value=chosen, visible=bool(choices))


def _objection(scene: Scene, settings: Settings) -> str:
    """Render why the methods cannot unmix these images; empty if they can."""
    from csist.unmixing import check_frame_method

    if scene.windows:
        return ""
    try:
        for name in settings.methods:
            check_frame_method(name)
    except InputError as error:
        return page.complaint(sentence(error))
    return ""
