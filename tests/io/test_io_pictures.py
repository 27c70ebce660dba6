"""JPEG and BMP, and thermal cameras' files; the options of reading, and what is refused of them."""

from __future__ import annotations

import struct
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csist.checks import InputError
from csist.io import ReadOptions, parse_range, parse_roi, read_image

THERMAL = Path(__file__).parents[2] / "../shared/data/real/thermal16_flir"
RNG = np.random.default_rng(2)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_bmp(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.bmp")
    stack = read_image(tmp_path / "a.bmp")
    assert (stack.kind, stack.notes) == ("bmp", ())
    np.testing.assert_array_equal(stack[0], GREY)
    Image.fromarray(COLOUR).save(tmp_path / "c.bmp")
    assert "luminance" in read_image(tmp_path / "c.bmp").notes[0]
    np.testing.assert_array_equal(read_image(tmp_path / "c.bmp", options=ReadOptions(channel=2))[0], COLOUR[..., 2])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg"])
def test_a_channel_that_is_not_there_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(COLOUR).save(path)
    with pytest.raises(InputError, match="has 3 channels, numbered from 0: there is no channel 3"):
        read_image(path, options=ReadOptions(channel=3))
    Image.fromarray(GREY).save(path)
    assert read_image(path, options=ReadOptions(channel=0)).shape == (1, 20, 30)
    with pytest.raises(InputError, match="has no channels: there is no channel 1"):
        read_image(path, options=ReadOptions(channel=1))


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG"])
def test_jpeg_is_noted_as_lossy(tmp_path: Path, name: str) -> None:
    smooth = np.full((20, 30), 77, np.uint8)
    Image.fromarray(smooth).save(tmp_path / name, format="JPEG", quality=95)
    stack = read_image(tmp_path / name)
    assert stack.kind == "jpeg"
    assert "JPEG is lossy" in stack.notes[0]
    np.testing.assert_allclose(stack[0], 77, atol=1)
    cmyk = Image.fromarray(COLOUR).convert("CMYK")
    cmyk.save(tmp_path / name, format="JPEG")
    assert "luminance" in read_image(tmp_path / name).notes[1]


def jpeg(path: Path, *segments: tuple[int, bytes]) -> Path:
    """A JPEG file with data of applications in it."""
    Image.fromarray(GREY).save(path, format="JPEG")
    data = path.read_bytes()
    held = b"".join(b"\xff" + bytes([kind]) + (len(text) + 2).to_bytes(2, "big") + text for kind, text in segments)
    path.write_bytes(data[:2] + held + data[2:])
    return path


def flir(path: Path, counts: np.ndarray, packed: bool = False, **fields: int) -> Path:
    """A JPEG file with raw counts as FLIR's cameras write them: a header, a directory, and a record behind it.

    Args:
        path: of the file.
        counts: (H, W).
        packed: whether the counts are a PNG, whose bytes are swapped.
        **fields: wrong values of `entries`, `columns`.
    """
    raw = counts.astype("<u2").tobytes()
    if packed:
        content = BytesIO()
        Image.fromarray(counts.astype(np.uint16).byteswap()).save(content, "PNG")
        raw = content.getvalue()
    rows, columns = counts.shape
    sizes = struct.pack("<3H", 2, fields.get("columns", columns), rows)
    record = sizes.ljust(32, b"\0") + raw.ljust(2 * counts.size, b"\0")
    begin = 64 + 3 * 32
    head = b"FFF\0" + bytes(16) + struct.pack(">3I", 101, 64, fields.get("entries", 3)) + bytes(32)
    entry = struct.pack(">HHIIII", 1, 2, 100, 1, begin, len(record)).ljust(32, b"\0")
    held = head + entry + bytes(64) + record
    parts = [held[start : start + 60_000] for start in range(0, len(held), 60_000)]
    last = len(parts) - 1
    return jpeg(path, *((0xE1, b"FLIR\0\1" + bytes([place, last]) + part) for place, part in enumerate(parts)))


@pytest.mark.parametrize("packed", [False, True])
def test_flir_raw_counts_are_read_in_place_of_the_picture(tmp_path: Path, packed: bool) -> None:
    pytest.importorskip("flyr", reason="needs the extra `thermal`")
    counts = RNG.integers(9000, 40_000, (150, 230), dtype=np.uint16)  # two segments of the file
    stack = read_image(flir(tmp_path / "r.jpg", counts, packed))
    assert (stack.shape, stack.data.dtype) == ((1, 150, 230), np.uint16)
    assert [note for note in stack.notes if "raw counts" in note] == list(stack.notes)
    np.testing.assert_array_equal(stack[0], counts)
    part = read_image(tmp_path / "r.jpg", options=ReadOptions(roi=((3, 13), (5, 35))))
    np.testing.assert_array_equal(part[0], counts[5:35, 3:13])


def test_what_is_wrong_with_raw_counts(tmp_path: Path) -> None:
    pytest.importorskip("flyr", reason="needs the extra `thermal`")
    counts = RNG.integers(9000, 40_000, (20, 30), dtype=np.uint16)
    with pytest.raises(InputError, match=r"20 x 30 = 600 pixels are more than 599"):
        read_image(flir(tmp_path / "r.jpg", counts), options=ReadOptions(max_pixels=599))
    for packed, fields in ((False, {"entries": 2**32 - 1}), (False, {"columns": 31}), (True, {"columns": 31})):
        with pytest.raises(InputError, match=r"cannot read .*r\.jpg, it is damaged"):
            read_image(flir(tmp_path / "r.jpg", counts, packed, **fields))
    with pytest.raises(InputError, match=r"cannot read .*r\.jpg, it is damaged"):
        read_image(jpeg(tmp_path / "r.jpg", (0xE1, b"FLIR\0\1\0\0" + bytes(50))))


@pytest.mark.skipif(not THERMAL.is_dir(), reason="the real images are not beside this checkout")
def test_real_raw_counts_are_those_of_another_reader() -> None:
    pytest.importorskip("flyr", reason="needs the extra `thermal`")
    files = sorted((THERMAL / "original_jpg").glob("*.jpg"))
    assert len(files) == 6
    for path in files:
        with Image.open(THERMAL / "raw16" / f"{path.stem}.png") as expected:
            np.testing.assert_array_equal(read_image(path)[0], np.asarray(expected))


def test_a_thermal_cameras_picture_is_not_its_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = [(0xE1, b"Exif\0\0" + bytes(20) + b"DJI\0"), (0xE3, bytes(6000))]
    with pytest.raises(InputError, match=r"r\.jpg: it is a thermal camera's file, .* 16-bit TIFF"):
        read_image(jpeg(tmp_path / "r.jpg", *other))
    monkeypatch.setitem(sys.modules, "flyr.records", None)  # as where the extra is missing
    with pytest.raises(InputError, match=r"r\.jpg: it is a thermal camera's file, .*csist\[thermal\].* 16-bit TIFF"):
        read_image(jpeg(tmp_path / "r.jpg", (0xE1, b"FLIR\0\1\0\0" + bytes(50))))
    for segments in ([], [(0xE1, b"Exif\0\0DJI\0")], [(0xE3, bytes(9))], [(0xE1, b"see FLIR")]):
        assert len(read_image(jpeg(tmp_path / "p.jpg", *segments))) == 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_too_many_pixels(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(GREY).save(tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match=r"20 x 30 = 600 pixels are more than 599; .*--max-pixels"):
        read_image(tmp_path / f"a.{suffix}", options=ReadOptions(max_pixels=599))
    assert len(read_image(tmp_path / f"a.{suffix}", options=ReadOptions(max_pixels=600))) == 1
    np.savez_compressed(tmp_path / "a.npz", GREY)
    with pytest.raises(InputError, match=r"20 x 30 = 600 pixels are more than 599; .*--max-pixels"):
        read_image(tmp_path / "a.npz", options=ReadOptions(max_pixels=599))


@pytest.mark.parametrize(
    ("text", "expected"), [("0:3", (0, 3)), (" 2 : 10 ", (2, 10)), ("4:", (4, None)), (":7", (0, 7))]
)
def test_ranges(text: str, expected: tuple[int, int | None]) -> None:
    assert parse_range("frames", text) == expected
    assert ReadOptions(frames=expected).origin[0] == expected[0]


@pytest.mark.parametrize("text", ["", ":", "3", "-1:4", "1:2:3", "a:b", "1.5:3", "9" * 20 + ":"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InputError, match="frames must be first:end"):
        parse_range("frames", text)


def test_regions() -> None:
    assert parse_roi("3:9,0:12") == ((3, 9), (0, 12))
    assert ReadOptions(roi=parse_roi("3:9,4:12")).origin == (0, 3, 4)
    for text in ("3:9", "3:,0:4", "3:9,0:4,1:2", "x0:x1,y0:y1", ""):
        with pytest.raises(InputError, match=r"roi must be (x0:x1,y0:y1|first:end)"):
            parse_roi(text)
    for roi in (((5, 5), (0, 3)), ((5, 2), (0, 3)), ((-1, 2), (0, 3))):
        with pytest.raises(InputError, match="roi must be x0:x1,y0:y1"):
            ReadOptions(roi=roi)


def test_options_out_of_range() -> None:
    for options, said in (
        ({"channel": -1}, "channel must be"), ({"page": -2}, "page must be"), ({"plane": -1}, "plane must be"),
        ({"max_pixels": 0}, "max_pixels must be"), ({"frames": (3, 3)}, "frames must be"),
        ({"frames": (-1, 3)}, "frames must be"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            ReadOptions(**options)
