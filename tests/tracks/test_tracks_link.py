"""Linking of detections into tracks."""

import numpy as np
import pytest

from csist.checks import InputError
from csist.targets import Targets
from csist.tracks.link import Linker, is_confirmed


def at(places):
    places = np.asarray(places, dtype=float).reshape(-1, 2)
    return Targets(x=places[:, 0], y=places[:, 1], intensity=np.ones(len(places)))


def test_crossing_targets_keep_their_tracks():
    linker, numbers = Linker(), []
    for k in range(21):
        order = [0, 1] if k % 2 else [1, 0]  # rows come in any order
        places = np.array([[10.0 + 2.0 * k, 30.0 + 1.0 * k], [10.0 + 2.0 * k, 50.0 - 1.0 * k]])
        found = linker.update(k, at(places[order]))
        numbers.append(found[np.argsort(order)])
    assert len(np.unique(np.stack(numbers)[:, 0])) == len(np.unique(np.stack(numbers)[:, 1])) == 1
    assert linker.started == 2


@pytest.mark.parametrize("seen, missed", [(2, 3), (4, 4), (8, 8), (40, 10)])
def test_a_track_may_miss_as_many_frames_as_it_has_detections(seen, missed):
    for gap, same in ((missed, True), (missed + 1, False)):
        linker = Linker(patience=3)
        first = [linker.update(k, at([[2.0 * k, 0.0]]))[0] for k in range(seen)]
        frame = seen + gap
        assert (linker.update(frame, at([[2.0 * frame, 0.0]]))[0] == first[0]) == same


def test_the_gate_separates_and_false_detections_start_their_own():
    linker = Linker(gate_px=5.0)
    assert linker.update(0, at([[0, 0]])).tolist() == [0]
    assert linker.update(1, at([[5.1, 0], [40, 40]])).tolist() == [1, 2]
    assert linker.update(2, at([])).tolist() == []
    assert linker.update(3, at([[40, 41], [0.5, 0]])).tolist() == [2, 0]


def test_the_assignment_is_the_best_of_all_not_the_nearest_first():
    linker = Linker(gate_px=10.0)
    linker.update(0, at([[0, 0], [4, 0]]))
    # Nearest first would give 3 to 4 and leave 9 to 0.
    assert linker.update(1, at([[3, 0], [9, 0]])).tolist() == [0, 1]


def test_many_targets_are_told_apart():
    rng = np.random.default_rng(0)
    places, velocity = rng.uniform(0, 500, (300, 2)), rng.normal(0.0, 1.0, (300, 2))
    linker = Linker(gate_px=4.0)
    first = linker.update(0, at(places))
    order = rng.permutation(300)
    for k in range(1, 6):
        found = linker.update(k, at((places + k * velocity)[order]))
    assert (found == first[order]).mean() > 0.97


def test_a_gate_must_be_positive():
    with pytest.raises(InputError, match="gate_px"):
        Linker(gate_px=0.0)


def test_detections_that_come_and_go_do_not_confirm_a_track():
    assert is_confirmed([7, 8, 11])
    assert not is_confirmed([2, 4, 8, 11])
    assert not is_confirmed([3, 4])
    assert is_confirmed([3, 4], least=2)
