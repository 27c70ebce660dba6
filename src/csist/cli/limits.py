"""`csist limits`: measure the physical limits on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csist.cli.options import DataArgument, JsonOption, LimitOption, SplitOption
from csist.cli.output import (
    Column,
    check_outputs,
    data_line,
    interval_cell,
    make_console,
    number,
    print_figures,
    progress,
    write_json,
)

if TYPE_CHECKING:
    from rich.console import Console

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
        typer.Option("--output", "-o", help="Table of the targets with their bounds (.csv, .parquet, .fits, .ecsv)."),
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
        _print_scores(console, result.posterior)
        console.print(_verdict(result.posterior), soft_wrap=True)
    console.print()
    console.print("Cramer-Rao bound, median and quartiles")
    _print_bounds(console, result.summary)


def _print_scores(console: Console, posterior: PosteriorLimit) -> None:
    columns: list[Column] = []
    for heading, chains in (("from the truth", posterior.from_truth), ("from found modes", posterior.from_modes)):
        columns += [
            (heading, [number(each.value, ".2f") for each in chains.values()]),
            ("95 % interval", [interval_cell(each[1:], ".1f") for each in chains.values()]),
        ]
    print_figures(console, ("", list(posterior.from_truth)), columns)


def _verdict(posterior: PosteriorLimit) -> str:
    low, high = (number(end, ".2f") for end in posterior.bracket)
    value, *ends = posterior.difference
    apart = f"{number(value, '.2f')} ({' to '.join(number(end, '.2f') for end in ends)})"
    verdict = "they agree" if posterior.agree else "they do not agree, increase --steps"
    return f"CSO-mAP limit {low} to {high}; the two sets of chains differ by {apart}: {verdict}"


def _print_bounds(console: Console, summary: list[BoundSummary]) -> None:
    columns: list[Column] = [
        (name, [f"{getattr(row, name)}" for row in summary]) for name in ("images", "targets", "unresolved")
    ]
    for name, unit, form in (("x", "px", ".4f"), ("y", "px", ".4f"), ("intensity", "counts", ".2f")):
        quartiles = [getattr(row, name) for row in summary]
        columns += [
            (f"{name} {unit}", [number(middle, form) for _, middle, _ in quartiles]),
            ("quartiles", [interval_cell((low, high), form) for low, _, high in quartiles]),
        ]
    counts = ["all" if row.count is None else f"{row.count}" for row in summary]
    print_figures(console, ("targets per image", counts), columns)
