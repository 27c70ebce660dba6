"""How a camera shakes: the shifts that groups share."""

import numpy as np
import pytest

import csist
from csist.methods.continuous.sequence.model import film_around, moved_back
from csist.sequences.shake import Middles, displacements, middle_error, shake_of, steady

TIMES = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 15))
SKY = csist.Sensor(csist.GaussianPSF(1.0), shape=(40, 48), background=50.0, read_noise=3.0)


def middles(seed: int, shake: np.ndarray, groups: int, error: float = 0.02) -> Middles:
    """Groups that move along lines, each seen with the same error."""
    rng = np.random.default_rng(seed)
    first, speed = rng.uniform(0.0, 100.0, (groups, 1, 2)), rng.uniform(-1.0, 1.0, (groups, 1, 2))
    place = first + speed * TIMES[:, None] + shake
    errors = np.full((groups, len(TIMES)), error)
    return Middles(place + error * rng.standard_normal(place.shape), errors, np.ones(groups, np.int64))


def without_line(shift: np.ndarray) -> np.ndarray:
    """What is left of shifts (T, 2): a drift of the camera moves all paths alike."""
    powers = TIMES[:, None] ** np.arange(2)
    return shift - powers @ np.linalg.lstsq(powers, shift, rcond=None)[0]


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_shifts_are_found_to_their_errors(groups):
    pulls = []
    for seed in range(40):
        true = without_line(0.1 * np.random.default_rng(1000 + seed).standard_normal((len(TIMES), 2)))
        found = shake_of(middles(seed, true, groups), TIMES)
        assert found is not None
        assert found.std.max() < 1.6 * 0.02 / np.sqrt(groups)
        pulls.append((found.shift - true) / found.std[:, None])
    assert 0.85 < np.sqrt(np.mean(np.square(pulls))) < 1.1  # the line, which takes 2 of 15, is not in the errors


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_a_camera_that_stands_is_not_moved(groups):
    found = [shake_of(middles(seed, np.zeros((len(TIMES), 2)), groups), TIMES) for seed in range(300)]
    assert sum(each is not None for each in found) <= 1  # one in 10,000 is expected


def test_groups_that_do_not_agree_are_no_shake():
    rng = np.random.default_rng(3)
    own = middles(0, 0.2 * rng.standard_normal((4, len(TIMES), 2)), 4)
    assert shake_of(own, TIMES) is None
    assert shake_of(own.of(2), TIMES) is not None  # alone, the group says what moves it


def test_a_group_that_manoeuvres_and_one_that_is_seen_rarely_have_little_say():
    true = without_line(0.1 * np.random.default_rng(5).standard_normal((len(TIMES), 2)))
    given = middles(1, true, 5)
    given.place[0, :, 0] += 3.0 * np.sin(TIMES / 2.0)
    given.error[1, 3:] = np.inf
    given.place[1, 3:] = np.nan
    found = shake_of(given, TIMES)
    assert found is not None
    assert np.abs(found.shift - true).max() < 0.04
    assert shake_of(given.of(1), TIMES) is None  # three frames do not show a path and a shake


def test_a_frame_without_a_group_has_the_usual_error():
    true = without_line(0.1 * np.random.default_rng(6).standard_normal((len(TIMES), 2)))
    given = middles(2, true, 3)
    given.error[:, 7] = np.inf
    found = shake_of(given, TIMES)
    assert found is not None
    assert found.shift[7].tolist() == [0.0, 0.0]
    assert 0.05 < found.std[7] < 0.2


def test_groups_that_are_never_seen_together_are_no_shake():
    shake = 0.1 * np.random.default_rng(8).standard_normal((len(TIMES), 2))
    given = middles(3, shake, 2)
    assert shake_of(given, TIMES) is not None
    given.error[0, :8] = given.error[1, 8:] = np.inf
    assert shake_of(given, TIMES) is None
    assert shake_of(given._replace(error=np.full_like(given.error, np.inf)), TIMES) is None
    assert shake_of(Middles(*(each[:0] for each in given)), TIMES) is None


def test_a_single_group_that_manoeuvres_is_no_shake():
    slow = np.stack([0.4 * np.sin(TIMES / 3.0), 0.02 * TIMES**2], axis=1)
    assert shake_of(middles(0, slow, 1), TIMES) is None
    assert shake_of(middles(0, slow, 3), TIMES) is not None  # three groups that do it together


def test_shifts_have_a_price_and_move_the_targets():
    assert steady(3).price == 0.0 and steady(3).rms_px == 0.0
    found = steady(2)._replace(shift=np.array([[0.5, 0.0], [0.0, -1.0]]), std=np.array([0.3, 0.4]))
    assert found.price == 4.0
    targets = csist.Targets([1.0], [2.0], [3.0], x_std=[0.4], y_std=[0.0])
    first, second = found.applied([targets, targets])
    assert (first.x[0], first.y[0], second.x[0], second.y[0]) == (1.5, 2.0, 1.0, 1.0)
    assert first.x_std[0] == pytest.approx(0.5) and second.y_std[0] == pytest.approx(0.4)


def test_the_error_of_a_middle_is_that_of_a_lone_source():
    flux, noise_std, psf = 700.0, 3.0, csist.GaussianPSF(1.3)
    y, x = np.indices((25, 25))
    for gain in (None, 2.0):
        light, slope = flux * psf.response(x - 12.2, y - 11.9), flux * psf.gradient(x - 12.2, y - 11.9)[0]
        variance = noise_std**2 + (light / gain if gain else 0.0)
        bound = 1.0 / np.sqrt((slope**2 / variance).sum())
        assert middle_error(flux, noise_std, psf, gain) == pytest.approx(bound, rel=0.15)
    assert middle_error(0.0, noise_std, psf) > 1e6


def test_displacements_are_those_of_the_light():
    psf, rng = csist.GaussianPSF(0.9), np.random.default_rng(1)
    sky = csist.Sensor(psf, shape=(15, 15), quantised=False)
    targets = csist.Targets([6.0, 7.6], [7.0, 7.9], [900.0, 500.0])
    moved = 0.3 * rng.standard_normal((30, 2))
    data = np.stack([sky.render(targets.shifted(*each)) for each in moved]) + rng.normal(0.0, 4.0, (30, 15, 15))
    weight = np.full(data.shape, 1.0 / 16.0)
    weight[4] = 0.0
    found, error = displacements(data, weight, [targets] * 29 + [csist.Targets.empty()], psf)
    assert np.isinf(error[[4, 29]]).all() and not found[[4, 29]].any()
    seen = np.isfinite(error)
    step, _ = displacements(data, weight, [targets] * 29 + [csist.Targets.empty()], psf, exact=False)
    assert 0.9 < np.polyfit(found[seen].ravel(), step[seen].ravel(), 1)[0] < 1.1
    assert 0.75 < np.sqrt((((found - moved)[seen] / error[seen, None]) ** 2).mean()) < 1.25


def test_a_film_that_is_moved_back_shows_the_same_light():
    rng = np.random.default_rng(2)
    data, shift = rng.normal(size=(3, 11, 11)), rng.normal(size=(3, 2))
    film = film_around(data, np.ones(data.shape), np.full((3, 2), 5.0), 7)
    moved = moved_back(film, shift)
    np.testing.assert_allclose(moved.origin, film.origin - shift[:, ::-1], atol=1e-6)
    assert (moved.data == film.data).all() and (film.origin == np.rint(film.origin)).all()


def pair(t: int, shake: np.ndarray) -> csist.Targets:
    x, y = 15.0 + 0.4 * t, 20.0 + 0.1 * t
    return csist.Targets([x, x + 1.8], [y, y + 0.4], [700.0, 500.0]).shifted(*shake)


def far(t: int, shake: np.ndarray) -> csist.Targets:
    return csist.Targets([38.0 - 0.3 * t], [10.0 + 0.2 * t], [800.0]).shifted(*shake)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [0.05, 0.3])
def test_a_camera_that_shakes_keeps_the_joint_posterior(groups, size):
    # Once 0.05 px gave overconfident positions or two targets too many, 0.3 px the targets of single frames.
    rng = np.random.default_rng(2)
    shake = size * rng.standard_normal((12, 2))
    truth = [
        csist.Targets.concatenate([pair(t, shake[t]), far(t, shake[t])][:groups]) for t in range(12)
    ]  # fmt: skip
    result = csist.unmix_sequence(np.stack([SKY.observe(each, rng) for each in truth]), SKY, mode="fast")
    assert sorted(group.count for group in result.groups) == [1, 2][-groups:]
    assert sum("shake" in note or "shifted" in note for note in result.notes) == 1
    pulls = []
    for true, found in zip(truth, result.frames, strict=True):
        assert len(found) == len(true)
        near = np.hypot(true.x[:, None] - found.x, true.y[:, None] - found.y).argmin(axis=1)
        pulls += [(found.x[near] - true.x) / found.x_std[near], (found.y[near] - true.y) / found.y_std[near]]
    assert np.sqrt(np.mean(np.square(np.concatenate(pulls)))) < 1.4
    speeds = sorted(track.state[2] for track in result.tracks)
    drift = np.polyfit(np.arange(12), shake[:, 0], 1)[0]
    np.testing.assert_allclose(speeds, sorted([0.4 + drift, 0.4 + drift, -0.3 + drift][: groups + 1]), atol=0.02)


@pytest.mark.parametrize("prior", [None, csist.ScenePrior.csist_100k()])
def test_windows_of_a_camera_that_shakes(prior):
    sensor = csist.Sensor(csist.GaussianPSF(0.5 if prior else 0.9), shape=(11, 11), read_noise=2.0)
    rng = np.random.default_rng(4)
    shake = 0.06 * rng.standard_normal((20, 2))
    group = (
        csist.Targets([5.0, 5.45], [4.8, 5.3], [230.0, 245.0]) if prior else csist.Targets([4, 6], [5, 6], [500, 400])
    )
    truth = [group.shifted(0.02 * t, -0.01 * t).shifted(*shake[t]) for t in range(20)]
    result = csist.unmix_sequence(np.stack([sensor.observe(each, rng) for each in truth]), sensor, prior, mode="fast")
    assert result.count == 2 and csist.Flag.POOR_FIT not in result.flags
    assert any("shake" in note for note in result.notes)
    assert csist.metrics.cso_map(result.frames, truth)["CSO-mAP"] > 90.0


def test_a_target_that_appears_is_no_shake():
    rng = np.random.default_rng(7)
    movie = []
    for t in range(12):
        targets = pair(t, np.zeros(2))
        movie.append(SKY.observe(targets if t >= 5 else targets[:1], rng))
    result = csist.unmix_sequence(np.stack(movie), SKY, mode="fast")
    assert not any("shake" in note or "shifted" in note for note in result.notes)
    assert sorted(track.first for track in result.tracks) == [0, 5]
