"""FITS: the image among the units, what belongs to it, what the header says, and headers that are damaged."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csist.checks import InputError
from csist.io import ImageStack, ReadOptions, image_kind, read_frames, read_image

fits = pytest.importorskip("astropy.io.fits", reason="FITS needs the extra `astro`")

RNG = np.random.default_rng(5)
IMAGE = RNG.integers(0, 60000, (20, 30), dtype=np.uint16)
OTHER = RNG.normal(size=(24, 18)).astype(np.float32)


def write(path: Path, *units: Any) -> Path:
    fits.HDUList(list(units)).writeto(path, overwrite=True)
    return path


def photons(gain: float, read_noise_e: float = 0.0, level: float = 900.0) -> np.ndarray:
    """A flat image in counts, with the photon noise of that gain."""
    rng = np.random.default_rng(1)
    electrons = rng.poisson(level * gain, (64, 64)) + rng.normal(0.0, read_noise_e, (64, 64))
    return (electrons / gain).astype(np.float32)


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz", ".fits.bz2", ".fits.fz", ".fz", ".fts.bz2"])
def test_packed_files(tmp_path: Path, suffix: str) -> None:
    tiles = suffix.endswith("fz")
    plain = write(
        tmp_path / "plain.fits",
        fits.PrimaryHDU(),
        fits.CompImageHDU(IMAGE, name="SCI") if tiles else fits.ImageHDU(IMAGE, name="SCI"),
    ).read_bytes()
    pack = {"gz": gzip.compress, "z2": bz2.compress}.get(suffix[-2:], bytes)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(pack(plain))
    assert image_kind(path) == "fits"
    np.testing.assert_array_equal(read_image(path)[0], IMAGE)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.fits.gz"
    path.write_bytes(gzip.compress(bytes(20_000_000)))
    with pytest.raises(InputError, match=r"unpacks to more than 1000 pixels need; .*--max-pixels"):
        read_image(path, options=ReadOptions(max_pixels=1000))


def test_the_first_usable_image_whatever_stands_before_it(tmp_path: Path) -> None:
    spectrum = fits.ImageHDU(np.arange(50.0), name="SPECTRUM")
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(2))], name="TABLE")
    error = fits.ImageHDU(np.ones((20, 30), np.float32), name="ERR")
    thumbnail = fits.ImageHDU(np.zeros((2, 2), np.uint8), name="THUMB")
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(), spectrum, table, error, thumbnail, fits.ImageHDU(IMAGE))
    stack = read_image(path)
    np.testing.assert_array_equal(stack[0], IMAGE)
    assert stack.notes == ()


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (1, 1, 2), (1, 2, 1)])
def test_axes_of_one_are_left_out(tmp_path: Path, shape: tuple[int, ...]) -> None:
    cube = np.stack([IMAGE, IMAGE[::-1]])
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(cube.reshape(*shape, *IMAGE.shape)))
    np.testing.assert_array_equal(read_image(path)[:], cube)


def test_a_unit_is_chosen_by_name_number_and_version(tmp_path: Path) -> None:
    path = write(
        tmp_path / "two.fits",
        fits.PrimaryHDU(),
        fits.ImageHDU(IMAGE, name="SCI", ver=1),
        fits.ImageHDU(OTHER, name="SCI", ver=2),
        fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(2))], name="TABLE"),
    )
    (note,) = read_image(path).notes
    assert note.startswith("unit SCI,1 is read, other images are left out (SCI,2): choose one with --hdu or two.fits[")
    for text in ("2", "SCI,2", "sci , 2"):
        np.testing.assert_array_equal(read_image(path, options=ReadOptions(hdu=text))[0], OTHER)
        (stack,) = read_frames(tmp_path / f"two.fits[{text}]")
        assert (stack.name, stack.path, stack.notes) == (f"two.fits[{text}]", path, ())
        np.testing.assert_array_equal(stack[0], OTHER)
    for text, said in (("WHT", "has no unit 'WHT': it has 0 PRIMARY, 1 SCI"), ("7", "no unit '7'"), ("3", "no image"),
                       ("TABLE", "holds no image")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            read_image(path, options=ReadOptions(hdu=text))
    with pytest.raises(InputError, match="differ: give one of them"):
        read_image(tmp_path / "two.fits[1]", options=ReadOptions(hdu="2"))
    with pytest.raises(InputError, match="there is no file or folder"):
        read_frames(tmp_path / "three.fits[1]")
    np.save(tmp_path / "a.npy", IMAGE)
    with pytest.raises(InputError, match="only FITS files have units"):
        read_image(tmp_path / "a.npy[1]")
    named = write(tmp_path / "b[1].fits", fits.PrimaryHDU(IMAGE))
    np.testing.assert_array_equal(read_image(named)[0], IMAGE)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.uint32])
def test_undefined_pixels_are_nan_in_every_integer_type(tmp_path: Path, dtype: type) -> None:
    values = RNG.integers(10, 1000, (8, 9)).astype(dtype)
    unit = fits.PrimaryHDU(values)
    offset = int(unit.header.get("BZERO", 0))
    values[2, 3:6] = offset + 5 if offset else 5
    unit = fits.PrimaryHDU(values)
    unit.header["BLANK"] = 5
    stack = read_image(write(tmp_path / "a.fits", unit))
    expected = values.astype(np.float64)
    expected[2, 3:6] = np.nan
    np.testing.assert_array_equal(stack[0], expected)
    np.testing.assert_array_equal(stack[:], expected[None])


def test_errors_masks_and_flags_belong_to_their_image(tmp_path: Path) -> None:
    mask = np.zeros(OTHER.shape, np.uint8)
    mask[3, 4] = 1
    weight = np.full(OTHER.shape, 0.25)
    weight[0, 0] = 0.0
    flags = np.arange(OTHER.size, dtype=np.int32).reshape(OTHER.shape)
    path = write(
        tmp_path / "a.fits",
        fits.PrimaryHDU(OTHER),
        fits.ImageHDU(np.ones((5, 5)), name="ERR"),  # of another shape: not its own
        fits.ImageHDU(weight, name="WHT"),
        fits.ImageHDU(mask, name="MASK"),
        fits.ImageHDU(flags, name="DQ"),
    )
    stack = read_image(path)
    assert stack.error is not None and stack.mask is not None and stack.quality is not None
    assert (stack.error[0, 0, 0], stack.error[0, 1, 1]) == (np.inf, 2.0)
    np.testing.assert_array_equal(stack.quality[0], flags)
    assert np.isnan(stack[0]).sum() == 1
    assert np.isnan(stack[0][3, 4])
    assert "1 pixels are masked by MASK" in stack.notes
    part = read_image(path, options=ReadOptions(roi=((4, 10), (3, 9))))
    assert np.isnan(part[0][0, 0])
    np.testing.assert_array_equal(part.error, stack.error[:, 3:9, 4:10])
    with pytest.raises(InputError, match="not within"):
        read_image(path, options=ReadOptions(roi=((4, 19), (3, 9))))


def test_a_map_named_without_version_is_that_of_the_image(tmp_path: Path) -> None:
    units = [fits.PrimaryHDU()]
    for version in (1, 2):
        units += [fits.ImageHDU(OTHER + version, name="SCI", ver=version)]
        units += [fits.ImageHDU(np.full(OTHER.shape, 5.0 * version), name="ERR", ver=version)]
        units += [fits.ImageHDU((OTHER > 2.0).astype(np.uint8) * (version == 2), name="DQ", ver=version)]
    units += [fits.ImageHDU(np.full(OTHER.shape, 3.0), name="NOISE")]
    path = write(tmp_path / "two.fits", *units)
    for hdu, level in (("SCI,1", 5.0), ("SCI,2", 10.0), ("4", 10.0)):
        stack = read_image(path, options=ReadOptions(hdu=hdu, error="ERR", mask="DQ"))
        assert (stack.error == level).all()
        assert np.isnan(stack[0]).any() == (level == 10.0)
    assert (read_image(path, options=ReadOptions(hdu="SCI,2", error="ERR,1")).error == 5.0).all()
    # A map without versions is for all images.
    assert (read_image(path, options=ReadOptions(hdu="SCI,2", error="NOISE")).error == 3.0).all()


@pytest.mark.parametrize("chosen", ["v.fits", "v.fits[1]", "v.fits[VAR]"])
def test_variances_are_known_by_the_name_of_their_unit(tmp_path: Path, chosen: str) -> None:
    image = write(tmp_path / "i.fits", fits.PrimaryHDU(OTHER))
    write(tmp_path / "v.fits", fits.PrimaryHDU(), fits.ImageHDU(np.full(OTHER.shape, 25.0), name="VAR"))
    stack = read_image(image, options=ReadOptions(error=str(tmp_path / chosen)))
    assert (stack.error == 5.0).all()


@pytest.mark.parametrize("kind", ["StdDevUncertainty", "VarianceUncertainty", "InverseVariance"])
def test_ccddata(tmp_path: Path, kind: str) -> None:
    nddata = pytest.importorskip("astropy.nddata")
    deviation = np.full(OTHER.shape, 2.0)
    values = {"StdDevUncertainty": deviation, "VarianceUncertainty": deviation**2, "InverseVariance": deviation**-2}
    uncertainty = getattr(nddata, kind)(values[kind])
    mask = np.zeros(OTHER.shape, bool)
    mask[7, 2] = True
    path = tmp_path / "ccd.fits"
    nddata.CCDData(OTHER, unit="adu", uncertainty=uncertainty, mask=mask).write(path)
    stack = read_image(path)
    np.testing.assert_allclose(stack.error, deviation[None])
    np.testing.assert_array_equal(np.isnan(stack[0]), mask)
    assert stack.header.unit == "adu"


def header_of(tmp_path: Path, image: np.ndarray = OTHER, **cards: Any) -> ImageStack:
    unit = fits.PrimaryHDU(image)
    for key, value in cards.items():
        unit.header[key] = value
    return read_image(write(tmp_path / "h.fits", unit))


def test_the_header_states_the_sensor(tmp_path: Path) -> None:
    found = header_of(tmp_path, EGAIN=1.6, RDNOISE=8.0, SATURATE=50000.0, EXPTIME=30.0).header
    assert (found.gain, found.read_noise, found.saturation, found.exposure_s) == (1.6, 5.0, 50000.0, 30.0)
    assert found.said == (
        "gain 1.6 e/count (EGAIN)",
        "read noise 5 counts (RDNOISE)",
        "saturation 50000 counts (SATURATE)",
    )
    assert header_of(tmp_path, BUNIT="electron", READNOIS=7.0).header.read_noise == 7.0
    assert header_of(tmp_path, EGAIN="1.6").header.gain == 1.6  # a number in quotation marks
    assert header_of(tmp_path, BUNIT="electron/s", EXPTIME=40.0).header.gain == 40.0
    assert header_of(tmp_path, BUNIT="adu / s", EXPTIME=40.0, EGAIN=2.0).header.gain == 80.0
    for cards in ({"BUNIT": "MJy/sr", "EGAIN": 2.0}, {"EGAIN": -1.0}, {"EGAIN": "high"}, {"BUNIT": "electron/s"}, {}):
        assert header_of(tmp_path, **cards).header.gain is None
    stack = header_of(tmp_path, RDNOISE=8.0, BAYERPAT="RGGB")
    assert stack.header.read_noise is None
    assert "the gain is not known" in stack.notes[0]
    assert "colour camera's raw picture (RGGB)" in stack.notes[1]
    stack = header_of(tmp_path, image=OTHER + 100, SATURATE=1.0)
    assert stack.header.saturation is None
    assert "100 % of the pixels are above it" in stack.notes[0]


@pytest.mark.parametrize(
    ("comment", "image", "taken"),
    [
        ("electrons per ADU", OTHER, True),
        ("[e-/ADU] detector gain", OTHER, True),
        ("e / count", OTHER, True),
        ("", photons(2.0, 3.0), True),
        ("", photons(7.0), False),
        ("", photons(2.0) * 0.0 + 900.0, False),
        ("camera setting", OTHER, False),
        ("ADU per electron", OTHER, False),
    ],
)
def test_gain_is_believed_for_a_reason(tmp_path: Path, comment: str, image: np.ndarray, taken: bool) -> None:
    stack = header_of(tmp_path, image=image, GAIN=(2.0, comment), RDNOISE=3.0)
    assert stack.header.gain == (2.0 if taken else None)
    assert any("GAIN = 2 is not used" in note for note in stack.notes) is not taken


def test_sky_coordinates_are_kept(tmp_path: Path) -> None:
    wcs = pytest.importorskip("astropy.wcs").WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crpix, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [10.0, 5.0], [83.6, 22.0]
    wcs.wcs.cdelt = [-3e-4, 3e-4]
    unit = fits.ImageHDU(OTHER, header=wcs.to_header(), name="SCI")
    path = write(tmp_path / "sky.fits", fits.PrimaryHDU(), unit)
    for options in (None, ReadOptions(roi=((2, 9), (3, 8)))):
        found = read_image(path, options=options).header.wcs()
        sky = found.pixel_to_world(3.5, 7.25)
        x, y = wcs.world_to_pixel(sky)
        assert (float(x), float(y)) == pytest.approx((3.5, 7.25), abs=1e-6)
    assert header_of(tmp_path).header.wcs() is None


def damaged(tmp_path: Path, **cards: str) -> Path:
    """A file with the text of some cards replaced, which no library would write."""
    data = bytearray(write(tmp_path / "d.fits", fits.PrimaryHDU(IMAGE)).read_bytes())
    for key, text in cards.items():
        place = data.index(f"{key:<8}=".encode())
        data[place + 10 : place + 30] = f"{text:>20}".encode()
    (tmp_path / "d.fits").write_bytes(data)
    return tmp_path / "d.fits"


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ({"NAXIS": "99999999"}, "NAXIS of unit 0 is 99999999"),
        ({"NAXIS": "-2"}, "NAXIS of unit 0 is -2"),
        ({"NAXIS1": "-30"}, "has the axes"),
        ({"NAXIS1": "3 0"}, "NAXIS1 of unit 0 is '3 0'"),
        ({"NAXIS1": "900000000"}, "pixels are more than 268435456; if that is meant, raise --max-pixels"),
        ({"NAXIS2": "4000"}, "cut short"),
        ({"BITPIX": "17"}, "BITPIX of unit 0 is 17"),
        ({"SIMPLE": "F"}, None),
    ],
)
def test_damaged_headers_are_told(tmp_path: Path, cards: dict[str, str], said: str | None) -> None:
    path = damaged(tmp_path, **cards)
    if said is None:
        try:
            read_image(path)
        except InputError as error:
            assert "\n" not in str(error)
        return
    with pytest.raises(InputError, match=said):
        read_image(path)


def test_a_header_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "endless.fits"
    card = b"COMMENT ".ljust(80, b"x")
    path.write_bytes(b"SIMPLE  =                    T".ljust(80) + card * (36 * 4100 - 1))
    with pytest.raises(InputError, match="has no end in 4000 blocks"):
        read_image(path)
    path.write_bytes(path.read_bytes()[:5760])
    with pytest.raises(InputError, match="cut short, the header of unit 0 has no end"):
        read_image(path)


def test_pixels_are_counted_before_they_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(), fits.CompImageHDU(IMAGE))
    with pytest.raises(InputError, match="30 x 20 = 600 pixels are more than 599"):
        read_image(path, options=ReadOptions(max_pixels=599))
    assert len(read_image(path, options=ReadOptions(max_pixels=600))) == 1


def test_frames_and_region_of_a_cube(tmp_path: Path) -> None:
    cube = RNG.normal(size=(6, 12, 14))
    path = write(tmp_path / "cube.fits", fits.PrimaryHDU(cube))
    stack = read_image(path, options=ReadOptions(frames=(2, 4), roi=((3, 9), (1, 11))))
    np.testing.assert_array_equal(stack[:], cube[2:4, 1:11, 3:9])
    np.testing.assert_array_equal(read_image(path, options=ReadOptions(frames=(4, None)))[:], cube[4:])
    with pytest.raises(InputError, match="has 6 images, numbered from 0: frames 6: are outside"):
        read_image(path, options=ReadOptions(frames=(6, None)))
