"""Fill the README's result tables from docs/results/*.json, so that no figure is ever typed.

`csist evaluate --json` and the scripts in benchmarks/ write these files; published.json holds the figures from the
literature. Run it with `make table` or `python scripts/results_table.py [--check]`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCORES = ("CSO-mAP", "AP05", "AP15", "AP25")
HEADER = ("method", "ratio", *SCORES, "count right")
PUBLISHED = "published.json"
SHOWN_PUBLISHED = "DISTA-Net"
SHORT_TOO = ("dista-net+refine", "dista-net+ensemble")

Row = dict[str, Any]


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Evaluations in a folder, ordered by file name; other JSON files are ignored."""
    contents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if path.name != PUBLISHED]
    return [each for each in contents if isinstance(each, dict) and {"data", "ratio", "rows"} <= each.keys()]


def describe(data: dict[str, Any]) -> str:
    """One line that describes the images of an evaluation."""
    sensor = data["sensor"]
    noise = f"read noise {sensor['read_noise']:g} counts" if sensor["read_noise"] else "no noise but rounding"
    clipped = "" if sensor.get("bits") is None else f", {sensor['bits']} bit"
    return f"{data['images']:,} images of the {data['split']} split, {noise}{clipped}"


def best_rows(rows: Iterable[Row]) -> list[Row]:
    """One row per method and grid (the last one given): methods without a grid first, then by ratio and CSO-mAP."""
    unique = {(row["name"], row.get("grid")): row for row in rows}
    return sorted(unique.values(), key=lambda row: (-(row.get("grid") or math.inf), -row["CSO-mAP"]))


def grid_of(row: Row, ratio: int) -> int | None:
    """Sub-pixel grid ratio of a row; None for a method without a grid.

    Rows of grid methods are recognised by their PSNR or by the suffix of their read-out.
    """
    oracle = row.get("reference") and not row.get("limit")
    return ratio if oracle or "psnr" in row or "+" in row["name"] else None


def line(row: Row) -> str:
    """One row as a line of Markdown."""
    name = f"*{row['name']}*" if row.get("reference") else f"`{row['name']}`"
    if row.get("published"):
        name = f"{row['name']}, as published"
    scores = ["" if row.get(key) is None else f"{row[key]:.2f}" for key in SCORES]
    if row.get("interval"):
        scores[0] += f" ({row['interval'][0]:.1f} to {row['interval'][1]:.1f})"
    count = "" if row.get("count_accuracy") is None or row.get("reference") else f"{row['count_accuracy']:.1f} %"
    return "| " + " | ".join([name, str(row.get("grid") or "none"), *scores, count]) + " |"


def shown_in_short(row: Row) -> bool:
    """Whether the README shows a row: cells read out directly, or DISTA-Net refined or averaged over symmetries."""
    return row["name"] in SHORT_TOO or not ("+" in row["name"] or "closeness" in row["name"])


def short_results_table(folder: Path) -> str:
    """The rows of `results_table` that the README shows."""
    return results_table(folder, shown_in_short)


def results_table(folder: Path, shown: Callable[[Row], bool] = lambda row: True) -> str:
    """Markdown of all evaluations in a folder, one table per set of images.

    Args:
        folder: holds the JSON files.
        shown: whether a row, with its ratio under "grid", is in the table.
    """
    published = [
        row | {"published": True, "grid": row["ratio"]}
        for row in json.loads((folder / PUBLISHED).read_text())["rows"]
        if row["name"] == SHOWN_PUBLISHED
    ]
    tables: dict[str, list[Row]] = {}
    for each in read_evaluations(folder):
        rows = [row | {"grid": grid_of(row, each["ratio"])} for row in each["rows"]]
        sensor = each["data"]["sensor"]
        # The published figures are for images without noise: they are comparable with no others.
        beside = published if sensor["read_noise"] == 0 and sensor.get("bits") is None else []
        tables.setdefault(describe(each["data"]), [*beside]).extend(rows)
    if not tables:
        tables["Not measured yet: run `make results`"] = published
    parts = []
    for caption, rows in tables.items():
        head = ["| " + " | ".join(HEADER) + " |", "|---|" + "---:|" * (len(HEADER) - 1)]
        parts.append("\n".join([f"{caption}:", "", *head, *(line(row) for row in best_rows(rows) if shown(row))]))
    return "\n\n".join(parts)


def accuracy_table(folder: Path) -> str:
    """Markdown of the continuous method against the physical limit, one line per noise level."""
    path = folder / "accuracy.json"
    if not path.exists():
        return "Not measured yet: run `python benchmarks/bench_accuracy.py`"
    head = ("noise", "accurate", "limit, annealed", "limit, from truth", "count right", "68 % covers", "95 % covers")
    lines = ["| " + " | ".join((*head, "score error", "fast")) + " |", "|---|" + "---:|" * (len(head) + 1)]
    for name, row in json.loads(path.read_text())["rows"].items():
        accurate, limit, calibration = row["accurate"], row["limit"], row["accurate"]["calibration"]
        inside = [
            " / ".join(f"{100 * calibration[f'inside_{level}'][axis]:.0f}" for axis in ("x", "y", "intensity"))
            for level in ("68%", "95%")
        ]
        value, low, high = accurate["scores"]["CSO-mAP"]
        cells = [
            name,
            f"{value:.2f} ({low:.1f} to {high:.1f})",
            *(f"{limit[which]['CSO-mAP'][0]:.2f}" for which in ("annealed", "from_truth")),
            f"{100 * accurate['count_accuracy']:.2f} %",
            *inside,
            f"{calibration['score_error']:.3f}",
            f"{row['fast']['scores']['CSO-mAP'][0]:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


SECTIONS: dict[str, Callable[[Path], str]] = {"results": short_results_table, "accuracy": accuracy_table}


def filled(readme: str, name: str, table: str) -> str:
    """The README with the table filled in between the markers of a section.

    Raises:
        ValueError: if a marker is missing.
    """
    first, last = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, start, rest = readme.partition(first)
    _, end, after = rest.partition(last)
    if not (start and end):
        raise ValueError(f"README.md must hold {first} and {last}")
    return f"{before}{first}\n{table}\n{last}{after}"


def main() -> int:
    """Refill the tables of the README, or check them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the README is out of date")
    options = parser.parse_args()
    path = ROOT / "README.md"
    readme = path.read_text(encoding="utf-8")
    wanted = readme
    for name, table in SECTIONS.items():
        wanted = filled(wanted, name, table(ROOT / "docs" / "results"))
    if options.check and wanted != readme:
        print("README.md is out of date: run make table", file=sys.stderr)
        return 1
    if not options.check:
        path.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
