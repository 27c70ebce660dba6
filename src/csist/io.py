"""Files in and out: images of many formats as float64 stacks, tables of targets as CSV or Parquet.

A file becomes one `ImageStack` (a single image is a stack of one), a folder a stream of them, file by file,
so that no more than one file is in memory. Every output appears under its name only when it is complete.
"""

from __future__ import annotations

import csv
import errno
import io
import logging
import os
import re
import shutil
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from csist.checks import InputError, check_stack
from csist.physics.sensor import Sensor
from csist.targets import COLUMNS, FLOAT_COLUMNS, Targets

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]

TABLE_COLUMNS = ("image", "frame", *COLUMNS)
"""Header of a table of targets: image, frame, then the columns of `Targets`."""

TABLE_SUFFIXES = (".csv", ".parquet")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luminance (ITU-R BT.601)."""


def one_line(error: BaseException) -> str:
    """What an exception says, as one line."""
    # A KeyError puts its message in quotes.
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(said.split()) or type(error).__name__


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn whatever a parser raises inside the block into one `InputError` that names the file.

    Readers of foreign formats answer a damaged file with almost any exception (struct, zlib, index, syntax),
    so this is the one place that catches them all; an `InputError` passes unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"cannot read {path}: there is no such file") from error
    except MemoryError as error:
        raise InputError(f"cannot read {path}: it does not fit into the memory") from error
    except Exception as error:
        said = one_line(error)
        # A parser's own message is often about itself: say first what that means for the user.
        raise InputError(f"cannot read {path}, it is damaged or not what its suffix says: {said[:200]}") from error


# --- outputs ----------------------------------------------------------------------------------------------


def _is_special(path: Path) -> bool:
    """Whether the path is a device or pipe (/dev/null, /dev/stdout): written in place, never replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _partial_name(path: Path) -> Path:
    # Hidden, in the same folder (a rename must not cross file systems), with the suffix kept, because some
    # writers choose their format by it.
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


def check_writable(path: str | Path, suffixes: Sequence[str] = ()) -> Path:
    """Return the path if a file can be written there; call it before the work begins.

    Args:
        path: file to be written; it may exist.
        suffixes: endings allowed, lower case with the dot; none for any.

    Raises:
        InputError: if its folder is missing, it is a folder itself, it cannot be written or ends otherwise.
    """
    path = Path(path)
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:  # a name too long, a file where a folder is meant, a folder that is closed
        raise InputError(f"cannot write {path}: {error.strerror or one_line(error)}") from error
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"cannot write {path}: its name must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder, give the name of a file in it")
    if _is_special(path):
        return path
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist, create it first")
    probe = _partial_name(path)
    try:
        # Permission bits do not tell of read-only disks or over-long names: try it.
        probe.open("xb").close()
        probe.unlink()
    except FileExistsError:
        pass
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or one_line(error)}") from error
    return path


def check_new_folder(path: str | Path) -> Path:
    """Return the path if a folder can be made there.

    Raises:
        InputError: if there is something already (an empty folder is fine) or it cannot be written.
    """
    path = Path(path)
    if path.is_dir() and not any(path.iterdir()):
        return path
    if path.exists():
        raise InputError(f"cannot write {path}: it exists already, give another name or remove it")
    return check_writable(path)


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def atomic_path(path: str | Path, folder: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` to write to, renamed to `path` when the block ends without an error.

    After an error or Ctrl-C nothing is left behind and an older file of that name is untouched.

    Args:
        path: the final name.
        folder: whether a folder is written (made here, empty) instead of a file.

    Raises:
        InputError: if the path cannot be written or the disk is full.
    """
    path = Path(path)
    check_new_folder(path) if folder else check_writable(path)
    if _is_special(path):
        yield path
        return
    final = Path(os.path.realpath(path))
    partial = _partial_name(final)
    try:
        if folder:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        yield partial
        partial.replace(final)
    except BaseException as error:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise InputError(f"cannot write {path}: {os.strerror(error.errno or 0)}") from error
        raise


def write_text(text: str, path: str | Path) -> None:
    """Write a text file (UTF-8), complete or not at all.

    Raises:
        InputError: if the path cannot be written.
    """
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_table(table: pd.DataFrame | Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write a table as CSV or Parquet, chosen by the suffix; NaN becomes a blank field.

    Args:
        table: a data frame, or rows as mappings from column to value.
        path: file ending in .csv or .parquet.

    Raises:
        InputError: if the suffix is another one or the path cannot be written.
    """
    import pandas as pd

    path = check_writable(path, () if _is_special(Path(path)) else TABLE_SUFFIXES)
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
        special = _is_special(self.path)
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


# --- images -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ImageStack:
    """The images of one file.

    `stack[i]` is image i, (H, W) float64, `stack[a:b]` is (n, H, W); conversion to float64 happens there, so
    a memory-mapped file is read as it is used. NaN is let through.

    Args:
        name: path relative to the input that was given; the file name for a single file.
        path: where the file is.
        kind: "png", "tiff", "fits", "npy", "npz" or "store".
        data: values as stored, (N, H, W).
        notes: what the user should know about how the values were read, one line each.
        sensor: the sensor that the file itself states (a store does).

    Raises:
        InputError: if the data is no real-valued image or stack of at least 3 x 3 px, or is empty.
    """

    name: str
    path: Path
    kind: str
    data: NDArray[Any] = field(repr=False)
    notes: tuple[str, ...] = ()
    sensor: Sensor | None = None

    def __post_init__(self) -> None:
        data = self.data
        if data.size == 0:
            raise InputError(f"{self.path} holds no image: its array has the shape {data.shape}")
        if data.ndim == 3 and data.shape[2] in (3, 4) and min(data.shape[:2]) > 16:
            raise InputError(f"{self.path} looks like a colour image, shape {data.shape}: give one channel or the mean")
        stack = data[None] if data.ndim == 2 else data
        # On no rows at all, so that a memory-mapped file is not read twice; values are checked at their use.
        check_stack(stack[:0] if stack.ndim == 3 else stack, str(self.path))
        object.__setattr__(self, "data", stack)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        count, rows, columns = self.data.shape
        return count, rows, columns

    def __getitem__(self, key: int | slice) -> FloatArray:
        if isinstance(key, slice):
            return check_stack(self.data[key], str(self.path))
        return np.asarray(check_stack(self.data[key], str(self.path))[0])

    def __iter__(self) -> Iterator[FloatArray]:
        return (self[i] for i in range(len(self)))

    def chunks(self, size: int) -> Iterator[tuple[int, FloatArray]]:
        """(index of the first image, images (n, H, W)) with n at most `size`, in order."""
        return ((start, self[start : start + size]) for start in range(0, len(self), size))


def _grey(colour: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    """(..., 3 or 4) -> (...): the common value if the channels are equal, else the luminance, with a note."""
    if colour.shape[-1] == 4 and (colour[..., 3] != colour[..., 3].max()).any():
        notes.append("transparency ignored")
    red, green, blue = (colour[..., k] for k in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    notes.append("colour turned into luminance, 0.299 R + 0.587 G + 0.114 B")
    return np.asarray(colour[..., :3].astype(np.float64) @ np.array(LUMINANCE))


_PNG_GREY, _PNG_RGB, _PNG_GREY_ALPHA, _PNG_RGBA = 0, 2, 4, 6


def _read_png(path: Path, notes: list[str]) -> NDArray[Any]:
    from PIL import Image

    with path.open("rb") as file:
        header = file.read(29)
    if header[:8] != b"\x89PNG\r\n\x1a\n" or len(header) < 29:
        raise InputError(f"cannot read {path}: it is {'empty' if not header else 'not a PNG file or cut short'}")
    depth, colour_type = header[24], header[25]
    if depth == 16 and colour_type != _PNG_GREY:
        # Pillow would drop the lower eight bits without a word.
        raise InputError(f"cannot read {path}: a 16-bit PNG must be grey, save it without colour and transparency")
    columns, rows = (int.from_bytes(header[start : start + 4], "big") for start in (16, 20))
    if Image.MAX_IMAGE_PIXELS is not None and rows * columns > Image.MAX_IMAGE_PIXELS:
        raise InputError(f"cannot read {path}: {rows} x {columns} px are too many for a PNG, save it as TIFF or NPY")
    if depth < 8 and colour_type == _PNG_GREY:
        notes.append(f"{depth}-bit grey scaled to 0-255")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("error", UserWarning)  # truncated or odd metadata
        with Image.open(path, formats=["PNG"]) as image:
            if getattr(image, "n_frames", 1) > 1:
                notes.append("animated PNG, only its first frame is read")
            if image.mode in ("P", "PA"):
                image_values = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
            elif image.mode == "1":
                image_values = image.convert("L")
            else:
                image_values = image
            values = np.array(image_values)
    if values.ndim == 2:
        return values
    if values.shape[2] == 2:
        if (values[..., 1] != 255).any():
            notes.append("transparency ignored")
        return np.asarray(values[..., 0])
    return _grey(values, notes)


def _tiff_page(page: Any, notes: list[str]) -> NDArray[Any]:
    """One page (H, W), colour turned into grey."""
    import tifffile

    values = np.asarray(page.asarray())
    photometric = page.photometric
    if photometric == tifffile.PHOTOMETRIC.PALETTE:
        return _grey(np.moveaxis(np.asarray(page.colormap)[:, values], 0, -1), notes)
    if page.samplesperpixel > 1:
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            values = np.moveaxis(values, 0, -1)
        if page.samplesperpixel in (3, 4) and photometric == tifffile.PHOTOMETRIC.RGB:
            return _grey(values, notes)
        if page.samplesperpixel == 2 and page.extrasamples:
            notes.append("transparency ignored")
            return np.asarray(values[..., 0])
        colours = tifffile.PHOTOMETRIC(photometric).name
        raise InputError(f"it has {page.samplesperpixel} channels a pixel ({colours}), save it as grey")
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        if values.dtype.kind != "u":
            raise InputError("black and white are swapped (MINISWHITE), save it as ordinary grey")
        notes.append("black and white were swapped (MINISWHITE), inverted")
        return np.asarray(2**page.bitspersample - 1 - values)
    return values


@contextmanager
def _listening(logger_name: str) -> Iterator[list[str]]:
    """Collect what a library logs as a warning or worse, instead of printing it."""
    heard: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(" ".join(record.getMessage().split()))

    logger, collector = logging.getLogger(logger_name), Collector(logging.WARNING)
    propagate = logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield heard
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate


def _read_tiff(path: Path, notes: list[str]) -> NDArray[Any]:
    import tifffile

    size = path.stat().st_size
    frames: list[NDArray[Any]] = []
    with _listening("tifffile") as heard, tifffile.TiffFile(path) as tiff:
        for series in tiff.series:
            page = series.keyframe
            if page.is_reduced:
                continue  # a thumbnail of another page
            # Pages whose data lies beyond the end would come out as zeros.
            pages = [each for each in series.pages if each is not None]
            spans = [span for each in pages for span in zip(each.dataoffsets, each.databytecounts, strict=True)]
            if any(offset + count > size for offset, count in spans):
                raise InputError(f"cannot read {path}: it is cut short")
            try:
                if page.samplesperpixel == 1 and page.photometric == tifffile.PHOTOMETRIC.MINISBLACK:
                    values = np.asarray(series.asarray())  # also ImageJ's stacks, which have one page only
                    frames.extend(values.reshape(-1, *values.shape[-2:]))
                else:
                    frames.extend(_tiff_page(each, notes) for each in pages)
            except InputError as error:
                raise InputError(f"cannot read {path}: {error}") from error
            except ValueError as error:
                if "imagecodecs" in str(error):
                    way_out = "save it uncompressed, or install the package imagecodecs"
                    method = tifffile.COMPRESSION(page.compression).name
                    raise InputError(f"cannot read {path}: {method} compression; {way_out}") from error
                raise
    for said in heard:
        # Pages that cannot be reached are left out with a log message and nothing else.
        if "invalid" in said or "corrupt" in said or "failed" in said:
            raise InputError(f"cannot read {path}: it is cut short or damaged ({said[:120]})")
        notes.append(said[:200])
    if not frames:
        raise InputError(f"{path} holds no image")
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        raise InputError(f"the pages of {path} differ in size, {', '.join(map(str, sorted(shapes)))}: split the file")
    return frames[0][None] if len(frames) == 1 else np.stack(frames)


def _read_fits(path: Path, notes: list[str]) -> NDArray[Any]:
    try:
        from astropy.io import fits
    except ImportError as error:
        raise InputError(f"cannot read {path}: FITS needs the extra `astro`, pip install 'csist[astro]'") from error
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Opened here: astropy leaves its own file open where a header is broken.
        with path.open("rb") as file, fits.open(file, memmap=False, lazy_load_hdus=False) as units:
            images = (u.data for u in units if u.is_image and u.header.get("NAXIS", 0) > 0 and u.data is not None)
            values = next(images, None)
    for warning in caught:
        said = " ".join(str(warning.message).split())
        if "truncated" in said.lower():
            raise InputError(f"cannot read {path}: it is cut short")
        notes.append(said[:200])
    if values is None:
        raise InputError(f"{path} holds no image: none of its {len(units)} units has image data")
    values = np.asarray(values)
    while values.ndim > 3 and values.shape[0] == 1:
        values = values[0]  # degenerate axes (polarisation, frequency) of a single plane
    return values


def npz_member(path: Path, names: Sequence[str]) -> str:
    """Which of the arrays of an NPZ file holds its images.

    Raises:
        InputError: if that is not clear.
    """
    chosen = names if len(names) == 1 else [name for name in ("images", "image") if name in names]
    if not chosen:
        held = ", ".join(names) or "nothing"
        raise InputError(f"{path} must hold one array, or one called image or images; it holds {held}")
    return chosen[0]


def _read_npy(path: Path, notes: list[str]) -> NDArray[Any]:
    with path.open("rb") as file:
        if file.read(2) != b"PK":  # what a zip archive begins with
            return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            return np.asarray(archive[npz_member(path, list(archive.files))])


_READERS: dict[str, Callable[[Path, list[str]], NDArray[Any]]] = {
    "png": _read_png,
    "tiff": _read_tiff,
    "fits": _read_fits,
    "npy": _read_npy,
    "npz": _read_npy,
}
_KINDS = {
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".fits": "fits",
    ".fit": "fits",
    ".fts": "fits",
    ".fits.gz": "fits",
    ".npy": "npy",
    ".npz": "npz",
    ".h5": "store",
    ".hdf5": "store",
    **dict.fromkeys(VIDEO_SUFFIXES, "video"),
}
_FORMATS = "PNG, TIFF, FITS, NPY, NPZ, HDF5 stores and video"


def image_kind(path: str | Path) -> str | None:
    """The format that a file's suffix says: png, tiff, fits, npy, npz, store or video; None for others."""
    name = Path(path).name.lower()
    return next((kind for suffix, kind in _KINDS.items() if name.endswith(suffix)), None)


def read_image(path: str | Path, name: str | None = None) -> ImageStack:
    """The images of one file.

    PNG 8/16-bit (grey, palette, colour), TIFF (several pages, integers, floats), FITS (the first unit with an
    image), NPY and NPZ ((H, W) or (N, H, W); of several arrays the one called images or image) and the test
    split of a store. Rows are in file order, so for FITS too row 0 is the first row of the array.

    Args:
        path: the file.
        name: name to give it, the file name if None.

    Raises:
        InputError: if the file is missing, of an unknown format, a video (see `csist.sequences`), damaged, empty or
            not an image.
    """
    path = Path(path)
    kind = image_kind(path)
    if not path.is_file():
        raise InputError(f"cannot read {path}: {'it is a folder' if path.is_dir() else 'there is no such file'}")
    if kind == "video":
        raise InputError(f"cannot read the video {path} as a whole: it is read frame by frame, by `csist unmix`")
    if kind is None:
        raise InputError(f"cannot read {path}: unknown suffix {path.suffix!r}; {_FORMATS} can be read")
    name = path.name if name is None else name
    if kind == "store":
        from csist.datasets.dataset import load

        split = load(path)["test"]
        return ImageStack(name, path, kind, split.counts, sensor=split.sensor)
    notes: list[str] = []
    with reading(path):
        data = _READERS[kind](path, notes)
    return ImageStack(name, path, kind, data, tuple(dict.fromkeys(notes)))


def natural_key(text: str) -> tuple[object, ...]:
    """Sort key under which image_2 comes before image_10."""
    parts: list[object] = list(re.split(r"(\d+)", text.lower()))
    parts[1::2] = [int(str(digits)) for digits in parts[1::2]]
    return tuple(parts), text


class FrameReader:
    """The files of an input, read one by one as they are asked for; it can be gone through more than once.

    Args:
        path: an image file, or a folder whose images (in sub-folders too) are taken in natural order.

    Raises:
        InputError: if the path does not exist or a folder holds no image.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._notes: dict[str, list[str]] = {}
        if not self.path.is_dir():
            if not self.path.exists():
                raise InputError(f"there is no file or folder {self.path}")
            self.files = [(self.path.name, self.path)]
            return
        found = [file for file in self.path.rglob("*") if file.is_file()]
        relative = [(file.relative_to(self.path), file) for file in found]
        visible = [(name, file) for name, file in relative if not any(part.startswith(".") for part in name.parts)]
        images = [(name.as_posix(), file) for name, file in visible if image_kind(file)]
        if not images:
            raise InputError(f"the folder {self.path} holds no image: {_FORMATS} can be read")
        self.files = sorted(images, key=lambda item: natural_key(item[0]))
        if len(visible) > len(images):
            others = sorted({file.suffix or file.name for _, file in visible if not image_kind(file)})
            shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
            self._notes[f"{len(visible) - len(images)} other files left out ({shown})"] = []

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[ImageStack]:
        for name, path in self.files:
            stack = read_image(path, name)
            for note in stack.notes:
                names = self._notes.setdefault(note, [])
                if name not in names:
                    names.append(name)
            yield stack

    @property
    def notes(self) -> list[str]:
        """What the user should know about the files read so far, one line for each kind of note."""
        lines = []
        for note, names in self._notes.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            lines.append(f"{names[0]}{more}: {note}" if names else f"{self.path}: {note}")
        return lines


def read_frames(path: str | Path) -> FrameReader:
    """The images of a file or folder: an iterable of `ImageStack`, read one file at a time.

    Raises:
        InputError: if the path does not exist or a folder holds no image; while iterating, if a file is bad.
    """
    return FrameReader(path)
