"""Fill the result tables of the README from docs/results/*.json, so that no figure is typed by hand.

The files are written by `csist evaluate --json` and the scripts of benchmarks/; published.json holds the figures of the
literature. Run it with `make table` or `python scripts/results_table.py [--check]`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCORES = ("CSO-mAP", "AP05", "AP15", "AP25")
HEADER = ("method", "grid", *SCORES, "count right")
PUBLISHED = "published.json"
SHOWN_PUBLISHED = "DISTA-Net"
SHORT_TOO = ("dista-net+refine",)

Row = dict[str, Any]


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Read the evaluations in a folder, by file name; other JSON files are ignored."""
    contents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if path.name != PUBLISHED]
    return [each for each in contents if isinstance(each, dict) and {"data", "ratio", "rows"} <= each.keys()]


def describe(data: dict[str, Any]) -> str:
    """Describe the images of an evaluation in one line."""
    sensor = data["sensor"]
    noise = f"read noise {sensor['read_noise']:g} counts" if sensor["read_noise"] else "no noise but rounding"
    clipped = "" if sensor.get("bits") is None else f", {sensor['bits']} bit"
    return f"{data['images']:,} images of the {data['split']} split, {noise}{clipped}"


def best_rows(rows: Iterable[Row]) -> list[Row]:
    """Return one row per method and grid, the last one given, best CSO-mAP first."""
    unique = {(row["name"], row.get("grid")): row for row in rows}
    return sorted(unique.values(), key=lambda row: -row["CSO-mAP"])


def grid_of(row: Row, ratio: int) -> int | None:
    """Return the grid ratio of a row; None if the method has no grid (maps have a PSNR, a read-out a suffix)."""
    oracle = row.get("reference") and not row.get("limit")
    return ratio if oracle or "psnr" in row or "+" in row["name"] else None


def line(row: Row) -> str:
    """Format a row of the table."""
    name = f"*{row['name']}*" if row.get("reference") else f"`{row['name']}`"
    if row.get("published"):
        name = f"{row['name']}, as published"
    scores = ["" if row.get(key) is None else f"{row[key]:.2f}" for key in SCORES]
    if row.get("interval"):
        scores[0] += f" ({row['interval'][0]:.1f} to {row['interval'][1]:.1f})"
    count = "" if row.get("count_accuracy") is None or row.get("reference") else f"{row['count_accuracy']:.1f} %"
    return "| " + " | ".join([name, str(row.get("grid") or "none"), *scores, count]) + " |"


def shown_in_short(row: Row) -> bool:
    """Return whether a row is in the README: the read-outs by cells, and those closest to the limit."""
    return row["name"] in SHORT_TOO or not ("+" in row["name"] or "closeness" in row["name"])


def short_results_table(folder: Path) -> str:
    """Return the part of `results_table` that is in the README."""
    return results_table(folder, shown_in_short)


def results_table(folder: Path, shown: Callable[[Row], bool] = lambda row: True) -> str:
    """Return Markdown of the shown rows of all evaluations in a folder, with one table per set of images."""
    published = [
        row | {"published": True, "grid": row["ratio"]}
        for row in json.loads((folder / PUBLISHED).read_text())["rows"]
        if row["name"] == SHOWN_PUBLISHED
    ]
    tables: dict[str, list[Row]] = {}
    for each in read_evaluations(folder):
        rows = [row | {"grid": grid_of(row, each["ratio"])} for row in each["rows"] if shown(row)]
        sensor = each["data"]["sensor"]
        # The published figures are for images without noise, so that they appear only in that table.
        beside = published if sensor["read_noise"] == 0 and sensor.get("bits") is None else []
        tables.setdefault(describe(each["data"]), [*beside]).extend(rows)
    if not tables:
        tables["Not measured yet: run `make results`"] = published
    parts = []
    for caption, rows in tables.items():
        head = ["| " + " | ".join(HEADER) + " |", "|---|" + "---:|" * (len(HEADER) - 1)]
        parts.append("\n".join([f"{caption}:", "", *head, *map(line, best_rows(rows))]))
    return "\n\n".join(parts)


def accuracy_table(folder: Path) -> str:
    """Return Markdown of the continuous method and the physical limit, with one line per noise level."""
    path = folder / "accuracy.json"
    if not path.exists():
        return "Not measured yet: run `python benchmarks/bench_accuracy.py`"
    head = ("noise", "accurate", "limit, annealed", "limit, from truth", "count right", "68 % holds", "95 % holds")
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
    """Return the README with the table inserted between the markers of a section.

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the README is out of date, without changing it")
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
