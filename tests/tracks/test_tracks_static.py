"""The static background as a frame shows it: level, gain and shift of single frames."""

import numpy as np
import pytest
from scipy.ndimage import shift

import csist
from csist.frames.options import FrameOptions
from csist.frames.solve import solve_frame
from csist.tracks.link import LEAST_LENGTH, Linker
from csist.tracks.static import static_in, without_static

SHAPE = (48, 80)
ROW, COLUMN = np.mgrid[: SHAPE[0], : SHAPE[1]]
SCENE = 120.0 * np.exp(-((COLUMN - 30) ** 2 + (ROW - 18) ** 2) / 8.0) + 30.0 * np.sin(COLUMN / 3.0) * (ROW > 36)
NOISE = np.random.default_rng(9).normal(0.0, 0.5, SHAPE)
SKY = csist.Sensor(csist.GaussianPSF(1.0), shape=SHAPE, background=100.0, read_noise=1.5)


def test_level_and_gain_are_followed():
    static = 100.0 + SCENE
    seen = 1.3 * static + 40.0
    assert np.abs(static_in(seen + NOISE, static) - seen).max() < 0.5


def test_a_small_shift_is_followed():
    static, moved = 100.0 + SCENE, 100.0 + shift(SCENE, (0.2, -0.3), order=3, mode="nearest")
    error = np.abs(static_in(moved + NOISE, static) - moved)[2:-2, 2:-2]
    assert error.max() < 0.4 * np.abs(static - moved)[2:-2, 2:-2].max()


def test_a_steady_frame_keeps_the_median():
    static = 100.0 + SCENE
    frame = static + np.random.default_rng(0).normal(0.0, 2.0, SHAPE)
    assert static_in(frame, static) is static


def test_a_moving_target_is_no_background():
    static = 100.0 + SCENE
    light = SKY.render(csist.Targets([60.0], [10.0], [900.0])) - 100.0
    assert np.abs(static_in(1.2 * (static + light) + NOISE, static) - 1.2 * static).max() < 0.02 * light.max()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_without_a_value_do_not_spread(value):
    static = 100.0 + SCENE
    static[5, 5] = np.nan
    frame = 1.3 * (100.0 + SCENE) + NOISE
    frame[20, 20] = value
    found = static_in(frame, static)
    assert np.isnan(found).sum() == 1
    assert np.abs(found - 1.3 * static)[np.isfinite(found)].max() < 0.5


@pytest.mark.parametrize("shape", [(1, 40), (3, 3), (40, 1)])
def test_small_frames(shape):
    static = np.random.default_rng(0).normal(size=shape)
    assert static_in(static + 1.0, static).shape == shape


@pytest.mark.parametrize("event", ["gain", "level", "jitter"])
def test_events_of_the_camera_make_no_ghost_tracks(event):
    rng, linker = np.random.default_rng(1), Linker()
    frames = []
    for t in range(14):
        target = SKY.render(csist.Targets([10.0 + 2.5 * t], [30.0 - 0.8 * t], [250.0]))
        frame = target + (shift(SCENE, rng.normal(0.0, 0.3, 2), order=3) if event == "jitter" else SCENE)
        if t >= 7:
            frame = {"gain": 1.25 * frame, "level": frame + 40.0, "jitter": frame}[event]
        frames.append(np.round(frame + rng.normal(0.0, 1.5, SHAPE)))
    lengths: dict[int, int] = {}
    for t, frame in enumerate(without_static(iter(frames), 5)):
        found = solve_frame(frame, FrameOptions(psf=SKY.psf, mode="fast")).targets
        for number in linker.update(t, found):
            lengths[int(number)] = lengths.get(int(number), 0) + 1
    tracks = [length for length in lengths.values() if length >= LEAST_LENGTH]
    assert len(tracks) == 1
    assert tracks[0] >= 12
