"""The page: form on the left, results on the right, and the events that connect them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from csist.app import page
from csist.app.form import MAPS, build_form, show_groups, show_shapes
from csist.app.handlers import Handlers
from csist.app.sessions import Sessions

TITLE = "csist: point targets in a blurred infrared blob"

SIMULTANEOUS = 4
"""Number of users whose images are unmixed at the same time; others wait in a queue."""

LIGHT = 16
"""Number of users whose controls are followed at the same time."""

FONTS = ("system-ui", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif")
MONOSPACE_FONTS = ("ui-monospace", "Consolas", "Menlo", "monospace")


def make_theme() -> gr.themes.Base:
    """Return a theme that uses fonts of the user's machine, so that none is loaded."""
    theme = gr.themes.Default(primary_hue="blue", neutral_hue="zinc", font=FONTS, font_mono=MONOSPACE_FONTS)
    # The contrast of the defaults is too low.
    dark = "*primary_700"
    return theme.set(
        button_primary_background_fill=dark,
        button_primary_background_fill_dark=dark,
        block_info_text_color="*neutral_600",
        block_title_text_color="*neutral_700",
    )


def build(sessions: Sessions, opened: Callable[[], None] = lambda: None) -> gr.Blocks:
    """Build the page with its events.

    Args:
        sessions: sessions of the users.
        opened: called each time a page has loaded.
    """
    blocks = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600))
    with blocks:
        gr.Markdown(
            f"# {TITLE}\nNumber, positions and fluxes of the point targets in a blurred blob, with standard errors. "
            "Images stay on this machine.",
            elem_id="intro",
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=350, elem_id="form"):
                form = build_form()
            with gr.Column(scale=3, min_width=350):
                parts = _results()
        _connect(blocks, form, parts, Handlers(sessions), opened)
    return blocks


def _results() -> dict[str, Any]:
    """Add the components of the results, and return them by their names."""
    parts: dict[str, Any] = {}
    with gr.Row(elem_id="action"):
        # Wait until the settings of the link are restored, so that the right images are unmixed.
        parts["run"] = gr.Button("Unmix", variant="primary", interactive=False, min_width=120, elem_id="run")
        parts["cancel"] = gr.Button("Cancel", interactive=False, min_width=120, elem_id="cancel")
    parts["status"] = gr.HTML(page.notice("Loading."), elem_id="status", padding=False)
    parts["mark"] = gr.HTML(elem_id="mark", padding=False)
    parts["preview"] = gr.HTML(elem_id="preview", padding=False)
    with gr.Column(elem_id="results"):
        parts["shown"] = gr.Slider(0, 1, 0, step=1, label="Image shown", visible=False, elem_id="shown")
        parts["pictures"] = gr.HTML(elem_id="pictures", padding=False)
        parts["tables"] = gr.HTML(elem_id="tables", padding=False)
        parts["asked"] = gr.Dropdown(
            [], value=[], multiselect=True, visible=False, label="Groups in close-up",
            info="Choose the groups to draw.", elem_id="asked",
        )  # fmt: skip
        parts["close_ups"] = gr.HTML(elem_id="close-ups", padding=False)
        parts["files"] = gr.HTML(elem_id="files", padding=False)
    return parts


def _connect(
    blocks: gr.Blocks, form: Any, parts: dict[str, Any], handlers: Handlers, opened: Callable[[], None]
) -> None:
    """Connect the events of the page with their handlers."""
    chosen = form.chosen
    followed = [parts[name] for name in ("mark", "preview")] + [form.controls["methods"]]
    sections = list(form.sections.values())
    groups = list(form.groups.values())
    light: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": LIGHT}

    def named(updates: dict[str, Any]) -> dict[Any, Any]:
        return {parts[name]: value for name, value in updates.items()}

    def unmix(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        yield from map(named, handlers.unmix(str(request.session_hash), values))

    def restore(request: gr.Request) -> list[Any]:
        opened()
        return handlers.restore(dict(request.query_params))

    def stop(request: gr.Request) -> None:
        handlers.sessions.stop(str(request.session_hash))

    def receive(received: str, request: gr.Request) -> list[Any]:
        return handlers.receive(str(request.session_hash), received)

    def show(number: float, request: gr.Request) -> dict[Any, Any]:
        return named(handlers.show(str(request.session_hash), number))

    def ask(asked: list[int], number: float, request: gr.Request) -> dict[Any, Any]:
        return named(handlers.ask(str(request.session_hash), asked, number))

    def leave(request: gr.Request) -> None:
        handlers.sessions.end(str(request.session_hash))

    watch = _follower(handlers.watch)
    _connect_run(parts, unmix, stop, chosen).then(_follower(handlers.settle), chosen, followed, **light)
    drawn = [parts[name] for name in ("pictures", "close_ups", "files", "asked")]
    parts["shown"].change(show, parts["shown"], drawn, trigger_mode="always_last", **light)
    parts["asked"].input(ask, [parts["asked"], parts["shown"]], drawn[1:3], trigger_mode="always_last", **light)

    upload = form.drop.upload(
        receive, form.drop,
        [form.drop, form.held, form.controls["frame"], form.controls["frames"], form.controls["source"], *groups,
         parts["status"]],
        **{**light, "show_progress": "minimal"},
    )  # fmt: skip
    upload.then(watch, chosen, followed, **light)
    for kind in MAPS:
        for event in (form.maps[kind].upload, form.maps[kind].clear):
            event(_map_handler(handlers, kind), form.maps[kind], parts["status"], **light).then(
                watch, chosen, followed, **light
            )
    form.controls["source"].input(
        _show_source, form.controls["source"], [*groups, form.controls["prior"]],
        trigger_mode="always_last",  # otherwise a choice made while the last one is processed would be lost
        **light,
    )  # fmt: skip
    form.controls["psf"].change(show_shapes, form.controls["psf"], list(form.shapes.values()), **light)
    gr.on([control.change for control in chosen], watch, chosen, followed, trigger_mode="always_last", **light)
    loaded = blocks.load(
        restore, None, [*chosen, *groups, *sections, *form.shapes.values(), parts["status"], parts["run"]], **light
    )
    loaded.then(watch, chosen, followed, **light)
    blocks.unload(leave)


def _connect_run(parts: dict[str, Any], unmix: Callable[..., Any], stop: Callable[..., None], chosen: list[Any]) -> Any:
    """Connect the buttons that start and stop the work; return the event of the run."""
    plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    running = parts["run"].click(unmix, chosen, list(parts.values()), concurrency_limit=SIMULTANEOUS, **plain)
    # Set the address of the page to the link that restores the settings.
    running.then(None, None, None, js="() => csist.end()", api_visibility="private")
    parts["cancel"].click(stop, None, None, queue=False, **plain)
    return running


def _follower(handler: Callable[[str, tuple[Any, ...]], list[Any]]) -> Callable[..., list[Any]]:
    """Return the answer to an event that passes all settings."""

    def answer(request: gr.Request, *values: Any) -> list[Any]:
        return handler(str(request.session_hash), values)

    return answer


def _show_source(source: str) -> list[Any]:
    return [*show_groups(source), "csist-100k" if source == "benchmark" else "flat"]


def _map_handler(handlers: Handlers, kind: str) -> Callable[..., str]:
    def receive(received: str | None, request: gr.Request) -> str:
        return handlers.receive_map(str(request.session_hash), kind, received)

    return receive
