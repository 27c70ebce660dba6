"""The users of the app, kept apart: each has a folder for the file he dropped and a way to stop his work."""

from __future__ import annotations

import hashlib
import shutil
import threading
from contextlib import suppress
from pathlib import Path


class Sessions:
    """Folders and stop signals by session.

    Args:
        root: folder in which those of the sessions are made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._stops: dict[str, threading.Event] = {}

    def _folder(self, session: str) -> Path:
        # A session's name comes from the browser: it must not become a path.
        return self.root / f"session-{hashlib.sha256(session.encode()).hexdigest()[:24]}"

    def upload(self, session: str) -> Path | None:
        """The file that a user has dropped, None if there is none."""
        folder = self._folder(session)
        return next(iter(folder.iterdir()), None) if folder.is_dir() else None

    def keep(self, session: str, received: Path) -> Path:
        """Take a file that was received in place of an earlier one; returns where it is now."""
        folder = self._folder(session)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        kept = folder / received.name
        shutil.move(received, kept)
        with suppress(OSError):  # it had a folder to itself
            received.parent.rmdir()
        return kept

    def forget(self, session: str) -> None:
        """Remove the file of a user."""
        shutil.rmtree(self._folder(session), ignore_errors=True)

    def begin(self, session: str) -> threading.Event:
        """A signal for new work, which stops what the session is still doing."""
        signal = threading.Event()
        with self._lock:
            earlier = self._stops.get(session)
            self._stops[session] = signal
        if earlier is not None:
            earlier.set()
        return signal

    def stop(self, session: str) -> None:
        """Stop what a session is doing."""
        with self._lock:
            signal = self._stops.pop(session, None)
        if signal is not None:
            signal.set()

    def end(self, session: str) -> None:
        """The user is gone: stop his work and remove his file."""
        self.stop(session)
        self.forget(session)
