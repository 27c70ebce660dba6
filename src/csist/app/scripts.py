"""Scripts of the page, served from the installed packages, so that the browser loads nothing from elsewhere."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import plotly
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Mount, Route

FOLDER = "csist-scripts"

HEAD = "".join(f'<script defer src="{FOLDER}/{name}"></script>' for name in ("plotly.min.js", "pictures.js"))
"""Elements of the page's head that load the scripts."""


def script_routes() -> list[Mount]:
    """Return the routes of the scripts."""
    paths = {
        "plotly.min.js": Path(str(resources.files(plotly) / "package_data" / "plotly.min.js")),
        "pictures.js": Path(str(resources.files("csist") / "app" / "pictures.js")),
    }

    def route(name: str) -> Route:
        def send(_: Request) -> FileResponse:
            return FileResponse(paths[name], media_type="text/javascript", headers={"cache-control": "no-cache"})

        return Route(f"/{name}", send)

    return [Mount(f"/{FOLDER}", routes=[route(name) for name in paths])]
