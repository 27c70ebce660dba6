"""Joint unmixing of groups in whole frames, and streams of frames."""

from dataclasses import replace

import numpy as np
import pytest

import csist
from csist.checks import InputError
from csist.sequences import whole
from csist.sequences.chains import Chain, cut_out, merged_frames
from csist.sequences.result import SequenceResult, Track
from csist.sequences.shots import common_psf, empty_shot
from csist.sequences.stream import Sliding, unmix_stream

SKY = csist.Sensor(csist.GaussianPSF(0.9), shape=(40, 48), background=50.0, read_noise=3.0)
FRAMES, APPEARS = 12, 5


def scene(t: int) -> csist.Targets:
    """A blob of two targets that moves, one target that moves otherwise, and one that appears."""
    x, y, flux = (
        [8.0 + 1.3 * t, 8.9 + 1.31 * t, 40.0 - 0.8 * t],
        [12.0 + 0.4 * t, 12.3 + 0.39 * t, 32.0],
        [400.0, 380, 300],
    )
    late = t >= APPEARS
    return csist.Targets(x + [20.0] * late, y + [33.0 - 0.5 * t] * late, flux + [350.0] * late)


@pytest.fixture(scope="module")
def movie() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([SKY.observe(scene(t), rng) for t in range(FRAMES)])


@pytest.fixture(scope="module")
def found(movie) -> csist.SequenceResult:
    return csist.unmix_sequence(movie, SKY, mode="fast")


def test_all_targets_have_a_track_with_their_state(found):
    assert len(found.tracks) == 4
    truth = scene(APPEARS)
    velocity = [(1.3, 0.4), (1.31, 0.39), (-0.8, 0.0), (0.0, -0.5)]
    for x, y, intensity, speed in zip(truth.x, truth.y, truth.intensity, velocity, strict=True):
        places = [track.at(APPEARS)[0] for track in found.tracks]
        near = min(places, key=lambda state: np.hypot(state[0] - x, state[1] - y))
        assert np.hypot(near[0] - x, near[1] - y) < 0.3
        assert np.abs(near[2:4] - speed).max() < 0.04
        assert abs(near[4] - intensity) < 100.0


def test_a_target_that_appears_has_its_first_frame(found):
    assert sorted(track.first for track in found.tracks) == [0, 0, 0, APPEARS]
    assert {track.last for track in found.tracks} == {FRAMES - 1}
    assert [len(targets) for targets in found.frames] == [3] * APPEARS + [4] * (FRAMES - APPEARS)


def test_count_of_a_blob_that_moves(found):
    assert sorted(group.count for group in found.groups) == [1, 1, 2]
    assert found.count == 4
    assert found.count_probability.sum() == pytest.approx(1.0)
    for targets in found.frames:
        for group in found.groups:
            if group.first <= 0:
                assert (targets.group == group.number).sum() == group.count


def test_input_is_not_changed_and_the_answer_is_the_same(movie, found):
    before = movie.copy()
    assert csist.unmix_sequence(movie, SKY, mode="fast").frames == found.frames
    assert (movie == before).all()


def test_missing_and_repeated_frames_of_a_movie(movie):
    frames = movie[:8].copy()
    frames[2] = np.nan
    frames[5] = frames[4]
    found = csist.unmix_sequence(frames, SKY, mode="fast")
    assert [note.split(" of ")[0] for note in found.notes[:2]] == ["1", "1"]
    assert len(found.frames) == 8
    assert len([track for track in found.tracks if track.first == 0]) == 3


def test_frames_of_a_stream_that_hold_nothing_new_are_left_out(movie):
    frames = movie[:10].copy()
    frames[:, 0, 0] = np.nan  # a pixel without a value must not hide that a frame repeats
    frames[3] = np.nan
    frames[5:8] = frames[4]
    parts = list(unmix_stream(frames, SKY, window=10, mode="fast"))
    assert [part.result.notes[:2] for part in parts] == [
        ["1 of 10 frames contain only NaN and are left out", "3 of 10 frames repeat the frame before and are left out"]
    ]
    mover = min(parts[0].result.tracks, key=lambda track: abs(track.state[0] - 40.0))
    assert abs(mover.state[2] + 0.8) < 0.04  # -0.56 if the frames that repeat counted


def test_a_single_frame_has_a_note(movie):
    assert csist.unmix_sequence(movie[:1], SKY, mode="fast").notes[0].startswith("there is one frame")


def test_an_extended_source_has_one_track():
    sky = csist.Sensor(csist.GaussianPSF(0.9), shape=(56, 56), background=50.0, read_noise=3.0)
    cloud = csist.Sensor(csist.EllipticalGaussianPSF(4.0, 3.0, 30.0), shape=(56, 56))
    rng = np.random.default_rng(2)
    frames = [
        sky.observe(csist.Targets([44.0 - 0.5 * t], [40.0], [500.0]), rng)
        + cloud.render(csist.Targets([16.0 + 0.7 * t], [18.0 + 0.3 * t], [9000.0]))
        for t in range(6)
    ]
    found = csist.unmix_sequence(frames, sky, mode="fast")
    assert [len(targets) for targets in found.frames] == [2] * 6
    assert len(found.tracks) == 2
    assert len(found.groups) == 1
    assert len(found.notes) == 1
    assert found.notes[0].startswith("1 of 2 groups are no point targets")
    wide = max(found.tracks, key=lambda track: track.state[4])
    assert np.abs(wide.state - [16.0, 18.0, 0.7, 0.3, 9000.0])[:4].max() < 0.1
    for targets in found.frames:
        assert csist.Flag.EXTENDED in csist.Flag(int(targets.flags[targets.track == wide.id][0]))
    own = [np.sqrt(8.0 * np.log(2.0) * (sigma**2 - 0.9**2)) for sigma in (4.0, 3.0)]
    np.testing.assert_allclose(wide.outline, [*own, 30.0], rtol=0.1)
    assert [track.outline for track in found.tracks if track is not wide] == [None]


def test_targets_that_are_most_probably_wrong_have_one_track(movie, found, monkeypatch):
    least = np.mean([track.existence_probability for track in found.tracks[:2]])
    monkeypatch.setattr(whole, "RESOLVED", 1.01 * least)
    one = csist.unmix_sequence(movie, SKY, mode="fast")
    assert [group.count for group in one.groups] == [1, 1]
    assert len(one.tracks) == len(found.tracks) - 1
    assert one.notes[0].startswith("1 of 3 groups are no point targets or cannot be followed")
    monkeypatch.setattr(whole, "RESOLVED", 0.99 * least)
    assert len(csist.unmix_sequence(movie, SKY, mode="fast").tracks) == len(found.tracks)


def test_the_number_of_targets_does_not_depend_on_a_few_chains():
    sky = csist.Sensor(csist.GaussianPSF(0.9), shape=(40, 50), background=50.0, read_noise=3.0)
    right = 0
    for seed in (0, 3, 5, 7):  # the first three had three or more targets when the evidence was that of 64 chains
        rng = np.random.default_rng([seed, True])
        pair = [csist.Targets([15.0 + 0.9 * t, 15.9 + 0.9 * t], [20.0, 20.3], [400.0, 380.0]) for t in range(16)]
        frames = [sky.observe(each, rng) for each in pair]
        found = csist.unmix_sequence(frames, sky, motion="acceleration", mode="fast")
        right += [group.count for group in found.groups] == [2] and found.count_probability[2] > 0.9
    assert right >= 3


def test_targets_that_cross_have_a_track_each():
    """In the middle they are one blob, which had a joint posterior of its own with targets that are not there."""
    rng = np.random.default_rng(3)
    sky = csist.Sensor(csist.GaussianPSF(0.9), shape=(48, 48), background=50.0, read_noise=3.0)
    path = [[10.0 + 0.8 * t, 33.0 - 0.7 * t] for t in range(24)]
    frames = [sky.observe(csist.Targets(place, [20.0, 21.0 + 0.1 * t], [400.0, 350.0]), rng)
              for t, place in enumerate(path)]  # fmt: skip
    found = csist.unmix_sequence(np.stack(frames), sky, mode="fast")
    assert [(track.first, track.last) for track in found.tracks] == [(0, 23), (0, 23)]
    assert sorted(group.count for group in found.groups) == [1, 1]
    for t, (targets, place) in enumerate(zip(found.frames, path, strict=True)):
        np.testing.assert_allclose(np.sort(targets.x), np.sort(place), atol=0.2, err_msg=f"frame {t}")


def test_groups_of_which_one_is_not_seen_are_merged():
    near = np.array([0, 1, 2, 3, 6, 7])
    place = np.column_stack([near, np.zeros(6)]).astype(float)
    there, nothing = np.arange(8), np.zeros(8, np.int64)
    chains = [
        Chain(near, place, 0.0, nothing[near], nothing[near]),
        Chain(there, np.full((8, 2), 3.0), 0.0, nothing, nothing),
        Chain(there[:3], np.full((3, 2), 30.0), 0.0, nothing[:3], nothing[:3]),
    ]
    merged = merged_frames(chains, 8, csist.GaussianPSF(0.9))
    assert [np.flatnonzero(each).tolist() for each in merged] == [[4, 5], [4, 5], []]


def test_widths_that_differ_are_an_error_of_the_common_psf():
    shots = [
        empty_shot((4, 4))._replace(psf=csist.GaussianPSF(width), weight=np.ones((4, 4))) for width in (0.8, 1.0, 1.25)
    ]
    psf, error = common_psf(shots)
    assert psf == csist.GaussianPSF(1.0)
    assert error == pytest.approx(2.0 * 1.4826 * np.log(1.25))
    assert common_psf([shots[0], shots[0], empty_shot((4, 4))]) == (shots[0].psf, 0.0)


def test_the_error_of_the_psf_does_not_average_out():
    frames, error, psf = 16, 0.2, csist.GaussianPSF(1.0)
    image = csist.Sensor(psf, shape=(20, 20)).render(csist.Targets([10.0], [10.0], [1e6]))
    target = csist.Targets([10.0], [10.0], [1e6], group=[0])
    shots = [empty_shot((20, 20))._replace(data=image, weight=np.ones((20, 20)), targets=target)] * frames
    chain = Chain(np.arange(frames), np.full((frames, 2), 10.0), 0.0, np.zeros(frames, np.int64), np.zeros(frames))
    wrong, all_seen = [shot._replace(psf_error=error) for shot in shots], np.zeros(frames, np.bool_)
    exact = cut_out(shots, chain, chain.middle, 4, psf, all_seen)
    cutout = cut_out(wrong, chain, chain.middle, 4, psf, all_seen)
    assert (exact.weight == 1.0).all()
    assert cutout.corner.tolist() == [[6, 6]] * frames
    assert (cutout.data == image[6:15, 6:15]).all()
    of_the_peak = np.sqrt((cutout.weight * cutout.data**2)[:, 4, 4].sum())
    assert of_the_peak == pytest.approx(1.0 / error, rel=1e-6)
    # The light of frames that are left out, here twice as bright, does not enter that of the others.
    left_out = np.arange(frames) % 2 == 1
    mixed = [one._replace(data=2.0 * one.data) if out else one for one, out in zip(wrong, left_out, strict=True)]
    part = cut_out(mixed, chain, chain.middle, 4, psf, left_out)
    assert (part.weight[left_out] == 0.0).all()
    assert (part.data[left_out] == 0.0).all()
    of_the_peak = np.sqrt((part.weight * part.data**2)[:, 4, 4].sum())
    assert of_the_peak == pytest.approx(1.0 / error, rel=1e-6)


@pytest.mark.parametrize(
    ("gain", "background", "read_noise", "stated"),
    [(2.17, 7.0, 0.75, True), (1.0, 20.0, 0.0, False)],  # that values are numbers of photons is found
)
def test_photons_of_bright_targets_are_noise_of_the_joint_posterior_too(gain, background, read_noise, stated):
    psf = csist.GaussianPSF(1.3)
    camera = csist.Sensor(psf, shape=(48, 48), background=background, read_noise=read_noise, gain=gain)
    truth = [csist.Targets([20 + 0.12 * t, 23 + 0.12 * t], [24 - 0.07 * t] * 2, [4000.0, 4000.0]) for t in range(6)]
    frames = np.array([camera.observe(each, 100 + t) for t, each in enumerate(truth)])
    known = camera if stated else csist.Sensor(psf)
    found = csist.unmix_sequence(frames, known, mode="fast")
    assert [len(targets) for targets in found.frames] == [2] * 6
    assert found.notes == []
    for targets, right in zip(found.frames, truth, strict=True):
        order = np.argsort(targets.x)
        for name in ("x", "y", "intensity"):
            off = getattr(targets, name)[order] - getattr(right, name)
            assert (np.abs(off) < 4.0 * getattr(targets, f"{name}_std")[order]).all()
    alone = csist.unmix_frame(frames[0], known, mode="fast")
    assert alone.gain == gain
    # Of six frames in one fit, between those of each alone and a sixth of their variance.
    share = found.frames[0].x_std / alone.targets.x_std
    assert (share > 6.0**-0.5 * 0.7).all() and (share < 1.0).all()


@pytest.mark.parametrize(
    ("counts", "unsteady"),
    [([2] * 6, False), ([2, 2, 2, 1], False), ([1, 2, 1, 2], True), ([1] * 6, False), ([1] * 9 + [2], True)],
)
def test_a_group_whose_number_of_targets_changes_is_unsteady(counts, unsteady):
    pair = csist.Targets([3.0, 5.0], [4.0, 4.0], [100.0, 100.0], group=[0, 0])
    shots = [empty_shot((9, 9))._replace(targets=pair[:count]) for count in counts]
    number = np.zeros(len(counts), np.int64)
    chain = Chain(np.arange(len(counts)), np.full((len(counts), 2), 4.0), 1.0, number, number)
    assert chain.is_unsteady(shots) == unsteady


def test_one_frame_equals_unmix_frame(movie):
    found = csist.unmix_sequence(movie[:1], SKY, mode="fast")
    alone = csist.unmix_frame(movie[0], sensor=SKY, mode="fast").targets
    order = np.argsort(found.frames[0].x)
    for name in ("x", "y", "intensity", "x_std", "y_std", "intensity_std", "score", "flags"):
        np.testing.assert_array_equal(getattr(found.frames[0], name)[order], getattr(alone, name)[np.argsort(alone.x)])
    assert sorted(track.id for track in found.tracks) == sorted(found.frames[0].track.tolist()) == [0, 1, 2]
    assert {track.time for track in found.tracks} == {0.0}


def test_a_frozen_movie_is_one_frame(movie):
    found = csist.unmix_sequence(np.repeat(movie[:1], 4, axis=0), SKY, mode="fast")
    assert "3 of 4 frames repeat the frame before" in found.notes[0]
    assert len(found.frames[0]) == 3
    assert [len(targets) for targets in found.frames[1:]] == [0] * 3


def test_a_movie_of_nothing_but_nan_is_refused():
    with pytest.raises(InputError, match="none of the 3 frames has a pixel"):
        csist.unmix_sequence(np.full((3, 40, 48), np.nan), SKY, mode="fast")


def test_a_frame_of_another_size_in_the_middle_is_named(movie):
    with pytest.raises(InputError, match=r"frame 1 is \(40, 47\) px"):
        csist.unmix_sequence([movie[0], movie[1][:, 1:], movie[2]], SKY, mode="fast")


def test_frames_without_targets():
    frames = np.random.default_rng(3).normal(10.0, 2.0, (5, 32, 32))
    found = csist.unmix_sequence(frames, csist.Sensor(csist.GaussianPSF(0.9), shape=(32, 32)), mode="fast")
    assert [len(targets) for targets in found.frames] == [0] * 5
    assert found.tracks == []
    assert found.count == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": 3}, "boxes"),
        ({"times": [0, 2, 1]}, "must increase"),
        ({"detector": "best"}, "detector must be"),
    ],
)
def test_bad_options_of_frames_are_one_line(options, message):
    with pytest.raises(InputError, match=message):
        csist.unmix_sequence(np.zeros((3, 32, 32)), SKY, mode="fast", **options)


def test_windows_take_no_options_of_frames():
    with pytest.raises(InputError, match="option of whole frames"):
        csist.unmix_sequence(np.zeros((3, 11, 11)), SKY, detector="contrast")


def test_a_stream_keeps_the_numbers_of_tracks(movie):
    parts = list(unmix_stream(iter(movie), SKY, window=8, step=4, mode="fast"))
    assert [part.first for part in parts] == [0, 4, 8]
    assert [len(part.result.frames) for part in parts] == [4] * 3
    for x, speed in ((8.0, 1.3), (40.0, -0.8)):
        numbers = set()
        for part in parts:
            for t, targets in enumerate(part.result.frames, part.first):
                numbers.add(int(targets.track[np.abs(targets.x - x - speed * t).argmin()]))
        assert len(numbers) == 1
    last = parts[-1].result.tracks[0]
    assert last.last == FRAMES - 1


def _line(items, times):
    """One target at x = the item's value."""
    frames = [csist.Targets([item], [0.0], [1.0], track=[0]) for item in items]
    slope = (items[-1] - items[0]) / max(times[-1] - times[0], 1e-9)
    state = np.array([items[0], 0.0, slope, 0.0, 1.0])
    track = Track(0, 0, len(items) - 1, state, 1e-4 * np.eye(5), 1.0, time=float(times[0]))
    return SequenceResult(frames, [track], np.ones(1))


def test_a_window_grows_then_slides_and_ends_with_the_rest():
    held = []

    def solve(items, times):
        held.append(len(items))
        return _line(items, times)

    sliding = Sliding(solve, 4, 2)
    parts = [part for t in range(7) if (part := sliding.add(0.5 * t)) is not None]
    parts.append(sliding.finish())
    assert held == [2, 4, 4, 4]
    assert [part.first for part in parts] == [0, 2, 4, 6]
    assert [len(part.result.frames) for part in parts] == [2, 2, 2, 1]
    assert {track.id for part in parts for track in part.result.tracks} == {0}
    assert [part.result.tracks[0].last for part in parts] == [1, 3, 5, 6]
    assert sliding.finish() is None


def test_another_target_is_another_track():
    sliding = Sliding(_line, 2, 2)
    places = [0.0, 0.1, 30.0, 30.1]
    parts = [part for place in places if (part := sliding.add(place)) is not None]
    assert [part.result.tracks[0].id for part in parts] == [0, 1]


@pytest.mark.parametrize(
    ("window", "step", "message"), [(0, 1, "window must"), (4, 5, "step must"), (4, 0, "step must")]
)
def test_bad_windows_of_a_stream(window, step, message):
    with pytest.raises(InputError, match=message):
        Sliding(_line, window, step)


def test_times_of_a_stream_increase():
    sliding = Sliding(_line, 4, 4)
    sliding.add(0.0, 1.0)
    with pytest.raises(InputError, match="must increase"):
        sliding.add(0.0, 1.0)


def test_frames_of_a_stream_have_one_size():
    with pytest.raises(InputError, match="cut them to one size"):
        list(unmix_stream([np.full((40, 40), np.nan), np.zeros((41, 40))], SKY, mode="fast"))


def test_a_stream_of_nothing_is_empty():
    assert list(unmix_stream([])) == []


def pair(t):
    """Two targets 1.2 px apart that move together."""
    return csist.Targets([12.3 + 0.5 * t, 13.5 + 0.5 * t], [12.1 + 0.3 * t, 12.4 + 0.3 * t], [1500.0, 1300.0])


def pair_movie(frames=12, flux=None, seed=3):
    rng = np.random.default_rng(seed)
    fluxes = np.ones((frames, 2)) if flux is None else flux
    return np.stack([SKY.observe(pair(t).replace(intensity=pair(t).intensity * fluxes[t]), rng) for t in range(frames)])


def assert_both_are_followed(result, frames, without=()):
    for t in range(frames):
        truth, found = pair(t), result.frames[t]
        if t not in without:
            assert len(found) == 2
            distance = np.hypot(truth.x[:, None] - found.x, truth.y[:, None] - found.y)
            assert distance.min(axis=1).max() < 0.35
    assert len(result.tracks) == 2


@pytest.mark.parametrize("level", ["one value", "dark noise"])
def test_a_black_frame_is_left_out(level):
    movie = pair_movie()
    movie[6] = 0.0 if level == "one value" else np.random.default_rng(0).normal(0.0, 3.0, movie[6].shape)
    result = csist.unmix_sequence(movie, SKY, mode="fast")
    assert_both_are_followed(result, 12, without=[6])  # once one false target in the middle, score 0.995
    assert [group.count for group in result.groups] == [2]
    assert any("one value" in note for note in result.notes) == (level == "one value")


def test_fluxes_that_vary_more_than_the_default_prior_says():
    flux = 1.0 + 0.1 * np.random.default_rng(5).standard_normal((12, 2))
    assert_both_are_followed(csist.unmix_sequence(pair_movie(flux=flux), SKY, mode="fast"), 12)


def test_saturated_targets_are_so_in_the_joint_posterior_too():
    sky = replace(SKY, saturation=300.0)
    result = csist.unmix_sequence(np.minimum(pair_movie(), 300.0), sky, mode="fast")
    assert all((targets.flags & int(csist.Flag.SATURATED)).all() for targets in result.frames)
