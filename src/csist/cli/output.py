"""What every command prints and writes: console, bar, JSON, checks of outputs, errors in one line."""

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

from csist.checks import InputError

if TYPE_CHECKING:
    from types import FrameType

DEBUG_VARIABLE = "CSIST_DEBUG"
"""Set to anything, the traceback of an error is shown as well."""

INTERNAL_ERROR = f"internal error, please report it with the traceback that {DEBUG_VARIABLE}=1 shows"

FAILURE, BAD_USE, INTERRUPTED = 1, 2, 130

PIPE_WIDTH = 132
"""Columns of a table that goes to a file or pipe."""


class InterruptedRunError(Exception):
    """Ctrl-C, with a message that says what is left of the work."""


def make_console(stderr: bool = False) -> Console:
    """A console for tables, as wide as the terminal; `PIPE_WIDTH` columns where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def complain(message: object) -> None:
    """Write one line to standard error."""
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
    """A bar on standard error, gone when the work is done; nothing at all where nobody watches.

    Yields:
        A function to be called with (what is being done, amount done, amount in all).
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
    """Ctrl-C waits for the end of this context, so that what belongs together is done together."""
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
    """The value with NaN and infinities, which JSON does not have, as null."""
    if isinstance(value, dict):
        return {str(key): _json_ready(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(each) for each in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value


def write_json(value: Any, target: str) -> None:
    """Write figures as JSON to a file, or to standard output where the target is "-"; NaN becomes null.

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
    """Check before the work begins that outputs can be written, are different, and are no input.

    Raises:
        InputError: if one is not.
    """
    from csist.files import check_writable

    given = [Path(json_target)] if json_target not in (None, "-") else []
    given += [path for path in others if path is not None]
    for place, path in enumerate(given):
        check_writable(path)
        if any(same_file(path, source) for source in inputs):
            raise InputError(f"cannot write {path}: it is an input, give another name")
        if any(same_file(path, other) for other in given[:place]) and not path.is_char_device():
            raise InputError(f"cannot write {path}: it is the name of two outputs, give different ones")


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file; neither needs to exist."""
    return os.path.realpath(one) == os.path.realpath(other)


def number(value: float | None, form: str) -> str:
    """A cell of a table: the value in that format, "-" for None and NaN."""
    return "-" if value is None or value != value else format(value, form)


def interval_cell(ends: Sequence[float], form: str) -> str:
    """A cell of a table: both ends of an interval."""
    return " - ".join(number(end, form) for end in ends)


def data_line(data: Mapping[str, Any]) -> str:
    """One line on labelled images, from their description."""
    return f"{data['path']}, {data['split']}: {data['images']} images, {data['targets']} targets"


def report_written(path: Path, sizes: dict[str, int], seconds: float) -> None:
    """Print what dataset was written: images by split, and the seconds it took."""
    parts = ", ".join(f"{name} {size}" for name, size in sizes.items())
    make_console().print(f"{path}: {sum(sizes.values())} images ({parts}) in {seconds:.1f} s", soft_wrap=True)


def show_traceback() -> None:
    """Print the traceback of the error at hand where the user has asked for it."""
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exc()
