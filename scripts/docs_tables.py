"""Tables and figures of the site: measured ones from docs/results, the rest from the package itself."""

from __future__ import annotations

import ast
import inspect
import json
import re
from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from csist import Flag, Targets
from csist.checkpoint import list_pretrained
from csist.methods.registry import METHODS
from csist.metrics import CSO_DISTANCES_PX, cso_map, match_detections, precision_recall_curve
from results_table import ROOT, SECTIONS

RESULTS: Path = ROOT / "docs" / "results"
SCORES = ("CSO-mAP", "AP05", "AP10", "AP15", "AP20", "AP25")

FALSE_ALARMS = ("1e-05", "5e-05", "0.0001")
"""A pixel: where the detectors are compared."""

PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def markdown_table(head: list[str], rows: list[list[str]], numbers_from: int = 1) -> str:
    """A table in Markdown, columns from `numbers_from` on to the right."""
    rule = ["---:" if place >= numbers_from else "---" for place in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def figure(name: str, row: str, key: str, form: str = ".1f") -> str:
    """One figure of an evaluation in docs/results.

    Args:
        name: the file's, without its suffix.
        row: name of the method or oracle.
        key: name of the figure.
        form: how it is printed.

    Raises:
        ValueError: if there is no such row or figure.
    """
    found = [each for each in _read(name)["rows"] if each["name"] == row]
    if not found or found[-1].get(key) is None:
        raise ValueError(f"docs/results/{name}.json has no {key!r} of {row!r}")
    return format(found[-1][key], form)


def table(section: str) -> str:
    """A table of the README, by the name of its section."""
    return SECTIONS[section](RESULTS)


def published() -> str:
    """The figures that the benchmark's authors report."""
    rows = [
        [row["name"], str(row["ratio"]), *("" if row.get(key) is None else f"{row[key]:.2f}" for key in SCORES)]
        for row in sorted(_read("published")["rows"], key=lambda row: (row["ratio"], -row["CSO-mAP"]))
    ]
    return markdown_table(["method", "ratio", *SCORES], rows)


def frames() -> str:
    """Detection in real frames: targets found where so many false alarms a pixel are allowed."""
    rows = [
        [
            group, name, f"{row['targets']}",
            *(f"{100 * row['probability_at_false_per_pixel'][allowed]:.1f} %" for allowed in FALSE_ALARMS),
            f"{row['seconds_median']:.2f}",
        ]
        for group, by_name in _read("frames_sirst")["groups"].items()
        for name, row in by_name.items()
    ]  # fmt: skip
    return markdown_table(["frames", "detector", "targets", *FALSE_ALARMS, "s a frame"], rows, 2)


def _percent(entry: dict[str, Any]) -> str:
    """A share with its interval."""
    low, high = entry["interval"]
    if entry["value"] is None:
        return "-"
    return f"{100 * entry['value']:.1f} % ({100 * low:.0f}-{100 * high:.0f})"


def crowded_stars() -> str:
    """Csist and photutils in a crowded star field, at the same purity."""
    rows = [
        [
            name, f"{row['detections']}", _percent(row["purity"]), _percent(row["completeness"]),
            f"{row['position_error_px']['median']:.3f}", f"{row['flux_ratio']['median']:.2f}", f"{row['seconds']:.0f}",
        ]
        for name, row in _read("real_m2")["rows"].items()
    ]  # fmt: skip
    head = ["", "detections", "purity", "bright stars found", "median error in px", "flux / truth", "s of processor"]
    return markdown_table(head, rows)


def ista_settings() -> str:
    """CSO-mAP of ISTA by its settings, on validation images."""
    rows = [
        [row["start"], "yes" if row["nonnegative"] else "no", f"{row['penalty']:g}", f"{row['CSO-mAP']:.2f}"]
        for row in _read("ista")["choice"]
    ]
    return markdown_table(["start", "cells at least 0", "penalty", "CSO-mAP"], rows, 2)


def methods() -> str:
    """All methods of the registry."""
    rows = [
        [f"`{name}`", entry.summary, entry.source, "yes" if entry.trained else "no"] for name, entry in METHODS.items()
    ]
    return markdown_table(["method", "what it is", "source", "needs training"], rows, 4)


def weights() -> str:
    """The trained weights that come with the package."""
    rows = [
        [
            f"`{card['method']}`", str(card["ratio"]), f"{card['training']['samples']:,}",
            f"{card['score']['cso_map']:.2f}",
        ]
        for _, card in list_pretrained()
    ]  # fmt: skip
    if not rows:
        return "None yet: train your own, as below."
    return markdown_table(["method", "ratio", "samples seen", "CSO-mAP on validation images"], rows)


def flags() -> str:
    """The bits of `Flag` and what each says, from the comments in its source."""
    body = ast.parse(inspect.getsource(Flag)).body[0].body  # type: ignore[attr-defined]
    told = {
        first.targets[0].id: second.value.value
        for first, second in pairwise(body)
        if isinstance(first, ast.Assign) and isinstance(second, ast.Expr)
    }
    rows = [[f"`{flag.name}`", str(flag.value), " ".join(told[flag.name].split())] for flag in Flag]
    return markdown_table(["flag", "bit", "meaning"], rows, 3)


def worked_example() -> tuple[list[Targets], list[Targets]]:
    """Detections and true targets of the first code block of the metric's page."""
    page = (ROOT / "docs" / "metric.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    with redirect_stdout(StringIO()):
        exec(PYTHON_BLOCK.findall(page)[0], names)  # noqa: S102 - our own page
    return names["found"], names["truths"]


def metric_example() -> str:
    """What the metric makes of the worked example: hits, curve and score."""
    found, truths = worked_example()
    matches = match_detections(found, truths)
    hits = {distance: matches.hits(distance) for distance in CSO_DISTANCES_PX}
    first = np.cumsum([0, *map(len, found)])
    ranked = []
    for rank, place in enumerate(matches.order, 1):
        image = int(matches.image[place])
        target = found[image][int(place - first[image])]
        ranked.append(
            [
                str(rank), f"{matches.key[place]:.2f}", str(image + 1), f"({target.x[0]:.2f}, {target.y[0]:.2f})",
                f"T{matches.nearest[place] + 1}", f"{matches.distance_px[place]:.3f}",
                *("hit" if hits[distance][place] else "-" for distance in CSO_DISTANCES_PX),
            ]
        )  # fmt: skip
    within = [f"{distance:.2f}" for distance in CSO_DISTANCES_PX]
    head = ["rank", "score", "image", "(x, y) px", "nearest", "apart px", *within]
    curve = precision_recall_curve(matches, CSO_DISTANCES_PX[-1])
    steps = [
        [str(rank), f"{recall:.3f}", f"{precision:.3f}", f"{envelope:.3f}"]
        for rank, (recall, precision, envelope) in enumerate(
            zip(curve.recall, curve.precision, curve.envelope, strict=True), 1
        )
    ]
    scores = cso_map(found, truths)
    return "\n\n".join(
        [
            markdown_table(head, ranked, 1),
            f"The curve at {CSO_DISTANCES_PX[-1]:g} px, with {int(matches.truth_count.sum())} true targets in all:",
            markdown_table(["rank", "recall", "precision", "highest precision from here on"], steps, 1),
            "And the result, in percent:",
            markdown_table(list(scores), [[f"{value:.2f}" for value in scores.values()]], 0),
        ]
    )
