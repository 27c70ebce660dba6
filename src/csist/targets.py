"""Container of the point targets of one image, true or detected; a batch of images is a list of containers.

Positions are in pixels: x is the column and points right, y is the row and points down. Pixel centres lie at
integers, and the centre of the top-left pixel is (0, 0). Intensity is the total flux in image counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from enum import IntFlag
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csist.checks import InputError
from csist.words import counted

if TYPE_CHECKING:
    import pandas as pd
    from astropy.table import Table

FLOAT_COLUMNS = ("x", "y", "intensity", "score", "x_std", "y_std", "intensity_std")
INT_COLUMNS = ("flags", "group")
COLUMNS = FLOAT_COLUMNS + INT_COLUMNS
HELD = (*COLUMNS, "track")
"""All columns; tables have `track` only where a target has one."""

SHOWN_ROWS = 20
"""Rows of a printed table; of a longer one the middle is left out."""

FORMATS = {
    **dict.fromkeys(("x", "y", "score"), "{:.3f}".format),
    "intensity": "{:.6g}".format,
    **dict.fromkeys(("x_std", "y_std", "intensity_std"), "{:.2g}".format),
}
"""Formats of the columns of a printed table."""


class Flag(IntFlag):
    """Bits of `Targets.flags`: reasons to treat a detection with caution."""

    AT_BOUND = 1
    """The fit ended at a bound of the prior (intensity or position)."""
    NOT_CONVERGED = 2
    """The fit used all of its 40 to 60 steps without converging: rare, but common for a single hot pixel."""
    SATURATED = 4
    """A pixel of the group is saturated, so that its value is only a lower bound."""
    AMBIGUOUS_COUNT = 8
    """Other numbers of targets in this group have a probability above 10 %, together."""
    POOR_FIT = 16
    """The residual is far above the noise: the model does not explain this group."""
    MASKED = 32
    """Pixels of the group are masked (NaN, dead, hot)."""
    UPPER_LIMIT = 64
    """A flux at a given position is below three standard errors: it only says "at most this much"."""
    EXTENDED = 128
    """One source that is wider than the PSF, not a point: position of its centre and total flux."""
    STREAK = 256
    """A line of light, not a point: position of its middle and total flux."""


@dataclass(frozen=True, eq=False, repr=False)
class Targets:
    """Point targets of one image.

    Args:
        x: columns in px, shape (n,).
        y: rows in px, shape (n,).
        intensity: total fluxes in counts, shape (n,).
        score: rank of the detections, highest first; the probability of being correct where the method states one.
        x_std: standard errors of x in px.
        y_std: standard errors of y in px.
        intensity_std: standard errors of the intensity in counts.
        flags: bits of `Flag`.
        group: number of the blob in the image to which the target belongs; -1 for none.
        track: number of the track to which the target belongs in a sequence; -1 for none.

    Printed, it is a table of the columns that hold anything, with flags in words.

    All arguments except the first three may be None; NaN (0 for flags, -1 for group and track) then means "not
    estimated".

    Raises:
        InputError: if the arguments are not one-dimensional and equally long, or a position is not finite.

    >>> pair = Targets(x=[5.0, 5.6], y=[5.0, 5.1], intensity=[230, 240])
    >>> len(pair), float(pair[1].x[0])
    (2, 5.6)
    >>> pair
    2 targets
          x     y intensity
    0 5.000 5.000       230
    1 5.600 5.100       240
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    intensity: NDArray[np.float64]
    score: NDArray[np.float64]
    x_std: NDArray[np.float64]
    y_std: NDArray[np.float64]
    intensity_std: NDArray[np.float64]
    flags: NDArray[np.int64]
    group: NDArray[np.int64]
    track: NDArray[np.int64]

    def __init__(
        self,
        x: ArrayLike,
        y: ArrayLike,
        intensity: ArrayLike,
        score: ArrayLike | None = None,
        *,
        x_std: ArrayLike | None = None,
        y_std: ArrayLike | None = None,
        intensity_std: ArrayLike | None = None,
        flags: ArrayLike | None = None,
        group: ArrayLike | None = None,
        track: ArrayLike | None = None,
    ) -> None:
        values = (x, y, intensity, score, x_std, y_std, intensity_std, flags, group, track)
        given = dict(zip(HELD, values, strict=True))
        length = np.size(np.asarray(x))
        for name, value in given.items():
            dtype = np.float64 if name in FLOAT_COLUMNS else np.int64
            if value is None:
                array = np.full(length, {"flags": 0, "group": -1, "track": -1}.get(name, np.nan), dtype=dtype)
            else:
                array = np.array(value, dtype=dtype)
            if array.shape != (length,):
                raise InputError(f"{name} must be one-dimensional with {length} values like x, got shape {array.shape}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        for name in ("x", "y"):
            if not np.isfinite(getattr(self, name)).all():
                raise InputError(f"{name} must be finite, got {getattr(self, name)}")

    @classmethod
    def empty(cls) -> Targets:
        """Return a container without targets."""
        return cls(x=[], y=[], intensity=[])

    @classmethod
    def concatenate(cls, parts: Iterable[Targets]) -> Targets:
        """Return all targets of `parts`, in order, in one container."""
        parts = list(parts)
        if not parts:
            return cls.empty()
        return _checked({name: np.concatenate([getattr(part, name) for part in parts]) for name in HELD})

    def __repr__(self) -> str:
        if not len(self):
            return "0 targets"
        table = self._shown().to_string(max_rows=SHOWN_ROWS, formatters=FORMATS)
        return f"{counted(len(self), 'target')}\n{table}"

    def _repr_html_(self) -> str:
        """Table that notebooks show."""
        return str(self._shown().to_html(max_rows=SHOWN_ROWS, formatters=FORMATS))

    def _shown(self) -> pd.DataFrame:
        """Return the columns that hold anything, with flags in words."""
        table = self.to_pandas()
        blank = [name for name in FLOAT_COLUMNS[3:] if np.isnan(getattr(self, name)).all()]
        blank += [name for name, value in (("flags", 0), ("group", -1)) if (getattr(self, name) == value).all()]
        table["flags"] = [Flag(bits).name or "" for bits in self.flags.tolist()]
        return table.drop(columns=blank)

    def __len__(self) -> int:
        return int(self.x.size)

    def __iter__(self) -> Iterator[Targets]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: int | slice | ArrayLike) -> Targets:
        """Return the selected targets (index, slice, index array or boolean mask), always as `Targets`."""
        index = [key] if isinstance(key, int | np.integer) else key
        columns = {name: getattr(self, name)[index] for name in HELD}
        return _checked(columns) if columns["x"].ndim == 1 else Targets(**columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Targets):
            return NotImplemented
        return all(np.array_equal(getattr(self, n), getattr(other, n), equal_nan=True) for n in HELD)

    __hash__ = None  # type: ignore[assignment]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of a table of these targets; `track` only where a target has one."""
        return HELD if (self.track >= 0).any() else COLUMNS

    def replace(self, **columns: ArrayLike | None) -> Targets:
        """Return a copy with the given columns replaced."""
        return Targets(**({field.name: getattr(self, field.name) for field in fields(self)} | columns))

    def shifted(self, dx: float, dy: float) -> Targets:
        """Return a copy shifted by (dx, dy) px."""
        return self.replace(x=self.x + dx, y=self.y + dy)

    def to_pandas(self) -> pd.DataFrame:
        """Return a data frame with one row per target and the columns of this class."""
        import pandas as pd

        return pd.DataFrame({name: getattr(self, name) for name in self.columns})

    @classmethod
    def from_pandas(cls, frame: pd.DataFrame) -> Targets:
        """Read targets from a data frame with at least the columns x, y and intensity.

        Raises:
            InputError: if one of these columns is missing.
        """
        missing = [name for name in ("x", "y", "intensity") if name not in frame.columns]
        if missing:
            raise InputError(f"a table of targets needs the columns x, y, intensity; missing: {', '.join(missing)}")
        columns: dict[str, Any] = {name: frame[name].to_numpy() for name in FLOAT_COLUMNS if name in frame.columns}
        for name, blank in (("flags", 0), ("group", -1), ("track", -1)):
            if name in frame.columns:
                columns[name] = frame[name].fillna(blank).to_numpy()
        return cls(**columns)

    def to_csv(self, path: str | Path) -> None:
        """Write a CSV file; values that were not estimated are blank."""
        self.to_pandas().to_csv(path, index=False)

    @classmethod
    def from_csv(cls, path: str | Path) -> Targets:
        """Read a CSV file written by `to_csv`, or by any program that uses these column names."""
        import pandas as pd

        return cls.from_pandas(pd.read_csv(path))

    def to_parquet(self, path: str | Path) -> None:
        """Write a Parquet file."""
        self.to_pandas().to_parquet(path, index=False)

    @classmethod
    def from_parquet(cls, path: str | Path) -> Targets:
        """Read a Parquet file written by `to_parquet`."""
        import pandas as pd

        return cls.from_pandas(pd.read_parquet(path))

    def to_astropy(self) -> Table:
        """Return an Astropy table with units (needs the extra `astro`)."""
        from astropy import units
        from astropy.table import Table

        table = Table({name: getattr(self, name) for name in self.columns})
        for name in ("x", "y", "x_std", "y_std"):
            table[name].unit = units.pix
        for name in ("intensity", "intensity_std"):
            table[name].unit = units.count
        return table

    @classmethod
    def from_astropy(cls, table: Table) -> Targets:
        """Read targets from an Astropy table with at least the columns x, y and intensity."""
        return cls.from_pandas(table.to_pandas())


def _checked(columns: dict[str, Any]) -> Targets:
    """Targets whose columns are parts of those of other ones: they were checked then, which takes most of the time."""
    targets = object.__new__(Targets)
    for name, values in columns.items():
        values.flags.writeable = False
        object.__setattr__(targets, name, values)
    return targets
