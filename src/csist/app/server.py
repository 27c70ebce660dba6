"""Web server of the app: serves the page on a port, and removes all temporary files at the end."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable

from csist.app.guard import LOCAL_NAMES, ContentPolicy, SameOrigin
from csist.app.workspace import workspace
from csist.checks import InputError

DEFAULT_PORT, LOCAL_HOST = 7860, "127.0.0.1"

HEAD_START_S = 5.0
"""Seconds after the first page has loaded before the warm-up starts."""


def check_address(host: str, port: int) -> None:
    """Check that the app can listen there.

    Raises:
        InputError: if it cannot.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; give another --host or --port"
        ) from error


def serve(host: str = LOCAL_HOST, port: int = DEFAULT_PORT, ready: Callable[[str], None] | None = None) -> None:
    """Serve the app until Ctrl-C or a request to terminate.

    Args:
        host: address to listen on; the default accepts only this machine.
        port: port to listen on.
        ready: called with the address when the server accepts requests.

    Raises:
        InputError: if the address cannot be used or Gradio is not installed.
    """
    check_address(host, port)
    with workspace() as folder:
        # Set before Gradio is imported, because it reads both at import.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "received")
        try:
            from starlette.middleware import Middleware
            from starlette.routing import Route

            from csist.app import endpoint
            from csist.app.layout import SIMULTANEOUS, build, make_theme
            from csist.app.scripts import HEAD, script_routes
        except ImportError as error:
            raise InputError(f"the app needs the extra `app`, pip install 'csist[app]' ({error})") from error
        from csist.app.sessions import Sessions
        from csist.app.uploads import LARGEST_UPLOAD_MB

        over, opened = threading.Event(), threading.Event()
        blocks = build(Sessions(folder / "sessions"), opened.set)
        unmixing = Route(endpoint.PATH, endpoint.UnmixEndpoint(folder, SIMULTANEOUS), methods=["POST"])
        signal.signal(signal.SIGTERM, lambda *_: over.set())
        try:
            _, address, _ = blocks.launch(
                server_name=host, server_port=port, share=False, inbrowser=False, quiet=True, prevent_thread_lock=True,
                max_file_size=f"{LARGEST_UPLOAD_MB}mb", footer_links=[], run_history=False, ssr_mode=False, pwa=False,
                mcp_server=False, enable_monitoring=False, theme=make_theme(), head=HEAD,
                # Gradio would ask for its own page, perhaps through a proxy, and give up after 3 s on a busy machine.
                _frontend=False,
                app_kwargs={
                    "middleware": [Middleware(ContentPolicy), Middleware(SameOrigin, local=host in LOCAL_NAMES)],
                    "routes": [*script_routes(), unmixing],
                },
            )  # fmt: skip
            if ready is not None:
                ready(address.rstrip("/"))
            threading.Thread(target=warm_up, args=(opened,), daemon=True, name="csist-warm-up").start()
            while not over.wait(1.0):
                pass
        except KeyboardInterrupt:
            pass
        finally:
            blocks.close(verbose=False)


def warm_up(opened: threading.Event) -> None:
    """Load the compiled solver and Matplotlib in the background, after the first page has loaded or a timeout."""
    opened.wait(HEAD_START_S)
    from csist.app.result import results
    from csist.app.scene import make_scene
    from csist.app.settings import Settings

    for settings in (Settings(), Settings(source="build", mode="fast")):
        for _ in results(make_scene(settings), settings, lambda _: None):
            pass
