"""Results as HTML: pictures, tables and downloads, without external resources.

Figures and files are embedded in the page (data URLs), so that none is stored on the disk of the server.
"""

from __future__ import annotations

import tempfile
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from csist.app.look import Panel, look
from csist.app.result import Picture, Result
from csist.app.scene import Scene
from csist.app.settings import Settings
from csist.app.tables import by_group, method_section, truth_section
from csist.app.work import Answer, Progress
from csist.io import TableWriter


def pictures(result: Result, place: int = 0) -> str:
    """Render the pictures that can be zoomed: one row per window, or the image `place` of frames."""
    if not result.answers:
        return ""
    scene = result.scene
    places = sorted({answer.place for answer in result.answers}) if scene.windows else [place]
    notes = "".join(notice(note) for note in scene.notes)
    return notes + "".join(_row(result, each) for each in places)


def _row(result: Result, place: int) -> str:
    scene, answers = result.scene, result.at(place)
    if not answers:
        return ""
    truth = None if scene.truths is None else scene.truths[place]
    panels = [
        Panel(
            result.key(answer),
            answer.method,
            replace(answer.view, targets=by_group(answer.targets)),
            result.tracks(answer.method) if scene.sequence else {},
            letters=not scene.windows,
        )
        for answer in answers
    ]
    names = ", ".join(answer.method for answer in answers)
    title = result.title(answers[0]) if len(answers) == 1 else f"{scene.image_name(place)}, by {names}"
    picture = look(answers[0].view.image, panels, title, truth)
    beside = "".join(_figure(result.window_picture(answer)) for answer in answers) if scene.windows else ""
    kind = "csist-row csist-compared" if len(answers) > 1 else "csist-row csist-single"
    kind = kind if scene.windows else "csist-row"
    facts = "".join(f'<p class="csist-facts">{escape(line)}</p>' for line in _facts(answers))
    return f'<div class="{kind}" style="--columns: {max(len(answers), 1)}">{picture}{beside}</div>{facts}'


def _facts(answers: Iterable[Answer]) -> Iterator[str]:
    """Yield what an image was unmixed with, with the names of the methods where they differ."""
    methods: dict[tuple[str, ...], list[str]] = {}
    for answer in answers:
        if answer.facts:
            methods.setdefault(answer.facts, []).append(answer.method)
    for facts, names in methods.items():
        yield (f"{', '.join(names)}: " if len(methods) > 1 else "") + " ".join(facts)


def close_ups(drawn: Iterable[Picture]) -> str:
    """Render figures of groups."""
    figures = "".join(map(_figure, drawn))
    return f'<div class="csist-grid">{figures}</div>' if figures else ""


def preview(scene: Scene) -> str:
    """Render the first image of a scene before it is unmixed, and how many others there are."""
    title = f"{scene.image_name(0)}, not unmixed yet"
    truth = None if scene.truths is None else scene.truths[0]
    kind = "csist-row csist-single" if scene.windows else "csist-row"
    return f'<div class="{kind}">{look(scene.images[0], (), title, truth)}</div>'


def tables(result: Result) -> str:
    """Render the table of each method and the simulated truth."""
    scene = result.scene
    sections = [
        method_section(name, scene, own, [result.key(answer) for answer in own])
        for name, own in result.by_method.items()
    ]
    if scene.truths is not None and sections:
        sections.append(truth_section(scene))
    return f'<div class="csist-grid csist-tables">{"".join(sections)}</div>' if sections else ""


def downloads(result: Result, place: int = 0, groups: Sequence[int] = ()) -> str:
    """Render the links of the finished result: a table per method, the figures, and the settings."""
    stem = Path(result.scene.name).stem
    links = []
    for name, answers in result.by_method.items():
        file = f"{stem}-{name}.csv" if len(result.by_method) > 1 else f"{stem}.csv"
        links.append((file, _data_url("text/csv", table_csv(result.scene, answers)), f"Table (CSV), {name}"))
    sheet = result.sheet(place, groups)
    if sheet is not None:
        links.append((f"{stem}.png", _data_url("image/png", sheet), "Picture (PNG)"))
    items = [f'<a download="{escape(file)}" href="{url}">{escape(text)}</a>' for file, url, text in links]
    items.append(f'<a href="?{escape(result.settings.query())}">Link to these settings</a>')
    return f'<nav class="csist-links" aria-label="downloads">{"".join(items)}</nav>'


def table_csv(scene: Scene, answers: Sequence[Answer]) -> bytes:
    """Return the targets of one method as a CSV file in the format of `csist unmix`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "targets.csv"
        with TableWriter(path) as table:
            for answer in answers:
                # Tracks are a table of their own there.
                targets = answer.targets.replace(track=None)
                table.append(scene.name, scene.first + answer.place, targets)
        return path.read_bytes()


def _figure(picture: Picture) -> str:
    return (
        f'<figure><img src="{_data_url("image/png", picture.png)}" alt="{escape(picture.text)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def progress_bars(steps: Iterable[Progress]) -> str:
    """Render the progress of each method."""
    rows = []
    for step in steps:
        share = f' value="{step.done:g}" max="{step.total:g}"' if step.done else ""
        rows.append(
            f'<li><span class="csist-method">{escape(step.method)}</span>'
            f'<progress{share} aria-label="progress of {escape(step.method)}"></progress>'
            f"<span>{escape(step.what)}</span></li>"
        )
    return f'<ul class="csist-progress" role="status">{"".join(rows)}</ul>'


def waiting(settings: Settings) -> dict[str, Progress]:
    """Return the progress of each method before it has begun."""
    return {name: Progress(name, "waiting", 0, 1) for name in settings.methods}


def notice(text: str) -> str:
    """Render a status line as HTML."""
    return f'<p role="status">{escape(text)}</p>'


def outdated(text: str) -> str:
    """Render the mark of results that do not belong to the settings of the form."""
    return f'<p role="status" class="csist-old">{escape(text)}</p>'


def complaint(text: str) -> str:
    """Render an error message as HTML."""
    return f'<p role="alert" class="csist-error">{escape(text)}</p>'
