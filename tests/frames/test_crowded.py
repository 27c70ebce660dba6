"""Crowded frames, fitted all at once."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import poisson

from csist.checks import InputError
from csist.frames import unmix_frame
from csist.frames.crowded import groups
from csist.frames.crowded.evidence import GroupEvidence, GroupWeigher, weigh_groups
from csist.frames.crowded.fit import fit_together, is_unexplained, least_squares
from csist.frames.crowded.groups import _corrected
from csist.frames.crowded.model import CrowdedFit, CrowdedFrame, PatchBackground, first_nodes
from csist.frames.measured import FramePSF, FrameRules, measure_frame
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Flag, Targets

PSF, NOISE, SHAPE = GaussianPSF(1.0), 3.0, (48, 56)


def crowd(seed=0, number=110):
    rng = np.random.default_rng(seed)
    truth = Targets(
        x=rng.uniform(0, SHAPE[1] - 1, number), y=rng.uniform(0, SHAPE[0] - 1, number),
        intensity=np.exp(rng.uniform(*np.log([300.0, 5000.0]), number)),
    )  # fmt: skip
    clean = Sensor(psf=PSF, shape=SHAPE, quantised=False).render(truth)
    slope = 100.0 + 0.3 * np.arange(SHAPE[1])
    return truth, clean + slope + rng.normal(0.0, NOISE, SHAPE)


def test_crowd_is_fitted_together():
    truth, frame = crowd()
    result = unmix_frame(frame, psf=PSF, noise_std=NOISE, detector="crowded", false_alarm_rate=1e-4)
    found, groups = result.targets, result.groups
    apart = np.hypot(truth.x[:, None] - truth.x, truth.y[:, None] - truth.y) + 99.0 * np.eye(len(truth))
    single = np.flatnonzero(apart.min(axis=1) > 1.9)  # 1 R
    distance = np.hypot(truth.x[:, None] - found.x, truth.y[:, None] - found.y)
    nearest = distance.argmin(axis=1)
    assert (distance.min(axis=1)[single] < 0.3).mean() > 0.93
    assert len(found) <= len(truth)
    ratio = found.intensity[nearest[single]] / truth.intensity[single]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.03)
    pull = (found.x[nearest] - truth.x)[single] / found.x_std[nearest[single]]
    assert 0.6 < 1.48 * np.median(np.abs(pull)) < 1.6
    assert sum(group.count for group in groups) == len(found)
    assert [group.number for group in groups] == list(range(len(groups)))
    # the model is that of the fit, its background too: what is left is the noise
    assert result.residual().std() == pytest.approx(NOISE, rel=0.15)
    slope = 100.0 + 0.3 * np.arange(SHAPE[1])
    assert np.abs(result.background - slope).mean() < NOISE
    assert (result.noise == NOISE).all()


def test_noise_is_measured_and_bad_pixels_are_left_out():
    truth, frame = crowd(1, 40)
    frame[20, 20] = np.nan
    found = unmix_frame(frame, psf=PSF, detector="crowded", false_alarm_rate=1e-6).targets
    distance = np.hypot(truth.x[:, None] - found.x, truth.y[:, None] - found.y).min(axis=1)
    assert (distance < 0.3).mean() > 0.8
    assert len(found) <= 44
    assert (found.flags & int(Flag.MASKED)).any() == (np.hypot(found.x - 20, found.y - 20) < 3).any()


def test_dark_frame_has_no_targets_and_psf_is_needed():
    dark = np.random.default_rng(0).normal(0.0, 1.0, (40, 40))
    assert len(unmix_frame(dark, psf=PSF, noise_std=1.0, detector="crowded").targets) == 0
    with pytest.raises(InputError, match="needs the PSF"):
        unmix_frame(dark, detector="crowded")
    with pytest.raises(InputError, match="contrast, matched, crowded, got 'best'"):
        unmix_frame(dark, detector="best")


@pytest.mark.parametrize("height", [5.0, 20.0, 40.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_smooth_hump_is_background(height, seed):
    y, x = np.mgrid[:64, :64]
    hump = height * np.exp(-0.5 * ((x - 38) ** 2 + (y - 26) ** 2) / 17.5**2)
    frame = np.random.default_rng(seed).normal(20.0, 2.0, (64, 64)) + hump
    result = unmix_frame(frame, psf=GaussianPSF(1.3), detector="crowded", mode="fast")
    assert len(result.targets) == 0
    assert np.abs(result.background - 20.0 - hump).max() < 2.5


def test_targets_on_a_hump_keep_their_fluxes():
    y, x = np.mgrid[:64, :64]
    rng, psf = np.random.default_rng(4), GaussianPSF(1.3)
    truth = Targets(rng.uniform(3, 60, 30), rng.uniform(3, 60, 30), rng.uniform(400.0, 1500.0, 30))
    clean = Sensor(psf, shape=(64, 64), quantised=False).render(truth)
    frame = clean + 10.0 + 30.0 * np.exp(-0.5 * ((x - 38) ** 2 + (y - 26) ** 2) / 17.5**2) + rng.normal(0, 3, (64, 64))
    found = unmix_frame(frame, psf=psf, noise_std=3.0, detector="crowded", mode="fast").targets
    distance = np.hypot(truth.x[:, None] - found.x, truth.y[:, None] - found.y)
    nearest = distance.argmin(axis=1)
    right = distance.min(axis=1) < 0.6
    assert right.mean() > 0.9
    assert len(found) - right.sum() <= 2
    pull = (found.intensity[nearest] - truth.intensity)[right] / found.intensity_std[nearest[right]]
    assert 1.48 * np.median(np.abs(pull)) < 1.7


def test_background_is_eliminated_from_the_least_squares():
    rng = np.random.default_rng(2)
    design, patches, residual = rng.normal(size=(90, 12)), rng.normal(size=(90, 4)), rng.normal(size=90)
    step, nodes = least_squares(csr_array(design), csr_array(patches), residual)
    damping = np.hstack([np.eye(12), np.zeros((12, 4))])
    whole = np.vstack([np.hstack([design, patches]), damping])
    expected = np.linalg.lstsq(whole, np.concatenate([residual, np.zeros(12)]), rcond=None)[0]
    assert np.concatenate([step, nodes]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_blend_that_stays_one_target_is_a_poor_fit():
    truth = Targets([14.3, 15.9, 40.2], [20.1, 20.1, 25.4], [9000.0, 2500.0, 9000.0])
    rng, psf = np.random.default_rng(3), GaussianPSF(1.0)
    frame = Sensor(psf, shape=SHAPE, quantised=False).render(truth) + rng.normal(50.0, 3.0, SHAPE)
    measured = measure_frame(frame, FrameRules(), psf)
    crowded = CrowdedFrame.of(measured, FramePSF(psf, 0.0, "given"), None)
    unit = (frame - Sensor(psf, shape=SHAPE, quantised=False).render(truth[[0, 2]]) - 50.0) / 3.0
    merged = np.array([[14.3, 20.1, 9000.0], [40.2, 25.4, 9000.0]])
    assert is_unexplained(crowded, unit.ravel(), merged).tolist() == [True, False]
    found = unmix_frame(frame, psf=psf, detector="crowded").targets
    assert len(found) == 3
    assert not (found.flags & int(Flag.POOR_FIT)).any()


def test_close_pairs_are_not_merged():
    psf, noise = GaussianPSF(1.3), 12.0
    missed = wrong = 0
    for seed in (6, 7, 8):
        rng = np.random.default_rng(seed)
        x, y = (each.ravel() + rng.uniform(-2, 2, 36) for each in np.meshgrid(*[np.arange(12.0, 100.0, 15.0)] * 2))
        flux, angle = 10 ** rng.uniform(3.2, 4.3, 36), rng.uniform(0, 2 * np.pi, 18)
        apart = 1.3 * rng.uniform(1.2, 2.0, 18)
        truth = Targets(
            np.append(x, x[:18] + apart * np.cos(angle)), np.append(y, y[:18] + apart * np.sin(angle)),
            np.append(flux, flux[:18] / rng.uniform(1, 4, 18)),
        )  # fmt: skip
        frame = Sensor(psf, shape=(100, 100), quantised=False).render(truth) + rng.normal(200.0, noise, (100, 100))
        found = unmix_frame(frame, psf=psf, noise_std=noise, detector="crowded", mode="fast").targets
        distance = np.hypot(truth.x[:, None] - found.x, truth.y[:, None] - found.y)
        nearest = distance.argmin(axis=1)
        pull = np.abs(found.intensity[nearest] - truth.intensity) / found.intensity_std[nearest]
        missed += len(truth) - len(found)
        wrong += (pull > 4.0).sum()
    # Of 54 pairs; 11 and 21 where the fainter one has to be significant by itself.
    assert abs(missed) <= 4
    assert wrong <= 7


def molecules(seed, number=14, side=64):
    rng = np.random.default_rng(seed)
    truth = Targets(
        rng.uniform(1, side - 2, number), rng.uniform(1, side - 2, number),
        np.exp(rng.uniform(*np.log([500.0, 5000.0]), number)),
    )  # fmt: skip
    clean = Sensor(GaussianPSF(1.3), shape=(side, side), quantised=False).render(truth) + 20.0
    return truth, rng.poisson(clean).astype(np.float64)


def test_scores_errors_and_counts_of_a_crowded_frame_are_probabilities():
    scores, right, pulls, counts, known = [], [], [], [], []
    for seed in range(6):
        truth, frame = molecules(seed)
        result = unmix_frame(frame, psf=GaussianPSF(1.3), detector="crowded", workers=1)
        assert result.gain == 1.0  # the photons of the targets are in the noise
        found = result.targets
        distance = np.hypot(truth.x[:, None] - found.x, truth.y[:, None] - found.y)
        hit = distance.min(axis=0) < 0.25
        of = distance.argmin(axis=0)
        scores += found.score.tolist()
        right += hit.tolist()
        pulls += ((found.intensity - truth.intensity[of]) / found.intensity_std)[hit].tolist()
        nearest = distance.argmin(axis=1)[distance.min(axis=1) < 2.6]
        for group in result.groups:
            own = np.flatnonzero(found.group == group.number)
            assert group.count == len(own)
            assert group.count_probability.sum() == pytest.approx(1.0)
            known.append(group.probability_of_count)
            counts.append(np.isin(nearest, own).sum() == group.count)
            assert 0.3 < group.chi_squared / group.degrees_of_freedom < 2.0
    assert np.mean(scores) == pytest.approx(np.mean(right), abs=0.05)
    assert np.mean(known) == pytest.approx(np.mean(counts), abs=0.06)
    assert 1.48 * np.median(np.abs(pulls)) == pytest.approx(1.0, abs=0.25)  # 1.7 without the photons


def test_values_that_are_no_photons_get_no_photon_noise():
    rng, (truth, _) = np.random.default_rng(0), molecules(0)
    clean = Sensor(GaussianPSF(1.3), shape=(64, 64), quantised=False).render(truth)
    frame = np.maximum(np.rint(clean + rng.normal(20.0, 20.0**0.5, clean.shape)), 0.0)
    assert unmix_frame(frame, psf=GaussianPSF(1.3), detector="crowded", workers=1).gain is None


def test_a_number_that_the_image_contradicts_is_corrected():
    x, y = (each.ravel() for each in np.meshgrid(np.arange(10.3, 90.0, 16.0), np.arange(10.2, 90.0, 16.0)))
    psf, noise = GaussianPSF(1.3), 3.0
    truth = Targets(np.append(x, x[:12] + 1.0), np.append(y, y[:12] + 0.5), np.full(len(x) + 12, 3000.0))
    clean = Sensor(psf, shape=(96, 96), quantised=False).render(truth)
    frame = clean + np.random.default_rng(5).normal(50.0, noise, clean.shape)
    measured = measure_frame(frame, FrameRules(noise_std=noise), psf)
    crowded = CrowdedFrame.of(measured, FramePSF(psf, 0.0, "given"), None)
    merged = CrowdedFit(np.column_stack([x, y, np.full(len(x), 4000.0)]), first_nodes(crowded))
    merged = fit_together(crowded, merged, 10)
    labels = np.arange(len(x))
    level = PatchBackground.of(crowded, merged).spread().level
    weigher = GroupWeigher(crowded, level, Targets(*merged.targets.T), ScenePrior.flat(), "fast")
    evidence = weigh_groups(weigher, list(labels[:, None]), 1)
    assert [int(each.probability.argmax()) for each in evidence] == [2] * 12 + [1] * (len(x) - 12)
    fit, owners = _corrected(crowded, merged, labels, evidence)
    assert np.bincount(owners).tolist() == [2] * 12 + [1] * (len(x) - 12)
    distance = np.hypot(truth.x[:, None] - fit.targets[:, 0], truth.y[:, None] - fit.targets[:, 1])
    assert distance.min(axis=1).max() < 0.25


def test_evidence_is_weighted_by_the_density_of_the_field():
    crowded = CrowdedFrame.of(measure_frame(crowd()[1], FrameRules(), PSF), FramePSF(PSF, 0.0, "given"), None)
    few = Targets([5.0, 30.0], [5.0, 30.0], [1000.0, 1000.0])
    weigher = GroupWeigher(crowded, np.zeros(SHAPE), few, ScenePrior.flat(), "fast")
    expected = poisson(2 / (SHAPE[0] * SHAPE[1]) * 100).pmf(np.arange(4))
    assert weigher.with_density(np.full(4, 0.25), 100) == pytest.approx(expected / expected.sum())


def test_a_correction_that_makes_a_neighbour_unclear_ends(monkeypatch):
    psf, truth = GaussianPSF(1.0), Targets([12.0, 13.2, 40.2], [20.1, 20.1, 25.4], [9000.0, 9000.0, 9000.0])
    frame = Sensor(psf, shape=SHAPE, quantised=False).render(truth) + np.random.default_rng(3).normal(50.0, 3.0, SHAPE)
    crowded = CrowdedFrame.of(measure_frame(frame, FrameRules(), psf), FramePSF(psf, 0.0, "given"), None)
    fit = CrowdedFit(np.array([[12.6, 20.1, 18000.0], [40.2, 25.4, 9000.0]]), first_nodes(crowded))
    pair = GroupEvidence(np.array([0.0, 0.0, 1.0]), truth[[0, 1]])
    alone = GroupEvidence(np.array([0.0, 1.0]), truth[[2]])

    def unclear(frame, weight, design, fit):
        """The neighbour, which has not been corrected, is less than its standard error afterwards."""
        return np.where(fit.targets[:, :1] > 30.0, np.inf, 1.0) * np.ones(3)

    monkeypatch.setattr(groups, "standard_errors", unclear)
    assert _corrected(crowded, fit, np.array([0, 1]), [pair, alone])[1].tolist() == [1, 0, 0]
