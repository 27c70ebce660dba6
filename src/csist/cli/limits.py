"""`csist limits`: measure the physical limits on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from csist.cli.options import DataArgument, JsonOption, LimitOption, SplitOption
from csist.cli.output import check_outputs, data_line, interval_cell, make_console, number, progress, write_json

if TYPE_CHECKING:
    from csist.limits import BoundSummary, Limits, PosteriorLimit


def limits(
    data: DataArgument,
    split: SplitOption = "test",
    limit: LimitOption = None,
    steps: Annotated[int, typer.Option("--steps", help="Sampling steps per image and set of chains.")] = 100_000,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Number of threads.", show_default="one per core")
    ] = None,
    resamples: Annotated[int, typer.Option("--resamples", help="Bootstrap resamples of the intervals.")] = 1000,
    json_target: JsonOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Table of the true targets with their bounds (.csv, .parquet)."),
    ] = None,
) -> None:
    """Measure the physical limits: the score of the exact posterior, and the smallest possible standard errors.

    The posterior is sampled twice, with chains that start at the truth and with chains that find their own start,
    count and pixel known. The limit on CSO-mAP lies between the two scores. The Cramer-Rao bound is the smallest
    standard error of an unbiased estimate of each target.
    """
    from csist.evaluation import read_labelled
    from csist.files import check_writable
    from csist.io import TABLE_SUFFIXES, write_table
    from csist.limits import bound_table, measure_limits

    check_outputs([data], json_target, output)
    if output is not None:
        check_writable(output, TABLE_SUFFIXES)
    with progress() as report:
        images = read_labelled(data, split, limit, lambda done, total: report("reading", done, total))
        result = measure_limits(images, steps, workers, resamples, progress=report)
    if output is not None:
        write_table(bound_table(images, result.bounds), output)
    if json_target is not None:
        write_json(result.to_dict(), json_target)
    if json_target != "-":
        _report_limits(result)


def _report_limits(result: Limits) -> None:
    console = make_console()
    console.print(data_line(result.data), soft_wrap=True)
    console.print()
    if result.posterior is None:
        console.print(f"no posterior limit: {result.posterior_missing}", soft_wrap=True)
    else:
        console.print(f"posterior limit, count and pixel known, {result.steps} steps", soft_wrap=True)
        console.print(_score_table(result.posterior))
        console.print(_verdict(result.posterior), soft_wrap=True)
    console.print()
    console.print("Cramer-Rao bound, median and quartiles")
    console.print(_bound_table(result.summary))


def _score_table(posterior: PosteriorLimit) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in ("from the truth", "95 % interval", "from found modes", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, first in posterior.from_truth.items():
        second = posterior.from_modes[name]
        values = [(number(each.value, ".2f"), interval_cell(each[1:], ".1f")) for each in (first, second)]
        table.add_row(name, *values[0], *values[1])
    return table


def _verdict(posterior: PosteriorLimit) -> str:
    low, high = (number(end, ".2f") for end in posterior.bracket)
    value, *ends = posterior.difference
    apart = f"{number(value, '.2f')} ({' to '.join(number(end, '.2f') for end in ends)})"
    verdict = "they agree" if posterior.agree else "they do not agree, increase --steps"
    return f"CSO-mAP limit {low} to {high}; the two sets of chains differ by {apart}: {verdict}"


def _bound_table(summary: list[BoundSummary]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in (
        "targets per image", "images", "targets", "unresolved",
        "x px", "quartiles", "y px", "quartiles", "intensity counts", "quartiles",
    ):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summary:
        cells = []
        for (low, middle, high), form in ((row.x, ".4f"), (row.y, ".4f"), (row.intensity, ".2f")):
            cells += [number(middle, form), interval_cell((low, high), form)]
        count = "all" if row.count is None else f"{row.count}"
        table.add_row(count, f"{row.images}", f"{row.targets}", f"{row.unresolved}", *cells)
    return table
