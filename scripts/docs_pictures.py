"""MkDocs hook: states the size of every picture, and lets pictures that are too wide for a phone scroll there.

On narrow screens the style sheet gives pictures of the class `wide` the width `--phone`, at which text is readable.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image

from csist.plots.style import DPI

PICTURE = re.compile(r'<img (?P<rest>[^>]*?)src="(?P<source>[^":]+\.(?:png|svg))"')
SVG_SIZE = re.compile(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"')
WIDE_PX = 1000
PHONE_SCALE = 0.55
"""CSS pixels per pixel of a wide picture on a phone."""


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height of a picture in px; those of an SVG are stated in points, and are px of our PNGs here."""
    if picture.suffix == ".svg":
        found = SVG_SIZE.search(picture.read_text(encoding="utf-8"))
        if found is None:
            raise ValueError(f"{picture} does not state its size in points")
        return round(float(found[1]) / 72.0 * DPI), round(float(found[2]) / 72.0 * DPI)
    with Image.open(picture) as opened:
        return opened.size


def with_sizes(content: str, folder: Path) -> str:
    """The HTML of a page with the size of each picture.

    Args:
        content: HTML of the page.
        folder: folder of the page, to which the addresses of its pictures are relative.
    """

    def sized(found: re.Match[str]) -> str:
        width, height = size_of(folder / found["source"])
        size = f'width="{width}" height="{height}"'
        if width > WIDE_PX:
            size += f' class="wide" style="--phone: {PHONE_SCALE * width:.0f}px"'
        return f'<img {found["rest"]}{size} src="{found["source"]}"'

    return PICTURE.sub(sized, content)


def on_page_content(content: str, page: Any, config: Any, **_kwargs: Any) -> str:
    """Called by MkDocs with the HTML of each page."""
    return with_sizes(content, (Path(config.docs_dir) / page.file.dest_uri).parent)
