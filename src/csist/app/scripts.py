"""Scripts and style sheet of the page, served from the installed packages: the browser loads nothing from elsewhere."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import plotly
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Mount, Route

FOLDER = "csist-scripts"
OWN_SCRIPTS = ("form.js", "pictures.js")

# A link and not Gradio's own `css`, which takes selectors apart at every comma.
HEAD = f'<link rel="stylesheet" href="{FOLDER}/style.css">' + "".join(
    f'<script defer src="{FOLDER}/{name}"></script>' for name in ("form.js", "plotly.min.js", "pictures.js")
)
"""Elements of the page's head that load the style sheet and the scripts, the large one after the form's."""

MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css"}


def script_routes() -> list[Mount]:
    """Return the routes of the scripts and the style sheet."""
    own = resources.files("csist") / "app"
    paths = {name: Path(str(own / name)) for name in (*OWN_SCRIPTS, "style.css")}
    paths["plotly.min.js"] = Path(str(resources.files(plotly) / "package_data" / "plotly.min.js"))

    def route(name: str) -> Route:
        kind = MEDIA_TYPES[paths[name].suffix]

        def send(_: Request) -> FileResponse:
            return FileResponse(paths[name], media_type=kind, headers={"cache-control": "no-cache"})

        return Route(f"/{name}", send)

    return [Mount(f"/{FOLDER}", routes=[route(name) for name in paths])]
