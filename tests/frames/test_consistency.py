"""What is reported of a target and its group agrees: count, its probability, score, errors and flags."""

from __future__ import annotations

import numpy as np
import pytest

from csist.frames import FrameOptions, unmix_frame
from csist.frames.blobs import windows
from csist.frames.blobs.windows import Cutout, WindowFit
from csist.frames.groups import ambiguity
from csist.methods.continuous import Continuous, solvers
from csist.methods.continuous.group import Group
from csist.methods.continuous.posterior import TOLERANCES_PX
from csist.methods.continuous.search import search_stack
from csist.photometry import forced_photometry
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Flag, Targets

SKY = Sensor(GaussianPSF(1.1), shape=(60, 90), background=50.0, read_noise=2.0)


def clipped_frame(seed: int) -> np.ndarray:
    """A frame whose background lies at and below black, so that most of its noise is cut off."""
    generator = np.random.default_rng(seed)
    sky = Sensor(GaussianPSF(generator.uniform(0.8, 2.0)), shape=(70, 90))
    scene = Targets(
        x=generator.uniform(4, 86, 10), y=generator.uniform(4, 66, 10), intensity=generator.uniform(150, 3000, 10)
    )
    noise = generator.normal(generator.uniform(-8.0, 0.0), 4.0, (70, 90))
    return np.clip(np.rint(sky.render(scene) + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_certain_targets_have_small_errors_on_frames_clipped_at_black(seed: int) -> None:
    found = unmix_frame(clipped_frame(seed), mode="fast").targets
    spread = np.nan_to_num(np.hypot(found.x_std, found.y_std))
    assert (spread[found.score > 0.5] < 1.0).all()


@pytest.mark.parametrize("spread", [0.05, 0.5, 2.0, 9.0])
def test_the_score_follows_the_error(spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A position that may be anywhere in the window had the score of the peak: 9 px and 0.94 in one row."""

    def unmix_window(cutout: Cutout, prior: ScenePrior, noise_std: float, options: FrameOptions) -> WindowFit:
        middle = [0.5 * (side - 1) for side in cutout.data.shape]
        target = Targets(
            x=[middle[1]], y=[middle[0]], intensity=[1500.0], score=[0.94], x_std=[spread], y_std=[spread],
            intensity_std=[20.0],
        )  # fmt: skip
        return WindowFit(target, Group(1, np.array([0.05, 0.95]), 80.0, 80, Flag(0)), noise_std)

    monkeypatch.setattr(windows, "unmix_window", unmix_window)
    truth = Targets(x=[40.0], y=[30.0], intensity=[1500.0])
    found = unmix_frame(SKY.observe(truth, 3), mode="fast").targets  # the PSF is guessed
    assert len(found) == 1
    assert found.score[0] > 0.8 if spread < 1.0 else found.score[0] < 0.94
    assert found.score[0] < 0.1 or spread < 9.0
    # No more certain than a circular normal distribution of this error lets it be at the peak.
    assert found.score[0] <= 1.0 - np.exp(-0.5 * (6.0 / found.x_std[0]) ** 2) + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_the_count_of_a_group_is_the_most_probable_one_and_has_as_many_rows(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = (generator.uniform(4, side - 4, 45) for side in (116, 96))
    sky = Sensor(GaussianPSF(1.2), shape=(100, 120), background=30.0, read_noise=2.0)
    image = sky.observe(Targets(x=x, y=y, intensity=generator.uniform(60, 1500, 45)), seed)
    for psf in (None, 1.2):
        result = unmix_frame(image, mode="fast", detector="contrast", psf=psf)
        assert len(result.groups) > 5
        for group in result.groups:
            own = result.targets[result.targets.group == group.number]
            assert len(own) == group.count
            if not group.count_probability.size:
                continue
            likely = int(group.count_probability.argmax())
            if group.sources:
                assert max(group.extended_probability, group.streak_probability) > group.count_probability.max()
            elif (
                likely != group.count
            ):  # several windows, or one point of another PSF is a single count, points are several
                assert Flag.AMBIGUOUS_COUNT in group.flags
            if Flag.AMBIGUOUS_COUNT in group.flags:
                assert (own.flags & int(Flag.AMBIGUOUS_COUNT)).all()


@pytest.mark.parametrize("psf", [None, 1.1])
def test_a_group_with_a_certain_target_is_not_said_to_be_empty(
    psf: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two weak targets took up the artefacts around a bright one; without them the group had p_0 = 0.49."""

    def unmix_window(cutout: Cutout, prior: ScenePrior, noise_std: float, options: FrameOptions) -> WindowFit:
        rows, columns = cutout.data.shape
        targets = Targets(
            x=[0.5 * (columns - 1), 0.2, columns - 1.2], y=[0.5 * (rows - 1), 0.3, rows - 1.1],
            intensity=[1500.0, 20.0, 25.0], score=[0.99, 0.05, 0.06], x_std=[0.02, 1.0, 1.0], y_std=[0.02, 1.0, 1.0],
            intensity_std=[20.0, 15.0, 15.0],
        )  # fmt: skip
        probability = np.array([0.0, 0.0, 0.49, 0.51])
        return WindowFit(targets, Group(3, probability, 80.0, 80, Flag.AMBIGUOUS_COUNT), noise_std)

    monkeypatch.setattr(windows, "unmix_window", unmix_window)
    result = unmix_frame(SKY.observe(Targets(x=[40.0], y=[30.0], intensity=[1500.0]), 3), mode="fast", psf=psf)
    (group,) = result.groups
    assert group.count == 1 and result.targets.score[0] > 0.9
    assert group.count_probability[0] < 0.01 and group.count_probability.argmax() == 1
    assert Flag.AMBIGUOUS_COUNT not in group.flags and not result.targets.flags[0] & Flag.AMBIGUOUS_COUNT


def test_a_sum_of_windows_can_be_ambiguous_where_none_of_them_is() -> None:
    one = np.array([0.07, 0.93])
    together = np.convolve(np.convolve(one, one), one)
    assert together[3] < 0.9 and ambiguity(together, 3) == Flag.AMBIGUOUS_COUNT
    assert ambiguity(one, 1) == Flag(0) and ambiguity(np.empty(0), 4) == Flag(0)
    assert ambiguity(one, 2) == Flag.AMBIGUOUS_COUNT  # more than the window allows


@pytest.mark.parametrize("apart_px", [0.5, 0.9, 2.0])
def test_the_score_is_the_share_of_samples_there_times_the_probability_of_counts(apart_px: float) -> None:
    """The score of the posterior that the same group hands out, at every certainty."""
    sensor = Sensor(read_noise=6.0)
    scene = Targets(x=[5.0, 5.0 + apart_px], y=[5.0, 5.1], intensity=[230.0, 200.0])
    stack = np.stack([sensor.observe(scene, seed) for seed in range(4)])
    for found, group in zip(*Continuous(sensor=sensor, mode="fast").solve(stack, keep_samples=True), strict=True):
        assert group.samples is not None and len(found) == group.count
        for x, y, score, x_std in zip(found.x, found.y, found.score, found.x_std, strict=True):
            distance = np.hypot(group.samples[:, :, 0] - x, group.samples[:, :, 1] - y).min(axis=1)
            share = (distance <= TOLERANCES_PX[-1]).mean()
            # Of the reported count, and of others whose best fit has a target there as well.
            assert share * group.count_probability[group.count] - 0.05 < score < share + 0.05
            assert score < 0.95 or x_std < 0.25


# --- the documentation of the flags -------------------------------------------------------------------------


def window(scene: Targets, sensor: Sensor, **options: object) -> tuple[Targets, Group]:
    image = options.pop("image", None)
    image = sensor.observe(scene, 1) if image is None else image
    targets, groups = Continuous(sensor=sensor, mode="fast", **options).solve(np.asarray(image)[None])  # type: ignore[arg-type]
    return targets[0], groups[0]


def test_at_bound_is_a_flux_that_the_prior_does_not_allow() -> None:
    found, _ = window(
        Targets(x=[5.1], y=[5.2], intensity=[400.0]),
        Sensor(read_noise=1.0),
        prior=ScenePrior(intensity_range=(50, 300), count_range=(1, 1)),
    )
    assert found.flags[0] & Flag.AT_BOUND
    allowed, _ = window(Targets(x=[5.1], y=[5.2], intensity=[200.0]), Sensor(read_noise=1.0))
    assert not allowed.flags[0] & Flag.AT_BOUND


def test_saturated_is_a_pixel_at_the_ceiling() -> None:
    sensor = Sensor(read_noise=1.0, saturation=120.0)
    scene = Targets(x=[5.1], y=[5.2], intensity=[400.0])
    bright, group = window(scene, sensor)
    assert bright.flags[0] & Flag.SATURATED and Flag.SATURATED in group.flags
    faint, group = window(scene.replace(intensity=[100.0]), sensor)
    assert not faint.flags[0] & Flag.SATURATED and Flag.SATURATED not in group.flags


def eight_bits(scene: Targets, sensor: Sensor, seed: int) -> np.ndarray:
    """A frame of 8 bits that clips at white, with a noise of 2 counts."""
    noise = np.random.default_rng(seed).normal(0.0, 2.0, sensor.shape)
    return np.clip(np.rint(sensor.render(scene) + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("gap_px", [2.0, 3.0, 4.0])
@pytest.mark.parametrize("flux", [4000.0, 10000.0])
def test_a_saturated_pair_of_8_bits_with_unknown_psf(gap_px: float, flux: float) -> None:
    """Four faint stars show the PSF; count, positions, fluxes and their errors agree with the truth."""
    x, y = np.array([40.0, 40.0 + gap_px, 15.2, 60.4, 62.7, 20.5]), np.array([32.0, 32.3, 12.3, 14.1, 50.2, 48.8])
    truth = Targets(x=x, y=y, intensity=[flux, 0.8 * flux, 900.0, 800.0, 1000.0, 700.0])
    image = eight_bits(truth, Sensor(GaussianPSF(1.2), shape=(64, 80), background=30.0), seed=0)
    assert (image == 255).sum() > 10
    found = unmix_frame(image, mode="fast").targets
    assert len(found) == 6
    near = np.hypot(found.x - 40.0, found.y - 32.0) < 8.0
    assert near.sum() == 2 and (found.flags[near] & Flag.SATURATED).all()
    order = np.flatnonzero(near)[np.argsort(found.x[near])]
    assert (np.abs(found.x[order] - x[:2]) < 3.0 * found.x_std[order]).all()
    assert (np.abs(found.intensity[order] - truth.intensity[:2]) < 3.0 * found.intensity_std[order]).all()


@pytest.mark.parametrize("sigma_px", [0.8, 1.2, 1.8])
def test_a_saturated_star_alone_shows_the_psf_by_its_unsaturated_pixels(sigma_px: float) -> None:
    """Its clipped top was fitted like the rest: a PSF 1.4 times too wide, and half of the flux."""
    sensor = Sensor(GaussianPSF(sigma_px), shape=(64, 80), background=30.0)
    result = unmix_frame(eight_bits(Targets(x=[40.3], y=[32.2], intensity=[8000.0]), sensor, seed=1), mode="fast")
    assert len(result.targets) == 1 and result.targets.flags[0] & Flag.SATURATED
    assert result.psf.sigma_px == pytest.approx(sigma_px, rel=0.03)  # type: ignore[attr-defined]
    assert result.targets.intensity[0] == pytest.approx(8000.0, rel=0.05)


def test_masked_is_a_pixel_without_a_value() -> None:
    sensor = Sensor(read_noise=1.0)
    image = sensor.observe(Targets(x=[5.1], y=[5.2], intensity=[230.0]), 0)
    image[4, 4] = np.nan
    found, group = window(Targets.empty(), sensor, image=image, mask_nan=True)
    assert len(found) == 1 and found.flags[0] & Flag.MASKED and Flag.MASKED in group.flags


def test_ambiguous_count_is_a_pair_that_may_be_one_target() -> None:
    sensor = Sensor(read_noise=8.0)
    flagged = 0
    for seed in range(4):
        pair = Targets(x=[5.0, 5.45], y=[5.0, 5.1], intensity=[230.0, 230.0])
        found, group = window(pair, sensor, image=sensor.observe(pair, seed))
        others = 1.0 - group.count_probability[group.count]
        assert (others > 0.1) == (Flag.AMBIGUOUS_COUNT in group.flags)
        assert all(bool(bits & Flag.AMBIGUOUS_COUNT) == (others > 0.1) for bits in found.flags)
        flagged += others > 0.1
    assert flagged > 0


@pytest.mark.parametrize("converged", [True, False])
def test_not_converged_is_a_search_that_was_stopped(converged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def search(*arguments: object) -> None:
        search_stack(*arguments)
        arguments[-1].converged[:] = converged  # type: ignore[attr-defined]

    monkeypatch.setattr(solvers, "search_stack", search)
    found, _ = window(Targets(x=[5.1], y=[5.2], intensity=[200.0]), Sensor(read_noise=1.0))
    assert len(found) == 1 and bool(found.flags[0] & Flag.NOT_CONVERGED) != converged


def test_not_converged_is_seen_with_default_options_on_a_single_hot_pixel() -> None:
    images = np.random.default_rng(0).normal(0.0, 1.0, (24, 11, 11))
    images[:, 5, 5] += 1000.0
    targets, _ = Continuous(sensor=Sensor(), mode="fast").solve(images)
    assert any((found.flags & int(Flag.NOT_CONVERGED)).any() for found in targets)


def test_poor_fit_is_light_that_no_points_explain() -> None:
    image = np.zeros((11, 11))
    image[5, :] = 200.0
    found, group = window(Targets.empty(), Sensor(read_noise=1.0), image=image)
    assert Flag.POOR_FIT in group.flags
    assert all(bits & Flag.POOR_FIT for bits in found.flags) and (found.score < 0.2).all()


def test_upper_limit_is_a_flux_below_three_standard_errors() -> None:
    image = SKY.observe(Targets(x=[20.0], y=[30.0], intensity=[1500.0]), 2)
    measured = forced_photometry(image, [20.0, 60.0], [30.0, 20.0], psf=1.1, noise_std=2.0)
    faint = measured.intensity < 3.0 * measured.intensity_std
    assert faint.tolist() == [False, True]
    assert [bool(bits & Flag.UPPER_LIMIT) for bits in measured.flags] == faint.tolist()


@pytest.mark.parametrize("flag", Flag)
def test_every_flag_is_provoked_here_or_among_the_wide_sources(flag: Flag) -> None:
    """The page of the flags is made from their texts; each has a test that provokes it."""
    name = f"test_{flag.name.lower()}_is_"  # type: ignore[union-attr]
    wide = flag in Flag.EXTENDED | Flag.STREAK  # tests/frames/test_sources.py
    assert wide or any(each.startswith(name) for each in globals())
