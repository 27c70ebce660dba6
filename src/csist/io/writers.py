"""Tables out: CSV, Parquet, FITS and ECSV by suffix, the forms of other programs, DS9 regions.

Rows come while a long run goes on, and are kept in a CSV file beside the output until the end; what other forms need
(the number of rows, the length of names) is known then, and they are written from that file piece by piece. No form
needs all rows in memory, and every one appears under its name only when complete.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from csist._types import FloatArray
from csist._version import package_version
from csist.checks import InputError, check_packages
from csist.files import atomic_path, check_writable, is_special
from csist.io.exports import EXPORTS, TableFacts, write_regions
from csist.io.forms import CHUNK, FORMS, write_csv
from csist.targets import COLUMNS, FLOAT_COLUMNS, Targets

if TYPE_CHECKING:
    import pandas as pd

TABLE_COLUMNS = ("image", "frame", *COLUMNS)
"""Header of a table of targets: image, frame, then the columns of `Targets`."""

TABLE_SUFFIXES = (".csv", ".parquet", ".fits", ".ecsv")


def check_form(path: Path) -> Path:
    """Return the path if a table can be written there in the form that its suffix says.

    Raises:
        InputError: if the suffix is another one, a package is missing or the path cannot be written.
    """
    check_writable(path, () if is_special(path) else TABLE_SUFFIXES)
    if path.suffix.lower() in (".fits", ".ecsv"):
        check_packages(f"a table {path.suffix.lower()}", ["astropy"], "astro")
    return path


def write_table(
    table: pd.DataFrame | Iterable[Mapping[str, Any]], path: str | Path, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a table as CSV, Parquet, FITS or ECSV, chosen by the suffix; NaN becomes a blank field.

    Args:
        table: a data frame, or rows as mappings from column to value.
        path: file ending in .csv, .parquet, .fits or .ecsv.
        metadata: further facts, written beside the csist version where the form has a place for them.

    Raises:
        InputError: if the suffix is another one or the path cannot be written.
    """
    import pandas as pd

    path = check_form(Path(path))
    frame = table if isinstance(table, pd.DataFrame) else rows_table(table)
    form = FORMS.get(path.suffix.lower(), write_csv)
    with atomic_path(path) as partial:
        form(lambda: iter([frame]), partial, {"csist_version": package_version(), **(metadata or {})})


def rows_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A data frame of rows whose texts stay as they are: file names need not be valid UTF-8.

    Args:
        rows: mappings from column to value.
        columns: which ones, in order; None for all.
    """
    import pandas as pd

    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else columns
    table = {}
    for name in names:
        values = [row.get(name) for row in rows]
        texts = any(isinstance(value, str) for value in values)
        table[name] = pd.Series(values, dtype=object) if texts else pd.Series(values)
    return pd.DataFrame(table, columns=list(names))


def targets_table(parts: Iterable[tuple[str, int, Targets]]) -> pd.DataFrame:
    """One row per target with the columns `TABLE_COLUMNS`, from (image, frame, targets).

    A group of -1 (none) is a missing value, like every NaN; an image without targets has no row.
    """
    import pandas as pd

    parts = list(parts)
    sizes = [len(targets) for _, _, targets in parts]
    merged = Targets.concatenate([targets for _, _, targets in parts])
    columns: dict[str, Any] = {
        "image": np.repeat(np.array([image for image, _, _ in parts], dtype=object), sizes),
        "frame": np.repeat(np.array([frame for _, frame, _ in parts], dtype=np.int64), sizes),
    }
    columns |= {name: getattr(merged, name) for name in COLUMNS}
    table = pd.DataFrame(columns)
    table["group"] = table["group"].astype("Int64").mask(table["group"] < 0)
    return table


def _cell(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))


def _number(value: int) -> str:
    """The number of a group or track; blank for none."""
    return "" if value < 0 else str(value)


class TableWriter:
    """Writes a table of targets row by row while a long run goes on.

    Rows go to `NAME.csv.partial` (for another form than CSV `NAME.SUFFIX.partial.csv`), which becomes the output when
    the block ends well. After an error or Ctrl-C the partial file stays, cut after the last complete image, so that
    nothing computed is lost.

    >>> with TableWriter("/dev/null") as table:
    ...     table.append("image.png", 0, Targets(x=[1.0], y=[2.0], intensity=[230.0]))
    >>> table.rows
    1

    Args:
        path: file to be written, ending in .csv, .parquet, .fits or .ecsv, or as the program's form asks for.
        form: name of a program in `EXPORTS`; None for a table of csist's own.
        regions: DS9 regions to be written as well.
        metadata: of the run; where the form has a place, it is written with the csist version.
        sigma_px: of the PSF, for forms that state it.
        tracked: whether the table has the column `track` after those of `TABLE_COLUMNS`.
        columns: names of further columns of numbers, which come last.

    Raises:
        InputError: if the path cannot be written, the suffix does not suit or a package is missing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        form: str | None = None,
        regions: str | Path | None = None,
        metadata: Mapping[str, Any] | None = None,
        sigma_px: float = float("nan"),
        tracked: bool = False,
        columns: Sequence[str] = (),
    ) -> None:
        self._columns = tuple(columns)
        homeless = [name for name in columns if form in EXPORTS and name not in EXPORTS[form].columns]
        if homeless:
            raise InputError(f"--format {form} has no place for the column {homeless[0]}: leave one of them out")
        self.path = Path(path)
        self._tracked = tracked
        self.rows = 0
        self.shape = (0, 0, 0)
        """(N, H, W) of the images, for forms that state it; told by who appends."""
        self._form = form
        self._regions = None if regions is None else check_writable(Path(regions), (".reg",))
        if self._regions is not None:
            check_packages("--regions", ["regions"], "astro")
        self._metadata, self._sigma_px = dict(metadata or {}), sigma_px
        special = is_special(self.path)
        if form is None:
            check_form(self.path)
        elif form not in EXPORTS:
            raise InputError(f"format must be one of {', '.join(EXPORTS)}, got {form!r}")
        else:
            check_writable(self.path, () if special else (EXPORTS[form].suffix,))
        if special and form is not None:
            raise InputError(f"the format {form} needs a file of its own, not {self.path}")
        plain = form is None and (special or self.path.suffix.lower() == ".csv")
        ending = ".partial" if plain else ".partial.csv"
        self._plain = plain
        self._final = self.path.resolve() if self.path.is_symlink() else self.path  # a link stays one
        self.partial_path = self.path if special else self._final.with_name(self._final.name + ending)
        """Where the rows are until the end, and where they stay after an error."""
        self._file: io.BufferedWriter | None = None
        self._complete = 0
        self._places: set[tuple[str, int]] = set()

    def __enter__(self) -> Self:
        try:
            # What a shell appends the standard output to keeps what it has.
            self._file = self.partial_path.open("ab" if is_special(self.path) else "wb")
        except OSError as error:
            raise InputError(f"cannot write {self.partial_path}: {error.strerror}") from error
        self._write([(*TABLE_COLUMNS, *(("track",) if self._tracked else ()), *self._columns)])
        return self

    def _write(self, rows: Iterable[Sequence[object]]) -> None:
        if self._file is None:
            raise RuntimeError("a TableWriter is used inside a with block")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        data = text.getvalue().encode("utf-8", errors="surrogateescape")
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise InputError(f"cannot write {self.partial_path}: {error.strerror}") from error
        self._complete += len(data)

    def append(self, image: str, frame: int, targets: Targets, further: Mapping[str, FloatArray] | None = None) -> None:
        """Add the targets of one image.

        Args:
            image: its name.
            frame: its number.
            targets: found in it.
            further: values (n,) of the further columns.

        Raises:
            InputError: if the disk is full.
        """
        floats = [getattr(targets, name).tolist() for name in FLOAT_COLUMNS]
        rest = zip(targets.flags.tolist(), targets.group.tolist(), targets.track.tolist(), strict=True)
        last = zip(*(further[name].tolist() for name in self._columns), strict=True) if further else repeat(())
        self._write(
            [
                image,
                frame,
                *map(_cell, values),
                flags,
                _number(group),
                *([_number(track)] if self._tracked else []),
                *map(_cell, more),
            ]
            for *values, (flags, group, track), more in zip(*floats, rest, last, strict=bool(further))
        )
        self.rows += len(targets)
        if len(self._places) == 1 or not self._places:
            self._places.add((image, frame))

    def _source(self) -> Iterator[pd.DataFrame]:
        """The rows written so far, piece by piece."""
        import pandas as pd

        kinds: dict[str, Any] = {"image": object, "frame": np.int64, "flags": np.int64, "group": "Int64"}
        kinds |= {"track": "Int64"} if self._tracked else {}
        kinds |= dict.fromkeys((*FLOAT_COLUMNS, *self._columns), np.float64)
        numbers = {name: [""] for name in kinds if name != "image"}
        with pd.read_csv(
            self.partial_path,
            dtype=kinds,
            keep_default_na=False,
            na_values=numbers,
            chunksize=CHUNK,
            encoding="utf-8",
            encoding_errors="surrogateescape",
        ) as pieces:
            empty = True
            for piece in pieces:
                empty = False
                yield piece
            if empty:
                yield targets_table([]).assign(**{name: np.empty(0) for name in self._columns})

    def _finish(self) -> None:
        """Turn the rows into what was asked for."""
        if self._regions is not None:
            write_regions(self._source, self._regions, len(self._places) > 1)
        if self._plain:
            self.partial_path.replace(self._final)
            return
        metadata = {"csist_version": package_version(), **self._metadata}
        with atomic_path(self.path) as partial:
            if self._form is None:
                FORMS[self.path.suffix.lower()](self._source, partial, metadata)
            else:
                EXPORTS[self._form].write(self._source, partial, TableFacts(self.shape, self._sigma_px, metadata))
                beside = partial.with_suffix(".yaml")
                if beside.exists():
                    beside.replace(self.path.with_suffix(".yaml"))
        self.partial_path.unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        if self.partial_path != self.path and error is not None:
            with suppress(OSError):
                # An interrupt can fall between two halves of a write.
                self._file.flush()
                self._file.truncate(self._complete)
        with suppress(OSError):
            self._file.close()
        self._file = None
        if self.partial_path != self.path and error is None:
            self._finish()
