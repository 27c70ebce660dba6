"""The public names, and `csist.unmix`: any image in, `Targets` out, or one clear line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import metadata

import numpy as np
import pytest

import csist
from csist.unmixing import window_recipe
from csist.windows import default_sensor, is_window

CSIST_100K = csist.ScenePrior.csist_100k()
SENSOR = csist.Sensor(read_noise=1.0)
SCENES = csist.sample_scenes(CSIST_100K, SENSOR, 6, seed=8)
STACK = np.stack([SENSOR.observe(scene, seed) for seed, scene in enumerate(SCENES)])
FAST = {"prior": CSIST_100K, "mode": "fast"}


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, csist; dir(csist); csist.Targets; csist.InputError;"
        "print([m for m in ('torch', 'numba', 'h5py', 'matplotlib', 'pandas', 'scipy') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_every_public_name_resolves() -> None:
    assert {
        "unmix", "Targets", "Flag", "GaussianPSF", "EllipticalGaussianPSF", "AiryPSF", "MoffatPSF", "SampledPSF",
        "FieldPSF", "Sensor", "ScenePrior", "sample_scenes", "SubPixelGrid", "list_methods", "create_method", "metrics",
        "datasets", "__version__", "InputError", "calibrate", "unmix_frame", "FrameResult",
        "unmix_sequence", "unmix_stream", "SequenceResult", "Track",
    } == set(csist.__all__)  # fmt: skip
    for name in csist.__all__:
        assert getattr(csist, name) is getattr(csist, name)
        assert name in dir(csist)
    assert csist.__version__ == metadata.version("csist")
    with pytest.raises(AttributeError, match="no attribute 'unmixx'"):
        _ = csist.unmixx


@pytest.mark.parametrize(("shape", "window"), [((11, 11), True), ((9, 16, 3), True), ((16, 17), False)])
def test_what_a_window_is(shape: tuple[int, ...], window: bool) -> None:
    assert is_window(shape) is window


def test_a_stack_gives_a_list_and_an_image_its_targets() -> None:
    found = csist.unmix(STACK, SENSOR, **FAST)
    assert isinstance(found, list)
    assert [len(each) for each in found] == [len(scene) for scene in SCENES]
    assert csist.unmix(STACK[2], SENSOR, **FAST) == found[2]


@pytest.mark.parametrize("shape", [(0, 11, 11), (0, 40, 50)])
def test_an_empty_stack_gives_an_empty_list(shape: tuple[int, ...]) -> None:
    assert csist.unmix(np.zeros(shape)) == []


def test_the_sensor_takes_the_windows_shape() -> None:
    image = STACK[1][:, 2:]
    found = csist.unmix(image, SENSOR, **FAST)
    assert isinstance(found, csist.Targets)
    assert len(found) == len(SCENES[1])


def test_the_flat_prior_is_the_default() -> None:
    image = SENSOR.observe(csist.Targets(x=[3.0, 7.2], y=[5.1, 5.4], intensity=[240.0, 500.0]), 1)
    found = csist.unmix(image, SENSOR, mode="fast")
    assert isinstance(found, csist.Targets)
    order = np.argsort(found.x)
    np.testing.assert_allclose(found.x[order], [3.0, 7.2], atol=0.05)
    np.testing.assert_allclose(found.intensity[order], [240.0, 500.0], rtol=0.05)


def test_grid_methods_take_the_same_call() -> None:
    found = csist.unmix(STACK[:2], SENSOR, method="fista", ratio=1, iterations=50, start="zero")
    assert isinstance(found, list)
    assert all(np.all(each.score >= 50) for each in found)


def test_masked_pixels_are_nan() -> None:
    image = np.ma.masked_greater(STACK[0], 1e9)
    image[0, 10] = np.ma.masked
    with pytest.raises(csist.InputError, match="NaN in 1 pixels"):
        csist.unmix(image, SENSOR, **FAST)
    found = csist.unmix(image, SENSOR, mask_nan=True, **FAST)
    assert isinstance(found, csist.Targets)
    assert np.all(found.flags & csist.Flag.MASKED)


def test_parts_of_a_stack_get_the_answers_of_the_whole() -> None:
    ready = csist.create_method(**window_recipe(STACK, STACK.dtype, prior=CSIST_100K, mode="fast"))
    assert [*ready.predict(STACK[:2]), *ready.predict(STACK[2:])] == csist.unmix(STACK, **FAST)


def test_the_default_sensor_reads_the_values() -> None:
    whole, exact = STACK[:1], STACK[:1] + 0.25
    assert default_sensor(whole, np.dtype(np.float64)).quantised
    assert not default_sensor(exact, np.dtype(np.float64)).quantised
    assert default_sensor(whole, np.dtype(np.uint8)).saturation == 255
    assert default_sensor(whole, np.dtype(np.uint16)).saturation == 65535
    assert default_sensor(whole, np.dtype(np.int16)).saturation is None


def test_exact_images_without_noise_are_unmixed() -> None:
    clean = SENSOR.render(SCENES[1])
    found = csist.unmix(clean, csist.Sensor(quantised=False), noise_std=0.0, **FAST)
    assert isinstance(found, csist.Targets)
    assert len(found) == len(SCENES[1])


def test_frames_go_the_same_way() -> None:
    sky = csist.Sensor(csist.GaussianPSF(1.1), shape=(50, 70), background=50.0, read_noise=2.0)
    truth = csist.Targets(x=[20.3, 23.1], y=[30.2, 31.0], intensity=[1500.0, 1200.0])
    frame = sky.observe(truth, 0)
    frame[0, :5] = np.nan
    found = csist.unmix(frame, sky, mode="fast")
    assert isinstance(found, csist.Targets)
    assert np.hypot(found.x[:, None] - truth.x, found.y[:, None] - truth.y).min(axis=0).max() < 0.3
    assert csist.unmix(frame[None], sky, mode="fast", mask_nan=True) == [found]
    result = csist.unmix_frame(frame, sky, mode="fast")
    assert isinstance(result, csist.FrameResult)
    assert result.targets == found
    assert np.nanstd(result.residual()) < 3.0
    assert result.mask.sum() == 5
    assert repr(result).splitlines()[:2] == [
        "FrameResult of 70 x 50 px, groups: 1, PSF sigma 1.1 px (given), "
        f"detector {result.detector} ({result.detection.reason})",
        "2 targets",
    ]
    with pytest.raises(csist.InputError, match="a frame does not take colour"):
        csist.unmix(frame, colour="red")


BAD_IMAGES: dict[str, tuple[object, str]] = {
    "1-D": (np.zeros(9), "H, W"),
    "4-D": (np.zeros((2, 2, 9, 9)), "H, W"),
    "empty": (np.zeros((0, 0)), "3 x 3"),
    "tiny": (np.zeros((2, 11)), "at least 3 x 3"),
    "text": (np.array([["a"] * 5] * 5), "real numbers"),
    "complex": (np.zeros((5, 5), complex), "real numbers"),
    "infinite": (np.full((5, 5), np.inf), "infinite"),
    "NaN": (np.full((5, 5), np.nan), "NaN in 25 pixels"),
    "frames that differ": ([np.zeros((5, 5)), np.zeros((5, 6))], "frames of equal size"),
    "nothing": (None, "real numbers"),
    "path": ("a.png", r"must be an array, got the text 'a\.png': read a file with csist\.io\.read_image"),
    "overflow": (np.full((11, 11), 1e300), r"magnitude of 1e\+300: scale it to between 1e-100 and 1e\+100"),
    "overflow in a frame": (np.full((64, 64), -1e300), r"magnitude of 1e\+300: scale it"),
    "underflow": (np.full((64, 64), 1e-150), "magnitude of 1e-150: scale it"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_get_one_line(name: str) -> None:
    image, said = BAD_IMAGES[name]
    with pytest.raises(csist.InputError, match=said) as caught:
        csist.unmix(image)
    assert "\n" not in str(caught.value)


def test_a_window_of_nothing_but_nan_is_refused_even_masked() -> None:
    with pytest.raises(csist.InputError, match="image 1 contains only NaN"):
        csist.unmix(np.stack([STACK[0], np.full((11, 11), np.nan)]), mask_nan=True, **FAST)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "continous"}, "did you mean 'continuous'"),
        ({"method": "lista"}, "no trained weights of lista"),
        ({"method": "ista", "prior": CSIST_100K}, "prior is for the method 'continuous'"),
        ({"method": "ista", "mode": "fast"}, "mode is for the method 'continuous'"),
        ({"method": "ista", "ratio": 0}, "ratio must be a whole number >= 1, got 0"),
        ({"mode": "quick"}, "mode must be one of accurate, fast"),
        ({"noise_std": -1.0}, "noise_std must be a finite number >= 0, got -1.0"),
        ({"colour": "red"}, "method 'continuous' does not take colour: its options are prior, mode"),
        ({"moed": "fast"}, "does not take moed: did you mean mode"),
    ],
)  # fmt: skip
def test_bad_options_get_one_line(options: dict[str, object], said: str) -> None:
    with pytest.raises(csist.InputError, match=said) as caught:
        csist.unmix(STACK, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_grid_method_refuses_nan_and_frames() -> None:
    holed = STACK[0].copy()
    holed[0, 0] = np.nan
    with pytest.raises(csist.InputError, match="'ista' cannot leave pixels out"):
        csist.unmix(holed, method="ista", mask_nan=True)
    with pytest.raises(csist.InputError, match="'ista' unmixes windows of at most 16 px"):
        csist.unmix(np.zeros((20, 30)), method="ista")


@pytest.mark.parametrize(
    ("image", "given", "said"),
    [
        (STACK, {"sensor": 0.5}, "sensor must be a Sensor, got 0.5"),
        (np.ones((40, 40)), {"sensor": csist.GaussianPSF(1.0)}, "sensor must be a Sensor"),
        (STACK, {"prior": 3}, "prior must be a ScenePrior, got 3"),
        (np.ones((40, 40)), {"psf": [1.0]}, "psf must be a PSF"),
        (np.ones((40, 40)), {"psf": True}, "psf must be a PSF"),
        (STACK, {"psf": "auto"}, "psf of a window"),
        (STACK, {"workers": "2"}, "workers must be a whole number >= 1, got '2'"),
    ],
)
def test_arguments_of_a_wrong_kind_are_refused_in_one_line(image: np.ndarray, given: dict, said: str) -> None:
    with pytest.raises(csist.InputError, match=said):
        csist.unmix(image, **given)


def test_a_psf_is_also_a_number_of_numpy_and_a_prior_its_name() -> None:
    rng = np.random.default_rng(0)
    frame = csist.Sensor(csist.GaussianPSF(1.0), shape=(40, 40), read_noise=2.0).observe(
        csist.Targets(x=[20.2], y=[19.1], intensity=[800.0]), rng
    )
    for psf in (np.float32(1.0), np.int64(1)):
        assert len(csist.unmix(frame, psf=psf, mode="fast")) == 1
    plain = csist.unmix(STACK[0], SENSOR, **FAST)
    named = csist.unmix(
        STACK[0], csist.Sensor(csist.GaussianPSF(2.0), read_noise=1.0), "csist-100k", mode="fast", psf=0.5
    )
    np.testing.assert_array_equal(named.x, plain.x)


@pytest.mark.parametrize("mode", ["fast", "accurate"])
@pytest.mark.parametrize("counts", [(0, 0), (2, 2), (2, 3), (4, 5)])
def test_a_group_has_a_number_of_targets_within_the_prior(mode: str, counts: tuple[int, int]) -> None:
    """The smallest number was ignored, and a largest one of 0 crashed."""
    sensor = csist.Sensor(read_noise=2.0)
    image = sensor.observe(csist.Targets(x=[5.2], y=[4.8], intensity=[400.0]), 0)
    found = csist.unmix(image, sensor, csist.ScenePrior(count_range=counts), mode=mode)
    assert counts[0] <= len(found) <= counts[1]
    nothing = csist.unmix(
        sensor.observe(csist.Targets.empty(), 1), sensor, csist.ScenePrior(count_range=counts), mode=mode
    )
    assert len(nothing) in (0, *range(counts[0], counts[1] + 1))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: csist.GaussianPSF("0.9"), "sigma_px must be a finite number > 0, got '0.9'"),
        (lambda: csist.GaussianPSF(None), "sigma_px must be a finite number > 0, got None"),
        (lambda: csist.EllipticalGaussianPSF(1.0, 2.0, angle_deg="x"), "angle_deg"),
        (lambda: csist.Sensor(read_noise="3"), "read_noise must be a finite number >= 0, got '3'"),
        (lambda: csist.Sensor("airy"), "psf must be a PSF or a sigma in px, got 'airy'"),
        (lambda: csist.ScenePrior(count_range=2), "count_range must be (low, high)"),
        (lambda: csist.ScenePrior(intensity_range=(1, "a")), "intensity_range must be (low, high)"),
        (lambda: csist.unmix(np.ones((9, 9)), noise_std=np.ones((9, 9))), "noise_std must be a finite number >= 0"),
        (lambda: csist.unmix(np.ones((9, 9)), mask_nan="no"), "mask_nan must be True or False, got 'no'"),
        (
            lambda: csist.unmix_frame(np.ones((30, 30)), psf_error="x"),
            "psf_error must be a finite number >= 0, got 'x'",
        ),
        (lambda: csist.unmix_frame(np.ones((30, 30)), box_sides_px=32), "box_sides_px must hold sides"),
        (lambda: csist.unmix_frame(np.ones((30, 30)), false_alarm_rate="1e-6"), "false_alarm_rate must be between"),
    ],
)
def test_a_value_of_another_kind_is_one_line(call: Callable[[], object], said: str) -> None:
    with pytest.raises(csist.InputError) as refused:
        call()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_sensor_takes_the_sigma_of_its_psf() -> None:
    assert csist.Sensor(0.9).psf == csist.GaussianPSF(0.9)
