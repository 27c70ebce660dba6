"""`csist app`: run the toolkit in a browser."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Annotated

import typer

from csist.app import DEFAULT_PORT, LOCAL_HOST, serve
from csist.cli.output import make_console


def app(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = DEFAULT_PORT,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; the default accepts only this machine.")
    ] = LOCAL_HOST,
) -> None:
    """Run the toolkit in a browser: upload an image or build a group, and unmix it.

    Nothing leaves the machine: no external fonts or scripts, no telemetry, no public link. Needs the extra `app`.
    """

    def ready(address: str) -> None:
        make_console().print(f"csist app: {address} (Ctrl-C to quit)", soft_wrap=True)

    serve(host, port, ready)
    _leave()


def _leave() -> None:
    """End the process at once, with the exit functions and the output done.

    The interpreter's own end kills threads that still compute; inside compiled C++ code that aborts the process
    (python/cpython#87135).
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
