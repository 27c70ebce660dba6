"""Protection of the server against other web pages: content policy, and refusal of foreign Host and Origin headers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'none'"
)
"""Policy that forbids the browser to load anything from another origin (W3C Content Security Policy)."""

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
"""Names of this machine in the Host header."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class ContentPolicy:
    """ASGI middleware that adds `CONTENT_POLICY` to every response."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), (b"content-security-policy", CONTENT_POLICY.encode())]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, marked)


class SameOrigin:
    """ASGI middleware that answers requests of other web pages with status 403.

    A page of another site can make the browser send requests to this server; its Origin differs from the Host. A name
    of another site that resolves to this machine (DNS rebinding) shows in the Host header.

    Args:
        app: application behind it.
        local: whether the server listens on this machine only, so that Host must be one of `LOCAL_NAMES`.
    """

    def __init__(self, app: Application, local: bool) -> None:
        self.app = app
        self.local = local

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] in ("http", "websocket"):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            refusal = self.refusal(headers.get("host", ""), headers.get("origin"))
            if refusal:
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 1008})
                else:
                    await answer(send, 403, {"error": refusal})
                return
        await self.app(scope, receive, send)

    def refusal(self, host: str, origin: str | None) -> str:
        """Return why a request is refused; empty if it is accepted."""
        if self.local and hostname(host) not in LOCAL_NAMES:
            return "the Host header names another machine: use the address that csist app prints"
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return "requests of other web pages are refused"
        return ""


def hostname(host: str) -> str:
    """Return the name in a Host header without the port; empty if it is malformed.

    >>> hostname("localhost:7860"), hostname("[::1]:7860"), hostname("[")
    ('localhost', '::1', '')
    """
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def answer(send: Send, status: int, content: Any) -> None:
    """Send a JSON response."""
    body = json.dumps(content, allow_nan=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
