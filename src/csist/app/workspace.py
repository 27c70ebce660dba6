"""Folder of a running app for its temporary files; folders of apps that were killed are removed at the next start."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PREFIX = "csist-app-"
LOCK = "in-use"
"""File in each folder that its app keeps locked; the system unlocks it when the process ends, however it ends."""

UNLOCKED_S = 60.0
"""Age in seconds from which a folder without this file counts as abandoned: a new one gets it at once."""


@contextmanager
def workspace() -> Iterator[Path]:
    """Yield a new folder for temporary files, which is removed at the end, after removing abandoned ones."""
    remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        folder = Path(name)
        with (folder / LOCK).open("w") as file:
            _lock(file)
            yield folder


def remove_abandoned(root: Path) -> None:
    """Remove the folders of apps that no longer run."""
    for folder in root.glob(f"{PREFIX}*"):
        if _abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    try:
        with (folder / LOCK).open("r+") as file:
            return _lock(file)
    except FileNotFoundError:
        try:
            return time.time() - folder.stat().st_mtime > UNLOCKED_S
        except OSError:
            return False
    except OSError:
        return False  # of another user


def _lock(file: IO[str]) -> bool:
    """Lock a file for this process until it is closed; return whether that was possible."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
