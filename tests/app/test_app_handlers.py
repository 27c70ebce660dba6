"""Events of the page in an order that a quick user can produce, without a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="needs the extra `app`")

from csist.app.handlers import OLD, Handlers
from csist.app.sessions import Sessions
from csist.app.settings import Settings

FAST = {"source": "upload", "mode": "fast", "methods": ("ista",)}


def values(**changes: Any) -> tuple[Any, ...]:
    """Values of the controls, in the order of the settings."""
    settings = Settings(**{**FAST, **changes})
    return tuple(getattr(settings, each.name) for each in fields(Settings))


@pytest.fixture
def handlers(tmp_path: Path) -> Handlers:
    return Handlers(Sessions(tmp_path / "sessions"))


def received(folder: Path, seed: int) -> str:
    """A window as the server has received it."""
    path = folder / f"received-{seed}" / "window.npy"
    path.parent.mkdir()
    np.save(path, np.random.default_rng(seed).normal(0.0, 1.0, (9, 9)))
    return str(path)


def nothing() -> None:
    pass


def run(handlers: Handlers, meanwhile: Callable[[], Any] = nothing) -> None:
    """Unmix; `meanwhile` happens when the first result is there and the run is not over."""
    parts = handlers.unmix("visitor", values())
    for update in parts:
        if update.get("tables"):
            meanwhile()
            meanwhile = nothing
    assert handlers.sessions.recall("visitor") is not None


def test_results_of_the_settings_of_the_form_have_no_mark(handlers: Handlers, tmp_path: Path) -> None:
    handlers.receive("visitor", received(tmp_path, 0))
    run(handlers)
    mark, preview, _ = handlers.settle("visitor", values())
    assert (mark, preview) == ("", "")


def test_settings_changed_during_a_run_mark_its_results(handlers: Handlers, tmp_path: Path) -> None:
    handlers.receive("visitor", received(tmp_path, 0))
    run(handlers, lambda: handlers.watch("visitor", values(ratio=5)))
    assert OLD in handlers.settle("visitor", values(ratio=5))[0]


def test_a_file_given_during_a_run_marks_its_results(handlers: Handlers, tmp_path: Path) -> None:
    handlers.receive("visitor", received(tmp_path, 0))
    run(handlers, lambda: handlers.receive("visitor", received(tmp_path, 1)))
    mark, preview, _ = handlers.settle("visitor", values())
    assert OLD in mark and "window.npy, not unmixed yet" in preview


def test_a_run_without_a_result_leaves_the_page(handlers: Handlers) -> None:
    *_, last = handlers.unmix("visitor", values())
    assert "there is no file yet" in last["status"].lower()
    assert all("value" not in update for update in handlers.settle("visitor", values()))


def test_a_second_run_ends_the_first(handlers: Handlers, tmp_path: Path) -> None:
    handlers.receive("visitor", received(tmp_path, 0))
    first = handlers.unmix("visitor", values())
    next(first)
    second = handlers.unmix("visitor", values())
    next(second)
    assert "Cancelled." in list(first)[-1]["status"]
    assert "Done." in list(second)[-1]["status"]
