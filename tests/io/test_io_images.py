"""Images of every format in: files and folders."""

from __future__ import annotations

import builtins
import gzip
import importlib.util
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from csist.checks import InputError
from csist.datasets import generate, load
from csist.files import natural_key
from csist.io import ImageStack, ReadOptions, image_kind, read_frames, read_image

REAL = Path(__file__).parents[2] / "../shared/data/real"

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
STACK = RNG.integers(0, 65536, (5, 20, 30), dtype=np.uint16)


def only(path: Path) -> ImageStack:
    (stack,) = read_frames(path)
    return stack


def fails(path: Path, said: str | None = None) -> None:
    with pytest.raises(InputError, match=said) as caught:
        for stack in read_frames(path):
            stack[:]
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message


@pytest.mark.parametrize("array", [GREY8, GREY16])
def test_png_grey(tmp_path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(tmp_path / "a.png")
    stack = only(tmp_path / "a.png")
    assert (stack.name, stack.kind, stack.shape, stack.notes) == ("a.png", "png", (1, 20, 30), ())
    assert stack[0].dtype == np.float64
    np.testing.assert_array_equal(stack[0], array)


def test_png_colour_becomes_luminance_with_a_note(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "colour.png")
    Image.fromarray(np.repeat(GREY8[..., None], 3, axis=2)).save(tmp_path / "equal.png")
    reader = read_frames(tmp_path)
    colour, equal = reader
    np.testing.assert_allclose(colour[0], COLOUR @ [0.299, 0.587, 0.114])
    np.testing.assert_array_equal(equal[0], GREY8)
    assert reader.notes == ["colour.png: colour turned into luminance, 0.299 R + 0.587 G + 0.114 B"]


def test_png_palette_transparency_and_few_bits(tmp_path: Path) -> None:
    palette = Image.fromarray(GREY8 // 64).convert("P")
    palette.putpalette([v for level in (0, 80, 160, 255) for v in (level, level, level)])
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(only(tmp_path / "palette.png")[0], np.array([0, 80, 160, 255])[GREY8 // 64])
    palette.save(tmp_path / "see.png", transparency=bytes([0, 255, 255, 255]))
    assert only(tmp_path / "see.png").notes == ("transparency ignored",)
    Image.fromarray(np.stack([GREY8, GREY8 // 2], axis=2)).save(tmp_path / "la.png")
    assert only(tmp_path / "la.png").notes == ("transparency ignored",)
    np.testing.assert_array_equal(only(tmp_path / "la.png")[0], GREY8)
    Image.fromarray(np.dstack([COLOUR, GREY8])).save(tmp_path / "rgba.png")
    assert len(only(tmp_path / "rgba.png").notes) == 2
    Image.fromarray(GREY8 > 127).save(tmp_path / "bit.png")
    stack = only(tmp_path / "bit.png")
    assert stack.notes == ("1-bit grey scaled to 0-255",)
    np.testing.assert_array_equal(stack[0], 255 * (GREY8 > 127))


def png_bytes(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_png_16_bit_colour_is_refused_not_halved(tmp_path: Path) -> None:
    (tmp_path / "deep.png").write_bytes(png_bytes(4, 4, 16, 2, (b"\0" + bytes(24)) * 4))
    fails(tmp_path / "deep.png", "a 16-bit PNG must be grey")


def test_png_decompression_bomb(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_bytes(12000, 12000, 8, 0, b""))
    fails(tmp_path / "bomb.png", "bomb|exceeds")
    (tmp_path / "bomb.png").write_bytes(png_bytes(60000, 60000, 8, 0, b""))
    fails(tmp_path / "bomb.png", "bomb|exceeds")


@pytest.mark.parametrize(
    "options", [{}, {"imagej": True}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}]
)
def test_tiff_stack(tmp_path: Path, options: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, **options)
    stack = only(tmp_path / "a.tif")
    # Without axes of their own, images written for ImageJ are called channels.
    channels = ("its 5 channels are taken as images, one after the other; --channel chooses one",)
    assert (stack.kind, stack.shape) == ("tiff", (5, 20, 30))
    assert stack.notes == (channels if options == {"imagej": True} else ())
    np.testing.assert_array_equal(stack[:], STACK)
    np.testing.assert_array_equal(stack[1:3], STACK[1:3])


def test_tiff_pages_floats_colour_and_white_as_zero(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "pages.tiff") as writer:
        for frame in STACK:
            writer.write(frame, contiguous=False)
    np.testing.assert_array_equal(only(tmp_path / "pages.tiff")[:], STACK)
    real = RNG.normal(size=(20, 30)).astype(np.float32)
    tifffile.imwrite(tmp_path / "f.tif", real)
    np.testing.assert_array_equal(only(tmp_path / "f.tif")[0], real)
    for planes in ("contig", "separate"):
        data = COLOUR if planes == "contig" else np.moveaxis(COLOUR, 2, 0)
        tifffile.imwrite(tmp_path / "c.tif", data, photometric="rgb", planarconfig=planes)
        stack = only(tmp_path / "c.tif")
        np.testing.assert_allclose(stack[0], COLOUR @ [0.299, 0.587, 0.114])
        assert "luminance" in stack.notes[0]
    tifffile.imwrite(tmp_path / "w.tif", GREY8, photometric="miniswhite")
    np.testing.assert_array_equal(only(tmp_path / "w.tif")[0], 255 - GREY8)
    assert "MINISWHITE" in only(tmp_path / "w.tif").notes[0]
    tifffile.imwrite(tmp_path / "wf.tif", real, photometric="miniswhite")
    fails(tmp_path / "wf.tif", "ordinary grey")
    tifffile.imwrite(
        tmp_path / "p.tif",
        GREY8,
        photometric="palette",
        colormap=np.tile(np.arange(256) * 257, (3, 1)).astype("u2"),
    )
    np.testing.assert_array_equal(only(tmp_path / "p.tif")[0], GREY8.astype(int) * 257)
    tifffile.imwrite(tmp_path / "k.tif", np.zeros((20, 30, 4), np.uint8), photometric="separated")
    fails(tmp_path / "k.tif", "4 channels")
    assert logging.getLogger("tifffile").propagate


def test_tiff_with_a_compression_of_another_package(tmp_path: Path) -> None:
    Image.fromarray(GREY8).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    if importlib.util.find_spec("imagecodecs") is None:
        fails(tmp_path / "lzw.tif", "LZW compression; save it uncompressed, or install the package imagecodecs")
    else:
        np.testing.assert_array_equal(only(tmp_path / "lzw.tif")[0], GREY8)


def test_frames_of_different_sizes(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as writer:
        writer.write(STACK[0])
        writer.write(STACK[1, :10])
    fails(tmp_path / "mixed.tif", r"differ in size, \(10, 30\), \(20, 30\)")


@pytest.mark.parametrize("suffix", [".fits", ".fit", ".fits.gz"])
def test_fits(tmp_path: Path, suffix: str) -> None:
    fits = pytest.importorskip("astropy.io.fits", reason="FITS needs the extra `astro`")
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(2))])
    for units, expected in (
        ([fits.PrimaryHDU(GREY16)], GREY16[None]),  # unsigned: stored with an offset
        ([fits.PrimaryHDU(), table, fits.ImageHDU(STACK), fits.ImageHDU(GREY8)], STACK),
        ([fits.PrimaryHDU(GREY8[None, None].astype(np.float32))], GREY8[None]),
        ([fits.PrimaryHDU(), fits.CompImageHDU(GREY8)], GREY8[None]),
    ):
        path = tmp_path / f"a{suffix}"
        fits.HDUList(units).writeto(path, overwrite=True)
        stack = only(path)
        assert stack.kind == "fits"
        left_out = f"unit 2 is read, other images are left out (3): choose one with --hdu or a{suffix}[3]"
        assert stack.notes == ((left_out,) if len(units) == 4 else ())
        np.testing.assert_array_equal(stack[:], expected)
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)
    fails(path, "holds no image: none of its 2 units")


def test_fits_without_astropy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.fits").write_bytes(b"SIMPLE")
    real_import = builtins.__import__

    def no_astropy(name: str, *rest: Any) -> Any:
        if name.startswith("astropy"):
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_astropy)
    fails(tmp_path / "a.fits", r"pip install 'csist\[astro\]'")


@pytest.mark.parametrize("dtype", ["u1", ">u2", "<i4", "f4", ">f8", "?", "f2"])
def test_npy_is_mapped_not_loaded(tmp_path: Path, dtype: str) -> None:
    array = (STACK % 2).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    stack = only(tmp_path / "a.npy")
    assert isinstance(stack.data, np.memmap)
    assert (len(stack), stack.shape) == (5, (5, 20, 30))
    np.testing.assert_array_equal(stack[:], array)
    np.testing.assert_array_equal(stack[-1], array[-1])
    assert [start for start, part in stack.chunks(2) if part.dtype == np.float64] == [0, 2, 4]
    np.testing.assert_array_equal(np.concatenate([part for _, part in stack.chunks(2)]), array)
    assert sum(1 for _ in stack) == 5
    np.save(tmp_path / "a.npy", np.asfortranarray(array[0]))
    np.testing.assert_array_equal(only(tmp_path / "a.npy")[0], array[0])


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, anything=STACK)
    np.testing.assert_array_equal(only(path)[:], STACK)
    np.savez_compressed(path, other=np.zeros(3), image=GREY8)
    np.testing.assert_array_equal(only(path)[0], GREY8)
    np.savez(path, a=GREY8, b=GREY8)
    fails(path, "one array, or one called image or images; it holds a, b")
    np.savez(path)
    fails(path, "it holds nothing")


def test_store_gives_its_test_split_and_sensor(tmp_path: Path) -> None:
    generate(tmp_path / "s.h5", count=20, noise_std=1.0)
    stack = only(tmp_path / "s.h5")
    split = load(tmp_path / "s.h5")["test"]
    assert (stack.kind, stack.sensor) == ("store", split.sensor)
    np.testing.assert_array_equal(stack[:], split.images)


def test_folder_is_read_in_natural_order_file_by_file(tmp_path: Path) -> None:
    for name in ("b/frame_10.png", "b/frame_9.png", "a.npy", "b/FRAME_1.PNG", ".hidden.png", ".cache/x.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        np.save(path, GREY8) if path.suffix == ".npy" else Image.fromarray(GREY8).save(path)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "README").write_text("")
    reader = read_frames(tmp_path)
    assert len(reader) == 4
    for _ in range(2):
        assert [stack.name for stack in reader] == [
            "a.npy",
            "b/FRAME_1.PNG",
            "b/frame_9.png",
            "b/frame_10.png",
        ]
    assert reader.notes == [f"{tmp_path}: 2 other files left out (.txt, README)"]
    (tmp_path / "b" / "frame_9.png").write_bytes(b"")
    good = iter(reader)
    assert [next(good).name, next(good).name] == ["a.npy", "b/FRAME_1.PNG"]
    with pytest.raises(InputError, match=r"frame_9\.png: it is empty"):
        next(good)


def test_notes_are_gathered_by_kind(tmp_path: Path) -> None:
    for k in range(3):
        Image.fromarray(COLOUR).save(tmp_path / f"{k}.png")
    reader = read_frames(tmp_path)
    for _ in range(2):
        assert len(list(reader)) == 3
    (note,) = reader.notes
    assert note.startswith("0.png and 2 more: colour")


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=6)))
def test_natural_key_orders_any_names(names: list[str]) -> None:
    ordered = sorted(names, key=natural_key)
    ordered.reverse()
    assert sorted(ordered, key=natural_key) == ordered[::-1]


def test_bad_arrays(tmp_path: Path) -> None:
    path = tmp_path / "bad.npy"
    for array, said in (
        (np.zeros((4, 4), complex), "real numbers"),
        (np.zeros((4, 4), "U3"), "real numbers"),
        (np.zeros(5), "got shape"),
        (np.zeros((2, 2, 5, 5)), "got shape"),
        (np.float64(3.0), "got shape"),
        (np.zeros((0, 5, 5)), "holds no image|damaged"),
        (np.zeros((5, 0)), "holds no image|damaged"),
        (np.zeros((2, 9)), "at least 3 x 3"),
        (np.zeros((480, 640, 3)), "looks like a colour image"),
        (np.full((4, 4), np.inf), "infinite"),
        (np.array([{}, []], dtype=object), "Python objects"),
    ):
        np.save(path, array)
        fails(path, said)
    np.save(path, np.full((4, 4), np.nan))
    assert np.isnan(only(path)[0]).all()  # masking is the caller's decision


def test_missing_unknown_and_empty_inputs(tmp_path: Path) -> None:
    fails(tmp_path / "none.png", "there is no file or folder")
    fails(tmp_path, "holds no image: PNG, TIFF, FITS, JPEG, BMP, NPY, NPZ, HDF5 stores and video")
    for name, said in (
        ("a.gif", "unknown suffix '.gif'"),
        ("a", "unknown suffix ''"),
        ("a.mp4", "frame by frame"),
    ):
        (tmp_path / name).write_bytes(b"x")
        fails(tmp_path / name, said)
    with pytest.raises(InputError, match="it is a folder"):
        read_image(tmp_path)
    Image.fromarray(GREY16).save(tmp_path / "huge.png")
    header = bytearray((tmp_path / "huge.png").read_bytes())
    header[16:24] = 2 * (16384).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(header)
    fails(tmp_path / "huge.png", "16384 x 16384 px are too many for a PNG, save it as TIFF or NPY")
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.png")


def samples(folder: Path) -> list[Path]:
    Image.fromarray(GREY16).save(folder / "a.png")
    tifffile.imwrite(folder / "a.tif", STACK)
    tifffile.imwrite(folder / "z.tif", STACK, compression="zlib")
    with tifffile.TiffWriter(folder / "pages.tif") as writer:
        for frame in STACK:
            writer.write(frame, contiguous=False)
    np.save(folder / "a.npy", STACK)
    np.savez(folder / "a.npz", STACK)
    np.savez_compressed(folder / "c.npz", STACK)
    generate(folder / "s.h5", count=10)
    names = ["a.png", "a.tif", "z.tif", "pages.tif", "a.npy", "a.npz", "c.npz", "s.h5"]
    try:
        from astropy.io import fits
    except ImportError:
        return [folder / name for name in names]
    fits.PrimaryHDU(STACK).writeto(folder / "a.fits")
    (folder / "a.fits.gz").write_bytes(gzip.compress((folder / "a.fits").read_bytes()))
    return [folder / name for name in [*names, "a.fits", "a.fits.gz"]]


def test_truncated_files_of_every_format(tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    for path in samples(tmp_path):
        whole, data = only(path)[:], path.read_bytes()
        for share in (0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9):
            cut = tmp_path / "cut" / path.name
            cut.write_bytes(data[: int(share * len(data))])
            fails(cut)
        garbage = np.random.default_rng(1).bytes(3000)
        (tmp_path / "cut" / path.name).write_bytes(garbage)
        fails(tmp_path / "cut" / path.name)
        assert whole.size


@settings(max_examples=60)
@given(data=st.data())
def test_flipped_bytes_give_an_image_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "flipped"
    if not folder.exists():
        folder.mkdir()
        samples(folder)
    files = sorted(p for p in folder.iterdir() if p.name[0] in "azps")
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, min(len(content), 3000) - 1), min_size=1, max_size=4)):
        content[place] ^= data.draw(st.integers(1, 255))
    flipped = folder / f".{path.name}"
    flipped.write_bytes(content)
    try:
        only(flipped)[:]
    except InputError as error:
        assert "\n" not in str(error)
        assert flipped.name in str(error)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not beside this checkout")
def test_every_real_image_reads() -> None:
    pytest.importorskip("astropy", reason="FITS needs the extra `astro`")
    reader = read_frames(REAL)
    kinds = {"png": 0, "fits": 0, "npy": 0}
    colour: list[str] = []
    for name, path in reader.files:
        if "original_jpg" in name:  # radiometric, see test_io_pictures
            continue
        if image_kind(path) == "video":  # read frame by frame, by csist.io.sequences
            continue
        stack = read_image(path, name)
        kinds[stack.kind] += 1
        colour += [f"{name}: {note}" for note in stack.notes if "luminance" in note]
        assert np.isfinite(stack[0]).mean() > 0.99
        assert np.nanstd(stack[0]) >= 0
    assert kinds == {"png": 271, "fits": 2, "npy": 2}
    assert len(colour) == 5
    assert colour[0] == "sirst/images/Misc_121.png: colour turned into luminance, 0.299 R + 0.587 G + 0.114 B"
    assert len({line.partition(": ")[2] for line in colour}) == 1
    raw = only(REAL / "m2_sdss_hst" / "m2_r_counts_u16.png")[0]
    with Image.open(REAL / "m2_sdss_hst" / "m2_r_counts_u16.png") as image:
        np.testing.assert_array_equal(raw, np.asarray(image))
    assert raw.max() > 255


@pytest.mark.parametrize("option", ["hdu", "channel", "plane", "page"])
def test_a_part_that_the_format_does_not_have_is_refused(tmp_path, option):
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    with pytest.raises(InputError, match=rf"--{option} 0 is for [A-Z, ]+ files, .*a\.npy is none: leave it out"):
        read_image(tmp_path / "a.npy", options=ReadOptions(**{option: "0" if option == "hdu" else 0}))
