"""Columns of a table in the units of an instrument: times, lengths, angles, sky coordinates, electrons, magnitudes.

Sky coordinates are those of the FITS world coordinate system of a file (Greisen & Calabretta, A&A 395, 1061, 2002), by
astropy; its pixel centres are those of csist.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError, check_positive
from csist.io.headers import Header
from csist.io.times import mjd_of
from csist.targets import Targets

SCALE_UNITS = ("deg", "arcmin", "arcsec", "mas", "rad", "mrad", "urad", "nm", "um", "mm", "m", "km")
"""Units of a pixel's side, as astropy writes them."""

TIME_COLUMN, MJD_COLUMN = "time_s", "mjd"
SKY_COLUMNS = ("ra", "dec", "ra_std", "dec_std")
ELECTRON_COLUMNS = ("electrons", "electrons_std")
MAGNITUDE_COLUMNS = ("magnitude", "magnitude_std")

POGSON = 2.5 / np.log(10.0)
"""Magnitudes of a relative error of a flux."""
STEP_PX = 0.1
"""Half the distance over which the scale of the sky coordinates is taken."""


def scale_columns(unit: str) -> tuple[str, ...]:
    """Names of the columns with positions in a unit."""
    return f"x_{unit}", f"y_{unit}", f"x_{unit}_std", f"y_{unit}_std"


UNITS = {
    TIME_COLUMN: "s",
    MJD_COLUMN: "d",
    **dict.fromkeys(SKY_COLUMNS, "deg"),
    **dict.fromkeys(ELECTRON_COLUMNS, "electron"),
    **dict.fromkeys(MAGNITUDE_COLUMNS, "mag"),
    **{name: unit for unit in SCALE_UNITS for name in scale_columns(unit)},
}
"""Units of all these columns, as astropy writes them."""


def parse_pixel_scale(text: str) -> tuple[float, str]:
    """Number and unit of a pixel's side.

    >>> parse_pixel_scale("1.2arcsec")
    (1.2, 'arcsec')

    Raises:
        InputError: if the text is not a number > 0 and one of `SCALE_UNITS`.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?\d+)?)\s*([a-zA-Z]+)\s*", text)
    if found is None or found[2] not in SCALE_UNITS:
        raise InputError(
            f"pixel_scale must be a number and one of {', '.join(SCALE_UNITS)}, as 1.2arcsec, got {text!r}"
        )
    try:
        value = float(found[1])
    except ValueError as error:
        raise InputError(f"pixel_scale must begin with a number, got {text!r}") from error
    return check_positive("pixel_scale", value), found[2]


def parse_pixel_scales(texts: Sequence[str]) -> tuple[float, str] | None:
    """Number and unit of a pixel's side, as it was given; None where it was not.

    Raises:
        InputError: if it was given several times.
    """
    if len(texts) > 1:
        raise InputError(f"pixel_scale is given as {' and as '.join(texts)}: positions have one unit, give one of them")
    return parse_pixel_scale(texts[0]) if texts else None


@dataclass(frozen=True)
class Quantities:
    """Columns that are added to a table.

    Args:
        pixel_scale: (side of a pixel, its unit), for positions in that unit from the centre of the first pixel.
        sky: whether right ascension and declination are added.
        electrons: whether fluxes in electrons are added.
        photons: whether they are added for a program that has a place for them: NaN where the gain is not known.
        zero_point: magnitude of a flux of one count, for magnitudes.
        times: whether the time of the frame since the first one of the file is added; it comes from the file's reader.
        mjd: whether the moment of the frame is added, the modified Julian date (UTC) of the middle of its exposure.

    Raises:
        InputError: if the zero point is not finite.
    """

    pixel_scale: tuple[float, str] | None = None
    sky: bool = False
    electrons: bool = False
    zero_point: float | None = None
    times: bool = False
    photons: bool = False
    mjd: bool = False

    def __post_init__(self) -> None:
        if self.zero_point is not None and not np.isfinite(self.zero_point):
            raise InputError(f"zero_point must be a finite number, got {self.zero_point}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        names: tuple[str, ...] = (TIME_COLUMN,) if self.times else ()
        names += (MJD_COLUMN,) if self.mjd else ()
        names += () if self.pixel_scale is None else scale_columns(self.pixel_scale[1])
        names += SKY_COLUMNS if self.sky else ()
        names += ELECTRON_COLUMNS if self.electrons or self.photons else ()
        return names + (() if self.zero_point is None else MAGNITUDE_COLUMNS)

    def check(self, header: Header, gain: float | None = None) -> None:
        """Check that an image states what the columns need.

        Args:
            header: of the image, for its moment and the sky.
            gain: electrons per count, for electrons.

        Raises:
            InputError: if it does not.
        """
        if self.mjd and header.moment_s is None:
            raise InputError("it does not state when it was taken (FITS DATE-OBS, MJD-OBS): leave out --mjd")
        if self.sky and header.wcs() is None:
            raise InputError("it has no sky coordinates (a celestial WCS in a FITS header): leave out --sky")
        if self.electrons and gain is None:
            raise InputError("electrons need the gain: give --gain, or a sensor card that states it")

    def of(self, targets: Targets, header: Header, gain: float | None = None) -> dict[str, FloatArray]:
        """The columns of some targets, but for the time of their frame since the first one; NaN where not known.

        Args:
            targets: in the coordinates of the whole image.
            header: of the image, for its moment and the sky.
            gain: electrons per count, for electrons.

        Raises:
            InputError: if the sky coordinates of the image are damaged.
        """
        found: dict[str, FloatArray] = {}
        if self.mjd:
            moment = np.nan if header.moment_s is None else mjd_of(header.moment_s)
            found[MJD_COLUMN] = np.full(len(targets), moment)
        if self.pixel_scale is not None:
            scale, unit = self.pixel_scale
            places = targets.x, targets.y, targets.x_std, targets.y_std
            found |= {name: scale * value for name, value in zip(scale_columns(unit), places, strict=True)}
        if self.sky:
            found |= sky_columns(targets, header.wcs())
        if self.electrons or self.photons:
            per_count = np.nan if gain is None else gain
            fluxes = targets.intensity * per_count, targets.intensity_std * per_count
            found |= dict(zip(ELECTRON_COLUMNS, fluxes, strict=True))
        if self.zero_point is not None:
            flux = np.where(targets.intensity > 0.0, targets.intensity, np.nan)
            magnitudes = self.zero_point - 2.5 * np.log10(flux), POGSON * targets.intensity_std / flux
            found |= dict(zip(MAGNITUDE_COLUMNS, magnitudes, strict=True))
        return found


def sky_columns(targets: Targets, wcs: Any) -> dict[str, FloatArray]:
    """Right ascension and declination (ICRS) in degrees, and their standard errors in degrees on the sky.

    The error of the right ascension is that along the sky, with the cosine of the declination.

    Args:
        targets: in the coordinates of the whole image.
        wcs: `astropy.wcs.WCS`; None where the file has none, when they are NaN.
    """
    if wcs is None or not len(targets):
        return {name: np.full(len(targets), np.nan) for name in SKY_COLUMNS}
    here = wcs.pixel_to_world(targets.x, targets.y).icrs
    variance = np.zeros((2, len(targets)))
    for dx, dy, error in ((STEP_PX, 0.0, targets.x_std), (0.0, STEP_PX, targets.y_std)):
        before, after = (wcs.pixel_to_world(targets.x + s * dx, targets.y + s * dy).icrs for s in (-1.0, 1.0))
        steps = [each.deg / (2.0 * STEP_PX) for each in before.spherical_offsets_to(after)]
        variance += (np.stack(steps) * error) ** 2
    values = here.ra.deg, here.dec.deg, *np.sqrt(variance)
    return dict(zip(SKY_COLUMNS, values, strict=True))
