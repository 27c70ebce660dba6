"""Form of the page: controls on the left, results on the right, and the event handlers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from csist.app import page
from csist.app.scene import (
    LARGEST_UPLOAD_MB,
    LARGEST_UPLOAD_MPX,
    UPLOAD_SUFFIXES,
    describe_upload,
    make_scene,
    open_upload,
)
from csist.app.sessions import Sessions
from csist.app.settings import (
    LIMITS,
    MODES,
    MOST_METHODS,
    PRIORS,
    RATIOS,
    SOURCES,
    Settings,
    example_names,
    from_query,
    working_methods,
)
from csist.app.work import Progress, Report, StoppedError, watched
from csist.checks import InputError
from csist.files import one_line

logger = logging.getLogger(__name__)

TITLE = "csist: point targets in a blurred infrared blob"

SIMULTANEOUS = 4
"""Number of users whose images are unmixed at the same time; others wait in a queue."""

STYLE_SHEET = """
.gradio-container { max-width: 1500px !important; }
#intro h1 { font-size: 1.35rem; margin: 0 0 .2rem; }
#intro p { margin: 0; }
.csist-grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem;
  align-items: start; }
.csist-tables { margin-top: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.csist-grid figure { margin: 0; background: white; border: 1px solid #d4d4d8; border-radius: 6px; padding: .3rem; }
.csist-grid img { width: 100%; height: auto; display: block; }
.csist-grid figcaption { color: #27272a; font-size: .85rem; padding: .2rem .4rem; overflow-wrap: anywhere; }
.csist-grid h3 { font-size: 1.05rem; margin: 0; }
.csist-scroll { overflow-x: auto; max-height: 24rem; overflow-y: auto; }
.csist-scroll table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; width: 100%; }
.csist-scroll table, .csist-scroll tr { border: 0 !important; }
.csist-scroll th, .csist-scroll td { padding: .2rem .5rem; text-align: right; white-space: nowrap;
  border: 0 !important; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent) !important; }
.csist-scroll .text { text-align: left; }
.csist-look { grid-column: 1 / -1; min-width: 0; }
.csist-look-plot { width: 100%; }
.csist-look-bar { display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: .2rem .4rem; color: #27272a; }
.csist-look-bar label { display: flex; gap: .4rem; align-items: center; font-size: .85rem; }
.csist-look-bar select { border: 1px solid #a1a1aa; border-radius: 4px; padding: .1rem .3rem; background: white;
  appearance: auto; }
.csist-look-bar select:disabled { opacity: .5; }
.csist-look-value { color: #27272a; font-size: .85rem; padding: 0 .4rem; font-variant-numeric: tabular-nums; }
.csist-scroll tr[data-target] { cursor: pointer; }
.csist-scroll tr.csist-chosen { background: color-mix(in srgb, #F0E442 45%, transparent); }
#action { max-width: 28rem; }
#held { padding: .4rem .8rem; }
.csist-links { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; margin-top: 1rem; }
.csist-links a { text-decoration: underline; }
.csist-links a:focus-visible, .csist-scroll:focus-visible, .csist-scroll tr:focus-visible {
  outline: 3px solid #0072B2; outline-offset: 2px; }
.csist-error { color: #b42318; font-weight: 600; overflow-wrap: anywhere; }
.dark .csist-error { color: #ff9b8f; }
#status p { margin: 0; }
#status progress { width: 9rem; vertical-align: middle; }
"""

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
    """Build the page with its event handlers.

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
            with gr.Column(scale=1, min_width=350):
                controls, groups, drop, held = _controls()
            with gr.Column(scale=3, min_width=350):
                with gr.Row(elem_id="action"):
                    # Wait until the settings of the link are restored, so that the right images are unmixed.
                    run = gr.Button("Unmix", variant="primary", interactive=False, min_width=120, elem_id="run")
                    cancel = gr.Button("Cancel", interactive=False, min_width=120, elem_id="cancel")
                status = gr.HTML(page.notice("Loading."), elem_id="status")
                results = gr.HTML(elem_id="results")
        chosen = [controls[name] for name in Settings.__dataclass_fields__]
        outputs = [status, results, run, cancel]

        def unmix(request: gr.Request, *values: Any) -> Iterator[list[Any]]:
            yield from _unmix(sessions, str(request.session_hash), values)

        def restore(request: gr.Request) -> list[Any]:
            opened()
            return _restore(dict(request.query_params))

        def stop(request: gr.Request) -> None:
            sessions.stop(str(request.session_hash))

        def receive(received: str, request: gr.Request) -> list[Any]:
            return _receive(sessions, str(request.session_hash), received)

        def leave(request: gr.Request) -> None:
            sessions.end(str(request.session_hash))

        running = run.click(
            unmix, chosen, outputs, concurrency_limit=SIMULTANEOUS, show_progress="hidden", api_visibility="private"
        )
        run.click(None, None, None, js=_SHOW_STATUS, api_visibility="private")
        # Set the address of the page to the link that restores the settings.
        running.then(None, None, None, js=_KEEP_LINK, api_visibility="private")
        cancel.click(stop, None, None, queue=False, show_progress="hidden", api_visibility="private")
        drop.upload(
            receive, drop, [drop, held, controls["frame"], controls["source"], *groups.values(), status],
            show_progress="minimal", api_visibility="private",
        )  # fmt: skip
        controls["source"].input(
            _show_source, controls["source"], [*groups.values(), controls["prior"]], show_progress="hidden",
            api_visibility="private",
            trigger_mode="always_last",  # otherwise a choice made while the last one is processed would be lost
        )  # fmt: skip
        blocks.load(
            restore, None, [*chosen, *groups.values(), status, run], show_progress="hidden", api_visibility="private"
        )
        blocks.unload(leave)
    return blocks


_SHOW_STATUS = """() => {
  // On a phone the controls fill the screen.
  if (window.innerWidth < 800) document.querySelector('#action').scrollIntoView({behavior: 'smooth'});
}"""

_KEEP_LINK = """() => {
  const link = document.querySelector('#results nav a:last-of-type');
  if (link) history.replaceState(null, '', link.getAttribute('href'));
}"""


def _controls() -> tuple[dict[str, Any], dict[str, gr.Group], gr.File, gr.HTML]:
    """Return the components by setting, groups by source, the upload area, and the line that describes the upload."""
    start = Settings()
    controls: dict[str, Any] = {}
    groups: dict[str, gr.Group] = {}

    def number(name: str, label: str, info: str, whole: bool = False) -> None:
        # No limits here: `Settings` reports invalid values in a sentence.
        precision = 0 if whole else None
        controls[name] = gr.Number(getattr(start, name), label=label, info=info, precision=precision, min_width=130)

    def slider(name: str, label: str, step: float) -> None:
        low, high = LIMITS[name]
        controls[name] = gr.Slider(low, high, getattr(start, name), step=step, label=label)

    controls["source"] = gr.Radio([(text, key) for key, text in SOURCES.items()], value=start.source, label="Image")
    with gr.Group(visible=start.source == "example") as groups["example"]:
        names = [(name.replace("_", " "), name) for name in example_names()]
        controls["example"] = gr.Radio(names, value=start.example, label="Frame")
    with gr.Group(visible=False) as groups["upload"]:
        drop = gr.File(
            label=f"Drop a frame or window: PNG, TIFF, FITS, NPY, up to {LARGEST_UPLOAD_MB} MB and "
            f"{LARGEST_UPLOAD_MPX} million pixels",
            file_types=list(UPLOAD_SUFFIXES), height=130, elem_id="drop",
        )  # fmt: skip
        held = gr.HTML(page.notice("No file yet."), elem_id="held")
        number("frame", "Image of the file", "Counted from 0.", whole=True)
    with gr.Group(visible=False) as groups["benchmark"]:
        slider("windows", "Windows", 1)
    with gr.Group(visible=False) as groups["build"]:
        slider("count", "Targets", 1)
        slider("separation_px", "Separation of neighbours in px", 0.05)
        slider("intensity", "Intensity of each in counts", 5)
    with gr.Group(visible=False) as groups["simulated"]:
        slider("scene_noise", "Noise in counts", 0.1)
        number("seed", "Seed", "The same seed gives the same image.", whole=True)
    controls["methods"] = gr.Dropdown(
        working_methods(), value=list(start.methods), multiselect=True, max_choices=MOST_METHODS, label="Methods",
        info="Several methods are shown side by side. Frames need continuous.",
    )  # fmt: skip
    with gr.Row():
        controls["prior"] = gr.Radio(list(PRIORS), value=start.prior, label="Prior", min_width=150)
        controls["mode"] = gr.Radio(list(MODES), value=start.mode, label="Mode", min_width=150)
    with gr.Accordion("Sensor", open=False):
        with gr.Row():
            number("psf_sigma", "PSF sigma in px", "Leave blank: 0.5 px for windows, measured for frames.")
            number("noise_std", "Noise in counts", "Leave blank: as simulated, or estimated.")
            number("background", "Background in counts", "Leave blank: 0 for windows, measured for frames.")
        controls["ratio"] = gr.Radio(list(RATIOS), value=start.ratio, label="Grid ratio of grid methods")
    return controls, groups, drop, held


def _visible(source: str) -> list[Any]:
    """Return updates that show or hide the groups of controls, in their order."""
    shown = {
        "example": source == "example",
        "upload": source == "upload",
        "benchmark": source == "benchmark",
        "build": source == "build",
        "simulated": source in ("benchmark", "build"),
    }
    return [gr.update(visible=visible) for visible in shown.values()]


def _show_source(source: str) -> list[Any]:
    return [*_visible(source), "csist-100k" if source == "benchmark" else "flat"]


def _restore(parameters: dict[str, str]) -> list[Any]:
    """Restore the settings of the link."""
    status = page.notice("Ready.")
    try:
        settings = from_query(parameters)
        if settings.query():
            status = page.notice("Settings restored from the link.")
    except InputError as error:
        settings, status = Settings(), page.complaint(f"The link cannot be used: {error}")
    values = [getattr(settings, name) for name in Settings.__dataclass_fields__]
    return [
        *(list(each) if isinstance(each, tuple) else each for each in values),
        *_visible(settings.source),
        status,
        gr.update(interactive=True),
    ]


def _receive(sessions: Sessions, session: str, received: str) -> list[Any]:
    """Accept an uploaded file, and clear the upload area for the next one."""
    path = sessions.keep(session, Path(received))
    try:
        stack = open_upload(path)
    except InputError as error:
        sessions.forget(session)
        held, status, frame = page.notice("No file yet."), page.complaint(_sentence(error)), gr.update()
    else:
        notes = "".join(page.notice(note) for note in stack.notes)
        held, status, frame = page.notice(describe_upload(stack)) + notes, page.notice("Ready."), gr.update(value=0)
    return [None, held, frame, "upload", *_visible("upload"), status]


def _unmix(sessions: Sessions, session: str, values: tuple[Any, ...]) -> Iterator[list[Any]]:
    """Yield updates of the page during the work: status, results, the two buttons."""
    busy = [gr.update(interactive=False), gr.update(interactive=True)]
    idle = [gr.update(interactive=True), gr.update(interactive=False)]
    signal = sessions.begin(session)
    yield [page.progress_bar(Progress("reading the image", 0, 1)), "", *busy]
    try:
        settings = Settings(**dict(zip(Settings.__dataclass_fields__, values, strict=True)))
        scene = make_scene(settings, sessions.upload(session))

        def work(report: Report) -> Iterator[str]:
            return page.pages(scene, settings, report)

        for event in watched(work, signal):
            if isinstance(event, Progress):
                yield [page.progress_bar(event), gr.update(), *busy]
            else:
                yield [gr.update(), event, *busy]
    except StoppedError:
        yield [page.notice("Cancelled."), gr.update(), *idle]
    except InputError as error:
        yield [page.complaint(_sentence(error)), gr.update(), *idle]
    except MemoryError:
        yield [page.complaint("Out of memory: use a smaller image."), gr.update(), *idle]
    except Exception as error:
        logger.exception("unmixing failed")
        text = f"Internal error, please report it with the output of the server: {type(error).__name__}"
        yield [page.complaint(text), gr.update(), *idle]
    else:
        yield [page.notice("Done."), gr.update(), *idle]


def _sentence(error: Exception) -> str:
    text = one_line(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
