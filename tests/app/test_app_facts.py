"""What the page says of an image beside its targets: what was measured or assumed, and why nothing was found."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from csist.app import page
from csist.app.result import Result, results
from csist.app.scene import Files, Scene, make_scene
from csist.app.settings import Settings
from csist.frames import unmix_frame
from csist.io import read_image
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.targets import Flag, Targets

SKY = Sensor(GaussianPSF(1.1), shape=(60, 90), background=50.0, read_noise=2.0)


def solved(scene: Scene, settings: Settings) -> Result:
    *_, last = results(scene, settings, lambda _: None)
    return last


def sky(count: int = 1) -> np.ndarray:
    x, y = (each.ravel()[:count] for each in np.meshgrid([15.3, 45.7, 75.2], [12.4, 30.1, 48.8]))
    return SKY.observe(Targets(x=x, y=y, intensity=np.full(count, 2000.0)), 3)


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        (Settings(mode="fast"), "guessed"),
        (Settings(mode="fast", psf_sigma=1.1, noise_std=2.0), "stated"),
        (Settings(mode="fast", psf="auto"), "measured on 9 isolated sources"),
    ],
)
def test_a_frame_says_what_it_was_unmixed_with(settings: Settings, known: str) -> None:
    image = sky(9)
    image[5, 80] = np.nan
    scene = Scene("sky.npy", image[None], noise_std=settings.noise_std)
    html = unescape(page.pictures(solved(scene, settings)))
    result = unmix_frame(
        image, mode="fast", psf=settings.psf if settings.psf == "auto" else settings.stated_psf,
        noise_std=settings.noise_std,
    )  # fmt: skip
    assert f"px, {known}" in html
    if known == "guessed":
        assert result.psf_assumption and f"guessed ({result.psf_assumption})" in html
    noise = "stated" if settings.noise_std else "estimated"
    assert f"Noise: {float(np.nanmedian(result.noise)):.3g} counts per pixel, {noise}." in html
    assert f"Detection threshold: {result.threshold:.3g} standard deviations." in html
    assert "Masked pixels: 1 without a value." in html


def test_a_saturated_frame_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "sky.npy", np.minimum(sky(9), 150.0))
    settings = Settings(source="upload", mode="fast", saturation=150.0)
    html = page.pictures(solved(make_scene(settings, Files(tmp_path / "sky.npy")), settings))
    assert re.search(r"Saturated pixels: [1-9]\d*, used as lower bounds\.", html)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.random.default_rng(0).normal(50.0, 2.0, (60, 90)), "no peak above the threshold"),
        (np.full((60, 90), 7.0), "all 5400 usable pixels have the same value, 7"),
    ],
)
def test_a_frame_without_targets_says_why(image: np.ndarray, reason: str) -> None:
    html = page.tables(solved(Scene("noise.npy", image[None]), Settings(mode="fast")))
    assert f"<p>0 targets.</p><p>No targets: {reason}" in html


def test_targets_below_the_minimum_score_are_the_reason() -> None:
    image = SKY.observe(Targets(x=[20.3], y=[30.2], intensity=[130.0]), 3)
    scene = Scene("faint.npy", image[None])
    known = Settings(mode="fast", psf_sigma=1.1)
    (answer,) = solved(scene, known).answers
    assert len(answer.targets) == 1 and answer.targets.score[0] < 1.0
    html = page.tables(solved(scene, replace(known, min_score=1.0)))
    assert "No targets: 1 target with a score below 1." in html


def test_a_sequence_names_its_empty_images() -> None:
    noise = np.random.default_rng(0).normal(50.0, 2.0, (2, 60, 90))
    scene = Scene("clip.npy", np.stack([noise[0], sky(), noise[1]]), first=4, total=9)
    assert "No targets in image 4, 6: no peak above" in page.tables(solved(scene, Settings(mode="fast", frames=3)))


def test_methods_with_the_same_facts_share_a_line(tmp_path: Path) -> None:
    settings = Settings(source="build", mode="fast", methods=("continuous", "ista", "ista+centroid"))
    html = page.pictures(solved(make_scene(settings), settings))
    first, second = re.findall(r'<p class="csist-facts">(.*?)</p>', html)
    assert first.startswith("continuous: PSF: sigma 0.5 px, as simulated.") and "Noise: 1 counts" in first
    assert second.startswith("ista, ista+centroid: PSF: ") and "Noise" not in second


def test_a_streak_has_the_probability_of_a_streak() -> None:
    """It once had that of one point, near 0."""
    with resources.as_file(resources.files("csist") / "data" / "airplane_above_hills.png") as path:
        image = read_image(path)[0][90:150, 110:190]
    (answer,) = solved(Scene("sky.png", image[None]), Settings(mode="fast")).answers
    groups = {group.number: group for group in unmix_frame(image, mode="fast").groups}
    streaks = set(answer.targets.group[(answer.targets.flags & int(Flag.STREAK)) > 0].tolist())
    assert streaks
    for number in streaks:
        assert answer.count_probability[number] == pytest.approx(groups[number].streak_probability)
        assert groups[number].streak_probability > 0.5


def test_a_window_says_that_its_psf_was_assumed(tmp_path: Path) -> None:
    path = tmp_path / "window.npy"
    np.save(path, np.random.default_rng(0).normal(0.0, 1.0, (9, 9)))
    for settings, known in (
        (Settings(source="upload", mode="fast", methods=("ista", "ista+refine")), "0.5 px, assumed"),
        (Settings(source="upload", mode="fast", methods=("ista",), psf_sigma=0.7), "0.7 px, stated"),
        (Settings(source="build", mode="fast", methods=("ista",)), "0.5 px, as simulated"),
    ):
        html = page.pictures(solved(make_scene(settings, Files(path)), settings))
        assert f"PSF: sigma {known}" in html
