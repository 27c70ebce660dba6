"""Sessions of the app: each user has a separate folder for the uploaded file, and a signal that stops the work."""

from __future__ import annotations

import hashlib
import shutil
import threading
from contextlib import suppress
from pathlib import Path


class Sessions:
    """Folders and stop signals by session.

    Args:
        root: parent folder of the session folders.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._stops: dict[str, threading.Event] = {}

    def _folder(self, session: str) -> Path:
        # The name of a session comes from the browser and must not be used as a path.
        return self.root / f"session-{hashlib.sha256(session.encode()).hexdigest()[:24]}"

    def upload(self, session: str) -> Path | None:
        """Return the uploaded file of a session; None if there is none."""
        folder = self._folder(session)
        return next(iter(folder.iterdir()), None) if folder.is_dir() else None

    def keep(self, session: str, received: Path) -> Path:
        """Store a received file in place of an earlier one, and return its new path."""
        folder = self._folder(session)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        kept = folder / received.name
        shutil.move(received, kept)
        with suppress(OSError):  # the received file had its own folder
            received.parent.rmdir()
        return kept

    def forget(self, session: str) -> None:
        """Remove the file of a session."""
        shutil.rmtree(self._folder(session), ignore_errors=True)

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
        """End a session: stop its work and remove its file."""
        self.stop(session)
        self.forget(session)
