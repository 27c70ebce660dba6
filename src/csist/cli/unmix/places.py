"""Positions given to `csist unmix`: where fluxes are measured (--at), or where the search starts (--start)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from csist.checks import InputError

if TYPE_CHECKING:
    from csist._types import FloatArray
    from csist.cli.unmix.settings import Settings
    from csist.io import Header, ImageStack, TableWriter
    from csist.io.positions import Positions
    from csist.targets import Targets

PANEL = "Known positions"

AtOption = Annotated[
    Path | None,
    typer.Option(
        "--at",
        help="Measure fluxes at the positions in a table: x, y in px or ra, dec in degrees; optionally image, frame.",
        rich_help_panel=PANEL,
    ),
]
StartOption = Annotated[
    Path | None,
    typer.Option("--start", help="Also try targets at the positions in such a table.", rich_help_panel=PANEL),
]


def read_places(at: Path | None, start: Path | None, others: dict[str, str]) -> dict[str, Positions]:
    """The tables of positions that are given, as settings.

    Args:
        at: table of `--at`.
        start: table of `--start`.
        others: options given that do not go together with these, and why.

    Raises:
        InputError: if one does, both are given, or a table cannot be read.
    """
    from csist.io.positions import read_positions

    given = {name: path for name, path in (("at", at), ("start", start)) if path is not None}
    if len(given) == 2:
        raise InputError("give --at (the positions are right) or --start (the fit may move them), not both")
    for option, reason in others.items() if given else ():
        raise InputError(f"--{next(iter(given))} cannot be combined with {option}, {reason}: leave one out")
    return {name: read_positions(path) for name, path in given.items()}


def check_images(settings: Settings, names: Sequence[str], paths: Sequence[Path]) -> None:
    """Check that a table of positions belongs to the images at hand.

    Raises:
        InputError: if it names images, and none of them is there.
    """
    for option, table in (("at", settings.at), ("start", settings.start)):
        if table is None or table.image is None or not len(table) or any(path.is_dir() for path in paths):
            continue
        if not any(table.belongs(name) for name in names):
            raise InputError(
                f"--{option} {table}: none of its rows is for an image given, they are for {table.image[0]!r} and the "
                f"like, not {names[0]!r}"
            )


def place_notes(images: Any, name: str, settings: Settings) -> list[str]:
    """What the user should know of rows for frames that a file does not have.

    Args:
        images: file or sequence, all of whose images are read if no part of it is asked for.
        name: of the file.
        settings: of the command.
    """
    notes: list[str] = []
    for option, table in (("at", settings.at), ("start", settings.start)):
        if table is None or table.frame is None or settings.reading.frames != (0, None) or not len(images):
            continue
        mine = table.rows_of(name)
        lost = int(((table.frame[mine] < 0) | (table.frame[mine] >= len(images))).sum())
        if lost:
            notes.append(
                f"--{option} {table}: {lost} of {len(mine)} rows are for frames that {name} does not have; its frames "
                f"are 0 to {len(images) - 1}"
            )
    return notes


def places_in(table: Positions | None, images: Any, name: str, index: int, settings: Settings) -> FloatArray | None:
    """Positions (n, 2), x and y in px, for an image of a file, in the coordinates of the part that is read.

    Args:
        table: of all positions; None for none.
        images: file or sequence, with its header and shape.
        name: of the image.
        index: of the image among those that are read.
        settings: of the command.

    Raises:
        InputError: if they are on the sky and the image is not.
    """
    if table is None:
        return None
    first, x, y = settings.reading.origin
    shape = (images.shape[1] + y, images.shape[2] + x)
    header: Header = images.header
    return table.pixels(table.rows(name, first + index), header, shape, name) - [x, y]


class WindowPlaces(NamedTuple):
    """Positions (n, 2), x and y in px, given for each window of a file; None without a table.

    Args:
        at: where fluxes are measured.
        start: where targets are tried.
    """

    at: list[FloatArray] | None = None
    start: list[FloatArray] | None = None

    @classmethod
    def of(cls, stack: ImageStack, settings: Settings) -> WindowPlaces:
        """The positions of all windows of a file."""
        return cls(*(_of_windows(table, stack, settings) for table in (settings.at, settings.start)))

    def part(self, part: slice) -> WindowPlaces:
        """The positions of some of the windows."""
        return WindowPlaces(*(None if places is None else places[part] for places in self))


def _of_windows(table: Positions | None, stack: ImageStack, settings: Settings) -> list[FloatArray] | None:
    if table is None:
        return None
    places = (places_in(table, stack, stack.name, index, settings) for index in range(len(stack)))
    return [each for each in places if each is not None]


def writer_for(settings: Settings, path: Path, **options: Any) -> TableWriter:
    """The writer of the table of targets; rows measured at positions keep the order of their table.

    Args:
        settings: of the command.
        path: of the table.
        **options: of `TableWriter`.

    Raises:
        InputError: if it cannot be written.
    """
    from csist.io import TableWriter

    if settings.at is None or not settings.at.placed:
        return TableWriter(path, **options)
    return ordered_writer(settings.at, path, options)


def ordered_writer(table: Positions, path: Path, options: dict[str, Any]) -> TableWriter:
    """A writer that holds the rows of an image until all are measured, and writes them in the order of the table.

    Args:
        table: of the positions.
        path: of the table of targets.
        options: of `TableWriter`.

    Raises:
        InputError: if it cannot be written.
    """
    from csist.io import TableWriter

    held: list[tuple[int, str, int, Targets, dict[str, FloatArray] | None]] = []

    class InTableOrder(TableWriter):
        def append(
            self, image: str, frame: int, targets: Targets, further: Mapping[str, FloatArray] | None = None
        ) -> None:
            for place, row in enumerate(table.rows(image, frame).tolist()):
                own = None if further is None else {name: values[[place]] for name, values in further.items()}
                held.append((row, image, frame, targets[place], own))

        def __exit__(self, *ended: Any) -> None:
            for _, image, frame, target, own in sorted(held, key=lambda each: each[0]):
                super().append(image, frame, target, own)
            super().__exit__(*ended)

    return InTableOrder(path, **options)
