"""Metrics of tracks."""

import datetime
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest

from csist import metrics
from csist.checks import InputError
from csist.targets import Targets


def scene(rng: np.random.Generator, count: int, side: float = 4.0) -> Targets:
    return Targets(rng.uniform(0, side, count), rng.uniform(0, side, count), np.full(count, 9.0))


def naive_gospa(found: Targets, truth: Targets, cutoff: float, order: float) -> float:
    """The definition: the least cost over all sets of pairs."""
    small, large = (found, truth) if len(found) <= len(truth) else (truth, found)
    best = np.inf
    for chosen in permutations(range(len(large)), len(small)):
        apart = np.hypot(small.x - large.x[list(chosen)], small.y - large.y[list(chosen)])
        best = min(best, (np.minimum(apart, cutoff) ** order).sum())
    return float((best + 0.5 * cutoff**order * (len(large) - len(small))) ** (1.0 / order))


@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (2, 0), (3, 3), (4, 2), (1, 4)])
@pytest.mark.parametrize("order", [1.0, 2.0])
def test_gospa_is_the_least_cost(counts, order):
    rng = np.random.default_rng(counts)
    found, truth = (scene(rng, count) for count in counts)
    result = metrics.gospa(found, truth, 1.5, order)
    assert result.distance_px == pytest.approx(naive_gospa(found, truth, 1.5, order))
    parts = result.localisation + 0.5 * 1.5**order * (result.missed + result.spurious)
    assert result.distance_px**order == pytest.approx(parts)
    assert metrics.gospa(truth, found, 1.5, order).distance_px == pytest.approx(result.distance_px)


def test_ospa_is_a_distance():
    rng = np.random.default_rng(5)
    scenes = [scene(rng, count) for count in (0, 1, 2, 3, 3)]
    for one in scenes:
        assert metrics.ospa(one, one) == 0.0
        for other in scenes:
            assert metrics.ospa(one, other) == pytest.approx(metrics.ospa(other, one))
            for third in scenes:
                assert metrics.ospa(one, third) <= metrics.ospa(one, other) + metrics.ospa(other, third) + 1e-12


def test_distances_agree_with_stone_soup():
    pytest.importorskip("stonesoup")
    from stonesoup.metricgenerator.ospametric import GOSPAMetric, OSPAMetric
    from stonesoup.types.state import State

    now, rng = datetime.datetime(2026, 1, 1), np.random.default_rng(3)
    for counts in [(3, 3), (4, 2), (1, 4), (2, 0)]:
        found, truth = (scene(rng, count) for count in counts)
        one, other = ([State([each.x[0], each.y[0]], timestamp=now) for each in targets] for targets in (found, truth))
        theirs, _ = GOSPAMetric(p=2.0, c=1.2).compute_gospa_metric(one, other)
        mine = metrics.gospa(found, truth, 1.2)
        assert mine.distance_px == pytest.approx(theirs.value["distance"])
        assert mine.localisation == pytest.approx(theirs.value["localisation"])
        if counts[1]:
            ospa = OSPAMetric(p=2.0, c=1.2).compute_OSPA_distance(one, other)
            assert metrics.ospa(found, truth, 1.2) == pytest.approx(ospa.value)


def two_paths(frames: int = 6) -> list[Targets]:
    """Two targets that pass each other."""
    return [Targets([1.0 + t, 6.0 - t], [1.0, 2.0], [9.0, 9.0], [0.9, 0.8], track=[4, 7]) for t in range(frames)]


def test_switches_are_counted_by_true_track():
    truth = two_paths()
    assert metrics.identity_switches(truth, truth) == 0
    swapped = [each.replace(track=[7, 4]) if t >= 3 else each for t, each in enumerate(truth)]
    assert metrics.identity_switches(swapped, truth) == 2
    renamed = [each.replace(track=[9, 7]) if t >= 4 else each for t, each in enumerate(truth)]
    assert metrics.identity_switches(renamed, truth) == 1


def test_a_gap_is_no_switch():
    truth = two_paths()
    broken = [Targets.empty() if t == 3 else each for t, each in enumerate(truth)]
    assert metrics.identity_switches(broken, truth) == 0


def test_a_pair_stays_while_it_is_near():
    truth = [Targets([0.0], [0.0], [9.0], track=[0])] * 3
    found = [Targets([0.3], [0.0], [9.0], track=[1]), Targets([0.3, 0.1], [0.0, 0.0], [9.0, 9.0], track=[1, 2])]
    assert metrics.identity_switches([*found, found[1]], truth) == 0


def test_track_map_of_perfect_and_missing_tracks():
    truth = two_paths()
    assert metrics.track_map([truth], [truth])["CSO-mAP"] == pytest.approx(100.0)
    assert metrics.track_map([[Targets.empty()] * 6], [truth])["CSO-mAP"] == 0.0
    half = [each[:1] for each in truth]
    assert metrics.track_map([half], [truth])["CSO-mAP"] == pytest.approx(50.0)
    late = [each if t >= 2 else each[:1] for t, each in enumerate(truth)]
    assert metrics.track_map([late], [truth])["CSO-mAP"] == pytest.approx(50.0)
    assert np.isnan(metrics.track_map([truth], [[Targets.empty()] * 6])["CSO-mAP"])


def test_summary_counts_by_frame():
    truth = two_paths()
    found = [each[:1].shifted(0.3, 0.0) for each in truth]
    summary = metrics.track_summary(found, truth)
    assert summary["missed"] == 6
    assert summary["spurious"] == 0
    assert (summary["found_tracks"], summary["true_tracks"]) == (1, 2)
    assert summary["distance_rms_px"] == pytest.approx(0.3)
    assert summary["gospa_px"] == pytest.approx(np.sqrt(0.09 + 0.5))
    assert summary["ospa_px"] == pytest.approx(np.sqrt((0.09 + 1.0) / 2.0))


def test_path_errors_are_those_put_in():
    truth = [Targets([1.0 + 0.1 * t, 5.0], [1.0, 2.0 - 0.2 * t], [9.0, 12.0]) for t in range(5)]
    wrong = np.array([0.01, -0.02, 0.003, -0.004, 0.5])
    states = [np.array([5.0, 2.0, 0.0, -0.2, 12.0]) + wrong, np.array([1.0, 1.0, 0.1, 0.0, 9.0])]
    tracks = [SimpleNamespace(state=state, covariance=np.diag(np.full(5, 9e-4))) for state in states]
    errors = metrics.path_errors([tracks], [truth])
    assert errors.truth.tolist() == [1, 0]
    assert np.abs(errors.error - [wrong, np.zeros(5)]).max() < 1e-12
    assert errors.coverage((1.0,))["position"] == [1.0]
    assert errors.coverage((1.0,))["intensity"] == [0.5]
    fewer = metrics.path_errors([tracks[:1]], [truth])
    assert (fewer.missed, fewer.spurious) == (1, 0)


def test_path_errors_use_the_times():
    truth = [Targets([1.0 + 0.1 * t], [1.0], [9.0]) for t in range(5)]
    track = SimpleNamespace(state=np.array([1.0, 1.0, 3.0, 0.0, 9.0]), covariance=np.eye(5))
    assert np.abs(metrics.path_errors([[track]], [truth], np.arange(5) / 30.0).error).max() < 1e-9


def test_nothing_at_all():
    empty = [Targets.empty()] * 3
    assert len(metrics.path_errors([[]], [empty])) == 0
    assert metrics.identity_switches(empty, empty) == 0
    assert metrics.track_summary(empty, empty)["ospa_px"] == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.gospa(Targets.empty(), Targets.empty(), cutoff_px=0.0), "cutoff_px"),
        (lambda: metrics.ospa(Targets.empty(), Targets.empty(), order=0.5), "order must be at least 1"),
        (lambda: metrics.track_summary([], []), "at least one frame"),
        (lambda: metrics.track_map([[]], []), "equally long"),
        (lambda: metrics.path_errors([[]], []), "equally long"),
        (lambda: metrics.path_errors([[]], [[two_paths()[0], two_paths()[1][:1]]]), "missing in some frames"),
        (lambda: metrics.identity_switches([], [Targets.empty()]), "equally long"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(InputError, match=message):
        call()
