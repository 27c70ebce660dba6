"""`csist benchmark`: measure the result tables of the documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from csist.checks import InputError
from csist.cli.options import LimitOption, SplitOption
from csist.cli.output import check_outputs, interval_cell, make_console, number, print_figures, progress, write_json


def benchmark(
    data: Annotated[
        Path | None, typer.Option("--data", help="Store (.h5) or folder of a GrokCSO dataset.", show_default=False)
    ] = None,
    split: SplitOption = "test",
    ratio: Annotated[
        list[int] | None,
        typer.Option("--ratio", help="Sub-pixel grid ratio; may be given several times.", show_default="3, 5 and 7"),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="Run only this method; may be given several times.", show_default="all"),
    ] = None,
    limit: LimitOption = None,
    limit_images: Annotated[
        int, typer.Option("--limit-images", help="Number of images whose physical limit is sampled; 0 for none.")
    ] = 1000,
    kept: Annotated[Path, typer.Option("--kept", help="Folder of cached detections.")] = Path("out/benchmark"),
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")] = Path("out/results"),
) -> None:
    """Run every method on a dataset: scores, cost, training budget, breakdown, grid oracles and the physical limit.

    Writes csist-100k-ratio-R.json for each ratio, and a figure of CSO-mAP against multiply-adds beside it. Detections
    are cached, so that running the command again is fast, also after Ctrl-C. With --method, the other rows in the
    results folder are kept.
    """
    from csist.benchmark import FAST, check_earlier, with_earlier_rows
    from csist.benchmark import benchmark as run
    from csist.checks import check_ratio
    from csist.evaluation import EXACT_MAP, read_labelled
    from csist.methods.table import canonical_name

    if data is None:
        raise InputError("no images: give --data; `csist generate out/csist-100k.h5` makes the benchmark dataset")
    if limit_images < 0:
        raise InputError(f"--limit-images must be a whole number >= 0, got {limit_images}")
    ratios = ratio or [3, 5, 7]
    names = None if method is None else [each if each in (FAST, EXACT_MAP) else canonical_name(each) for each in method]
    targets = {each: output / f"csist-100k-ratio-{check_ratio(each)}.json" for each in ratios}
    output.mkdir(parents=True, exist_ok=True)
    for target in targets.values():
        check_outputs([data], str(target))
    earlier = {each: {} if names is None else _earlier(target) for each, target in targets.items()}
    with progress() as report:
        images = read_labelled(data, split, limit, lambda done, total: report("reading", done, total))
    for each, target in targets.items():
        check_earlier(earlier[each], images, target)
    for each, target in targets.items():
        with progress() as report:
            # The limit does not depend on the grid: compute it for one ratio only.
            part = limit_images if each == ratios[0] else 0
            result = run(images, kept, each, names, limit_images=part, progress=report)
        result = with_earlier_rows(result, earlier[each])
        write_json(result, str(target))
        _draw(result, target.with_suffix(".png"))
        _report(result)


def _earlier(path: Path) -> dict[str, Any]:
    """Read an earlier result from a folder; empty if there is none."""
    from csist.files import reading

    if not path.is_file():
        return {}
    with reading(path):
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def _draw(result: dict[str, Any], path: Path) -> None:
    from csist.plots import accuracy_against_multiply_adds, save_figure

    if any(row.get("multiply_adds_per_image") for row in result["rows"]):
        title = f"grid ratio {result['ratio']}, {result['data']['images']:,} images"
        save_figure(accuracy_against_multiply_adds(result["rows"], title), path)


def _report(result: dict[str, Any]) -> None:
    rows = sorted(result["rows"], key=lambda row: -row["CSO-mAP"])
    columns = [
        ("CSO-mAP", [number(row["CSO-mAP"], ".2f") for row in rows]),
        ("95 % interval", [interval_cell(row["interval"], ".1f") for row in rows]),
        ("by intensity", [number(row["by_intensity"]["CSO-mAP"], ".2f") for row in rows]),
        ("count %", [number(row["count_accuracy"], ".1f") for row in rows]),
        ("images/s", [number(row.get("images_per_second"), ".0f") for row in rows]),
        ("M multiply-adds", [number(_millions(row.get("multiply_adds_per_image")), ".0f") for row in rows]),
        ("squared error", [number(row.get("squared_error"), ".1f") for row in rows]),
    ]
    print_figures(make_console(), ("", [row["name"] for row in rows]), columns, f"ratio {result['ratio']}")


def _millions(value: float | None) -> float | None:
    return None if value is None else value / 1e6
