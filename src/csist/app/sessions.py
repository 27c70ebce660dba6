"""Sessions of the app: uploaded files, the signal that stops the work, and the last result of each user."""

from __future__ import annotations

import hashlib
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from csist.app.scene import Files

KINDS = ("image", "error", "mask")
"""Kinds of uploaded files; a session has at most one of each."""


class Sessions:
    """Folders, stop signals and results by session.

    Args:
        root: parent folder of the session folders.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._stops: dict[str, threading.Event] = {}
        self._results: dict[str, Any] = {}
        self._versions: dict[str, int] = {}

    def _folder(self, session: str) -> Path:
        # The name of a session comes from the browser and must not be used as a path.
        return self.root / f"session-{hashlib.sha256(session.encode()).hexdigest()[:24]}"

    def files(self, session: str) -> Files:
        """Return the uploaded files of a session."""
        folders = {kind: self._folder(session) / kind for kind in KINDS}
        return Files(**{
            kind: next((path for path in folder.iterdir() if path.is_file()), None)
            for kind, folder in folders.items()
            if folder.is_dir()
        })  # fmt: skip

    def keep(self, session: str, received: Path, kind: str = "image") -> Path:
        """Store a received file in place of an earlier one of its kind, and return its new path."""
        self.forget(session, kind)
        folder = self._folder(session) / kind
        folder.mkdir(parents=True)
        kept = folder / received.name
        shutil.move(received, kept)
        with suppress(OSError):  # the received file had its own folder
            received.parent.rmdir()
        return kept

    def forget(self, session: str, kind: str) -> None:
        """Remove the file of this kind of a session."""
        with self._lock:
            self._versions[session] = self._versions.get(session, 0) + 1
        shutil.rmtree(self._folder(session) / kind, ignore_errors=True)

    def version(self, session: str) -> int:
        """Return a number that changes whenever a file of the session is stored or removed."""
        with self._lock:
            return self._versions.get(session, 0)

    def remember(self, session: str, result: Any) -> None:
        """Keep the last result of a session, in place of an earlier one; None forgets it."""
        with self._lock:
            if result is None:
                self._results.pop(session, None)
            else:
                self._results[session] = result

    def recall(self, session: str) -> Any:
        """Return the last result of a session; None if there is none."""
        with self._lock:
            return self._results.get(session)

    def begin(self, session: str) -> threading.Event:
        """Stop the current work of a session and return the stop signal for new work."""
        signal = threading.Event()
        with self._lock:
            earlier = self._stops.get(session)
            self._stops[session] = signal
        if earlier is not None:
            earlier.set()
        return signal

    def stop(self, session: str) -> None:
        """Stop the current work of a session."""
        with self._lock:
            signal = self._stops.pop(session, None)
        if signal is not None:
            signal.set()

    def end(self, session: str) -> None:
        """End a session: stop its work, forget its result and remove its files."""
        self.stop(session)
        self.remember(session, None)
        with self._lock:
            self._versions.pop(session, None)
        shutil.rmtree(self._folder(session), ignore_errors=True)
