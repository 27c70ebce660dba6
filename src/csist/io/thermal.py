"""Thermal cameras' JPEG: whose it is, and the raw counts that one of FLIR holds beside its picture, by flyr."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csist.checks import InputError
from csist.io.formats import ReadOptions, check_pixels

_APP1, _APP3, _START_OF_SCAN = 0xE1, 0xE3, 0xDA
"""Markers of a JPEG file: two kinds of data of applications, and the beginning of the picture."""
_BEGIN_BYTES = 512
"""Of a segment, looked at for the camera's name."""

_ENTRIES, _ENTRY_BYTES = slice(28, 32), 32
"""Directory of a FLIR file: where its header says how many entries there are, and their length."""
_RAW_HEADER_BYTES = 32
_PNG = b"\x89PNG\r\n\x1a\n"

_INSTEAD = "export the temperatures or raw counts as 16-bit TIFF with the camera's own program"


class Camera(NamedTuple):
    """The camera of a radiometric JPEG file.

    Args:
        maker: FLIR or DJI.
        scan: byte at which the picture begins, behind the data of applications.
    """

    maker: str
    scan: int


def camera_of(path: Path) -> Camera | None:
    """The thermal camera whose measurement a JPEG file carries beside its picture; None if it carries none."""
    held, makers = set(), b""
    with path.open("rb") as file:
        file.seek(2)
        while len(head := file.read(4)) == 4 and head[0] == 0xFF and head[1] != _START_OF_SCAN:
            length = int.from_bytes(head[2:], "big") - 2
            if length < 0:
                break
            begin = file.read(min(length, _BEGIN_BYTES))
            file.seek(length - len(begin), 1)
            held.add((head[1], begin[:5]))
            makers += begin if head[1] == _APP1 else b""
        scan = file.tell()
    if (_APP1, b"FLIR\0") in held:
        return Camera("FLIR", scan)
    return Camera("DJI", scan) if b"DJI" in makers and any(marker == _APP3 for marker, _ in held) else None


def read_raw_counts(path: Path, camera: Camera, options: ReadOptions, notes: list[str]) -> NDArray[np.uint16]:
    """The raw counts (H, W) of a radiometric JPEG file. They follow the radiance, which temperatures do not.

    Args:
        path: the file.
        camera: of `camera_of`.
        options: give the largest number of pixels.
        notes: gets what the user should know.

    Raises:
        InputError: if it is damaged, too large, of DJI, or if flyr is not installed.
    """
    about = f"cannot read {path}: it is a thermal camera's file, whose picture is not its measurement: "
    if camera.maker != "FLIR":
        raise InputError(about + _INSTEAD)
    try:
        from flyr.records import RecordIndex, extract_flir_app1, parse_flir_records
        from flyr.thermal import parse_raw_data
    except ImportError as error:
        raise InputError(
            f"{about}its raw counts need the extra `thermal`, pip install 'csist[thermal]', or {_INSTEAD}"
        ) from error
    with path.open("rb") as file:
        stream = extract_flir_app1(BytesIO(file.read(camera.scan)))
    content = stream.getvalue()
    if int.from_bytes(content[_ENTRIES], "big") > len(content) // _ENTRY_BYTES:
        raise ValueError("its directory of records is longer than the file")
    place = parse_flir_records(stream)[RecordIndex.RAW_DATA.value]
    _check_size(content[place[2] :], path, options)
    notes.append("raw counts of the thermal camera are used, which follow the radiance, not the picture beside them")
    return np.asarray(parse_raw_data(stream, place)[2]).astype(np.uint16)


def _check_size(record: bytes, path: Path, options: ReadOptions) -> None:
    """Check the declared sizes of raw data, before any of it is decoded.

    Raises:
        InputError: if they are too large.
        ValueError: if they do not agree.
    """
    columns, rows = (int.from_bytes(record[start : start + 2], "little") for start in (2, 4))
    check_pixels((rows, columns), path, options)
    raw = record[_RAW_HEADER_BYTES:]
    packed = raw[: len(_PNG)] == _PNG
    if packed and tuple(int.from_bytes(raw[start : start + 4], "big") for start in (16, 20)) != (columns, rows):
        raise ValueError("its raw data are of another size than they are said to be")
