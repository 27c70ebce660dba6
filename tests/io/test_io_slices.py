"""Parts of files are what reading the whole file gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from csist.checks import InputError
from csist.datasets import generate
from csist.io import ReadOptions, read_image
from csist.io.slices import read_slice

STACK = np.random.default_rng(0).integers(0, 1000, (7, 5, 6)).astype(np.uint16)


def npz_by_column(path: Path) -> None:
    np.savez(path, images=np.asfortranarray(STACK), other=np.zeros(3))


WRITERS = {
    "a.npy": lambda path: np.save(path, STACK),
    "float.npy": lambda path: np.save(path, STACK.astype(np.float64)),
    "a.npz": lambda path: np.savez(path, other=np.zeros(3), images=STACK),
    "float.npz": lambda path: np.savez(path, STACK.astype(np.float64)),
    "packed.npz": lambda path: np.savez_compressed(path, STACK),
    "by_column.npz": npz_by_column,
    "one.npz": lambda path: np.savez(path, image=STACK[0]),
    "a.tif": lambda path: tifffile.imwrite(path, STACK),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_slice_is_that_part_of_the_whole(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    whole = read_image(tmp_path / name)
    for start, stop in ((0, 1), (0, len(whole)), (2, 5), (len(whole) - 1, len(whole))):
        part = read_slice(tmp_path / name, start, stop)
        np.testing.assert_array_equal(part, whole[start:stop])
        assert part.dtype == np.float64
        assert part.flags.writeable


def test_a_slice_of_a_store(store: Path) -> None:
    np.testing.assert_array_equal(read_slice(store, 1, 3), read_image(store)[1:3])


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK)
    np.testing.assert_array_equal(read_slice(path, 0, 1)[0], STACK[0])
    tifffile.imwrite(path, STACK[::-1][:6])
    np.testing.assert_array_equal(read_slice(path, 0, 1)[0], STACK[-1])


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, STACK)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"cannot read .*a\.npz"):
        read_slice(path, 0, 1)
    with pytest.raises(InputError, match="no such file"):
        read_slice(tmp_path / "none.npz", 0, 1)


def test_a_slice_of_what_the_options_take(tmp_path: Path) -> None:
    stack = np.random.default_rng(3).normal(size=(6, 20, 24))
    options = ReadOptions(frames=(1, 5), roi=((2, 20), (3, 17)))
    np.save(tmp_path / "a.npy", stack)
    np.savez(tmp_path / "a.npz", stack)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    for name in ("a.npy", "a.npz", "a.tif"):
        np.testing.assert_array_equal(read_slice(tmp_path / name, 1, 3, options), stack[2:4, 3:17, 2:20])
    store = generate(tmp_path / "s.h5", count=50)
    np.testing.assert_array_equal(read_slice(store, 1, 3, ReadOptions(frames=(1, 4))), read_image(store)[2:4])
