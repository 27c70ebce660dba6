"""The sensor: rendering, noise, rounding, clipping, cards."""

import json
from pathlib import Path

import numpy as np
import pytest

from csist.checks import InputError
from csist.io.cards import read_sensor
from csist.physics.psf import AiryPSF, GaussianPSF, SampledPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets

PAIR = Targets(x=[5.1, 5.6], y=[4.8, 5.3], intensity=[230.0, 245.0])


def test_render_is_the_sum_of_single_targets() -> None:
    sensor = Sensor(background=3.0)
    apart = sum(sensor.render(target) - 3.0 for target in PAIR)
    assert sensor.render(PAIR) == pytest.approx(3.0 + apart, abs=1e-12)


@pytest.mark.parametrize("psf", [GaussianPSF(0.5), AiryPSF(1.2)])
def test_shifting_the_scene_shifts_the_image(psf: GaussianPSF) -> None:
    sensor = Sensor(psf=psf, shape=(12, 15))
    here, there = sensor.render(PAIR), sensor.render(PAIR.shifted(2.0, 1.0))
    assert there[1:, 2:] == pytest.approx(here[:-1, :-2], abs=1e-9)


def test_axes_x_is_the_column() -> None:
    image = Sensor(shape=(7, 9)).render(Targets(x=[6.0], y=[2.0], intensity=[1.0]))
    assert np.unravel_index(image.argmax(), image.shape) == (2, 6)


def test_stack_equals_single_images_also_with_padding() -> None:
    for sensor in (Sensor(background=1.5), Sensor(psf=AiryPSF(1.5))):
        x, y = np.array([[5.1, 5.6], [3.0, 0.0]]), np.array([[4.8, 5.3], [7.0, 0.0]])
        stack = sensor.render_stack(x, y, np.array([[230.0, 245.0], [100.0, 0.0]]))
        assert stack[0] == pytest.approx(sensor.render(PAIR), abs=1e-9)
        assert stack[1] == pytest.approx(sensor.render(Targets(x=[3.0], y=[7.0], intensity=[100.0])), abs=1e-9)


def test_empty_scene_is_the_background() -> None:
    assert (Sensor(background=7.0).render(Targets.empty()) == 7.0).all()


def test_noise_has_the_stated_variance() -> None:
    sensor = Sensor(shape=(300, 300), background=50.0, read_noise=2.0, gain=4.0)
    image = sensor.observe(Targets.empty(), 1)
    assert image.mean() == pytest.approx(50.0, abs=0.05)
    assert image.var() == pytest.approx(float(sensor.noise_variance(50.0)), rel=0.02)
    assert float(sensor.noise_variance(50.0)) == pytest.approx(50 / 4 + 4 + 1 / 12)


def test_same_seed_same_bytes_and_input_untouched() -> None:
    sensor = Sensor(read_noise=1.0)
    clean = sensor.render(PAIR)
    before = clean.copy()
    assert sensor.measure(clean, 3).tobytes() == sensor.measure(clean, 3).tobytes()
    assert (clean == before).all()


def test_rounding_and_clipping() -> None:
    clean = np.array([[-3.2, 0.4, 254.7, 400.0]] * 3)
    assert Sensor(shape=(3, 4)).measure(clean, 0)[0].tolist() == [-3.0, 0.0, 255.0, 400.0]
    assert Sensor(shape=(3, 4), bits=8).measure(clean, 0)[0].tolist() == [0.0, 0.0, 255.0, 255.0]
    assert Sensor(shape=(3, 4), saturation=300.0).measure(clean, 0)[0].max() == 300.0
    assert (Sensor(shape=(3, 4), quantised=False).measure(clean, 0) == clean).all()


def test_card_round_trip(tmp_path: Path) -> None:
    psf = SampledPSF(np.outer(np.hanning(11), np.hanning(11)), 2)
    sensor = Sensor(psf=psf, shape=(9, 8), background=2.0, read_noise=1.0, gain=3.0, bits=12, saturation=4000.0)
    path = tmp_path / "sensor.json"
    path.write_text(json.dumps(sensor.to_card()))
    assert read_sensor(path) == (sensor, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (0, 4)}, "shape must be"),
        ({"read_noise": -1.0}, "read_noise must be"),
        ({"background": np.nan}, "background must be finite"),
        ({"gain": 0.0}, "gain must be"),
        ({"bits": 0}, "bits must be"),
        ({"saturation": -5.0}, "saturation must be"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sensor(**arguments)


def test_bad_cards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="colour"):
        Sensor.from_card({"colour": 1})
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"broken\.json"):
        read_sensor(path)
