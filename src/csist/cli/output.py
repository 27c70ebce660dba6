"""Output of the commands: console, progress bar, JSON, checks of output paths, one-line errors."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from csist.checks import InputError

if TYPE_CHECKING:
    from types import FrameType

DEBUG_VARIABLE = "CSIST_DEBUG"
"""Environment variable that, if set to anything, makes errors show a traceback."""

INTERNAL_ERROR = f"internal error, please report it with the traceback shown by {DEBUG_VARIABLE}=1"

FAILURE, BAD_USE, INTERRUPTED = 1, 2, 130

PIPE_WIDTH = 132
"""Width in columns of a table written to a file or pipe."""


class InterruptedRunError(Exception):
    """Interruption by Ctrl-C; the message states what was saved."""


def make_console(stderr: bool = False) -> Console:
    """Return a console as wide as the terminal, or `PIPE_WIDTH` columns wide without a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def complain(message: object) -> None:
    """Write a message as one line to standard error."""
    typer.echo(f"csist: {' '.join(str(message).split())}", err=True)


class _Complaints(logging.Handler):
    """Writes what is logged as lines of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage())


_complaints = _Complaints()


def tell_of_compilation() -> None:
    """Write a line to standard error when the solver has to be compiled, which happens once on a machine."""
    logger = logging.getLogger("csist._compiled")
    logger.setLevel(logging.INFO)
    logger.addHandler(_complaints)


@contextmanager
def progress() -> Iterator[Callable[[str, float, float], None]]:
    """Show a progress bar on standard error until the block ends, if standard error is a terminal.

    Yields:
        A function to call with (description, amount done, total amount).
    """
    console = Console(stderr=True, markup=False)
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def report(what: str, done: float, total: float) -> None:
            bar.update(task, description=what[-40:], completed=done, total=total)

        yield report


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer Ctrl-C to the end of this context, so that its steps are completed together."""
    pressed = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _json_ready(value: Any) -> Any:
    """Return the value with NaN and infinities, which JSON lacks, replaced by None."""
    if isinstance(value, dict):
        return {str(key): _json_ready(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(each) for each in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value


def write_json(value: Any, target: str) -> None:
    """Write figures as JSON to a file, or to standard output if the target is "-"; NaN becomes null.

    Raises:
        InputError: if the file cannot be written.
    """
    from csist.files import write_text

    text = json.dumps(_json_ready(value), indent=2, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        write_text(text, target)


def check_outputs(inputs: Sequence[Path], json_target: str | None, *others: Path | None) -> None:
    """Check in advance that outputs can be written, differ from each other, and are not inputs.

    Raises:
        InputError: if this is not the case.
    """
    from csist.files import STANDARD_OUTPUT, check_writable

    given = [Path(json_target)] if json_target not in (None, "-") else []
    given += [path for path in others if path is not None]
    if json_target == "-" and STANDARD_OUTPUT in given:
        raise InputError("two outputs are -, the standard output: give one of them a file")
    for place, path in enumerate(given):
        check_writable(path)
        if any(same_file(path, source) for source in inputs):
            raise InputError(f"cannot write {path}: it is an input, give another name")
        if any(same_file(path, other) for other in given[:place]) and not path.is_char_device():
            raise InputError(f"cannot write {path}: two outputs have this name, give different ones")


def files_among(*values: str | Path | None) -> list[Path]:
    """Existing files that the values of some options name, with or without a FITS unit; others name something else."""
    from csist.io import split_selector

    paths = [split_selector(value)[0] for value in values if value]
    return [path for path in paths if path.is_file()]


def same_file(one: Path, other: Path) -> bool:
    """Return whether two paths lead to the same file; neither needs to exist."""
    return os.path.realpath(one) == os.path.realpath(other)


def number(value: float | None, form: str) -> str:
    """Format a value for a table cell, with "-" for None and NaN."""
    return "-" if value is None or value != value else format(value, form)


def interval_cell(ends: Sequence[float], form: str) -> str:
    """Format the ends of an interval for a table cell."""
    return " - ".join(number(end, form) for end in ends)


Column = tuple[str, Sequence[str]]
"""Heading and cells of a column of a table."""


def print_figures(console: Console, names: Column, columns: Sequence[Column], title: str | None = None) -> None:
    """Print a table of figures, as several tables below each other where the console is too narrow for one.

    Args:
        console: where to print.
        names: the first column, repeated in each of the tables.
        columns: the others.
        title: printed above the first table.
    """
    for place, fitting in enumerate(_fitting(console.width, names, columns)):
        table = Table(box=None, pad_edge=False, title=None if place else title, title_justify="left")
        table.add_column(names[0], no_wrap=True)
        for heading, _ in fitting:
            table.add_column(heading, justify="right", no_wrap=True)
        for cells in zip(names[1], *(cells for _, cells in fitting), strict=True):
            table.add_row(*cells)
        if place:
            console.print()
        console.print(table)


def _fitting(width: int, names: Column, columns: Sequence[Column]) -> list[list[Column]]:
    """Columns of each table that fits the width; one that does not fit beside the names gets a table of its own."""
    between = 2
    first = max(map(len, (names[0], *names[1])))
    tables: list[list[Column]] = [[]]
    used = first
    for heading, cells in columns:
        needed = between + max(map(len, (heading, *cells)))
        if tables[-1] and used + needed > width:
            tables.append([])
            used = first
        tables[-1].append((heading, cells))
        used += needed
    return tables


def data_line(data: Mapping[str, Any]) -> str:
    """Return one line that summarises labelled images, from their description."""
    return f"{data['path']}, {data['split']}: {data['images']} images, {data['targets']} targets"


def report_written(path: Path, sizes: dict[str, int], seconds: float) -> None:
    """Print a summary of a written dataset: images by split, and the time in seconds."""
    parts = ", ".join(f"{name} {size}" for name, size in sizes.items())
    make_console().print(f"{path}: {sum(sizes.values())} images ({parts}) in {seconds:.1f} s", soft_wrap=True)


def show_traceback() -> None:
    """Print the traceback of the current exception if the user asked for it."""
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exc()
