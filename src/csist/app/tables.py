"""Tables of the results: one for each method, and the simulated truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from csist._types import FloatArray
from csist.app.scene import Scene
from csist.app.work import Answer
from csist.metrics import match_errors
from csist.plots import group_letter
from csist.targets import Flag, Targets
from csist.words import counted

MOST_ROWS = 100
"""Number of table rows on the page; the downloaded file has all rows."""

FOUND_WITHIN_PX = 0.25
"""Largest distance in px of a detection to a true target that counts as found."""
PAIRED_WITHIN_PX = 1.0
"""Largest distance in px at which a detection gets an error."""


@dataclass(frozen=True)
class Column:
    """Column of a table.

    Args:
        head: heading.
        cells: one text per row.
        text: whether it holds words, which are aligned to the left.
        title: explanation of the heading.
    """

    head: str
    cells: Sequence[str]
    text: bool = False
    title: str = ""


def by_group(targets: Targets) -> Targets:
    """Return the targets in the order of the table: by group, then by flux, the brightest first."""
    return targets[np.lexsort((-np.nan_to_num(targets.intensity), targets.group))]


def method_section(name: str, scene: Scene, answers: Sequence[Answer], keys: Sequence[str]) -> str:
    """Render the targets of one method.

    Args:
        name: of the method.
        scene: its images.
        answers: results, one per image.
        keys: key of the picture of each result; target number k has the row `key-k`.
    """
    rows = [by_group(answer.targets) for answer in answers]
    targets = Targets.concatenate(rows)
    marks = [f"{key}-{number}" for key, own in zip(keys, rows, strict=True) for number in range(len(own))]
    columns = [
        *_places(scene, [answer.place for answer, own in zip(answers, rows, strict=True) for _ in own]),
        *_groups(scene, targets),
        Column("x in px", _measured(targets.x, targets.x_std, 3)),
        Column("y in px", _measured(targets.y, targets.y_std, 3)),
        Column("intensity in counts", _measured(targets.intensity, targets.intensity_std, 1)),
        *_errors(scene, answers, rows),
        *_chances(answers, rows),
        *_scores(answers, targets),
        *_tracks(scene, targets),
        *_remarks(targets),
    ]
    return (
        f"<section><h3>{escape(name)}</h3><p>{escape(summary(scene, answers))}</p>"
        + "".join(f"<p>{escape(line)}</p>" for line in nothing_found(scene, answers))
        + render_table(columns, marks, f"targets by {name}")
        + "</section>"
    )


def truth_section(scene: Scene) -> str:
    """Render the true targets of simulated images."""
    truths = scene.truths or ()
    targets = Targets.concatenate(truths)
    columns = [
        *_places(scene, [place for place, truth in enumerate(truths) for _ in truth]),
        Column("x in px", _measured(targets.x, targets.x_std, 3)),
        Column("y in px", _measured(targets.y, targets.y_std, 3)),
        Column("intensity in counts", _measured(targets.intensity, targets.intensity_std, 1)),
    ]
    return (
        "<section><h3>simulated truth</h3><p>The true targets.</p>"
        + render_table(columns, [], "true targets")
        + "</section>"
    )


def nothing_found(scene: Scene, answers: Sequence[Answer]) -> list[str]:
    """Return why images have no targets, one sentence per reason."""
    images: dict[str, list[str]] = {}
    for answer in answers:
        if answer.empty_reason:
            images.setdefault(answer.empty_reason, []).append(str(scene.first + answer.place))
    if len(scene.images) == 1:
        return [f"No targets: {reason}." for reason in images]
    return [f"No targets in image {', '.join(numbers)}: {reason}." for reason, numbers in images.items()]


def _places(scene: Scene, places: Sequence[int]) -> list[Column]:
    if len(scene.images) == 1:
        return []
    return [Column("image", [str(scene.first + place) for place in places])]


def _groups(scene: Scene, targets: Targets) -> list[Column]:
    if scene.windows or not (targets.group >= 0).any():
        return []  # a window is one group
    cells = [group_letter(int(number)) if number >= 0 else "" for number in targets.group]
    return [Column("group", cells, text=True, title="Letter of the group in the pictures")]


def _errors(scene: Scene, answers: Sequence[Answer], rows: Sequence[Targets]) -> list[Column]:
    """Return the distance to the true target, if it is known."""
    if scene.truths is None:
        return []
    errors = match_errors(rows, [scene.truths[answer.place] for answer in answers], PAIRED_WITHIN_PX)
    cells = [[""] * len(own) for own in rows]
    for image, number, distance in zip(errors.image, errors.prediction, errors.distance_px, strict=True):
        cells[image][number] = f"{distance:.3f}"
    title = f"Distance to the true target; blank if none is within {PAIRED_WITHIN_PX:g} px"
    return [Column("error in px", [cell for own in cells for cell in own], title=title)]


def _chances(answers: Sequence[Answer], rows: Sequence[Targets]) -> list[Column]:
    if not any(answer.count_probability for answer in answers):
        return []
    chances = [
        answer.count_probability.get(int(group), float("nan"))
        for answer, own in zip(answers, rows, strict=True)
        for group in own.group
    ]
    title = "Probability that the group has the reported number of targets, or is the extended source or streak"
    return [Column("P(count)", [_number(chance, 3) for chance in chances], title=title)]


def _scores(answers: Sequence[Answer], targets: Targets) -> list[Column]:
    if not np.isfinite(targets.score).any():
        return []
    names = list(dict.fromkeys(answer.score for answer in answers))
    head = names[0] if len(names) == 1 else " or ".join(names)
    digits = 1 if float(np.nanmax(targets.score)) > 1.0 else 3
    return [Column(head, [_number(score, digits) for score in targets.score], title="Score: targets are ranked by it")]


def _tracks(scene: Scene, targets: Targets) -> list[Column]:
    if not scene.sequence:
        return []
    return [Column("track", [str(number) if number >= 0 else "" for number in targets.track])]


def _remarks(targets: Targets) -> list[Column]:
    cells = [", ".join(str(flag.name).lower().replace("_", " ") for flag in Flag(int(bits))) for bits in targets.flags]
    return [Column("remarks", cells, text=True)] if any(cells) else []


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else ""


def _measured(values: FloatArray, errors: FloatArray, digits: int) -> list[str]:
    """Return values with their standard errors; very small values get more digits."""
    largest = float(np.nanmax(np.abs(values), initial=0.0))
    if 0.0 < largest < 10.0 ** (1 - digits):
        texts = [(f"{value:.3e}", f"{error:.1e}") for value, error in zip(values, errors, strict=True)]
    else:
        texts = [(f"{value:.{digits}f}", f"{error:.{digits}f}") for value, error in zip(values, errors, strict=True)]
    known = np.isfinite(errors)
    return [f"{text} ± {spread}" if has else text for (text, spread), has in zip(texts, known, strict=True)]


def render_table(columns: Sequence[Column], marks: Sequence[str], name: str) -> str:
    """Render a table.

    Args:
        columns: of equal length.
        marks: name of each row, which highlights its target in the picture; empty for rows without pictures.
        name: of the table, for screen readers.
    """
    number = len(columns[0].cells)
    if not number:
        return ""
    looks = [' class="text"' if column.text else "" for column in columns]
    titles = [f' title="{escape(column.title)}"' if column.title else "" for column in columns]
    top = "".join(
        f'<th scope="col"{look}{title}>{escape(column.head)}</th>'
        for column, look, title in zip(columns, looks, titles, strict=True)
    )
    body = []
    for row in range(min(number, MOST_ROWS)):
        # One stop of the Tab key for the table; arrow keys move between its rows.
        mark = f' data-target="{escape(marks[row])}" tabindex="{-1 if row else 0}"' if marks else ""
        cells = (f"<td{look}>{escape(column.cells[row])}</td>" for column, look in zip(columns, looks, strict=True))
        body.append(f"<tr{mark}>{''.join(cells)}</tr>")
    more = f"<p>The file has all {number} targets.</p>" if number > MOST_ROWS else ""
    # Focusable, so that wide tables can be scrolled with the keyboard.
    return (
        '<p class="csist-hint" aria-hidden="true">Scroll sideways for more columns.</p>'
        f'<div class="csist-scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{more}"
    )


def summary(scene: Scene, answers: Sequence[Answer]) -> str:
    """Summarise the detections of a method, and the true targets found if the truth is known."""
    found = [answer.targets for answer in answers]
    total = sum(map(len, found))
    if scene.truths is None:
        groups = sum(len(np.unique(targets.group[targets.group >= 0])) for targets in found)
        text = counted(total, "target") + (f" in {counted(groups, 'group')}" if groups and total else "")
        tracks = (
            len(np.unique(Targets.concatenate(found).track)) if any((each.track >= 0).any() for each in found) else 0
        )
        return text + (f", {counted(tracks, 'track')}" if tracks else "") + "."
    truths = [scene.truths[answer.place] for answer in answers]
    errors = match_errors(found, truths, FOUND_WITHIN_PX)
    text = (
        f"{counted(total, 'target')} reported; of {sum(map(len, truths))} true ones, {len(errors)} found within "
        f"{FOUND_WITHIN_PX} px"
    )
    return text + (f", median error {np.median(errors.distance_px):.3f} px." if len(errors) else ".")
