"""Tables of targets as CSV or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError
from csist.files import atomic_path, check_writable, is_special, reading
from csist.targets import COLUMNS, FLOAT_COLUMNS, Targets

if TYPE_CHECKING:
    import pandas as pd

TABLE_COLUMNS = ("image", "frame", *COLUMNS)
"""Header of a table of targets: image, frame, then the columns of `Targets`."""

TABLE_SUFFIXES = (".csv", ".parquet")


def write_table(table: pd.DataFrame | Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write a table as CSV or Parquet, chosen by the suffix; NaN becomes a blank field.

    Args:
        table: a data frame, or rows as mappings from column to value.
        path: file ending in .csv or .parquet.

    Raises:
        InputError: if the suffix is another one or the path cannot be written.
    """
    import pandas as pd

    path = check_writable(path, () if is_special(Path(path)) else TABLE_SUFFIXES)
    frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(list(table))
    with atomic_path(path) as partial:
        if path.suffix.lower() == ".parquet":
            frame.to_parquet(partial, index=False)
        else:
            # File names need not be valid UTF-8 (Linux): such bytes go through unchanged.
            frame.to_csv(partial, index=False, errors="surrogateescape", lineterminator="\n")


def targets_table(parts: Iterable[tuple[str, int, Targets]]) -> pd.DataFrame:
    """One row a target with the columns `TABLE_COLUMNS`, from (image, frame, targets).

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


def read_targets_table(path: str | Path) -> dict[tuple[str, int], Targets]:
    """Targets by (image, frame) from a CSV or Parquet file, as `write_table(targets_table(...))` wrote it.

    The columns image, frame, x, y and intensity are needed, the others of `TABLE_COLUMNS` may be missing and
    any further one is ignored. An image without a row was reported empty or not looked at: the caller knows.

    Raises:
        InputError: if the file cannot be read, lacks a column or holds a value that is not a number.
    """
    import pandas as pd

    path = Path(path)
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise InputError(f"cannot read {path}: a table of targets ends in {' or '.join(TABLE_SUFFIXES)}")
    with reading(path):
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            # All as text, so that an image called "007" or "NA" keeps its name and a bad number can be named.
            table = pd.read_csv(
                path,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                encoding_errors="surrogateescape",
            )
    missing = [name for name in ("image", "frame", "x", "y", "intensity") if name not in table.columns]
    if missing:
        raise InputError(f"{path} is no table of targets: it lacks the column {', '.join(missing)}")
    numbers: dict[str, FloatArray] = {}
    for name in TABLE_COLUMNS[1:]:
        if name in table.columns:
            text = table[name].replace(["", "nan", "NaN"], None)
            value = pd.to_numeric(text, errors="coerce")
            wrong = np.flatnonzero((value.isna() & text.notna()).to_numpy())
            if name in ("frame", "x", "y", "intensity"):
                wrong = np.flatnonzero(~np.isfinite(value.to_numpy(dtype=np.float64, na_value=np.nan)))
            elif name in ("flags", "group"):
                value = value.fillna({"flags": 0, "group": -1}[name])
            if name not in FLOAT_COLUMNS and not wrong.size:
                wrong = np.flatnonzero(value.to_numpy(dtype=np.float64) % 1 != 0)
            if wrong.size:
                bad = table[name].iloc[int(wrong[0])]
                raise InputError(f"{path}, row {int(wrong[0]) + 2}: {name} must be a number, got {str(bad)!r}")
            numbers[name] = value.to_numpy(dtype=np.float64, na_value=np.nan)
    if not len(table):
        return {}
    image_code, image_names = pd.factorize(table["image"].astype(str))
    frame = numbers.pop("frame").astype(np.int64)
    order = np.lexsort((frame, image_code))
    starts = np.flatnonzero(np.diff(image_code[order], prepend=-1) | np.diff(frame[order], prepend=-1))
    everything = Targets(**numbers)
    return {
        (str(image_names[image_code[rows[0]]]), int(frame[rows[0]])): everything[rows]
        for rows in np.split(order, starts[starts > 0])
    }


def _cell(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))


class TableWriter:
    """Writes a CSV table of targets row by row while a long run goes on.

    Rows go to `NAME.csv.partial`, which gets its final name when the block ends well. After an error or
    Ctrl-C the partial file stays, cut after the last complete image, so that nothing computed is lost.

    >>> with TableWriter("/dev/null") as table:
    ...     table.append("image.png", 0, Targets(x=[1.0], y=[2.0], intensity=[230.0]))
    >>> table.rows
    1

    Args:
        path: file to be written, ending in .csv.

    Raises:
        InputError: if the path cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        special = is_special(self.path)
        check_writable(self.path, () if special else (".csv",))
        self.partial_path = self.path if special else self.path.with_name(self.path.name + ".partial")
        """Where the rows are until the end, and where they stay after an error."""
        self.rows = 0
        self._file: io.BufferedWriter | None = None
        self._complete = 0

    def __enter__(self) -> Self:
        try:
            self._file = self.partial_path.open("wb")
        except OSError as error:
            raise InputError(f"cannot write {self.partial_path}: {error.strerror}") from error
        self._write([TABLE_COLUMNS])
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

    def append(self, image: str, frame: int, targets: Targets) -> None:
        """Add the targets of one image.

        Raises:
            InputError: if the disk is full.
        """
        floats = [getattr(targets, name).tolist() for name in FLOAT_COLUMNS]
        rest = zip(targets.flags.tolist(), targets.group.tolist(), strict=True)
        self._write(
            [image, frame, *map(_cell, values), flags, "" if group < 0 else group]
            for *values, (flags, group) in zip(*floats, rest, strict=True)
        )
        self.rows += len(targets)

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
            self.partial_path.replace(self.path)
