"""JPEG and BMP, and thermal cameras' files; the options of reading, and what is refused of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csist.checks import InputError
from csist.io import ReadOptions, parse_range, parse_roi, read_image

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


def test_a_thermal_cameras_picture_is_not_its_measurement(tmp_path: Path) -> None:
    for segments in (
        [(0xE1, b"FLIR\0\1\0\0" + bytes(50))],
        [(0xE1, b"Exif\0\0" + bytes(20) + b"DJI\0"), (0xE3, bytes(6000))],
    ):
        with pytest.raises(InputError, match=r"r\.jpg: it is a thermal camera's file, .* 16-bit TIFF"):
            read_image(jpeg(tmp_path / "r.jpg", *segments))
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
