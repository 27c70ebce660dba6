"""Tables of targets in: CSV, Parquet, FITS and ECSV."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import InputError, check_packages
from csist.files import reading
from csist.io.fits import check_headers
from csist.io.formats import ReadOptions
from csist.io.forms import name_in_fits
from csist.io.writers import TABLE_COLUMNS, TABLE_SUFFIXES
from csist.targets import FLOAT_COLUMNS, Targets

if TYPE_CHECKING:
    import pandas as pd

WHOLE_COLUMNS = {"flags": 0, "group": -1, "track": -1}
"""Columns of whole numbers, and what a blank one means."""
MOST_ROWS = 500_000_000
"""Rows that a table can have: more would not fit into any memory."""
MOST_HEADER_LINES = 10_000
"""Lines of an ECSV header that are searched for units."""


def _read_csv(path: Path, is_wanted: Callable[[str], bool]) -> pd.DataFrame:
    """All as text, so that an image called "007" or "NA" keeps its name and a bad number can be named."""
    import pandas as pd

    return pd.read_csv(
        path,
        dtype=str,
        keep_default_na=False,
        encoding="utf-8-sig",
        encoding_errors="surrogateescape",
        usecols=is_wanted,
    )


def _read_parquet(path: Path, is_wanted: Callable[[str], bool]) -> pd.DataFrame:
    """The columns that a Parquet file holds of those wanted; its stated sizes are held against its own first."""
    import pyarrow.parquet as pq

    size = path.stat().st_size
    # Counts in a damaged file's description would otherwise be believed.
    with pq.ParquetFile(path, thrift_string_size_limit=size, thrift_container_size_limit=size) as file:
        rows, groups = file.metadata.num_rows, file.metadata.num_row_groups
        held = sum(file.metadata.row_group(group).num_rows for group in range(groups))
        if rows != held or not 0 <= rows <= MOST_ROWS:
            raise InputError(f"cannot read {path}: it is damaged, it states {rows} rows in {groups} parts of {held}")
        names = [name for name in file.schema_arrow.names if is_wanted(name)]
        frame: pd.DataFrame = file.read(columns=names, use_threads=False).to_pandas()
        return frame


def _read_fits(path: Path, is_wanted: Callable[[str], bool]) -> pd.DataFrame:
    """The first table of a FITS file."""
    import pandas as pd

    check_packages("a table .fits", ["astropy"], "astro")
    from astropy.io import fits

    columns: dict[str, object] = {}
    with path.open("rb") as file:
        check_headers(file, path, ReadOptions())
        with fits.open(file, memmap=False) as units:
            table = next((unit for unit in units if isinstance(unit, fits.BinTableHDU)), None)
            if table is None:
                raise InputError(f"{path} holds no table")
            for column in table.columns:
                if is_wanted(column.name):
                    values = np.asarray(table.data[column.name])
                    if values.dtype.kind in "SU":
                        values = np.array([name_in_fits(str(text)) for text in values], dtype=object)
                    if values.dtype.kind in "iuf":
                        values = values.astype(values.dtype.newbyteorder("="))
                    columns[column.name] = values if values.ndim == 1 else list(values)
    return pd.DataFrame(columns)


def _read_ecsv(path: Path, is_wanted: Callable[[str], bool]) -> pd.DataFrame:
    """The rows below an ECSV file's header, which is commented out."""
    import pandas as pd

    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        line = file.readline()
        if not line.startswith("# %ECSV"):
            raise InputError(f"cannot read {path}: it is not an ECSV file")
        start = 0
        while line.startswith("#"):
            start = file.tell()
            line = file.readline()
        file.seek(start)
        separator = "," if "," in line else " "
        return pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False, usecols=is_wanted)


_READERS: dict[str, Callable[[Path, Callable[[str], bool]], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".fits": _read_fits,
    ".ecsv": _read_ecsv,
}


def read_columns(path: Path, wanted: Collection[str]) -> pd.DataFrame:
    """The columns of a table by their names, in upper or lower case, of those that it holds.

    Args:
        path: file ending in .csv, .parquet, .fits or .ecsv.
        wanted: names in lower case.

    Raises:
        InputError: if the suffix is another one or the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise InputError(f"cannot read {path}: a table of targets ends in {' or '.join(TABLE_SUFFIXES)}")
    with reading(path):
        return _READERS[suffix](path, lambda name: name.lower() in wanted)


def read_rows(path: Path) -> pd.DataFrame:
    """All columns of a table of targets, as numbers where all of their entries are.

    Args:
        path: file ending in .csv, .parquet, .fits or .ecsv.

    Raises:
        InputError: if it is no table of targets, see `read_targets_table`, or cannot be read.
    """
    read_targets_table(path)
    with reading(path):
        table = _READERS[path.suffix.lower()](path, lambda _: True)
    for name in table.columns:
        if name.lower() == "image" or table[name].dtype.kind not in "OSU":
            continue
        value, strange = numbers_of(table[name])
        if not strange.any():
            whole = name.lower() in WHOLE_COLUMNS or not table[name].astype(str).str.contains(r"[.eE]|^$|n").any()
            blank = WHOLE_COLUMNS.get(name.lower(), -1)
            table[name] = np.where(np.isnan(value), blank, value).astype(np.int64) if whole else value
    return table


def units_of(path: Path) -> dict[str, str]:
    """Units that a table states of its columns, by their names in lower case; a CSV file states none.

    Args:
        path: of a table that `read_columns` can read.

    Raises:
        InputError: if the file cannot be read.
    """
    with reading(path):
        found = _UNITS[path.suffix.lower()](path)
    return {name.lower(): str(unit).strip() for name, unit in found.items() if unit}


def _no_units(_: Path) -> dict[str, str]:
    return {}


def _units_in_parquet(path: Path) -> dict[str, str]:
    import pyarrow.parquet as pq

    return {
        each.name: (each.metadata or {}).get(b"unit", b"").decode("utf-8", "replace") for each in pq.read_schema(path)
    }


def _units_in_fits(path: Path) -> dict[str, str]:
    from astropy.io import fits

    with path.open("rb") as file, fits.open(file, memmap=False) as units:
        table = next(unit for unit in units if isinstance(unit, fits.BinTableHDU))
        return {column.name: column.unit for column in table.columns}


def _units_in_ecsv(path: Path) -> dict[str, str]:
    """By the entries of the header, {name: ra, unit: deg, ...}, which go on over several lines."""
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = takewhile(lambda line: line.startswith("#"), file)
        header = " ".join(line[1:].strip() for line in islice(lines, MOST_HEADER_LINES))
    return dict(re.findall(r"\{name: (\w+), unit: ([^,{}]+)", header))


_UNITS: dict[str, Callable[[Path], dict[str, str]]] = {
    ".csv": _no_units,
    ".parquet": _units_in_parquet,
    ".fits": _units_in_fits,
    ".ecsv": _units_in_ecsv,
}


def numbers_of(column: pd.Series) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Values (n,) of a column, NaN where it is blank, and which of its entries are neither numbers nor blank."""
    import pandas as pd

    text = column.replace(["", "nan", "NaN"], None)
    value = pd.to_numeric(text, errors="coerce")
    wrong = np.asarray((value.isna() & text.notna()).to_numpy(dtype=bool))
    return value.to_numpy(dtype=np.float64, na_value=np.nan), wrong


def read_targets_table(path: str | Path) -> dict[tuple[str, int], Targets]:
    """Targets by (image, frame) from a CSV, Parquet, FITS or ECSV file, as `write_table(targets_table(...))` wrote it.

    The columns image, frame, x, y and intensity are needed, the others of `TABLE_COLUMNS` and `track` may be missing
    and any further one is ignored. An image without a row was reported empty or not looked at: the caller knows.

    Raises:
        InputError: if the file cannot be read, lacks a column or holds a value that is not a number.
    """
    import pandas as pd

    path = Path(path)
    table = read_columns(path, (*TABLE_COLUMNS, "track"))
    table = table.rename(columns={name: name.lower() for name in table.columns if name.lower() not in table.columns})
    missing = [name for name in ("image", "frame", "x", "y", "intensity") if name not in table.columns]
    if missing:
        raise InputError(
            f"{path} is no table of targets: it lacks the column {', '.join(missing)}; give image (name of the file), "
            "frame (from 0), x, y and intensity, and a score that ranks the rows"
        )
    numbers: dict[str, FloatArray] = {}
    for name in (*TABLE_COLUMNS[1:], "track"):
        if name in table.columns:
            value, strange = numbers_of(table[name])
            wrong = np.flatnonzero(strange)
            if name in ("frame", "x", "y", "intensity"):
                wrong = np.flatnonzero(~np.isfinite(value))
            elif name in WHOLE_COLUMNS:
                value = np.where(np.isnan(value), WHOLE_COLUMNS[name], value)
            if name not in FLOAT_COLUMNS and not wrong.size:
                wrong = np.flatnonzero(value % 1 != 0)
            if wrong.size:
                bad = table[name].iloc[int(wrong[0])]
                raise InputError(f"{path}, row {int(wrong[0]) + 2}: {name} must be a number, got {str(bad)!r}")
            numbers[name] = value
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
