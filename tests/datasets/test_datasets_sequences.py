"""Stores of sequences: layout, splits by trajectory, the same bytes for the same seed, bad use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from csist.checks import InputError
from csist.datasets import generate, generate_sequences, load, sequence_split_sizes
from csist.physics.sensor import Sensor
from csist.trajectories import MotionPrior


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_sequences(tmp_path_factory.mktemp("sequences") / "a.h5", trajectories=130, seed=3, noise_std=1.0)


def test_a_store_holds_whole_trajectories_in_order(store: Path) -> None:
    data = load(store)
    assert data.splits == {name: 20 * size for name, size in sequence_split_sizes(130).items()}
    assert data.motion == MotionPrior()
    assert data.prior == MotionPrior().start
    for name in data:
        split = data[name]
        assert (split.frame == np.arange(len(split)) % 20).all()
        assert (split.trajectory == np.arange(len(split)) // 20).all()
        sequences = split.sequences()
        assert [len(each) for each in sequences] == [20] * (len(split) // 20)
        for each in sequences[:5]:
            x = np.array([targets.x for targets in each.targets])  # one length: the count does not change
            assert np.ptp(np.diff(x, axis=0), axis=0).max() < 1e-9  # one order: every path is straight


def test_images_are_those_of_their_targets(tmp_path: Path) -> None:
    clean = load(generate_sequences(tmp_path / "a.h5", trajectories=3, seed=1))["test"]
    for image, targets in clean:
        assert np.array_equal(image, np.rint(Sensor().render(targets)))


def test_same_seed_same_bytes_and_noise_leaves_the_paths(store: Path, tmp_path: Path) -> None:
    again = generate_sequences(tmp_path / "b.h5", trajectories=130, seed=3, noise_std=1.0)
    assert again.read_bytes() == store.read_bytes()
    # More trajectories begin with the same ones of each chunk; another noise has the same paths.
    noisy = load(generate_sequences(tmp_path / "c.h5", trajectories=130, seed=3, noise_std=5.0))["val"]
    first = load(store)["val"]
    assert np.array_equal(noisy.target_arrays[0][:20], first.target_arrays[0][:20], equal_nan=True)
    assert not np.array_equal(noisy.counts, first.counts)


def test_splits_are_by_trajectory() -> None:
    assert sequence_split_sizes(1) == {"train": 0, "val": 0, "test": 1}
    assert sequence_split_sizes(2) == {"train": 1, "val": 0, "test": 1}
    assert sum(sequence_split_sizes(17).values()) == 17


def test_other_laws_and_single_frames(tmp_path: Path) -> None:
    law = replace(MotionPrior(), frames=1)
    data = load(generate_sequences(tmp_path / "a.h5", trajectories=4, motion=law))
    assert sum(data.splits.values()) == 4
    assert data.motion == law


def test_a_store_of_single_images_has_no_sequences(tmp_path: Path) -> None:
    split = load(generate(tmp_path / "a.h5", count=5))["test"]
    with pytest.raises(InputError, match="holds single images, not sequences"):
        split.sequences()


def test_frames_out_of_order_are_refused(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(store.read_bytes())
    with h5py.File(path, "r+") as file:
        file["test"]["frame"][0] = 5
    with pytest.raises(InputError, match="frames of a trajectory are not in order"):
        load(path)["test"].sequences()


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trajectories must be a whole number >= 1, got 0"):
        generate_sequences(tmp_path / "a.h5", trajectories=0)
    assert not list(tmp_path.iterdir())


def test_seqcsist_layout_both_ways(tmp_path):
    from csist.datasets import convert, load

    store = generate_sequences(tmp_path / "a.h5", 4, seed=3, motion=MotionPrior(frames=5))
    convert(store, tmp_path / "folder")
    split = tmp_path / "folder" / "train"
    assert sorted(each.name for each in split.iterdir()) == ["annotation", "image"]
    assert (split / "annotation" / "COS00000.xml").is_file()
    convert(tmp_path / "folder", tmp_path / "b.h5")
    first, second = load(store), load(tmp_path / "b.h5")
    assert second.motion == first.motion
    for name in first:
        assert (first[name].counts == second[name].counts).all()
        assert (first[name].trajectory == second[name].trajectory).all()
        assert (first[name].frame == second[name].frame).all()
        assert first[name].targets == second[name].targets
