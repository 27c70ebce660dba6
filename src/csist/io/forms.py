"""The forms of a table: CSV, Parquet, FITS and ECSV, each written piece by piece, with units and metadata."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from csist.io import quantities

if TYPE_CHECKING:
    import pandas as pd

UNITS = {
    **dict.fromkeys(("x", "y", "x_std", "y_std", "column", "row"), "pix"),
    **dict.fromkeys(("intensity", "intensity_std"), "ct"),
    **quantities.UNITS,
}
"""Units of columns, as astropy writes them; others have none."""

CHUNK = 100_000
"""Rows in memory at a time while a table takes its final form."""
FITS_BLOCK = 2880

Source = Callable[[], "Iterator[pd.DataFrame]"]
"""Starts reading a table from its first row; gives one piece at least."""


def write_csv(source: Source, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write rows as CSV, names as they are."""
    del metadata  # a CSV file has none
    for number, chunk in enumerate(source()):
        # File names need not be valid UTF-8 (Linux): such bytes go through unchanged.
        chunk.to_csv(
            path, index=False, header=number == 0, mode="a" if number else "w", errors="surrogateescape",
            lineterminator="\n",
        )  # fmt: skip


def plain_text(name: str) -> str:
    """A file name as text that every format can hold."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _write_parquet(source: Source, path: Path, metadata: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"f": pa.float64(), "i": pa.int64(), "u": pa.int64(), "b": pa.bool_()}
    writer: pq.ParquetWriter | None = None
    try:
        for chunk in source():
            fields = [
                pa.field(str(name), kinds.get(kind.kind, pa.string()), metadata=_unit_entry(str(name)))
                for name, kind in chunk.dtypes.items()
            ]
            texts = {str(name): chunk[name].map(plain_text) for name in chunk if chunk[name].dtype.kind not in kinds}
            rows = pa.Table.from_pandas(chunk.assign(**texts), schema=pa.schema(fields), preserve_index=False)
            if writer is None:
                described = {**(rows.schema.metadata or {}), b"csist": json.dumps(metadata).encode()}
                schema = rows.schema.with_metadata(described)
                writer = pq.ParquetWriter(path, schema)
            writer.write_table(rows)
    finally:
        if writer is not None:
            writer.close()


def _unit_entry(name: str) -> dict[str, str] | None:
    return {"unit": UNITS[name]} if name in UNITS else None


def _fits_name(name: str) -> bytes:
    """A text with the letters that FITS knows; others, and the backslash, as their codes."""
    return plain_text(name).replace("\\", r"\x5c").encode("ascii", "backslashreplace")


def name_in_fits(text: str) -> str:
    """The text that `_fits_name` has written."""
    return re.sub(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))", lambda code: chr(int(code[0][2:], 16)), text)


def _write_fits(source: Source, path: Path, metadata: Mapping[str, Any]) -> None:
    from astropy.io import fits

    count, widths = 0, dict[Any, int]()
    for chunk in source():  # lengths first: a FITS table states them in front of its rows
        count += len(chunk)
        for name, kind in chunk.dtypes.items():
            if kind.kind not in "fiub":
                widths[name] = max([widths.get(name, 1), *(len(_fits_name(text)) for text in chunk[name].unique())])
    kinds = {name: _fits_kind(kind, widths.get(name)) for name, kind in chunk.dtypes.items()}
    columns = [
        fits.Column(str(name), code, unit=_fits_unit(str(name)), null=null) for name, (code, _, null) in kinds.items()
    ]
    table = fits.BinTableHDU.from_columns(columns, nrows=0, name="TARGETS")
    table.header["NAXIS2"] = count
    for key, value in metadata.items():
        text = value if isinstance(value, str) else json.dumps(value)
        table.header[_fits_key(key)] = text
    layout = np.dtype([(str(name), dtype) for name, (_, dtype, _) in kinds.items()])
    with path.open("wb") as file:
        file.write(fits.PrimaryHDU().header.tostring().encode("ascii"))
        file.write(table.header.tostring().encode("ascii"))
        for chunk in source():
            rows = np.empty(len(chunk), layout)
            for name, (_, dtype, null) in kinds.items():
                if dtype[0] == "S":
                    rows[str(name)] = [_fits_name(text) for text in chunk[name]]
                else:
                    values = chunk[name] if null is None else chunk[name].fillna(null)
                    rows[str(name)] = values.to_numpy(dtype=dtype[1:], na_value=np.nan if null is None else null)
            file.write(rows.tobytes())
        file.write(b"\0" * (-count * layout.itemsize % FITS_BLOCK))


def _fits_unit(name: str) -> str | None:
    """Unit of a column; FITS has none for electrons."""
    unit = UNITS.get(name)
    return None if unit == "electron" else unit


def _fits_kind(kind: np.dtype[Any], width: int | None) -> tuple[str, str, int | None]:
    """(format of a FITS column, type of its values, the number that stands for none) of a column."""
    if kind.kind == "f":
        return "D", ">f8", None
    if kind.kind in "iu":
        return "K", ">i8", None if isinstance(kind, np.dtype) else -1
    return (f"{width}A", f"S{width}", None) if kind.kind != "b" else ("B", "|u1", None)


def _fits_key(key: str) -> str:
    return {"csist_version": "CSISTVER"}.get(key, key[:8].upper())


def _write_ecsv(source: Source, path: Path, metadata: Mapping[str, Any]) -> None:
    from astropy.table import Column, Table

    chunks = source()
    first = next(chunks)
    kinds = {"f": "f8", "i": "i8", "u": "i8", "b": "?"}
    columns = [
        Column([], name=str(name), dtype=kinds.get(kind.kind, "U1"), unit=UNITS.get(str(name)))
        for name, kind in first.dtypes.items()
    ]
    head = io.StringIO()
    Table(columns, meta=json.loads(json.dumps(metadata))).write(head, format="ascii.ecsv", delimiter=",")
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        file.write(head.getvalue().replace("\r\n", "\n"))
        for chunk in (first, *chunks):
            chunk.to_csv(file, index=False, header=False, lineterminator="\n")


FORMS: dict[str, Callable[[Source, Path, Mapping[str, Any]], None]] = {
    ".csv": write_csv,
    ".parquet": _write_parquet,
    ".fits": _write_fits,
    ".ecsv": _write_ecsv,
}
