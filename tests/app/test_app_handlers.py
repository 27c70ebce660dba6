"""Answers to the events of the page: the latest request counts, in whatever order the server works on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csist.app.scene import Scene
from csist.app.sessions import Sessions
from csist.app.settings import Settings

pytest.importorskip("gradio", reason="needs the extra `app`")

from csist.app import handlers as module
from csist.app.handlers import NO_CHANGE, Handlers

SETTINGS = Settings(source="build")


def values_of(settings: Settings) -> tuple[Any, ...]:
    return tuple(getattr(settings, each.name) for each in fields(Settings))


@pytest.fixture
def handlers(tmp_path: Path) -> Handlers:
    return Handlers(Sessions(tmp_path))


def received(folder: Path, name: str, images: int) -> Path:
    """A file in a folder of its own, as a server receives it."""
    path = folder / "received" / name
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.ones((images, 30, 40)))
    return path


def test_an_answer_to_an_earlier_request_changes_nothing(handlers: Handlers) -> None:
    mark, preview, _ = handlers.watch("one", values_of(replace(SETTINGS, count=4)), 2)
    assert mark == "" and "group, not unmixed yet" in preview
    assert handlers.watch("one", values_of(replace(SETTINGS, count=3)), 1) == NO_CHANGE
    assert handlers.watch("two", values_of(SETTINGS), 1) != NO_CHANGE


def test_an_answer_that_is_overtaken_while_it_is_made_changes_nothing(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    make: Callable[..., Scene] = module.make_scene

    def overtaken(*arguments: Any) -> Scene:
        handlers.sessions.arrive("one", "settings", 2)
        return make(*arguments)

    monkeypatch.setattr(module, "make_scene", overtaken)
    assert handlers.watch("one", values_of(SETTINGS), 1) == NO_CHANGE


def test_no_answer_to_an_earlier_request_reaches_a_run(handlers: Handlers) -> None:
    run = handlers.unmix("one", values_of(SETTINGS), 5)
    assert next(run)["preview"] == ""
    run.close()
    assert handlers.watch("one", values_of(SETTINGS), 4) == NO_CHANGE
    assert handlers.show("one", 0, 4) == {} and handlers.ask("one", [0], 0, 4) == {}
    handlers.sessions.end("one")
    assert handlers.watch("one", values_of(SETTINGS), 1) != NO_CHANGE


def test_settings_that_changed_during_a_run_mark_its_results(handlers: Handlers) -> None:
    settings = replace(SETTINGS, mode="fast")
    assert handlers.settle("one", values_of(settings), 1) == NO_CHANGE  # no results
    list(handlers.unmix("one", values_of(settings), 2))
    mark, preview, _ = handlers.settle("one", values_of(settings), 3)
    assert mark == "" and preview == ""
    mark, preview, _ = handlers.settle("one", values_of(replace(settings, prior="csist-100k")), 4)
    assert "earlier" in mark and preview == ""
    mark, preview, _ = handlers.settle("one", values_of(replace(settings, count=3)), 5)
    assert "earlier" in mark and "not unmixed yet" in preview
    mark, preview, _ = handlers.watch("one", values_of(settings), 6)
    assert mark == "" and preview == ""


def test_a_link_sets_only_what_it_states(handlers: Handlers) -> None:
    def changes(parameters: dict[str, str]) -> dict[str, Any]:
        answers = handlers.restore(parameters)[: len(fields(Settings))]
        stated = zip(fields(Settings), answers, strict=True)
        return {each.name: answer["value"] for each, answer in stated if "value" in answer}

    assert changes({}) == {}
    assert changes({"seed": "3", "frames": "4", "methods": "ista"}) == {"seed": 3, "frames": 4, "methods": ["ista"]}


def test_sliders_of_images_come_with_a_file_of_several(handlers: Handlers, tmp_path: Path) -> None:
    cleared, first, frames, held, _ = handlers.receive("one", str(received(tmp_path, "stack.npy", 12)))
    assert cleared is None and "stack.npy: 12 images of 40 x 30 px" in held and "csist-several" in held
    assert (first["value"], first["maximum"], frames["value"], frames["maximum"]) == (0, 11, 1, 12)
    *_, held, _ = handlers.receive("one", str(received(tmp_path, "single.npy", 1)))
    assert "one image" in held and "csist-several" not in held
