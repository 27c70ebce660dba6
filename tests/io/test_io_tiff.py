"""TIFF: compressions, packed bits, the axes of microscopes' files, sets of files, values that stand for nothing."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from csist.checks import InputError
from csist.io import ReadOptions, read_image

RNG = np.random.default_rng(6)
STACK = RNG.integers(0, 4096, (4, 20, 32), dtype=np.uint16)
HYPER = RNG.integers(0, 60000, (3, 2, 4, 18, 21), dtype=np.uint16)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw"},
        {"compression": "zlib", "predictor": 2},
        {"compression": "zstd"},
        {"compression": "packbits"},
        {"compression": "lzw", "tile": (16, 16)},
        {"byteorder": ">"},
        {"byteorder": ">", "compression": "zlib"},
        {"bigtiff": True},
    ],
)
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4", "f8"])
def test_compressions_and_types(tmp_path: Path, options: dict[str, Any], dtype: str) -> None:
    values = (STACK.astype(np.int64) % 200 - (0 if dtype[0] == "u" else 100)).astype(dtype)
    if options.get("predictor") and dtype[0] == "f":
        options = options | {"predictor": 3}
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", **options)
    stack = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(stack[:], values)
    np.testing.assert_array_equal(stack[1:3], values[1:3])
    np.testing.assert_array_equal(stack[-1], values[-1])
    part = read_image(tmp_path / "a.tif", options=ReadOptions(frames=(1, 3), roi=((2, 9), (5, 20))))
    assert part.shape == (2, 15, 7)
    np.testing.assert_array_equal(part[:], values[1:3, 5:20, 2:9])


def test_packed_12_bits_saturate_at_their_own_top(tmp_path: Path) -> None:
    values = STACK[0]
    even, odd = values[:, 0::2], values[:, 1::2]
    packed = np.stack([even >> 4, ((even & 15) << 4) | (odd >> 8), odd & 255], axis=2).astype(np.uint8).tobytes()
    tags = [(256, 32), (257, 20), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 20), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    data = b"II" + struct.pack("<HI", 42, 8 + len(packed)) + packed
    (tmp_path / "p.tif").write_bytes(data + struct.pack("<H", len(tags)) + entries + bytes(4))
    stack = read_image(tmp_path / "p.tif")
    np.testing.assert_array_equal(stack[0], values)
    assert stack.header.saturation == 4095.0


@pytest.mark.parametrize("kind", ["imagej", "ome", "shaped"])
def test_channels_and_planes_are_chosen_never_flattened(tmp_path: Path, kind: str) -> None:
    # Axes in the order in which the formats write them: ImageJ and OME have TZCYX.
    data = np.moveaxis(HYPER, 1, 2)
    name = tmp_path / ("h.ome.tif" if kind == "ome" else "h.tif")
    tifffile.imwrite(name, data, photometric="minisblack", imagej=kind == "imagej", ome=kind == "ome",
                     metadata={"axes": "TZCYX"})  # fmt: skip
    with pytest.raises(
        InputError, match=r"h\.(ome\.)?tif: it has 2 channels \(axes TZCYX, 3 x 4 x 2\): .*--channel 0 to 1"
    ):
        read_image(name)
    with pytest.raises(InputError, match=r"it has 4 planes .*--plane 0 to 3"):
        read_image(name, options=ReadOptions(channel=1))
    stack = read_image(name, options=ReadOptions(channel=1, plane=2))
    np.testing.assert_array_equal(stack[:], HYPER[:, 1, 2])
    for options, said in ((ReadOptions(channel=2, plane=0), "there is no channel 2"),
                          (ReadOptions(channel=0, plane=4), "there is no plane 4")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            read_image(name, options=options)
    np.testing.assert_array_equal(read_image(name, options=ReadOptions(page=3))[0], data.reshape(-1, 18, 21)[3])


def test_axes_that_are_no_sequence(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "q.tif", HYPER[:, :, 0], photometric="minisblack")
    with pytest.raises(InputError, match="several axes of images"):
        read_image(tmp_path / "q.tif")
    tifffile.imwrite(tmp_path / "z.ome.tif", HYPER[0, 0], photometric="minisblack", metadata={"axes": "ZYX"}, ome=True)
    stack = read_image(tmp_path / "z.ome.tif")
    np.testing.assert_array_equal(stack[:], HYPER[0, 0])
    assert stack.notes == ("its 4 planes are taken as images, one after the other; --plane chooses one",)
    tifffile.imwrite(tmp_path / "t.tif", HYPER[:, 0, 0], imagej=True, metadata={"axes": "TYX"})
    assert read_image(tmp_path / "t.tif").notes == ()
    with pytest.raises(InputError, match="no planes: leave out --plane"):
        read_image(tmp_path / "t.tif", options=ReadOptions(plane=0))
    with pytest.raises(InputError, match="no channels: leave out --channel"):
        read_image(tmp_path / "t.tif", options=ReadOptions(channel=0))


def test_channels_of_a_pixel(tmp_path: Path) -> None:
    bands = RNG.integers(0, 4000, (20, 30, 5), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "b.tif", bands, photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match=r"5 channels per pixel .*--channel 0 to 4"):
        read_image(tmp_path / "b.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif", options=ReadOptions(channel=3))[0], bands[..., 3])
    with pytest.raises(InputError, match="there is no channel 5"):
        read_image(tmp_path / "b.tif", options=ReadOptions(channel=5))
    tifffile.imwrite(tmp_path / "c.tif", bands[..., :3], photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "c.tif", options=ReadOptions(channel=1))[0], bands[..., 1])


def test_pages(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as writer:
        writer.write(STACK[0])
        writer.write(STACK[1, :10])
    with pytest.raises(InputError, match="choose one with --page"):
        read_image(tmp_path / "mixed.tif")
    for page, expected in ((0, STACK[0]), (1, STACK[1, :10])):
        np.testing.assert_array_equal(read_image(tmp_path / "mixed.tif", options=ReadOptions(page=page))[0], expected)
    with pytest.raises(InputError, match="has 2 pages, numbered from 0: there is no page 2"):
        read_image(tmp_path / "mixed.tif", options=ReadOptions(page=2))


def ome_set(folder: Path, names: list[str], times: int, channels: int = 1) -> np.ndarray:
    """A set of files with some times each, every one of which describes the whole set."""
    data = RNG.integers(0, 4096, (len(names) * times, channels, 24, 26), dtype=np.uint16)
    planes = ""
    for place, name in enumerate(names):
        for t in range(times):
            for c in range(channels):
                planes += (
                    f'<TiffData IFD="{t * channels + c}" FirstT="{place * times + t}" FirstZ="0" FirstC="{c}" '
                    f'PlaneCount="1"><UUID FileName="{name}">urn:uuid:{place}</UUID></TiffData>'
                )
    for place, name in enumerate(names):
        xml = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{place}">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="26" SizeY="24" '
            f'SizeZ="1" SizeC="{channels}" SizeT="{len(data)}">{planes}</Pixels></Image></OME>'
        )
        own = data[place * times : (place + 1) * times].reshape(-1, 24, 26)
        tifffile.imwrite(folder / name, own, photometric="minisblack", description=xml, metadata=None)
    return data


def test_each_file_of_an_ome_set_has_its_own_planes(tmp_path: Path) -> None:
    names = ["run_0.ome.tif", "run_1.ome.tif", "run_2.ome.tif"]
    data = ome_set(tmp_path, names, times=2)
    for place, name in enumerate(names):
        stack = read_image(tmp_path / name)
        np.testing.assert_array_equal(stack[:], data[2 * place : 2 * place + 2, 0])
        assert stack.notes == ()
    (tmp_path / names[0]).unlink()  # a missing sibling is no damage
    np.testing.assert_array_equal(read_image(tmp_path / names[2])[:], data[4:, 0])
    (tmp_path / names[1]).rename(tmp_path / "renamed.tif")
    stack = read_image(tmp_path / "renamed.tif")
    np.testing.assert_array_equal(stack[:], data[2:4, 0])
    assert "does not name it" in stack.notes[0]


def test_channels_of_an_ome_set(tmp_path: Path) -> None:
    names = ["a.ome.tif", "b.ome.tif"]
    data = ome_set(tmp_path, names, times=2, channels=2)
    with pytest.raises(InputError, match="has 2 channels: choose one with --channel 0 to 1"):
        read_image(tmp_path / names[1])
    stack = read_image(tmp_path / names[1], options=ReadOptions(channel=1))
    np.testing.assert_array_equal(stack[:], data[2:, 1])
    with pytest.raises(InputError, match="holds channel 0, 1, not 5"):
        read_image(tmp_path / names[1], options=ReadOptions(channel=5))


@pytest.mark.parametrize(
    ("dtype", "text"), [("i2", "-9999"), ("u2", "0"), ("f4", "-3.4028234663852886e+38"), ("f8", "-1")]
)
def test_values_that_stand_for_nothing(tmp_path: Path, dtype: str, text: str) -> None:
    values = (STACK % 1000 + 1).astype(dtype)
    values[:, 3, 4:9] = np.array(float(text)).astype(dtype)
    tifffile.imwrite(tmp_path / "g.tif", values, photometric="minisblack", extratags=[(42113, "s", 0, text, True)])
    stack = read_image(tmp_path / "g.tif")
    expected = values.astype(np.float64)
    expected[:, 3, 4:9] = np.nan
    np.testing.assert_array_equal(stack[:], expected)
    assert "GDAL_NODATA" in stack.notes[0]


@pytest.mark.parametrize("text", ["nan", "none", ""])
def test_no_value_stands_for_nothing(tmp_path: Path, text: str) -> None:
    tifffile.imwrite(tmp_path / "g.tif", STACK, photometric="minisblack", extratags=[(42113, "s", 0, text, True)])
    np.testing.assert_array_equal(read_image(tmp_path / "g.tif")[:], STACK)


def test_nothing_in_channels_and_colours(tmp_path: Path) -> None:
    colour = np.stack([STACK[0], STACK[1], STACK[2]], axis=-1) + np.uint16(1)
    colour[3, 4:9] = 0
    colour[5, 6, 1] = 0  # in one channel alone: a colour
    tag = {"extratags": [(42113, "s", 0, "0", True)]}
    tifffile.imwrite(tmp_path / "c.tif", colour, photometric="rgb", **tag)
    shade = colour @ np.array([0.299, 0.587, 0.114])
    shade[3, 4:9] = np.nan
    np.testing.assert_allclose(read_image(tmp_path / "c.tif")[0], shade)
    planes = np.moveaxis(colour, -1, 0)
    tifffile.imwrite(tmp_path / "p.tif", planes, photometric="minisblack", planarconfig="separate", **tag)
    for name in ("c.tif", "p.tif"):
        stack = read_image(tmp_path / name, options=ReadOptions(channel=1))
        np.testing.assert_array_equal(stack[0], np.where(colour[..., 1] == 0, np.nan, colour[..., 1]))
        assert sum("GDAL_NODATA" in note for note in stack.notes) == 1


def test_a_value_beyond_the_type_stands_for_nothing(tmp_path: Path) -> None:
    values = STACK[0].astype(np.float16)
    values[3, 4] = -np.inf
    tags = [(42113, "s", 0, "-3.4028234663852886e+38", True)]
    tifffile.imwrite(tmp_path / "g.tif", values, extratags=tags)
    assert np.argwhere(np.isnan(read_image(tmp_path / "g.tif")[0])).tolist() == [[3, 4]]


@pytest.mark.parametrize("count", [1, 3])
def test_a_page_of_transparency_is_a_mask_and_no_image(tmp_path: Path, count: int) -> None:
    seen = RNG.uniform(size=STACK.shape[1:]) < 0.9
    with tifffile.TiffWriter(tmp_path / "m.tif") as file:
        for image in STACK[:count]:
            file.write(image, photometric="minisblack")
        file.write(seen, subfiletype=4, photometric="minisblack")
    stack = read_image(tmp_path / "m.tif")
    np.testing.assert_array_equal(stack[:], np.where(seen, STACK[:count], np.nan))
    assert f"{np.sum(~seen)} pixels are left out by the file's own mask" in stack.notes
    part = read_image(tmp_path / "m.tif", options=ReadOptions(roi=((4, 20), (2, 18))))
    np.testing.assert_array_equal(part[0], np.where(seen, STACK[0], np.nan)[2:18, 4:20])


def test_an_absurd_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", compression="zlib")
    with pytest.raises(InputError, match="20 x 32 = 640 pixels are more than 639"):
        read_image(tmp_path / "a.tif", options=ReadOptions(max_pixels=639))
    assert read_image(tmp_path / "a.tif", options=ReadOptions(max_pixels=640)).shape == (4, 20, 32)  # page by page


def test_pages_are_read_as_they_are_used(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", compression="zlib")
    stack = read_image(tmp_path / "a.tif")
    stack.data.pages[0].parent.filehandle.open()  # the file is closed between readings
    stack.data.pages[0].parent.filehandle.close()
    np.testing.assert_array_equal(stack[2], STACK[2])
    size = (tmp_path / "a.tif").stat().st_size
    with (tmp_path / "a.tif").open("r+b") as file:  # damaged data shows in one line when it is read
        file.seek(stack.data.pages[1].dataoffsets[0])
        file.write(bytes(30))
    assert (tmp_path / "a.tif").stat().st_size == size
    with pytest.raises(InputError, match=r"a\.tif"):
        read_image(tmp_path / "a.tif")[:]


@pytest.mark.parametrize("options", [{"imagej": True}, {}])
def test_all_images_behind_one_directory_entry(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "large.tif"  # as ImageJ writes files beyond 4 GB
    data = HYPER[:, :, 0]
    tifffile.imwrite(path, data, metadata={"axes": "TCYX"}, truncate=True, photometric="minisblack", **options)
    stack = read_image(path, options=ReadOptions(channel=1, frames=(1, 3), roi=((2, 9), (3, 11))))
    np.testing.assert_array_equal(stack[:], data[1:3, 1, 3:11, 2:9])
    with pytest.raises(InputError, match="--channel 0 to 1"):
        read_image(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cut short"):
        read_image(path, options=ReadOptions(channel=0))
