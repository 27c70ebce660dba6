"""Probabilistic association, and the states of tracks."""

import os
import subprocess
import sys

import numpy as np
import pytest

from csist.checks import InputError
from csist.metrics import identity_switches
from csist.targets import Targets
from csist.tracks.link import Linker
from csist.tracks.smooth import smooth

FRAMES, SIDE, STD = 30, 120.0, 0.4


def crossing(seed: int, density: float = 1e-3, detected: float = 0.75) -> tuple[list[Targets], list[Targets]]:
    """Detections and truth of two targets that cross at a small angle, with misses and false detections."""
    rng, found, truth = np.random.default_rng(seed), [], []
    for t in range(FRAMES):
        x, y = np.array([20.0 + 2.5 * t] * 2), np.array([45.0 + t, 45.0 + FRAMES - 1.0 - t])
        truth.append(Targets(x, y, np.ones(2), track=[0, 1]))
        seen = (rng.random(2) < detected) | (t < 3)
        false = rng.uniform(0.0, SIDE, (rng.poisson(density * SIDE**2) if t > 2 else 0, 2))
        places = np.concatenate([np.stack([x, y], axis=1)[seen] + rng.normal(0.0, STD, (int(seen.sum()), 2)), false])
        std = np.full(len(places), STD)
        found.append(Targets(places[:, 0], places[:, 1], np.ones(len(places)), x_std=std, y_std=std))
    return found, truth


def switches(linker, found, truth) -> int:
    """Identity switches of the tracks that a linker makes."""
    tracks = [targets.replace(track=linker.update(t, targets)) for t, targets in enumerate(found)]
    return identity_switches(tracks, truth, 1.5)


def test_joint_probabilities_hold_where_the_best_assignment_loses_its_way():
    pytest.importorskip("stonesoup")
    from csist.tracks.jpda import ProbabilisticLinker

    cases = [crossing(seed) for seed in range(8)]
    nearest = sum(switches(Linker(), *case) for case in cases)
    joint = sum(switches(ProbabilisticLinker(), *case) for case in cases)
    assert (nearest, joint) == (19, 3)


FOLLOW = """
import sys
import numpy as np
from csist.targets import Targets
from csist.tracks.jpda import ProbabilisticLinker

padding = [object() for _ in range(int(sys.argv[1]))]  # other addresses in memory
rng, linker = np.random.default_rng(0), ProbabilisticLinker()
start = rng.uniform(0.0, 12.0, (8, 2))
for t in range(12):
    place = start + 0.5 * t + rng.normal(0.0, 0.5, start.shape)
    padding.append([object() for _ in range(t * int(sys.argv[1]) % 97)])
    linker.update(t, Targets(place[:, 0], place[:, 1], np.ones(8), x_std=np.full(8, 0.5), y_std=np.full(8, 0.5)))
for one in linker._followed:
    print(one.number, one.track.state.state_vector.ravel().tolist())
"""


def test_two_processes_give_the_same_tracks():
    pytest.importorskip("stonesoup")
    answers = [
        subprocess.run(
            [sys.executable, "-c", FOLLOW, padding], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
            capture_output=True, text=True,
        ).stdout
        for seed, padding in (("1", "0"), ("2", "1001"), ("3", "37"))
    ]  # fmt: skip
    assert len(answers[0].splitlines()) >= 4
    assert len(set(answers)) == 1


def test_tracks_end_and_new_ones_start():
    pytest.importorskip("stonesoup")
    from csist.tracks.jpda import ProbabilisticLinker

    linker = ProbabilisticLinker(patience=2, started=7)

    def place(x):
        return Targets([x], [5.0], [1.0], x_std=[0.2], y_std=[0.2])

    assert [linker.update(t, place(1.0 + t)).tolist() for t in range(4)] == [[7]] * 4
    assert linker.update(4, Targets.empty()).tolist() == []
    assert linker.update(6, place(7.0)).tolist() == [7]
    assert linker.update(10, place(11.0)).tolist() == [8]
    assert linker.started == 9


def test_without_stone_soup_the_message_says_what_to_install(monkeypatch):
    from csist.tracks.jpda import ProbabilisticLinker

    for name in [name for name in sys.modules if name.startswith("stonesoup")] + ["stonesoup"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"csist\[tracking\]"):
        ProbabilisticLinker()


def test_states_of_straight_tracks_have_honest_errors():
    rng, within = np.random.default_rng(0), []
    for _ in range(120):
        frame = np.sort(rng.choice(16, 12, replace=False))
        place = np.stack([3.0 + 0.7 * frame, 9.0 - 0.2 * frame], axis=1) + rng.normal(0.0, 0.3, (12, 2))
        track = smooth(frame, place, np.full((12, 2), 0.3), np.full(12, 0.9))
        number = track.frame
        truth = np.stack([3.0 + 0.7 * number, 9.0 - 0.2 * number, 0.7 + 0 * number, -0.2 + 0 * number], axis=1)
        error = np.sqrt(np.einsum("tii->ti", track.covariance))
        within.append(np.abs(track.state - truth) < error)
        assert (np.diff(number) == 1).all()
        assert track.detected.sum() == 12
        assert track.existence_probability == pytest.approx(0.9, abs=0.01)
    assert 0.6 < np.concatenate(within).mean() < 0.85  # the strength of the acceleration is at least that of the ladder


def test_a_bent_track_gets_a_larger_acceleration():
    frame = np.arange(20)
    bent = np.stack([frame + 0.05 * frame**2, np.zeros(20)], axis=1)
    straight = np.stack([1.0 * frame, np.zeros(20)], axis=1)
    std, score = np.full((20, 2), 0.2), np.full(20, np.nan)
    assert smooth(frame, bent, std, score).acceleration > smooth(frame, straight, std, score).acceleration
    assert np.abs(smooth(frame, bent, std, score).state[:, 0] - bent[:, 0]).max() < 0.3


def test_scattered_detections_hardly_exist():
    rng = np.random.default_rng(1)
    place = np.cumsum(rng.uniform(-6.0, 6.0, (3, 2)), axis=0)
    track = smooth(np.array([0, 2, 5]), place, np.full((3, 2), 0.2), np.full(3, 0.9))
    assert track.existence_probability < 0.5


def test_one_detection_is_a_track_of_one_frame():
    track = smooth(np.array([4]), np.array([[1.0, 2.0]]), np.array([[np.nan, np.nan]]), np.array([np.nan]))
    assert track.frame.tolist() == [4]
    assert track.state[0, :2].tolist() == [1.0, 2.0]
