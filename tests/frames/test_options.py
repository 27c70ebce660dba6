"""Options of frames: values, defaults and help texts."""

import subprocess
import sys

import pytest

from csist.checks import InputError
from csist.frames import FrameOptions, unmix_frame
from csist.frames.options import option_help
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mode": "quick"}, "mode must be one of accurate, fast, got 'quick'"),
        ({"detector": "best"}, "detector must be one of auto, contrast, matched, crowded, got 'best'"),
        ({"psf": "best"}, "psf must be a PSF, a sigma in px, auto or empirical, got 'best'"),
        ({"psf": 0.0}, "sigma_px"),
        ({"noise_std": -1.0}, "noise_std must be a finite number >= 0, got -1.0"),
        ({"psf_error": float("nan")}, "psf_error must be a finite number >= 0, got nan"),
        ({"false_alarm_rate": 0.0}, "false_alarm_rate must be between 0 and 0.1"),
        ({"box_sides_px": (64, 2)}, "box_sides_px must hold sides of at least 3 px"),
        ({"box_sides_px": ()}, "box_sides_px must hold sides of at least 3 px"),
        ({"workers": 0}, "workers must be a whole number >= 1, got 0"),
        ({"prior": ScenePrior.csist_100k()}, "a frame needs a prior with targets anywhere"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_named(values, said):
    with pytest.raises(InputError, match=said):
        FrameOptions(**values)
    with pytest.raises(InputError, match=said):
        unmix_frame([[0.0] * 5] * 5, **values)


def test_unknown_names_are_answered_with_the_closest_one():
    with pytest.raises(InputError, match="a frame does not take noise: did you mean noise_std"):
        FrameOptions.of(noise=3.0)
    with pytest.raises(InputError, match="a frame does not take colour: its options are sensor"):
        FrameOptions.of(colour="red")


def test_what_the_sensor_says():
    options = FrameOptions(sensor=Sensor(read_noise=2.0, bits=8))
    assert (options.stated_noise_std, options.ceiling, options.gain) == (2.0, 255.0, None)
    assert FrameOptions(sensor=Sensor(read_noise=2.0), noise_std=3.0).stated_noise_std == 3.0
    assert FrameOptions(sensor=Sensor(read_noise=2.0, gain=4.0)).stated_noise_std is None
    assert FrameOptions(sensor=Sensor()).stated_noise_std is None
    assert (FrameOptions().stated_noise_std, FrameOptions().ceiling, FrameOptions().gain) == (None, None, None)
    assert FrameOptions(psf=1.5).psf == GaussianPSF(1.5)


def test_names_defaults_and_help_need_no_solver():
    assert FrameOptions.detector == FrameOptions().detector == "auto"
    assert "contrast" in option_help("detector")
    code = "import sys, csist.frames.options; print('numba' in sys.modules, 'scipy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]
