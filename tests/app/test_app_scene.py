"""The images behind the settings, and files that users drop."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.spatial.distance import pdist

from csist.app.scene import Files, build_group, make_scene
from csist.app.settings import Settings
from csist.app.uploads import describe_upload, open_upload
from csist.checks import InputError
from csist.instrument import Instrument


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.parametrize("seed", [0, 1])
def test_neighbours_of_a_built_group_are_as_far_apart_as_asked(count: int, seed: int) -> None:
    group = build_group(Settings(count=count, separation_px=0.7, intensity=55.0, seed=seed))
    assert len(group) == count and (group.intensity == 55.0).all()
    distances = pdist(np.stack([group.x, group.y], axis=1))
    if count > 1:
        assert distances.min() == pytest.approx(0.7)
        assert np.isclose(distances, 0.7).sum() >= (1 if count == 2 else count)  # as a polygon has sides


@pytest.mark.parametrize("source", ["benchmark", "build"])
def test_a_seed_gives_one_image(source: str) -> None:
    one, same, other = (make_scene(Settings(source=source, seed=seed, scene_noise=2.0)) for seed in (3, 3, 4))
    assert np.array_equal(one.images, same.images)
    assert not np.array_equal(one.images, other.images)
    assert one.truths == same.truths and one.windows and one.noise_std == 2.0


def test_simulated_images_are_taken_with_the_chosen_sensor() -> None:
    scene = make_scene(Settings(source="build", psf_sigma=0.9, background=40.0, scene_noise=0.0, noise_std=1.5))
    assert scene.sensor is not None and scene.truths is not None
    assert np.array_equal(scene.images[0], np.rint(scene.sensor.render(scene.truths[0])))
    assert scene.images.min() == 40.0 and scene.noise_std == 1.5


def test_an_example_is_a_frame() -> None:
    scene = make_scene(Settings())
    assert scene.images.shape == (1, 256, 320)
    assert not scene.windows and scene.sensor is None and scene.truths is None


def test_a_window_of_a_users_stack(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.arange(3 * 12 * 9, dtype=np.uint16).reshape(3, 12, 9), photometric="minisblack")
    settings = Settings(source="upload", frame=2, psf_sigma=0.8, background=7.0)
    scene = make_scene(settings, Files(path))
    assert scene.first == 2 and scene.images[0, 0, 0] == 2 * 12 * 9
    assert scene.sensor is not None and (scene.sensor.background, scene.sensor.shape) == (7.0, (12, 9))
    assert describe_upload(open_upload(path)) == "stack.tif: 3 images of 9 x 12 px"
    with pytest.raises(InputError, match="has no image 3"):
        make_scene(Settings(source="upload", frame=3), Files(path))


@pytest.mark.parametrize("side", [12, 40], ids=["window", "frame"])
def test_a_file_has_the_sensor_that_the_command_line_gives_it(tmp_path: Path, side: int) -> None:
    fits = pytest.importorskip("astropy.io.fits", reason="needs the extra `astro`")
    image = fits.PrimaryHDU(np.random.default_rng(0).poisson(200.0, (side, side)).astype(np.float32))
    image.header.update({"EGAIN": 2.0, "RDNOISE": 6.0, "SATURATE": 5000.0})
    image.writeto(tmp_path / "night.fits")
    stack = open_upload(tmp_path / "night.fits")
    for stated in ({}, {"gain": 4.0}, {"read_noise": 1.5, "noise_std": 9.0}):
        scene = make_scene(Settings(source="upload", **stated), Files(tmp_path / "night.fits"))
        noise = stated.get("noise_std")
        command = Instrument(noise_std=noise, detector={k: v for k, v in stated.items() if k != "noise_std"})
        if scene.windows:
            sensor = command.window_sensor(stack, scene.images, stack.data.dtype)
            assert (scene.sensor, scene.noise_std) == (sensor, command.window_noise(stack, sensor))
        else:
            options = command.frame_options(stack)
            assert (scene.sensor, scene.noise_std) == (options.sensor, options.noise_std)
            assert not scene.sensor_has_psf
        assert scene.sensor is not None
        assert (scene.sensor.gain, scene.sensor.saturation) == (stated.get("gain", 2.0), 5000.0)
        (said,) = [note for note in scene.notes if "from the header" in note]
        assert ("gain 2 e/count" in said) is ("gain" not in stated)
        assert "saturation 5000 counts" in said and "form" in said and "--" not in said


def test_without_a_file_the_page_says_what_to_do() -> None:
    with pytest.raises(InputError, match="upload one"):
        make_scene(Settings(source="upload"))


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG file that claims a size it does not hold."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", width, height, 8, 0, 0, 0, 0, 0)


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    files = {
        "garbage.png": (b"nothing of the kind", "cannot read garbage.png"),
        "empty.tiff": (b"", "cannot read empty.tiff"),
        "huge.png": (png_header(60_000, 60_000), "huge.png holds 3600 million pixels"),
        "script.svg": (b"<svg/>", "PNG, JPEG, BMP, TIFF, FITS, NPY or NPZ"),
        "store.h5": (b"\x89HDF", "PNG, JPEG, BMP, TIFF, FITS, NPY or NPZ"),
        "garbage.npz": (b"PK", "cannot read garbage.npz"),
        "pickle.npy": (b"\x80\x04N.", "cannot read pickle.npy"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    np.lib.format.open_memmap(folder / "wide.npy", "w+", np.uint8, (4, 3000, 3000))
    files["wide.npy"] = (b"", "wide.npy holds 36 million pixels")
    np.save(folder / "nan.npy", np.full((20, 20), np.nan))
    files["nan.npy"] = (b"", "no valid pixel")
    return {name: (folder / name, said) for name, (_, said) in files.items()}


@pytest.mark.parametrize(
    "name",
    [
        "garbage.png", "empty.tiff", "huge.png", "script.svg", "store.h5", "garbage.npz", "pickle.npy", "wide.npy",
        "nan.npy",
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_in_one_line_without_its_folder(name: str, tmp_path: Path) -> None:
    path, said = bad_files(tmp_path)[name]
    with pytest.raises(InputError, match=said) as caught:
        make_scene(Settings(source="upload"), Files(path))
    assert str(tmp_path) not in str(caught.value) and "\n" not in str(caught.value)


def test_pixels_are_counted_before_they_are_read(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits", reason="needs the extra `astro`")
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(np.zeros((6000, 6000), np.int16))]).writeto(
        tmp_path / "packed.fits"
    )
    tifffile.imwrite(tmp_path / "packed.tif", np.zeros((6000, 6000), np.uint8), compression="zlib")
    fits.PrimaryHDU(np.zeros((6000, 6000), np.int16)).writeto(tmp_path / "zipped.fits.gz")
    np.savez_compressed(tmp_path / "zipped.npz", np.zeros((6000, 6000), np.uint8))
    for path in tmp_path.iterdir():
        assert path.stat().st_size < 1_000_000
        with pytest.raises(InputError, match="36 million pixels"):
            open_upload(path)


def test_formats_that_can_be_dropped(tmp_path: Path) -> None:
    image = np.arange(400, dtype=np.uint16).reshape(20, 20) * 100
    Image.fromarray(image).save(tmp_path / "sixteen.png")
    tifffile.imwrite(tmp_path / "sixteen.tif", image)
    np.save(tmp_path / "array.npy", image)
    np.savez(tmp_path / "array.npz", image)
    fits = pytest.importorskip("astropy.io.fits", reason="needs the extra `astro`")
    fits.PrimaryHDU(image).writeto(tmp_path / "sixteen.fits.gz")
    for path in tmp_path.iterdir():
        assert np.array_equal(make_scene(Settings(source="upload"), Files(path)).images[0], image), path
