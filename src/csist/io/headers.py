"""What a file's header says of the instrument, under the names that cameras and observatories use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError
from csist.files import one_line
from csist.io.times import moment_of_cards
from csist.physics.sensor import Sensor

READ_NOISE_KEYS = ("RDNOISE", "READNOIS", "RON", "READNOISE")
EXPOSURE_KEYS = ("EXPTIME", "EXPOSURE")

AGREEMENT = 1.25
"""A gain is believed if the variance that follows from it and that of the image differ by less than this factor."""

MOST_SATURATED = 0.05
"""Share of pixels above the stated saturation beyond which it cannot be meant in the image's unit."""

_ELECTRONS_PER_COUNT = re.compile(
    r"\b(e|e-|el|electrons?|elec)\s*(/|per)\s*(adu|dn|counts?|data number|cts?)\b", re.IGNORECASE
)
_KEYWORD = re.compile(r"[A-Z0-9_-]{1,8}")
_COUNT_UNITS = {"", "adu", "dn", "count", "counts", "ct", "cts"}
_ELECTRON_UNITS = {"electron", "electrons", "e", "e-", "elec"}


@dataclass(frozen=True, eq=False)
class Header:
    """The instrument as a header states it; None where it says nothing.

    Args:
        gain: electrons per count.
        read_noise_e: standard deviation of the read noise in electrons.
        saturation: level in counts at which a pixel clips.
        exposure_s: exposure time in s.
        moment_s: middle of the exposure (UTC) in s since 2000, without leap seconds.
        unit: of the values, as the file writes it.
        sources: the entries that gain, read_noise and saturation come from, by these names.
        cards: the header as (keyword, value) pairs, for the sky coordinates; empty where there are none.
    """

    gain: float | None = None
    read_noise_e: float | None = None
    saturation: float | None = None
    exposure_s: float | None = None
    moment_s: float | None = None
    unit: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    cards: tuple[tuple[str, Any], ...] = field(default=(), repr=False)

    @property
    def read_noise(self) -> float | None:
        """Read noise in counts; None where it or the gain is not known."""
        return None if self.read_noise_e is None or self.gain is None else self.read_noise_e / self.gain

    @property
    def states_sensor(self) -> bool:
        """Whether anything of a sensor is known."""
        return any(value is not None for value in (self.gain, self.read_noise, self.saturation))

    @property
    def said(self) -> tuple[str, ...]:
        """What is known of the sensor and where from, for people, as "gain 1.4 e/count (EGAIN)"."""
        values = {
            "gain": ("gain", self.gain, ".6g", " e/count"),
            "read_noise": ("read noise", self.read_noise, ".4g", " counts"),
            "saturation": ("saturation", self.saturation, ".6g", " counts"),
        }
        return tuple(
            f"{words} {value:{form}}{unit} ({self.sources[name]})"
            for name, (words, value, form, unit) in values.items()
            if value is not None and name in self.sources
        )

    def overridden(self, stated: Mapping[str, float]) -> Header:
        """The header where options or a user state some of its values.

        Args:
            stated: gain, read_noise (counts) and saturation, as far as they are stated.
        """
        return replace(
            self,
            gain=stated.get("gain", self.gain),
            saturation=stated.get("saturation", self.saturation),
            sources={name: text for name, text in self.sources.items() if name not in stated},
        )

    def applied(self, sensor: Sensor) -> Sensor:
        """The sensor with what the header knows in the place of what it does not."""
        known = {name: getattr(self, name) for name in ("gain", "saturation") if getattr(self, name) is not None}
        if self.gain is not None and self.read_noise is not None:
            known["read_noise"] = self.read_noise
        return replace(sensor, **known)

    def wcs(self) -> Any:
        """The sky coordinates, an `astropy.wcs.WCS`; None where the file has none.

        Positions given to it are in px of the whole image, whatever part of it was read.

        Raises:
            InputError: if the header is damaged.
        """
        if not any(key.startswith("CTYPE") for key, _ in self.cards):
            return None
        import warnings

        from astropy.io import fits
        from astropy.wcs import WCS

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = WCS(fits.Header(list(self.cards)), naxis=2)
                return found if found.has_celestial else None
            except Exception as error:  # wcslib and astropy raise many kinds
                raise InputError(f"its sky coordinates (WCS) cannot be used: {one_line(error)[:200]}") from error


def _number(cards: Mapping[str, Any], *names: str) -> tuple[str, float] | None:
    """The first of these keywords that holds a finite number > 0, perhaps in quotation marks, and that."""
    for name in names:
        value = cards.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            with suppress(ValueError, OverflowError):
                if np.isfinite(float(value)) and float(value) > 0:
                    return name, float(value)
    return None


def header_of_cards(
    cards: Mapping[str, Any], comments: Mapping[str, str], image: FloatArray, notes: list[str]
) -> Header:
    """What the keywords of a FITS header say of the instrument.

    EGAIN is in electrons per count by its definition. GAIN is, with many cameras, the number of a setting, so it is
    taken only where its comment says the unit, or where the noise of the image is that of so many electrons. Read
    noise is stated in electrons.

    Args:
        cards: keywords and values.
        comments: of the keywords.
        image: (H, W), against which GAIN is held.
        notes: gets what the user should know.
    """
    unit = str(cards.get("BUNIT", "")).strip()
    exposure = _number(cards, *EXPOSURE_KEYS)
    seconds = None if exposure is None else exposure[1]
    sources: dict[str, str] = {}
    noise = _number(cards, *READ_NOISE_KEYS)
    gain = _gain(
        cards,
        comments,
        unit=unit,
        seconds=seconds,
        noise_e=None if noise is None else noise[1],
        image=image,
        sources=sources,
        notes=notes,
    )
    if noise is not None:
        sources["read_noise"] = noise[0]
        if gain is None:
            notes.append(f"{noise[0]} = {noise[1]:g} is in electrons, and the gain is not known: it needs --gain")
    saturation = _number(cards, "SATURATE")
    above = 0.0 if saturation is None else float(np.mean(image >= saturation[1]))
    if saturation is not None and above > MOST_SATURATED:
        notes.append(f"SATURATE = {saturation[1]:g} is not used: {100 * above:.0f} % of the pixels are above it")
        saturation = None
    if saturation is not None:
        sources["saturation"] = "SATURATE"
    bayer = str(cards.get("BAYERPAT", cards.get("COLORTYP", ""))).strip()
    if bayer:
        notes.append(
            f"a colour camera's raw picture ({bayer}): neighbouring pixels have different filters, positions and "
            "fluxes are only right for targets without colour"
        )
    return Header(
        gain=gain,
        read_noise_e=None if noise is None else noise[1],
        saturation=None if saturation is None else saturation[1],
        exposure_s=seconds,
        moment_s=moment_of_cards(cards, seconds),
        unit=unit or None,
        sources=sources,
        cards=tuple((key, value) for key, value in cards.items() if _is_plain(key, value)),
    )


def _is_plain(key: str, value: Any) -> bool:
    return (
        _KEYWORD.fullmatch(key) is not None
        and key not in ("COMMENT", "HISTORY")
        and isinstance(value, str | int | float | bool)
    )


def _gain(
    cards: Mapping[str, Any],
    comments: Mapping[str, str],
    *,
    unit: str,
    seconds: float | None,
    noise_e: float | None,
    image: FloatArray,
    sources: dict[str, str],
    notes: list[str],
) -> float | None:
    """Electrons per unit of the values, if the header knows."""
    base, _, rate = unit.lower().replace(" ", "").partition("/")
    per_second = rate in ("s", "sec", "second")
    scale = seconds if per_second else 1.0
    if (rate and not per_second) or scale is None:
        return None
    if base in _ELECTRON_UNITS:
        sources["gain"] = f"BUNIT {unit}"
        return scale
    if base not in _COUNT_UNITS:
        return None
    stated = _number(cards, "EGAIN")
    if stated is None:
        stated = _number(cards, "GAIN")
        if stated is None:
            return None
        written = comments.get("GAIN", "")
        if not _ELECTRONS_PER_COUNT.search(written) and not agrees(image, stated[1] * scale, noise_e or 0.0):
            notes.append(
                f"GAIN = {stated[1]:g} is not used: its comment does not say electrons per count, and the noise of the "
                "image is not that of such a gain"
            )
            return None
    sources["gain"] = stated[0]
    return stated[1] * scale


def agrees(image: FloatArray, gain: float, read_noise_e: float) -> bool:
    """Whether the noise of an image is the photon noise of its level at that gain.

    Args:
        image: (H, W) in counts.
        gain: electrons per count.
        read_noise_e: in electrons.
    """
    # Differences of every other pixel: neighbours share light where a detector couples them.
    steps = image[:, 2:] - image[:, :-2]
    steps = steps[np.isfinite(steps)]
    if steps.size < 100:
        return False
    level = float(np.nanmedian(image))
    variance = (1.4826 * float(np.median(np.abs(steps - np.median(steps))))) ** 2 / 2.0
    expected = max(level, 0.0) / gain + (read_noise_e / gain) ** 2
    # The photons must be seen, not the read noise alone.
    photons = level / gain > (read_noise_e / gain) ** 2
    return photons and expected > 0 and 1.0 / AGREEMENT < variance / expected < AGREEMENT
