"""Helpers that run the app in a process and a browser, for its tests and its benchmark."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""Path of the installed browser; None if there is none."""

FLAGS = (
    "--headless",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Resolve no name, so that unexpected requests fail.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

SECONDS_TO_END = 60.0


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running_app(environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run `csist app` in a process and yield the address of its page; the process must end cleanly on request."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "csist", "app", "--port", str(port)],
        env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        address = f"http://127.0.0.1:{port}"
        if address not in line:
            raise RuntimeError(f"the app did not start: {line!r}")
        yield address
        process.send_signal(signal.SIGTERM)
        if process.wait(SECONDS_TO_END) != 0:
            raise RuntimeError(f"the app ended with the code {process.returncode}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
