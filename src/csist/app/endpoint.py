"""`POST /api/unmix`: a file and options in, the rows of the table out, for scripts."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from csist.app.request import READERS, Options, rows_of
from csist.app.uploads import LARGEST_UPLOAD_MB, TooLargeError
from csist.checks import InputError
from csist.files import one_line

logger = logging.getLogger(__name__)

PATH = "/api/unmix"

FORM_BYTES = 2**16
"""Largest size of a request in bytes besides the file."""


class _RefusedError(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        text: one line for the user.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class UnmixEndpoint:
    """ASGI application that unmixes the file of a multipart form.

    Answers 200 with a JSON list of rows, 400 (form or options), 413 (file too large) or 422 (file that cannot be
    unmixed), the last three with `{"error": "one line"}`.

    Args:
        folder: existing folder for temporary files.
        simultaneous: number of files that are unmixed at the same time; others wait.
    """

    def __init__(self, folder: Path, simultaneous: int) -> None:
        self.folder = folder
        self.simultaneous = simultaneous
        self._places: asyncio.Semaphore | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        try:
            with tempfile.TemporaryDirectory(dir=self.folder, prefix="request-") as folder:
                response = JSONResponse(await self._rows(scope, receive, Path(folder)))
        except _RefusedError as error:
            response = JSONResponse({"error": one_line(error)}, error.status)
        except ClientDisconnect:
            return
        except Exception as error:
            logger.exception("unmixing failed")
            text = f"internal error, please report it with the output of the server: {type(error).__name__}"
            response = JSONResponse({"error": text}, 500)
        await response(scope, receive, send)

    async def _rows(self, scope: Scope, receive: Receive, folder: Path) -> list[dict[str, Any]]:
        # Created here, because it belongs to the event loop of the server.
        self._places = self._places or asyncio.Semaphore(self.simultaneous)
        request = Request(scope, _limited(scope, receive))
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise _RefusedError(400, "send a form of the type multipart/form-data with the field file")
        path, options = await _received(request, folder)
        async with self._places:
            try:
                return await asyncio.to_thread(rows_of, path, options)
            except TooLargeError as error:
                raise _RefusedError(413, str(error)) from error
            except InputError as error:
                raise _RefusedError(422, str(error).replace(f"{folder}/", "")) from error
            except MemoryError as error:
                raise _RefusedError(413, "out of memory: use a smaller image") from error


def _limited(scope: Scope, receive: Receive) -> Receive:
    """Return `receive` with an upper limit on the size of the request, also if its length is not stated.

    Raises:
        _RefusedError: from the call that exceeds it.
    """
    most = LARGEST_UPLOAD_MB * 2**20 + FORM_BYTES
    stated = dict(scope["headers"]).get(b"content-length", b"0")
    received = int(stated) if stated.isdigit() and int(stated) > most else 0

    async def limited() -> Message:
        nonlocal received
        if received > most:
            raise _too_large()
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise _too_large()
        return message

    return limited


def _too_large() -> _RefusedError:
    return _RefusedError(413, f"the file is larger than {LARGEST_UPLOAD_MB} MB: use the command csist unmix")


async def _received(request: Request, folder: Path) -> tuple[Path, Options]:
    """Store the file of a form in a folder, and read the options.

    Raises:
        _RefusedError: if the form cannot be used.
    """
    from starlette.exceptions import HTTPException

    try:
        async with request.form(max_files=1, max_fields=len(READERS), max_part_size=FORM_BYTES) as form:
            files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
            texts = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
            if [name for name, _ in files] != ["file"]:
                raise _RefusedError(400, "the form needs one file, in the field file")
            if len(dict(texts)) < len(texts):
                raise _RefusedError(400, "an option is given twice: leave one out")
            options = Options.read(dict(texts))
            # The client chooses the name, and only its last part is used.
            name = Path((files[0][1].filename or "").replace("\\", "/")).name
            if not name or "\0" in name or len(name.encode()) > 200:
                raise _RefusedError(400, "the file needs a name of at most 200 bytes, with the suffix of its format")
            path = folder / name
            content = await files[0][1].read()
            await asyncio.to_thread(path.write_bytes, content)
            return path, options
    except InputError as error:
        raise _RefusedError(400, str(error)) from error
    except HTTPException as error:
        raise _RefusedError(400, f"the form cannot be read: {error.detail}") from error
