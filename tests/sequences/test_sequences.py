"""Joint unmixing of sequences of windows."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.optimize import least_squares, linear_sum_assignment
from scipy.stats import multivariate_normal

import csist
from csist.checks import InputError
from csist.methods.continuous.optics import optics_of
from csist.methods.continuous.sequence.annealing import path_kernels
from csist.methods.continuous.sequence.likelihood import call_path_log_likelihoods
from csist.methods.continuous.sequence.model import LANES, PathPosterior, film_around, make_path_scratch
from csist.methods.continuous.sequence.path import brightest_line, common_path
from csist.methods.continuous.sequence.solver import PATH_EFFORTS, PathSolver
from csist.methods.continuous.sequence.start import overlap_table
from csist.physics.bounds import cramer_rao_bound, joint_bound
from csist.sequences.fluxes import with_own_fluxes
from csist.sequences.motion import motion_law
from csist.sequences.report import in_one_order
from csist.trajectories import MotionPrior, sample_trajectories

SKY = csist.Sensor(read_noise=2.0)
GROUP = csist.ScenePrior.csist_100k()
ANYWHERE = replace(GROUP, count_range=(1, 3), single_pixel=False)


def video(paths: list[tuple[float, ...]], frames: int = 12, sensor: csist.Sensor = SKY, seed: int = 0) -> np.ndarray:
    """Frames of targets given as x, y, vx, vy, intensity."""
    rng = np.random.default_rng(seed)
    x, y, vx, vy, flux = np.array(paths).T
    scenes = [csist.Targets(x + t * vx, y + t * vy, flux) for t in range(frames)]
    return np.stack([sensor.observe(scene, rng) for scene in scenes])


PAIR = [(5.3, 4.8, 0.10, -0.02, 240.0), (4.7, 5.2, 0.11, -0.02, 230.0)]


@pytest.fixture(scope="module")
def pair() -> csist.SequenceResult:
    return csist.unmix_sequence(video(PAIR), SKY, GROUP, mode="fast")


def test_pair_is_found_with_its_path(pair):
    assert pair.count == 2
    assert pair.count_probability[2] > 0.99
    for x, y, vx, vy, flux in PAIR:
        near = min(pair.tracks, key=lambda track: math.hypot(track.state[0] - x, track.state[1] - y))
        assert np.abs(near.state[:2] - [x, y]).max() < 0.15
        assert np.abs(near.state[2:4] - [vx, vy]).max() < 0.02
        assert abs(near.state[4] - flux) < 20.0
        assert near.existence_probability > 0.9


def test_frames_and_tracks_agree(pair):
    assert len(pair.frames) == 12
    for t, targets in enumerate(pair.frames):
        assert targets.track.tolist() == [0, 1]
        for track, x, y in zip(pair.tracks, targets.x, targets.y, strict=True):
            state, covariance = track.at(t)
            assert np.abs(state[:2] - [x, y]).max() < 0.1  # the mode of a smoothed posterior against its mean
            assert np.linalg.eigvalsh(covariance).min() > 0.0


def test_same_input_gives_the_same_answer(pair):
    assert csist.unmix_sequence(video(PAIR), SKY, GROUP, mode="fast").frames == pair.frames


def test_more_frames_give_smaller_errors(pair):
    short = csist.unmix_sequence(video(PAIR)[:3], SKY, GROUP, mode="fast")
    assert np.mean([track.covariance[2, 2] for track in pair.tracks]) < np.mean(
        [track.covariance[2, 2] for track in short.tracks]
    )


def test_whole_pixels_of_shift_move_the_answer(pair):
    moved = csist.unmix_sequence(np.roll(video(PAIR), (1, 2), axis=(1, 2)), SKY, GROUP, mode="fast")
    states = np.array(sorted(track.state.tolist() for track in moved.tracks))
    expected = np.array(sorted(track.state.tolist() for track in pair.tracks)) + np.array([2.0, 1.0, 0.0, 0.0, 0.0])
    assert np.abs(states - expected)[:, :2].max() < 0.1


def test_one_frame_equals_unmix():
    image = video(PAIR)[0]
    alone = csist.unmix(image, SKY, GROUP)
    joint = csist.unmix_sequence(image[None], SKY, GROUP)
    assert joint.frames[0].replace(track=None) == alone
    assert [track.id for track in joint.tracks] == list(range(len(alone)))
    assert joint.tracks[0].covariance[2, 2] == pytest.approx(0.25 * (0.15**2 + 0.02**2))
    assert joint.notes == ["there is one frame: velocities are those of the prior"]


def test_faint_target_that_no_frame_shows():
    sky = csist.Sensor(read_noise=5.0)
    frames = video([(3.0, 4.0, 0.12, 0.05, 40.0)], 20, sky, seed=3)
    found = csist.unmix_sequence(frames, sky)
    assert found.count == 1
    assert np.abs(found.tracks[0].state[:2] - [3.0, 4.0]).max() < 0.4
    assert sum(map(len, csist.unmix(frames, sky, mode="fast"))) < 20


def test_noise_alone_has_no_targets():
    found = csist.unmix_sequence(np.random.default_rng(1).normal(0.0, 2.0, (8, 11, 11)), SKY, mode="fast")
    assert found.count == 0
    assert found.tracks == []
    assert [len(targets) for targets in found.frames] == [0] * 8


@pytest.mark.parametrize("motion", ["acceleration", "free"])
def test_other_motions_follow_a_straight_path(motion):
    found = csist.unmix_sequence(video([(3.0, 4.0, 0.1, 0.05, 240.0)]), SKY, GROUP, motion, mode="fast")
    assert found.count == 1
    assert np.abs(found.frames[6].x - 3.6) < 0.1
    assert np.abs(found.frames[6].y - 4.3) < 0.1


def test_bent_path_needs_acceleration():
    x = 4.0 + 0.006 * 0.5 * np.arange(12) ** 2
    frames = np.stack([SKY.observe(csist.Targets([each], [5.0], [240.0]), t) for t, each in enumerate(x)])
    bent = csist.unmix_sequence(frames, SKY, GROUP, "acceleration", mode="fast")
    assert bent.tracks[0].bend[0] == pytest.approx(0.006, abs=0.003)
    assert abs(bent.frames[11].x[0] - x[11]) < abs(
        csist.unmix_sequence(frames, SKY, GROUP, mode="fast").frames[11].x[0] - x[11]
    )


def test_a_target_that_leaves_and_one_that_appears():
    """Each is there in its own frames only, in another pixel."""
    rng, scenes = np.random.default_rng(4), []
    for t in range(16):
        own = ([3.0 + 0.05 * t], [4.0], [240.0]) if t < 10 else ([], [], [])
        other = ([7.5], [7.0 - 0.04 * t], [200.0]) if t >= 4 else ([], [], [])
        scenes.append(csist.Targets(*(a + b for a, b in zip(own, other, strict=True))))
    found = csist.unmix_sequence(np.stack([SKY.observe(each, rng) for each in scenes]), SKY, mode="fast")
    assert found.count == 2
    assert sorted((track.first, track.last) for track in found.tracks) == [(0, 9), (4, 15)]
    assert [len(targets) for targets in found.frames] == [len(each) for each in scenes]
    for track in found.tracks:
        truth = ([3.0 + 0.05 * track.first, 4.0, 0.05, 0.0, 240.0] if track.first == 0
                 else [7.5, 7.0 - 0.16, 0.0, -0.04, 200.0])  # fmt: skip
        assert np.abs(track.state - truth)[:2].max() < 0.1
        assert np.abs(track.state - truth)[2:4].max() < 0.02
        assert abs(track.state[4] - truth[4]) < 15.0


def test_missing_and_repeated_frames_are_left_out():
    frames = video(PAIR)
    frames[3] = np.nan
    frames[7] = frames[6]
    found = csist.unmix_sequence(frames, SKY, GROUP, mode="fast")
    assert found.count == 2
    assert len(found.frames) == 12
    assert [note.split(" of ")[0] for note in found.notes] == ["1", "1"]


def test_frozen_video_is_one_frame():
    found = csist.unmix_sequence(np.repeat(video(PAIR)[:1], 5, axis=0), SKY, GROUP, mode="fast")
    assert [len(targets) for targets in found.frames] == [2, 0, 0, 0, 0]
    assert "only frame 0" in found.notes[1]


def test_masked_pixels_are_left_out():
    frames = video(PAIR)
    frames[:, 5, 5] = np.nan
    with pytest.raises(InputError, match="mask_nan"):
        csist.unmix_sequence(frames, SKY, GROUP)
    found = csist.unmix_sequence(frames, SKY, GROUP, mode="fast", mask_nan=True)
    assert found.count == 2
    assert csist.Flag.MASKED in found.flags


def test_times_set_the_unit_of_the_velocity():
    frames = video([(3.0, 4.0, 0.1, 0.05, 240.0)])
    kept = [0, 1, 4, 5, 9, 11]
    found = csist.unmix_sequence(frames[kept], SKY, GROUP, mode="fast", times=kept)
    assert abs(found.frames[-1].x[0] - 4.1) < 0.1
    assert found.tracks[0].state[2] == pytest.approx(0.1, abs=0.02)
    state, _ = found.tracks[0].at(11.0)
    assert state[0] == pytest.approx(found.frames[-1].x[0], abs=0.1)


def test_times_in_seconds_give_velocities_a_second():
    frames = video([(3.0, 4.0, 0.1, 0.05, 240.0)])
    prior = MotionPrior(start=GROUP, group_speed_px=30.0 * 0.15, own_speed_px=30.0 * 0.02)
    found = csist.unmix_sequence(frames, SKY, prior, mode="fast", times=100.0 + np.arange(12) / 30.0)
    assert found.tracks[0].state[2] == pytest.approx(3.0, abs=0.6)
    assert found.tracks[0].at(100.0)[0][0] == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize(
    "targets", [[(3.0, 5.0, 0.25, 0.0, 240.0)], [(3.0, 5.0, 0.25, 0.0, 235.0), (8.0, 5.2, -0.25, 0.0, 240.0)]]
)
def test_targets_faster_than_the_default_prior_are_followed(targets):
    frames = video(targets, 20, csist.Sensor(read_noise=3.0))
    found = csist.unmix_sequence(frames, csist.Sensor(read_noise=3.0), ANYWHERE, mode="fast")
    assert found.count == len(targets)
    assert found.notes == ["the targets move faster than the default prior's 0.15 px: up to 0.29 px is allowed"]
    speeds = sorted(track.state[2] for track in found.tracks)
    np.testing.assert_allclose(speeds, sorted(target[2] for target in targets), atol=0.02)


def test_a_motion_prior_is_kept_to():
    frames = video([(3.0, 5.0, 0.25, 0.0, 240.0)], 20)
    found = csist.unmix_sequence(frames, SKY, MotionPrior(start=ANYWHERE), mode="fast")
    assert csist.Flag.POOR_FIT in found.flags
    assert len(found.notes) == 1
    assert "a MotionPrior with larger speeds" in found.notes[0]


def test_the_only_usable_frame_keeps_its_time():
    frames = video(PAIR)[:3]
    frames[[0, 2]] = np.nan
    found = csist.unmix_sequence(frames, SKY, GROUP, mode="fast", times=[5.0, 6.0, 7.5])
    assert (found.tracks[0].first, found.tracks[0].time) == (1, 6.0)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        ([np.zeros((11, 11)), np.zeros((9, 11))], {}, "frame 1 is"),
        (np.zeros((11, 11)), {}, "use unmix"),
        (np.zeros((3, 11, 11)), {"times": [0, 2, 1]}, "must increase"),
        (np.zeros((3, 11, 11)), {"times": [0, 2]}, "one per frame"),
        (np.zeros((3, 11, 11)), {"motion": "bent"}, "motion must be"),
        (np.zeros((3, 11, 11)), {"mode": "slow"}, "mode must be"),
        (np.full((3, 11, 11), np.nan), {}, "none of the 3 frames"),
        (np.zeros((3, 11, 11)), {"motion_std_px": 0.0}, "motion_std_px"),
    ],
)
def test_bad_input_is_one_line(frames, options, message):
    with pytest.raises(InputError, match=message):
        csist.unmix_sequence(frames, SKY, **options)


def test_likelihood_is_that_of_correlated_noise():
    """Scintillation, integrated out, is Gaussian noise that the pixels of a target share."""
    from csist._compiled import compiled

    @compiled
    def evaluate(address, posterior, state, value):
        call_path_log_likelihoods(address, posterior, state, make_path_scratch(posterior), value)

    motion = MotionPrior(scintillation=0.1)
    frames = video(PAIR, 4)
    weight = np.full(frames.shape, 1.0 / (4.0 + 1.0 / 12.0))
    weight[1, 5, 5] = 0.0
    law = motion_law(np.arange(4.0), "linear", motion, SKY, 2.0, 0.05)
    film = film_around(np.where(weight > 0, frames, 0.0), weight, np.full((4, 2), 5.0), 11)
    theta = [0.1, -0.02, 5.3, 4.8, 0.0, 0.01, 240.0, 4.7, 5.2, -0.01, 0.0, 230.0]
    state = np.repeat(np.array(theta, np.float32)[:, None], LANES, axis=1)
    value = np.empty(LANES, np.float32)
    posterior = PathPosterior(2, film, law, optics_of(SKY.psf).polynomials, np.ones((2, 4), np.float32))
    evaluate(path_kernels().log_likelihoods, posterior, state, value)
    expected = 0.0
    for t in range(4):
        place = np.array([[5.3 + 0.1 * t, 4.8 - 0.01 * t], [4.7 + 0.09 * t, 5.2 - 0.02 * t]])
        light = SKY.responses(place[:, 0], place[:, 1]).reshape(2, -1)
        flux, kept = np.array([240.0, 230.0]), weight[t].ravel() > 0
        covariance = np.eye(121) * (4.0 + 1.0 / 12.0) + (light.T * (0.1 * flux) ** 2) @ light
        own = multivariate_normal((flux @ light)[kept], covariance[np.ix_(kept, kept)])
        expected += own.logpdf(frames[t].ravel()[kept]) + 0.5 * kept.sum() * math.log(2 * math.pi * (4 + 1 / 12))
    assert float(value[0]) == pytest.approx(expected, abs=0.02)


def test_common_path_of_a_bright_group():
    frames = video([(3.0, 6.0, 0.2, -0.1, 500.0)], 15)
    path = common_path(frames, np.stack([np.ones(15), np.arange(15.0)]), 0.3, np.zeros((15, 2)))
    assert np.abs(path - [[3.0, 6.0], [0.2, -0.1]]).max() < 0.05


def test_overlap_is_the_mean_over_phases():
    psf = csist.GaussianPSF(0.5)
    table = overlap_table(psf)
    sensor = csist.Sensor(psf=psf, shape=(15, 15))
    phases = (np.arange(16) / 16.0)[:, None] + np.zeros(16)
    first = sensor.responses(7.0 + phases.ravel(), 7.0 + phases.T.ravel())
    second = sensor.responses(7.5 + phases.ravel(), 6.75 + phases.T.ravel())
    expected = (first * second).sum(axis=(1, 2)).mean()
    middle = len(table) // 2
    assert table[middle - 4, middle + 8] == pytest.approx(expected, rel=1e-3)


def test_order_of_targets_follows_the_paths():
    rng = np.random.default_rng(0)
    basis = np.stack([np.ones(5), np.arange(5.0)])
    truth = np.array([[3.0, 3.0, 0.1, 0.0, 200.0], [5.0, 5.0, 0.0, 0.1, 210.0], [7.0, 3.0, -0.1, 0.0, 220.0]])
    samples = np.stack([truth[rng.permutation(3)] for _ in range(50)])
    ordered = in_one_order(samples, basis)
    assert (ordered == ordered[:1]).all()


def test_joint_bound_of_a_still_target_falls_with_the_root():
    still = [csist.Targets([5.2], [4.9], [235.0])] * 9
    single = cramer_rao_bound(still[0], SKY)
    joint = joint_bound(still, SKY)
    assert joint.x[0] == pytest.approx(single.x[0] / 3.0)
    assert joint.intensity[0] == pytest.approx(single.intensity[0] / 3.0)
    assert joint_bound(still, SKY, 0.1).intensity[0] > joint.intensity[0]
    assert joint_bound(still[:1], SKY).x[0] == pytest.approx(single.x[0])


def test_joint_bound_of_nothing_and_of_changing_counts():
    assert joint_bound([csist.Targets.empty()] * 3, SKY).x.size == 0
    with pytest.raises(InputError, match="same targets"):
        joint_bound([csist.Targets.empty(), csist.Targets([5.0], [5.0], [200.0])], SKY)


def test_counts_of_groups_at_high_noise():
    sensor, motion = csist.Sensor(read_noise=5.0), MotionPrior()
    for seed, path in enumerate(sample_trajectories(motion, sensor, 4, 7)):
        frames = np.stack([sensor.observe(scene, [seed, t]) for t, scene in enumerate(path)])
        assert csist.unmix_sequence(frames, sensor, motion, mode="fast").count == len(path[0])


def test_line_of_faint_frames_has_the_right_direction():
    frames = video([(3.0, 7.0, 0.15, -0.1, 60.0)], 20, csist.Sensor(read_noise=5.0), seed=2)
    velocity, place = brightest_line(gaussian_filter(frames, (0.0, 0.5, 0.5)), np.arange(20.0), 0.2, 0.5)
    assert np.abs(velocity - [0.15, -0.1]).max() < 0.04
    assert np.abs(place - [3.0, 7.0]).max() <= 1.0


def test_rectangle_of_equal_weights_is_even():
    weight = np.full((4, 9, 9), 0.25)
    weight[1, 4, 4] = 0.0
    weight[2, 4, 4] = 0.2
    weight[3] = 0.0
    film = film_around(np.zeros((4, 9, 9)), weight, np.array([[1.0, 5.0]] * 4), 7)
    assert film.even.tolist() == [0.25, 0.0, 0.0, 0.0]
    assert film.inside[0].tolist() == [0, 7, 2, 7]
    assert film.inside[3].tolist() == [0, 0, 0, 0]


def test_masked_frames_and_whole_ones_share_one_likelihood():
    """A masked pixel without light takes the way pixel by pixel, with the same answer."""
    frames = video(PAIR)
    whole = csist.unmix_sequence(frames, SKY, GROUP, mode="fast")
    frames[:, 2, 5] = np.nan
    masked = csist.unmix_sequence(frames, SKY, GROUP, mode="fast", mask_nan=True)
    for one in whole.tracks:
        apart = [np.abs(one.state[:4] - other.state[:4]) for other in masked.tracks]
        assert min(each[:2].max() for each in apart) < 0.1
        assert min(each[2:].max() for each in apart) < 0.02


def test_fast_does_not_settle_in_a_wrong_arrangement():
    """Four targets of which short chains of `fast` once found another arrangement, 15 standard errors off."""
    sensor, motion, seed = csist.Sensor(read_noise=2.0), MotionPrior(), 20_262
    paths, rng = sample_trajectories(motion, sensor, 60, seed), np.random.default_rng([seed, 20])
    stacks = [np.stack([sensor.observe(each, rng) for each in path]) for path in paths[:12]]
    truth, found = paths[11], csist.unmix_sequence(stacks[11], sensor, motion, noise_std=2.0, mode="fast").frames
    assert len(truth[0]) == len(found[0]) == 4
    for one, true in zip(found, truth, strict=True):
        i, j = linear_sum_assignment((one.x[:, None] - true.x) ** 2 + (one.y[:, None] - true.y) ** 2)
        assert np.abs(one.x[i] - true.x[j]).max() < 0.1
        assert np.abs(one.y[i] - true.y[j]).max() < 0.1


@pytest.mark.parametrize("seed", [0, 4])
def test_targets_that_cross_under_the_flat_prior(seed):
    """Added along any common path each of them is a streak, and fainter targets beside them were reported."""
    sky = csist.Sensor(read_noise=3.0)
    frames = video([(3.0, 5.0, 0.22, 0.01, 240.0), (7.5, 5.3, -0.2, -0.02, 200.0)], 20, sky, seed)
    found = csist.unmix_sequence(frames, sky, mode="fast")
    assert found.count == 2
    assert found.count_probability[2] > 0.95  # once three were as probable, or e^11 times more
    np.testing.assert_allclose(sorted(track.state[2] for track in found.tracks), [-0.2, 0.22], atol=0.02)


def test_a_group_that_stays_has_targets_that_move():
    law = MotionPrior(start=ANYWHERE, group_speed_px=0.0)
    found = csist.unmix_sequence(video([(3.0, 5.0, 0.0, 0.0, 240.0)]), SKY, law, mode="fast")
    assert found.count == 1
    assert np.isfinite(found.count_probability).all()


@pytest.mark.parametrize("mode", PATH_EFFORTS)
def test_evidence_is_that_of_the_normal_approximation(mode):
    """Of one bright target, whose posterior is normal, from finite differences of its light."""
    sky = csist.Sensor(read_noise=2.0, quantised=False)
    time = np.arange(10.0)
    start = csist.ScenePrior(count_range=(1, 2), intensity_range=(100.0, 400.0), single_pixel=False)
    prior = MotionPrior(start=start, group_speed_px=0.3, own_speed_px=0.0, scintillation=0.0)
    law = motion_law(time, "linear", prior, sky, 2.0, 0.05)
    truth = np.array([4.2, 5.3, 0.12, -0.05, 260.0])
    frames = video([tuple(truth)], len(time), sky, 3)
    found = PathSolver(sky, start, law, PATH_EFFORTS[mode]).solve(frames, np.full(frames.shape, 0.25))

    def residual(theta):
        x, y, vx, vy, flux = theta
        scenes = [csist.Targets([x + t * vx], [y + t * vy], [flux]) for t in time]
        return 0.5 * (frames - np.stack([sky.render(scene) for scene in scenes])).ravel()

    fitted = least_squares(residual, truth, x_scale=[0.01, 0.01, 0.001, 0.001, 1.0])
    information = fitted.jac.T @ fitted.jac
    log_prior = -math.log(11.0 * 11.0 * 300.0 * math.pi * 0.3**2)
    expected = log_prior - fitted.cost + 2.5 * math.log(2.0 * math.pi) - 0.5 * np.linalg.slogdet(information)[1]
    assert abs(found.log_evidence[1] - expected) < 0.7


def test_fluxes_of_frames_are_those_of_the_linear_posterior():
    psf, rng = csist.GaussianPSF(0.9), np.random.default_rng(3)
    targets = csist.Targets([4.0, 5.2], [5.0, 5.6], [400.0, 300.0], intensity_std=[50.0, 40.0])
    data, weight, s = rng.normal(20.0, 5.0, (2, 11, 11)), np.full((2, 11, 11), 1.0 / 25.0), 0.1
    weight[1] = 0.0
    first, second = with_own_fluxes(data, weight, [targets, targets], psf, s)
    rows, columns = np.indices((11, 11))
    design = np.stack([psf.response(columns - x, rows - y).ravel() for x, y in zip(targets.x, targets.y, strict=True)])
    # The prior as two further measurements of the fluxes.
    stacked = np.concatenate([design.T / 5.0, np.diag(1.0 / (s * targets.intensity))])
    values = np.concatenate([data[0].ravel() / 5.0, np.full(2, 1.0 / s)])
    expected = np.linalg.lstsq(stacked, values, rcond=None)[0]
    np.testing.assert_allclose(first.intensity, expected, rtol=1e-8)
    of_mean = targets.intensity_std**2 - (s * targets.intensity) ** 2
    own = np.diag(np.linalg.inv(stacked.T @ stacked))
    np.testing.assert_allclose(first.intensity_std, np.sqrt(of_mean + own), rtol=1e-8)
    assert second == targets  # nothing is seen there
    assert with_own_fluxes(data, weight, [targets, targets], psf, 0.0) == [targets, targets]
    assert with_own_fluxes(data, weight, [csist.Targets.empty()] * 2, psf, s) == [csist.Targets.empty()] * 2


def test_a_target_that_fades_has_the_flux_of_each_frame():
    rng = np.random.default_rng(5)
    sky = csist.Sensor(csist.GaussianPSF(0.9), shape=(40, 48), background=50.0, read_noise=3.0)
    fluxes = 900.0 * np.abs(np.cos(np.linspace(0.0, np.pi, 14)))  # to nearly nothing and back
    path = [
        csist.Targets([20.0 + 0.4 * t, 24.0 + 0.4 * t], [20.0, 21.0], [700.0, flux]) for t, flux in enumerate(fluxes)
    ]
    found = csist.unmix_sequence(np.stack([sky.observe(each, rng) for each in path]), sky, mode="fast")
    for truth, targets in zip(path, found.frames, strict=True):
        for x, flux in zip(truth.x, truth.intensity, strict=True):
            near = np.flatnonzero(np.abs(targets.x - x) < 0.5)
            seen = targets.intensity[near].sum()
            assert abs(seen - flux) < 130.0  # once up to 700 too much
