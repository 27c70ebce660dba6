"""Times of the frames of a sequence: what files state of them, in seconds, made to increase."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from csist._types import FloatArray
from csist.checks import InputError

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Moments are seconds since then: float64 resolves 0.1 us of them for decades."""
EPOCH_MJD, DAY_S = 51544.0, 86400.0
EPOCH_JD = EPOCH_MJD + 2400000.5
SCALES = {
    **dict.fromkeys(("TT", "TDT", "ET"), ("tt", 0.0)),
    **dict.fromkeys(("TAI", "IAT"), ("tai", 0.0)),
    **{"TDB": ("tdb", 0.0), "TCB": ("tcb", 0.0), "TCG": ("tcg", 0.0), "GPS": ("tai", 19.0)},
}
"""Time systems of FITS headers as astropy's scales, and what is added to them in s."""
LATEST_MJD = 1e6
"""Modified Julian dates beyond this one are no dates of an exposure."""

DATE_KEYS = (("DATE-OBS", "TIME-OBS"), ("DATE-BEG", ""))
"""Keywords with the begin of an exposure, and those with its hour where a date stands alone (FITS standard 4.0, 9.5;
the second is the custom before it)."""
MIDDLE_KEYS, MIDDLE_MJD_KEYS = ("DATE-AVG",), ("MJD-AVG", "MJD-MID")
BEGIN_MJD_KEYS = ("MJD-OBS", "MJD-BEG")

SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", ""), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "µs", "μs", "usec", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), DAY_S),
}
"""Units of time by the names that microscopes' files use."""

LEAST_INCREASING = 0.5
"""Times of which fewer steps than this share lead forward are too coarse for the frames, or not in their order."""


def seconds_of(value: Any, unit: Any = "s") -> float:
    """A stated time in s; NaN where it is no number or the unit is not known.

    >>> seconds_of("250", "ms")
    0.25
    """
    try:
        return float(value) * SECONDS.get(str(unit or "").strip().lower(), np.nan)
    except (TypeError, ValueError):
        return float("nan")


def moment_of_cards(cards: Mapping[str, Any], exposure_s: float | None) -> float | None:
    """Middle of an exposure (UTC) in s since 2000, by the keywords of a FITS header; None where none can be read.

    Args:
        cards: keywords and values.
        exposure_s: exposure time; None for not known, when the begin stands for the middle.
    """
    half = 0.0 if exposure_s is None else exposure_s / 2.0
    found = [_moment_of_text(cards.get(key)) for key in MIDDLE_KEYS]
    found += [_moment_of_mjd(cards.get(key)) for key in MIDDLE_MJD_KEYS]
    begins = [_moment_of_text(cards.get(key), cards.get(hour) if hour else None) for key, hour in DATE_KEYS]
    begins += [_moment_of_mjd(cards.get(key)) for key in BEGIN_MJD_KEYS]
    found += [None if begin is None else begin + half for begin in begins]
    stated = next((moment for moment in found if moment is not None), None)
    return None if stated is None else _in_utc(stated, str(cards.get("TIMESYS", "")).strip().upper())


def _in_utc(moment_s: float, system: str) -> float:
    """A moment of a time system (FITS standard 4.0, 9.2.1) in UTC; UT1, within a second of it, unknown ones stay."""
    if system not in SCALES:
        return moment_s
    from astropy.time import Time

    scale, offset_s = SCALES[system]
    day, rest = divmod(moment_s + offset_s, DAY_S)
    utc = Time(EPOCH_JD + day, rest / DAY_S, format="jd", scale=scale).utc
    return float((utc.jd1 - EPOCH_JD) * DAY_S + utc.jd2 * DAY_S)


def _moment_of_text(text: Any, hour: Any = None) -> float | None:
    """A date with its time of day, in s since the epoch; a date alone says too little of a frame."""
    if not isinstance(text, str):
        return None
    if re.fullmatch(r"\s*\d{4}-\d\d-\d\d\s*", text) and isinstance(hour, str):
        text = f"{text.strip()}T{hour.strip()}"
    if "T" not in text:
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - EPOCH).total_seconds()


def _moment_of_mjd(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < LATEST_MJD:
        return None
    return (float(value) - EPOCH_MJD) * DAY_S


def mjd_of(moment_s: float) -> float:
    """Modified Julian date (UTC) of a moment in s since 2000.

    >>> mjd_of(43200.0)
    51544.5
    """
    return EPOCH_MJD + moment_s / DAY_S


def typical_interval(stated: ArrayLike) -> float | None:
    """Median in s of the steps between times that lead forward; None where most do not, or there are none.

    Args:
        stated: (n,) times in s, NaN where one is not known.

    >>> typical_interval([0.0, 0.5, 1.0, 8.0])
    0.5
    """
    steps = np.diff(np.asarray(stated, dtype=np.float64))
    forward = steps[(steps > 0.0) & np.isfinite(steps)]
    return float(np.median(forward)) if len(forward) > LEAST_INCREASING * len(steps) else None


class Clock:
    """Times of frames in s, one after the other, each made to come after the one before.

    A time that is not known, runs backwards or repeats is replaced by the one before and a typical interval; a note
    names the first of them.

    Args:
        interval_s: typical interval between frames.
        notes: gets what the user should know.

    >>> clock = Clock(0.5, [])
    >>> [clock.at(time) for time in (3.0, 3.5, 3.25, 4.5)]
    [0.0, 0.5, 1.0, 1.5]
    """

    def __init__(self, interval_s: float, notes: list[str]) -> None:
        self._interval_s, self._notes = interval_s, notes
        self._first = self._last = np.nan
        self._seen = 0

    def at(self, stated: float) -> float:
        """Time of the next frame since the first one.

        Args:
            stated: by the file, in s from any moment; NaN where it states none.
        """
        frame, self._seen = self._seen, self._seen + 1
        if frame == 0:
            self._first, self._last = stated, 0.0
            return 0.0
        if not np.isfinite(self._first):  # the first time that is known stands where equal intervals lead
            self._first = stated - self._last - self._interval_s
        since = stated - self._first
        if not (np.isfinite(since) and since > self._last):
            note = (
                f"the time of frame {frame} is missing or not after the one before: there, and where it happens again, "
                f"an interval of {self._interval_s:g} s is taken"
            )
            if not any(said.startswith("the time of frame") for said in self._notes):
                self._notes.append(note)
            since = self._last + self._interval_s
        self._last = since
        return float(since)


def stamping(times: list[float], interval_s: float | None, begin: int, notes: list[str]) -> Callable[[float], None]:
    """Empty a list of times, and give what is to be called with the stated time of each frame to fill it anew.

    Args:
        times: in s since the first frame; only those of frames that are read.
        interval_s: typical interval between frames; None where the file has no times, when the list stays empty.
        begin: number of the first frame that is read.
        notes: gets what the user should know.
    """
    times.clear()
    if interval_s is None:
        return lambda _: None
    clock, number = Clock(interval_s, notes), count()

    def stamp(stated: float) -> None:
        time = clock.at(stated)
        if next(number) >= begin:
            times.append(time)

    return stamp


def increasing(stated: ArrayLike, notes: list[str]) -> tuple[FloatArray, float] | None:
    """Times of all frames of a file since the first, and their typical interval, both in s.

    Args:
        stated: (n,) by the file, in s from any moment, NaN where one is not known.
        notes: gets what the user should know.

    Returns:
        Times (n,) and interval; None where there are no usable ones.
    """
    values = np.asarray(stated, dtype=np.float64)
    if len(values) < 2 or np.isnan(values).all():
        return None
    interval_s = typical_interval(values)
    if interval_s is None:
        notes.append("the times that the file states do not increase from frame to frame: they are not used")
        return None
    clock = Clock(interval_s, notes)
    return np.array([clock.at(float(value)) for value in values]), interval_s


def check_timed(interval_s: float | None, frames: int, name: str) -> None:
    """Check that times of frames can be told.

    Args:
        interval_s: between the frames; None where the file states no times.
        frames: number of them; 0 where it is not known.
        name: of the file.

    Raises:
        InputError: if they cannot.
    """
    if frames == 1:
        raise InputError(f"{name} is one image, which has no time since the first: use --sequence for a folder of them")
    if interval_s is None:
        raise InputError(
            f"{name} states no times of its frames (FITS DATE-OBS, OME DeltaT, ImageJ finterval, video): "
            "leave out --times"
        )
