"""Results as HTML: figures, tables and downloads, without external resources.

Figures and files are embedded in the page (data URLs), so that none is stored on the disk of the server.
"""

from __future__ import annotations

import tempfile
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

import numpy as np

from csist import plots
from csist.app.look import look
from csist.app.scene import Scene
from csist.app.settings import Settings
from csist.app.work import Answer, Progress, Report, count_text, unmix_scene
from csist.io import TableWriter
from csist.metrics import match_errors
from csist.targets import Flag, Targets

MOST_PICTURES = 12
"""Largest number of results with figures; further results appear only in the tables."""
MOST_GROUPS, MOST_ROWS = 5, 100
"""Number of close-ups per frame and of table rows on the page; the downloaded file has all rows."""

REMARKS = "remarks"
"""Heading of the text column."""

FOUND_WITHIN_PX = 0.25
"""Largest distance in px of a detection to a true target that counts as found."""

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


def _title(answer: Answer, scene: Scene) -> str:
    number = f", image {scene.first + answer.place}" if scene.first + answer.place or len(scene.images) > 1 else ""
    return f"{scene.name}{number}: {count_text(len(answer.targets), 'target')} by {answer.method}"


def draw(answer: Answer, scene: Scene) -> Iterator[Picture]:
    """Draw the figures of a result: one for a window; for a frame, the whole frame and then its groups."""
    title = _title(answer, scene)
    if scene.windows:
        with _DRAWING:
            png = plots.figure_png(plots.group_panel(answer.view))
        yield Picture(png, title, f"{title}: image, close-up, model and residual. The table lists the targets.")
        return
    parts = plots.group_views(answer.view, MOST_GROUPS)
    with _DRAWING:
        png = plots.figure_png(plots.frame_overview(answer.view, parts))
    yield Picture(png, title, f"{title}, marked in the whole frame. The table lists them.")
    for part in parts:
        with _DRAWING:
            png = plots.figure_png(plots.group_panel(part))
        caption = f"Group {part.title}: {count_text(len(part.targets), 'target')}"
        yield Picture(png, caption, f"{caption}: image, close-up, model and residual.")


def pages(scene: Scene, settings: Settings, report: Report) -> Iterator[str]:
    """Yield the page as it grows: the table of each result, then its figures, and finally the downloads.

    Raises:
        InputError: if a method cannot unmix these images.
        StoppedError: if `report` raises it.
    """
    answers: list[Answer] = []
    pictures: list[Picture] = []
    for answer in unmix_scene(scene, settings, report):
        answers.append(answer)
        yield render(scene, settings, answers, pictures)
        if len(pictures) < MOST_PICTURES:
            for picture in draw(answer, scene):
                pictures.append(picture)
                yield render(scene, settings, answers, pictures)
                report("drawing", len(pictures), len(pictures) + 1)
    yield render(scene, settings, answers, pictures, downloads=True)


def render(
    scene: Scene,
    settings: Settings,
    answers: Sequence[Answer],
    pictures: Sequence[Picture],
    downloads: bool = False,
) -> str:
    """Render the results so far as HTML."""
    parts = [f'<p class="csist-note">{escape(note)}</p>' for note in scene.notes]
    # The values of an image are large: they are sent once, when the work is done.
    looks = [_look(answer, scene, settings) for answer in answers[:MOST_PICTURES]] if downloads else []
    shown = [*looks, *map(_figure, pictures)]
    if shown:
        parts.append('<div class="csist-grid">' + "".join(shown) + "</div>")
    by_method = {name: [each for each in answers if each.method == name] for name in settings.methods}
    tables = [_section(name, scene, settings, own) for name, own in by_method.items() if own]
    if scene.truths is not None and answers:
        tables.append(_truth_section(scene))
    parts.append('<div class="csist-grid csist-tables">' + "".join(tables) + "</div>")
    if downloads:
        parts.append(_downloads(scene, settings, by_method, pictures))
    return "".join(parts)


def _key(answer: Answer, settings: Settings) -> str:
    """Return the key of a result's picture, which the rows of its targets refer to."""
    return f"{settings.methods.index(answer.method)}-{answer.place}"


def _look(answer: Answer, scene: Scene, settings: Settings) -> str:
    view = replace(answer.view, targets=_by_group(answer.targets))
    return look(view, answer.noise, _key(answer, settings), _title(answer, scene))


def _figure(picture: Picture) -> str:
    return (
        f'<figure><img src="{_data_url("image/png", picture.png)}" alt="{escape(picture.text)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _section(name: str, scene: Scene, settings: Settings, answers: Sequence[Answer]) -> str:
    rows: list[tuple[str, ...]] = []
    keys: list[str] = []
    for answer in answers:
        for number, target in enumerate(_by_group(answer.targets)):
            rows.append((*_place(scene, answer.place), *_cells(target)))
            keys.append(f"{_key(answer, settings)}-{number}")
    return (
        f"<section><h3>{escape(name)}</h3><p>{escape(summary(scene, answers))}</p>"
        + _table((*_place_heads(scene), "x in px", "y in px", "intensity", "score", REMARKS), rows, keys)
        + "</section>"
    )


def _truth_section(scene: Scene) -> str:
    rows = [
        (*_place(scene, place), *(f"{value:.3f}" for value in (target.x[0], target.y[0])), f"{target.intensity[0]:.1f}")
        for place, truth in enumerate(scene.truths or ())
        for target in truth
    ]
    heads = (*_place_heads(scene), "x in px", "y in px", "intensity")
    return f"<section><h3>simulated truth</h3><p>The true targets.</p>{_table(heads, rows)}</section>"


def _place_heads(scene: Scene) -> tuple[str, ...]:
    return ("image",) if len(scene.images) > 1 else ()


def _place(scene: Scene, place: int) -> tuple[str, ...]:
    return (str(scene.first + place),) if len(scene.images) > 1 else ()


def _by_group(targets: Targets) -> Targets:
    return targets[np.lexsort((-np.nan_to_num(targets.intensity), targets.group))]


def _cells(target: Targets) -> tuple[str, ...]:
    flags = Flag(int(target.flags[0]))
    remarks = ", ".join(str(flag.name).lower().replace("_", " ") for flag in flags)
    score = target.score[0]
    return (
        _with_error(target.x[0], target.x_std[0], 3),
        _with_error(target.y[0], target.y_std[0], 3),
        _with_error(target.intensity[0], target.intensity_std[0], 1),
        f"{score:.3g}" if np.isfinite(score) else "",
        remarks,
    )


def _with_error(value: float, error: float, digits: int) -> str:
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if np.isfinite(error) else "")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], keys: Sequence[str] = ()) -> str:
    """Render a table; with `keys`, one per row, a row highlights its target in the picture."""
    if not rows:
        return ""
    looks = [' class="text"' if head == REMARKS else "" for head in heads]
    top = "".join(f'<th scope="col"{look}>{escape(head)}</th>' for head, look in zip(heads, looks, strict=True))
    marks = [f' data-target="{escape(key)}" tabindex="0"' for key in keys] or [""] * len(rows)
    body = "".join(
        f"<tr{mark}>"
        + "".join(f"<td{look}>{escape(cell)}</td>" for cell, look in zip(row, looks, strict=True))
        + "</tr>"
        for row, mark in list(zip(rows, marks, strict=True))[:MOST_ROWS]
    )
    more = f"<p>The file has all {len(rows)} targets.</p>" if len(rows) > MOST_ROWS else ""
    # Focusable, so that wide tables can be scrolled with the keyboard.
    return (
        '<div class="csist-scroll" tabindex="0" role="region" aria-label="table of targets">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>{more}"
    )


def summary(scene: Scene, answers: Sequence[Answer]) -> str:
    """Summarise the detections of a method, and the true targets found if the truth is known."""
    found = [answer.targets for answer in answers]
    total = sum(map(len, found))
    if scene.truths is None:
        groups = sum(len(np.unique(targets.group[targets.group >= 0])) for targets in found)
        return count_text(total, "target") + (f" in {count_text(groups, 'group')}" if groups and total else "") + "."
    truths = [scene.truths[answer.place] for answer in answers]
    errors = match_errors(found, truths, FOUND_WITHIN_PX)
    text = (
        f"{count_text(total, 'target')} reported; of {sum(map(len, truths))} true ones, {len(errors)} found within "
        f"{FOUND_WITHIN_PX} px"
    )
    return text + (f", median error {np.median(errors.distance_px):.3f} px." if len(errors) else ".")


def table_csv(scene: Scene, answers: Sequence[Answer]) -> bytes:
    """Return the targets of one method as a CSV file in the format of `csist unmix`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "targets.csv"
        with TableWriter(path) as table:
            for answer in answers:
                table.append(scene.name, scene.first + answer.place, answer.targets)
        return path.read_bytes()


def _downloads(
    scene: Scene, settings: Settings, by_method: dict[str, list[Answer]], pictures: Sequence[Picture]
) -> str:
    stem = Path(scene.name).stem
    links = []
    for name, answers in by_method.items():
        file = f"{stem}-{name}.csv" if len(by_method) > 1 else f"{stem}.csv"
        links.append((file, _data_url("text/csv", table_csv(scene, answers)), f"Table (CSV), {name}"))
    if pictures:
        sheet = plots.contact_sheet([picture.png for picture in pictures], columns=max(len(by_method), 2))
        links.append((f"{stem}.png", _data_url("image/png", sheet), "Picture (PNG)"))
    items = [f'<a download="{escape(file)}" href="{url}">{escape(text)}</a>' for file, url, text in links]
    items.append(f'<a href="?{escape(settings.query())}">Link to these settings</a>')
    return f'<nav class="csist-links" aria-label="downloads">{"".join(items)}</nav>'


def progress_bar(progress: Progress) -> str:
    """Render the progress as HTML."""
    share = f' value="{progress.done:g}" max="{progress.total:g}"' if progress.done else ""
    return f'<p role="status"><progress{share} aria-label="progress"></progress> {escape(progress.what)}</p>'


def notice(text: str) -> str:
    """Render a status line as HTML."""
    return f'<p role="status">{escape(text)}</p>'


def complaint(text: str) -> str:
    """Render an error message as HTML."""
    return f'<p role="alert" class="csist-error">{escape(text)}</p>'
