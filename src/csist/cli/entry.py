"""Entry point of the command line: registers the commands, and turns exceptions into one line and an exit code."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from csist.checks import InputError
from csist.cli.app import app as app_command
from csist.cli.benchmark import benchmark
from csist.cli.config import init_config
from csist.cli.convert import convert
from csist.cli.doctor import doctor
from csist.cli.evaluate import evaluate
from csist.cli.export import export
from csist.cli.generate import generate
from csist.cli.inject import inject
from csist.cli.limits import limits
from csist.cli.methods import methods
from csist.cli.output import (
    BAD_USE,
    FAILURE,
    INTERNAL_ERROR,
    INTERRUPTED,
    InterruptedRunError,
    complain,
    show_traceback,
    tell_of_compilation,
)
from csist.cli.samples import samples
from csist.cli.train import train
from csist.cli.unmix import unmix

app = typer.Typer(
    name="csist",
    help="Find the point targets in blurred infrared blobs: their number, positions and fluxes, with uncertainties.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import csist

        typer.echo(f"csist {csist.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(BAD_USE)


for command in (
    unmix,
    inject,
    evaluate,
    train,
    limits,
    methods,
    generate,
    app_command,
    convert,
    export,
    benchmark,
    samples,
    doctor,
):
    app.command()(command)
app.command("init-config")(init_config)


def _with_value(message: str, arguments: Sequence[str]) -> str:
    """Add the value of an option to a message of the library that names only the option."""
    named = re.search(r"'(?:-\w / )?(--[\w-]+)'", message)
    if named is None or "nvalid value" not in message:
        return message
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, _, value = argument.partition("=")
        value = value or following
        if name == named[1] and repr(value) not in message:
            return f"{message.rstrip('.')}, got {value!r}"
    return message


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: command line after the program name; None for that of the process.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    tell_of_compilation()
    try:
        code = app(args=arguments, prog_name="csist", standalone_mode=False)
        sys.stdout.flush()
    except InputError as error:
        show_traceback()
        complain(error)
        return BAD_USE
    except InterruptedRunError as error:
        complain(error)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has closed the pipe (`| head`): report nothing, and do not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted: nothing was written")
        return INTERRUPTED
    except MemoryError:
        complain("out of memory: use smaller images, or fewer at a time")
        return FAILURE
    except OSError as error:
        show_traceback()
        complain(str(error) or type(error).__name__)
        return FAILURE
    except Exception as error:
        if hasattr(error, "format_message"):  # usage error reported by the option parser
            context = getattr(error, "ctx", None)
            see = f" (see {context.command_path} --help)" if context is not None else ""
            complain(f"{_with_value(error.format_message(), arguments)}{see}")
            return BAD_USE
        if INTERNAL_ERROR in str(error):  # from a batch; the message already names the file
            complain(error)
        else:
            show_traceback()
            complain(f"{INTERNAL_ERROR}: {type(error).__name__}: {error}")
        return FAILURE
    if code == INTERRUPTED:  # some versions of Typer turn Ctrl-C into this code
        complain("interrupted: nothing was written")
    return code if isinstance(code, int) else 0
