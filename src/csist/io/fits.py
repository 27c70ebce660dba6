"""FITS by astropy: the image among a file's units, what belongs to it, and what its header says of the instrument.

Before astropy sees a file, its headers are gone through here block by block: a damaged one can otherwise keep it busy
for minutes, and an absurd size would be asked of the memory.
"""

from __future__ import annotations

import bz2
import gzip
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import SMALLEST_SIDE_PX, InputError
from csist.io.formats import Content, ReadOptions, TooManyPixelsError, check_pixels
from csist.io.headers import Header, header_of_cards

BLOCK, CARD = 2880, 80
MOST_HEADER_BLOCKS = 4000
"""Blocks of one header: 144,000 cards, ten times those of the longest ones in archives."""
MOST_UNITS = 10_000
PIECE = 2**22
"""Bytes that are unpacked at a time."""
BITPIX = (8, 16, 32, 64, -32, -64)

DEVIATIONS = ("ERR", "ERROR", "SIGMA", "STDDEV", "NOISE", "UNCERT", "UNCERTAINTY")
VARIANCES = ("VAR", "VARIANCE")
WEIGHTS = ("WHT", "WEIGHT", "IVAR", "INVVAR")
MASKS = ("MASK", "BADPIX", "BPM")
QUALITIES = ("DQ", "QUALITY", "FLAGS")
BESIDE = (*DEVIATIONS, *VARIANCES, *WEIGHTS, *MASKS, *QUALITIES)
"""Names of units that belong to an image and are none themselves."""


def read_fits(path: Path, options: ReadOptions, notes: list[str]) -> Content:
    """The image of a FITS file, packed (.gz, .bz2) or tile-compressed (.fz) or neither.

    Raises:
        InputError: if astropy is missing, or the file is damaged, holds no image or not the unit asked for.
    """
    try:
        from astropy.io import fits
    except ImportError as error:
        raise InputError(f"cannot read {path}: FITS needs the extra `astro`, pip install 'csist[astro]'") from error
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Opened here: astropy leaves its own file open where a header is broken.
        with _unpacked(path, options) as file:
            check_headers(file, path, options)
            with fits.open(file, memmap=False, lazy_load_hdus=False) as units:
                content = _content(path, units, options, notes)
    for warning in caught:
        notes.append(" ".join(str(warning.message).split())[:200])
    return content


def _unpacked(path: Path, options: ReadOptions) -> IO[bytes]:
    """The file, or what is packed in it, no longer than the pixels allowed could be."""
    with path.open("rb") as file:
        magic = file.read(3)
    if magic[:2] != b"\x1f\x8b" and magic != b"BZh":
        return path.open("rb")
    opener: Any = gzip.open if magic[:2] == b"\x1f\x8b" else bz2.open
    most = 8 * options.max_pixels + MOST_HEADER_BLOCKS * BLOCK
    data = io.BytesIO()
    try:
        with opener(path, "rb") as packed:
            # Piece by piece: what is asked for at once is allocated at once.
            while data.tell() <= most and (piece := packed.read(PIECE)):
                data.write(piece)
    except EOFError as error:
        raise InputError(f"cannot read {path}: it is cut short") from error
    if data.tell() > most:
        raise TooManyPixelsError(
            f"cannot read {path}: it unpacks to more than {options.max_pixels} pixels need; "
            "if that is meant, raise --max-pixels",
            path,
        )
    data.seek(0)
    return data


def check_headers(file: IO[bytes], path: Path, options: ReadOptions) -> None:
    """Go through all headers of a FITS file and leave it at its start.

    Raises:
        InputError: if a header has no end or cannot be, the data it tells of is not there, or is too large.
    """
    end = file.seek(0, io.SEEK_END)
    start, units = 0, 0
    while start < end:
        if units == MOST_UNITS:
            raise InputError(f"cannot read {path}: it has more than {MOST_UNITS} units")
        cards, length = _header_cards(file, start, end, path, units)
        if not cards:
            break  # what follows the last unit is not FITS, and allowed
        shape = _stated_shape(cards, path, units)
        if "ZIMAGE" in cards:  # a table of compressed tiles
            sides = [
                _whole(cards, f"ZNAXIS{axis + 1}", path, units) for axis in range(_axes(cards, "ZNAXIS", path, units))
            ]
            check_pixels(sides, path, options)
        elif cards.get("XTENSION", "IMAGE") == "IMAGE":
            check_pixels(shape or (0,), path, options)
        size = _data_bytes(cards, shape, path, units)
        start += length + -(-size // BLOCK) * BLOCK
        if start > end:
            raise InputError(f"cannot read {path}: it is cut short")
        units += 1
    file.seek(0)


def _header_cards(file: IO[bytes], start: int, end: int, path: Path, unit: int) -> tuple[dict[str, str], int]:
    """The sizes that a header states, and its length in bytes; no cards where there is no header."""
    file.seek(start)
    cards: dict[str, str] = {}
    for number in range(MOST_HEADER_BLOCKS):
        block = file.read(BLOCK)
        if number == 0 and block[:8].rstrip() not in (b"SIMPLE", b"XTENSION"):
            if unit:
                return {}, 0
            what = "it is empty" if not end else "it does not begin with SIMPLE or is cut short"
            raise InputError(f"cannot read {path}: it is not a FITS file, {what}")
        if len(block) < BLOCK:
            raise InputError(f"cannot read {path}: it is cut short, the header of unit {unit} has no end")
        for place in range(0, BLOCK, CARD):
            key = block[place : place + 8].rstrip().decode("latin-1")
            if key == "END":
                return cards, (number + 1) * BLOCK
            if re.fullmatch(r"XTENSION|BITPIX|Z?NAXIS\d{0,3}|[PG]COUNT|ZIMAGE", key):
                text = block[place + 10 : place + CARD].decode("latin-1")
                cards.setdefault(key, text.split("/")[0].strip().strip("'").strip())
    raise InputError(f"cannot read {path}: the header of unit {unit} has no end in {MOST_HEADER_BLOCKS} blocks")


def _whole(cards: dict[str, str], key: str, path: Path, unit: int, default: int | None = None) -> int:
    text = cards.get(key, "" if default is None else str(default))
    if not re.fullmatch(r"[+-]?\d{1,15}", text):
        raise InputError(f"cannot read {path}: it is damaged, {key} of unit {unit} is {text[:20]!r}")
    return int(text)


def _axes(cards: dict[str, str], key: str, path: Path, unit: int) -> int:
    axes = _whole(cards, key, path, unit)
    if not 0 <= axes <= 999:
        raise InputError(f"cannot read {path}: it is damaged, {key} of unit {unit} is {axes}")
    return axes


def _stated_shape(cards: dict[str, str], path: Path, unit: int) -> list[int]:
    """Lengths of the axes, the fastest first."""
    shape = [_whole(cards, f"NAXIS{axis + 1}", path, unit) for axis in range(_axes(cards, "NAXIS", path, unit))]
    if any(side < 0 for side in shape):
        raise InputError(f"cannot read {path}: it is damaged, unit {unit} has the axes {shape[:9]}")
    return shape


def _data_bytes(cards: dict[str, str], shape: Sequence[int], path: Path, unit: int) -> int:
    """Bytes of the data behind a header, without padding."""
    bits = _whole(cards, "BITPIX", path, unit)
    if bits not in BITPIX:
        raise InputError(f"cannot read {path}: it is damaged, BITPIX of unit {unit} is {bits}")
    if not shape:
        return 0
    sides = list(shape[1:] if shape[0] == 0 and len(shape) > 1 else shape)  # random groups have NAXIS1 = 0
    count = 1
    for side in sides:
        count *= side
    more, groups = _whole(cards, "PCOUNT", path, unit, 0), _whole(cards, "GCOUNT", path, unit, 1)
    if more < 0 or groups < 0:
        raise InputError(f"cannot read {path}: it is damaged, PCOUNT or GCOUNT of unit {unit} is negative")
    return abs(bits) // 8 * groups * (more + count)


def _content(path: Path, units: Any, options: ReadOptions, notes: list[str]) -> Content:
    """The image of opened units, with what belongs to it."""
    images = [number for number, unit in enumerate(units) if _is_image(unit)]
    number = _chosen(path, units, images, options)
    unit = units[number]
    data, blank = _values(unit, notes)
    others = [each for each in images if each != number and units[each].name.upper() not in BESIDE]
    if others and options.hdu is None:
        names = ", ".join(_label(units, each) for each in others[:6]) + (", ..." if len(others) > 6 else "")
        notes.append(
            f"unit {_label(units, number)} is read, other images are left out ({names}): choose one with --hdu or "
            f"{path.name}[{_label(units, others[0])}]"
        )
    # With an extension's own keywords before those of the first header, as is the custom.
    cards: dict[str, Any] = {}
    comments: dict[str, str] = {}
    for header in (unit.header, units[0].header):
        for card in header.cards:
            if card.keyword and card.keyword not in cards:
                cards[card.keyword], comments[card.keyword] = card.value, card.comment
    first = np.asarray(data if data.ndim == 2 else data[0], dtype=np.float64)
    header = header_of_cards(cards, comments, first, notes) if data.dtype.kind in "uif" else Header()
    error, mask, quality = _beside(units, number, data.shape, notes)
    if blank is not None:
        mask = blank if mask is None else mask | blank
    return Content(data, header, error, mask, quality, unit=(unit.name.upper(), int(unit.ver)))


def _label(units: Any, number: int) -> str:
    """Name of a unit, its number where it has none or shares it."""
    name = units[number].name
    same = sum(unit.name == name for unit in units)
    return str(number) if not name or name == "PRIMARY" else f"{name},{units[number].ver}" if same > 1 else name


def _is_image(unit: Any) -> bool:
    """Whether a unit can be used as an image or stack, by its header alone."""
    if not unit.is_image or not hasattr(unit, "shape"):
        return False
    shape = _plain_shape(unit.shape)
    return len(shape) in (2, 3) and min(shape[-2:]) >= SMALLEST_SIDE_PX and min(shape) > 0


def _plain_shape(shape: Sequence[int]) -> Sequence[int]:
    """A shape of more than three axes without those of one image (polarisation, frequency) before the last two."""
    if len(shape) <= 3:
        return shape
    long = [side for side in shape[:-2] if side != 1]
    return (*(long or [1]), *shape[-2:])


def _chosen(path: Path, units: Any, images: list[int], options: ReadOptions) -> int:
    """Number of the unit to read: the one asked for, or the first image that belongs to no other.

    Raises:
        InputError: if there is none.
    """
    if options.hdu is None:
        own = [number for number in images if units[number].name.upper() not in BESIDE] or images
        if not own:
            shapes = [unit.shape for unit in units if unit.is_image and hasattr(unit, "shape") and unit.shape]
            more = f"; images must be (H, W) or (N, H, W), got shape {shapes[0]}" if shapes else ""
            raise InputError(f"{path} holds no image: none of its {len(units)} units has image data{more}")
        return own[0]
    text = options.hdu
    name, _, version = (part.strip() for part in text.partition(","))
    if re.fullmatch(r"\d{1,6}", text):
        found = [int(text)] if int(text) < len(units) else []
    else:
        found = [
            number
            for number, unit in enumerate(units)
            if unit.name.upper() == name.upper() and (not version or str(unit.ver) == version)
        ]
    if not found:
        held = ", ".join(f"{number} {unit.name}".strip() for number, unit in enumerate(units))
        raise InputError(f"{path} has no unit {text!r}: it has {held[:150]}")
    if found[0] not in images:
        raise InputError(f"unit {text!r} of {path} holds no image of at least 3 x 3 px")
    return found[0]


def _values(unit: Any, notes: list[str]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """The values of a unit without degenerate axes, and where the file says that they are undefined."""
    header = unit.header
    blank, offset = header.get("BLANK"), int(header.get("BZERO", 0))
    data = np.asarray(unit.data)
    data = data.reshape(_plain_shape(data.shape))
    if isinstance(blank, bool) or not isinstance(blank, int) or data.dtype.kind not in "ui":
        return data, None  # where astropy gives floating point, undefined values are NaN already
    # An unsigned integer, stored with an offset: astropy leaves BLANK alone there.
    place = blank + offset
    held = data == place if np.iinfo(data.dtype).min <= place <= np.iinfo(data.dtype).max else None
    if held is None or not held.any():
        return data, None
    notes.append(f"{int(held.sum())} pixels are undefined (BLANK) and left out")
    return data, held


def _beside(
    units: Any, number: int, shape: Sequence[int], notes: list[str]
) -> tuple[FloatArray | None, NDArray[np.bool_] | None, NDArray[Any] | None]:
    """(standard deviation, mask, quality flags) of an image, from the units of its shape behind it."""
    error: FloatArray | None = None
    mask: NDArray[np.bool_] | None = None
    quality: NDArray[Any] | None = None
    used = []
    own = units[number]
    for unit in units[number + 1 :]:
        name = unit.name.upper()
        if name not in BESIDE or not _is_image(unit) or tuple(_plain_shape(unit.shape)) != tuple(shape):
            continue
        if own.ver != unit.ver and any(each.name == own.name for each in units if each is not own):
            continue  # of another of several images
        values = np.asarray(unit.data).reshape(shape)
        if name in MASKS and mask is None:
            mask = values != 0
            notes.append(f"{int(mask.sum())} pixels are masked by {name}")
        elif name in QUALITIES and quality is None and values.dtype.kind in "iu":
            quality = values
            used.append(name)
        elif name in (*DEVIATIONS, *VARIANCES, *WEIGHTS) and error is None:
            error = deviation(name, str(unit.header.get("UTYPE", "")), values.astype(np.float64))
            used.append(name)
    if used:
        ways = [f"--mask {name}" if name in QUALITIES else f"--error {name}" for name in used]
        notes.append(f"{' and '.join(used)} beside the image: used where asked for ({', '.join(ways)})")
    return error, mask, quality


def deviation(name: str, kind: str, values: FloatArray) -> FloatArray:
    """Standard deviation from what a unit's name, or the type that CCDData writes, says that its values are.

    Args:
        name: of the unit.
        kind: its UTYPE; "" where it has none.
        values: of the unit.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if name in WEIGHTS or kind.lower().startswith("inv"):
            return np.asarray(np.where(values > 0, 1.0 / np.sqrt(np.where(values > 0, values, 1.0)), np.inf))
        if name in VARIANCES or kind.lower().startswith("var"):
            return np.sqrt(values)
    return values
