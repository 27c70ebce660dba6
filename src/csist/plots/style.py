"""Style of all figures, and functions that write them.

The colours are those of Okabe and Ito ("Color Universal Design", 2008), which remain distinguishable with colour vision
deficiencies. Figures are made without pyplot, so that no global state changes and no display is needed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter, LogLocator, NullFormatter

from csist.checks import InputError
from csist.files import atomic_path, check_writable

PICTURE_SUFFIXES = (".png", ".svg", ".pdf")

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#000000"
GREY = "#8C8C8C"
LINE_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
LINE_STYLES = ("-", "--", ":")

DETECTION, ERROR, TRUTH, SAMPLES = ORANGE, ORANGE, SKY, PURPLE

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "csist",
}

DPI = 150


def styled() -> AbstractContextManager[None]:
    """Return a context in which figures have this style."""
    settings: Any = STYLE  # matplotlib's stubs expect literal keys
    return rc_context(settings)


@contextmanager
def headed_figure(width_in: float, height_in: float, title: str = "") -> Iterator[Figure]:
    """Open a context to draw a figure of this style, with a heading over all of it if there is a title."""
    with styled():
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        if title:
            figure.suptitle(title, fontsize=11, fontweight="bold")
        yield figure


def plain_ticks(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers: 20, 50, 100 in place of powers of ten."""
    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter())


def sparse_ticks(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers at 1, 2 and 5 times the powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def check_picture(path: str | Path) -> Path:
    """Return the path if a figure can be written there.

    Raises:
        InputError: if its name does not end in .png, .svg or .pdf or it cannot be written.
    """
    return check_writable(path, PICTURE_SUFFIXES)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, SVG or PDF, depending on the suffix; atomic and reproducible to the byte.

    Raises:
        InputError: if the suffix is another one or the path cannot be written.
    """
    path = check_picture(path)
    kind = path.suffix.lower()[1:]
    # By default, SVG and PDF files contain the time of writing.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with styled(), atomic_path(path) as partial:
        figure.savefig(partial, format=kind, dpi=DPI, metadata=metadata)


def figure_png(figure: Figure) -> bytes:
    """Return the bytes of a figure as a PNG file."""
    file = io.BytesIO()
    with styled():
        figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def contact_sheet(pictures: Sequence[bytes], columns: int = 3) -> bytes:
    """Arrange PNG images in rows of `columns` and return the bytes of one PNG file.

    Raises:
        InputError: if there is no picture.
    """
    from PIL import Image

    if not pictures:
        raise InputError("a sheet needs at least one picture, got none")
    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    width = max(sum(image.width for image in row) for row in rows)
    sheet = Image.new("RGB", (width, sum(max(image.height for image in row) for row in rows)), "white")
    top = 0
    for row in rows:
        left = 0
        for image in row:
            sheet.paste(image, (left, top))
            left += image.width
        top += max(image.height for image in row)
    file = io.BytesIO()
    sheet.save(file, format="png")
    return file.getvalue()
