"""`csist convert`: convert datasets and tables between formats."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from csist.checks import InputError
from csist.cli.output import make_console, progress, report_written, same_file


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Store, folder of a GrokCSO dataset, or table of targets.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder, store (.h5), or table (.csv, .parquet, .fits, .ecsv).")
    ],
) -> None:
    """Convert a dataset (store <-> GrokCSO folder) or a table of targets (CSV, Parquet, FITS, ECSV)."""
    from csist.files import check_writable
    from csist.io import TABLE_SUFFIXES, write_table
    from csist.io.tables import read_rows

    if source.suffix.lower() in TABLE_SUFFIXES and not source.is_dir():
        if same_file(source, out):
            raise InputError(f"cannot write {out}: it is the input, give another name")
        check_writable(out, TABLE_SUFFIXES)
        table = read_rows(source)
        write_table(table, out)
        make_console().print(f"{out}: {len(table)} targets, {len(table.columns)} columns", soft_wrap=True)
        return
    from csist.datasets import convert as convert_dataset
    from csist.datasets import load

    started = time.perf_counter()
    notes: list[str] = []
    with progress() as report:
        convert_dataset(source, out, lambda done, total: report("converting", done, total), notes)
    report_written(out, load(source if out.is_dir() else out).splits, time.perf_counter() - started)
    for note in notes:
        make_console().print(f"note: {note}", soft_wrap=True)
