"""The page: form on the left, results on the right, and the events that connect them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr

from csist.app import page
from csist.app.form import MAPS, build_form, show_groups, show_shapes
from csist.app.handlers import Handlers
from csist.app.sessions import Sessions
from csist.app.settings import PSFS, SOURCES

TITLE = "csist: point targets in a blurred infrared blob"

SIMULTANEOUS = 4
"""Number of users whose images are unmixed at the same time; others wait in a queue."""

LIGHT = 16
"""Number of users whose controls are followed at the same time."""

IN_TURN = "(...values) => csist.inTurn(values)"
"""Script that puts the number of the event in the place of the last value, `Form.turn`."""

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
        parts["shown"] = gr.Slider(0, 1, 0, step=1, label="Image shown", visible="hidden", elem_id="shown")
        parts["pictures"] = gr.HTML(elem_id="pictures", padding=False)
        parts["tables"] = gr.HTML(elem_id="tables", padding=False)
        parts["asked"] = gr.Dropdown(
            [], value=[], multiselect=True, visible="hidden", label="Groups in close-up",
            info="Choose the groups to draw.", elem_id="asked",
        )  # fmt: skip
        parts["close_ups"] = gr.HTML(elem_id="close-ups", padding=False)
        parts["files"] = gr.HTML(elem_id="files", padding=False)
    return parts


def _connect(
    blocks: gr.Blocks, form: Any, parts: dict[str, Any], handlers: Handlers, opened: Callable[[], None]
) -> None:
    """Connect the events of the page with their handlers."""
    chosen, turn = form.chosen, form.turn
    followed = [parts[name] for name in ("mark", "preview")] + [form.controls["methods"]]
    sections = list(form.sections.values())
    groups = list(form.groups.values())
    light: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": LIGHT}

    def named(updates: dict[str, Any]) -> dict[Any, Any]:
        return {parts[name]: value for name, value in updates.items()}

    def unmix(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        yield from map(named, handlers.unmix(str(request.session_hash), values[:-1], values[-1]))

    def restore(request: gr.Request) -> list[Any]:
        opened()
        return handlers.restore(dict(request.query_params))

    def stop(request: gr.Request) -> None:
        handlers.sessions.stop(str(request.session_hash))

    def receive(received: str, request: gr.Request) -> list[Any]:
        return handlers.receive(str(request.session_hash), received)

    def show(number: float, turn: int, request: gr.Request) -> dict[Any, Any]:
        return named(handlers.show(str(request.session_hash), number, turn)) or gr.skip()

    def ask(asked: list[int], number: float, turn: int, request: gr.Request) -> dict[Any, Any]:
        return named(handlers.ask(str(request.session_hash), asked, number, turn)) or gr.skip()

    def leave(request: gr.Request) -> None:
        handlers.sessions.end(str(request.session_hash))

    in_turn: dict[str, Any] = {"js": IN_TURN, **light}
    following: dict[str, Any] = {"inputs": [*chosen, turn], "outputs": followed, **in_turn}
    watch, settle = _follower(handlers.watch), _follower(handlers.settle)
    _connect_run(parts, unmix, stop, [*chosen, turn]).then(settle, **following)
    drawn = [parts[name] for name in ("pictures", "close_ups", "files", "asked")]
    parts["shown"].input(show, [parts["shown"], turn], drawn, trigger_mode="always_last", **in_turn)
    parts["asked"].input(
        ask, [parts["asked"], parts["shown"], turn], drawn[1:3], trigger_mode="always_last", **in_turn
    )  # fmt: skip

    upload = form.drop.upload(
        receive, form.drop,
        [form.drop, form.controls["frame"], form.controls["frames"], form.held, parts["status"]],
        trigger_mode="multiple",  # otherwise a file given while the last one is read would be lost
        **{**light, "show_progress": "minimal"},
    )  # fmt: skip
    upload.then(watch, **following)
    for kind in MAPS:
        for event in (form.maps[kind].upload, form.maps[kind].clear):
            event(_map_handler(handlers, kind), form.maps[kind], parts["status"], **light).then(watch, **following)
    private: dict[str, Any] = {"api_visibility": "private"}
    form.controls["source"].input(
        None, form.controls["source"], [*groups, form.controls["prior"]],
        js=_answers({source: _show_source(source) for source in SOURCES}), **private,
    )  # fmt: skip
    form.controls["psf"].change(
        None, form.controls["psf"], list(form.shapes.values()), js=_answers({psf: show_shapes(psf) for psf in PSFS}),
        **private,
    )  # fmt: skip
    gr.on([control.change for control in chosen], watch, trigger_mode="always_last", **following)
    loaded = blocks.load(
        restore, None, [*chosen, *groups, *sections, *form.shapes.values(), form.held, parts["status"]], **light
    )
    loaded.then(watch, **following)
    loaded.then(
        None, None, parts["run"], js=f"() => csist.settled({json.dumps(gr.update(interactive=True))})", **private
    )
    blocks.unload(leave)


def _connect_run(parts: dict[str, Any], unmix: Callable[..., Any], stop: Callable[..., None], inputs: list[Any]) -> Any:
    """Connect the buttons that start and stop the work; return the event of the run."""
    plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    running = parts["run"].click(
        unmix, inputs, list(parts.values()), js=IN_TURN, concurrency_limit=SIMULTANEOUS, **plain
    )  # fmt: skip
    parts["run"].click(None, None, None, js="() => csist.begin()", api_visibility="private")
    # Set the address of the page to the link that restores the settings.
    running.then(None, None, None, js="() => csist.end()", api_visibility="private")
    parts["cancel"].click(stop, None, None, queue=False, **plain)
    return running


def _answers(updates: Mapping[str, list[Any]]) -> str:
    """Return a script that answers a choice with updates at once, without the server.

    An answer of the server could reach the page after the next choice of a quick user.
    """
    return f"(chosen) => ({json.dumps(updates)})[chosen]"


def _follower(handler: Callable[[str, tuple[Any, ...], int], list[Any]]) -> Callable[..., list[Any]]:
    def answer(request: gr.Request, *values: Any) -> list[Any]:
        return handler(str(request.session_hash), values[:-1], values[-1])

    return answer


def _show_source(source: str) -> list[Any]:
    return [*show_groups(source), "csist-100k" if source == "benchmark" else "flat"]


def _map_handler(handlers: Handlers, kind: str) -> Callable[..., str]:
    def receive(received: str | None, request: gr.Request) -> str:
        return handlers.receive_map(str(request.session_hash), kind, received)

    return receive
