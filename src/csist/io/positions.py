"""Tables of positions in px or on the sky, at which something is to be measured or tried."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from csist._types import FloatArray, IntArray
from csist.checks import InputError, check_packages
from csist.io.headers import Header
from csist.io.tables import numbers_of, read_columns, units_of

if TYPE_CHECKING:
    import pandas as pd

PIXELS, SKY = ("x", "y"), ("ra", "dec")
DEGREES, PIXEL_UNITS = ("deg", "degree", "degrees"), ("pix", "pixel", "pixels", "px")
COLUMNS = (*PIXELS, *SKY, "image", "frame")
NEAR_FRAMES = 2.0
"""Positions farther from the middle of the image than so many of its sides keep their linear place: the distortion
terms of a header mean nothing out there."""


@dataclass(frozen=True, eq=False)
class Positions:
    """Positions of a table, in its order.

    Args:
        path: of the table.
        pairs: (n, 2) x and y in px, or right ascension and declination (ICRS) in degrees.
        on_sky: whether they are on the sky.
        image: (n,) image of each row; None where the rows are for every image.
        frame: (n,) frame of each row; None where they are for every frame.
    """

    path: Path
    pairs: FloatArray = field(repr=False)
    on_sky: bool
    image: tuple[str, ...] | None = field(default=None, repr=False)
    frame: IntArray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def placed(self) -> bool:
        """Whether the rows say which image or frame they belong to."""
        return self.image is not None or self.frame is not None

    def rows(self, name: str, frame: int) -> IntArray:
        """Indices of the rows for a frame of an image, which may be named with or without its folders.

        Args:
            name: of the image.
            frame: index in its stack or sequence.
        """
        mine = self.rows_of(name)
        return mine if self.frame is None else mine[self.frame[mine] == frame]

    def rows_of(self, name: str) -> IntArray:
        """As `rows`, for all frames."""
        if self.image is None:
            return np.arange(len(self))
        known = {each: _same_image(each, name) for each in set(self.image)}
        return np.flatnonzero([known[each] for each in self.image])

    def belongs(self, name: str) -> bool:
        """Whether some row is for the image of this name."""
        return self.image is None or any(_same_image(each, name) for each in set(self.image))

    def pixels(self, rows: IntArray, header: Header, shape: tuple[int, int], image: str) -> FloatArray:
        """Positions (n, 2) in px of the whole image.

        Args:
            rows: which rows.
            header: of the image, for positions on the sky.
            shape: (rows, columns) of the image.
            image: its name, for messages.

        Raises:
            InputError: if the image has no sky coordinates, or its projection has no place for a position.
        """
        if not self.on_sky:
            return self.pairs[rows]
        wcs = header.wcs()
        if wcs is None:
            raise InputError(f"{self.path} holds ra and dec, but {image} has no sky coordinates (WCS): give x and y")
        from astropy.coordinates import SkyCoord
        from astropy.wcs.utils import wcs_to_celestial_frame

        sky = SkyCoord(*self.pairs[rows].T, unit="deg", frame="icrs").transform_to(wcs_to_celestial_frame(wcs))
        places = np.stack([sky.spherical.lon.deg, sky.spherical.lat.deg], axis=1)
        found = np.asarray(wcs.wcs_world2pix(places, 0), dtype=np.float64)
        lost = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if lost.size:
            raise InputError(
                f"{self.path}, row {int(rows[lost[0]]) + 2}: this ra, dec has no place in the projection of {image}: "
                "leave the row out"
            )
        side = float(max(shape))
        near = (np.abs(found - 0.5 * np.array(shape[::-1])) < NEAR_FRAMES * side).all(axis=1)
        if near.any():
            found[near] = wcs.all_world2pix(places[near], 0, tolerance=1e-7, maxiter=50)
        return found


def _same_image(one: str, other: str) -> bool:
    return one == other or one.endswith(f"/{other}") or other.endswith(f"/{one}")


def read_positions(path: str | Path) -> Positions:
    """Read a table with the columns x and y (px) or ra and dec (degrees, ICRS), and perhaps image and frame.

    The names may be in upper or lower case; other columns are ignored. A table with both kinds is read as x and y.
    Where a FITS, ECSV or Parquet file states another unit of an angle, ra and dec are converted.

    Args:
        path: file ending in .csv, .parquet, .fits or .ecsv.

    Raises:
        InputError: if it cannot be read, lacks the columns or has them in other units, or a value is not a finite
            number or no whole frame.
    """
    path = Path(path)
    table = read_columns(path, COLUMNS)
    table.columns = [str(name).lower() for name in table.columns]
    kind = next((names for names in (PIXELS, SKY) if set(names) <= set(table.columns)), None)
    if kind is None:
        raise InputError(f"{path} is no table of positions: it needs the columns x and y (px) or ra and dec (degrees)")
    if kind == SKY:
        check_packages("a table with ra and dec", ["astropy"], "astro")
    units = units_of(path)
    pairs = np.stack(
        [_scale_of(name, units.get(name), kind == SKY, path) * _finite(table, name, path) for name in kind], axis=1
    )
    if kind == SKY and len(pairs) and np.abs(pairs[:, 1]).max() > 90.0:
        row = int(np.abs(pairs[:, 1]).argmax())
        raise InputError(f"{path}, row {row + 2}: dec must lie within -90 to 90 degrees, got {pairs[row, 1]:g}")
    frame = None
    if "frame" in table.columns:
        numbers = _finite(table, "frame", path)
        wrong = np.flatnonzero((numbers < 0) | (numbers % 1 != 0))
        if wrong.size:
            row = int(wrong[0])
            raise InputError(f"{path}, row {row + 2}: frame must be a whole number from 0, got {numbers[row]:g}")
        frame = numbers.astype(np.int64)
    image = tuple(str(name) for name in table["image"]) if "image" in table.columns else None
    return Positions(path, pairs, kind == SKY, image, frame)


def _scale_of(name: str, unit: str | None, on_sky: bool, path: Path) -> float:
    """Factor from a unit that a table states to degrees, or to px.

    Raises:
        InputError: if it is a unit of something else.
    """
    if unit is None or unit in (DEGREES if on_sky else PIXEL_UNITS):
        return 1.0
    if on_sky:
        from astropy.units import Unit, UnitsError

        with suppress(ValueError, UnitsError):
            return float(Unit(unit).to("deg"))
    needed = "ra and dec are angles" if on_sky else "x and y are in px"
    raise InputError(f"{path} states {name} in {unit[:30]!r}: {needed}")


def _finite(table: pd.DataFrame, name: str, path: Path) -> FloatArray:
    """A column of finite numbers."""
    values, strange = numbers_of(table[name])
    wrong = np.flatnonzero(strange | ~np.isfinite(values))
    if wrong.size:
        bad = str(table[name].iloc[int(wrong[0])])
        raise InputError(f"{path}, row {int(wrong[0]) + 2}: {name} must be a finite number, got {bad!r}")
    return values
