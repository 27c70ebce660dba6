"""The store: same seed same bytes, images that re-render, and every way a file can be wrong."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from csist.checks import InputError
from csist.datasets import (
    ScenePrior,
    SplitArrays,
    WindowDataset,
    generate,
    load,
    split_sizes,
    write_store,
)
from csist.grid import SubPixelGrid
from csist.physics.psf import GaussianPSF, SampledPSF
from csist.physics.sensor import Sensor
from csist.targets import Targets


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("store") / "small.h5", count=300, seed=7)


def naive_image(targets: Targets, sigma: float, shape: tuple[int, int]) -> np.ndarray:
    """The imaging model written out pixel by pixel, with nothing of the package in it."""
    image = np.zeros(shape)
    for x, y, flux in zip(targets.x, targets.y, targets.intensity, strict=True):
        for i in range(shape[0]):
            for j in range(shape[1]):
                across = norm.cdf((j + 0.5 - x) / sigma) - norm.cdf((j - 0.5 - x) / sigma)
                down = norm.cdf((i + 0.5 - y) / sigma) - norm.cdf((i - 0.5 - y) / sigma)
                image[i, j] += flux * across * down
    return image


def test_canonical_form_re_renders_and_obeys_the_law(small: Path) -> None:
    store = load(small)
    assert store.splits == {"train": 240, "val": 30, "test": 30}
    assert list(store) == ["train", "val", "test"]
    assert (store.seed, store.prior, store.sensor) == (7, ScenePrior.csist_100k(), Sensor())
    split = store["test"]
    assert split.counts.dtype == np.uint16
    assert split.images.dtype == np.float64
    for image, targets in split[:6]:
        np.testing.assert_array_equal(image, np.rint(naive_image(targets, 0.5, (11, 11))))
        assert 1 <= len(targets) <= 5
        assert ((targets.intensity >= 220) & (targets.intensity <= 250)).all()
        assert len(set(np.rint(targets.x))) == len(set(np.rint(targets.y))) == 1
        gaps = np.hypot(targets.x[:, None] - targets.x, targets.y[:, None] - targets.y)[
            np.triu_indices(len(targets), 1)
        ]
        assert (gaps >= 0.494 - 1e-12).all()
    train = store["train"].images
    assert train.max() > 255  # not clipped
    assert sorted({len(each) for each in store["train"].targets}) == [1, 2, 3, 4, 5]


def test_same_seed_same_bytes_also_in_another_process_with_other_threads(small: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.h5"
    code = "import sys; from csist.datasets import generate; generate(sys.argv[1], count=300, seed=7)"
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, str(again)], check=True, env={"PATH": "", **threads})
    assert again.read_bytes() == small.read_bytes()
    other = load(generate(tmp_path / "other.h5", count=300, seed=8))
    assert not np.array_equal(other["test"].counts, load(small)["test"].counts)


def test_splits_differ_and_sensor_options_leave_the_scenes_alone(small: Path, tmp_path: Path) -> None:
    store = load(small)
    assert store["val"].targets != store["test"].targets
    noisy = load(generate(tmp_path / "noisy.h5", count=300, seed=7, noise_std=5))
    assert noisy["train"].targets == store["train"].targets
    assert noisy["train"].counts.dtype == np.int16
    assert noisy.sensor.read_noise == 5.0
    difference = noisy["train"].images - store["train"].images
    assert noisy["train"].counts.min() < 0
    assert difference.std() == pytest.approx(np.sqrt(25 + 1 / 6), rel=0.02)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"bits": "float"}, np.float32),
        ({"bits": 8, "clip": True}, np.uint8),
        ({"bits": "8", "clip": True, "noise_std": 2.0}, np.uint8),
        ({"bits": 16, "clip": True, "noise_std": 2.0}, np.uint16),
        ({"bits": 32}, np.uint32),
        ({"sensor": Sensor(bits=12, background=1000.0)}, np.uint16),
        ({"sensor": Sensor(background=-3.0)}, np.int16),
        ({"sensor": Sensor(quantised=False)}, np.float32),
        ({"sensor": Sensor(gain=2.0)}, np.uint16),
    ],
)
def test_smallest_type_that_holds_the_values(tmp_path: Path, options: dict[str, Any], dtype: type) -> None:
    store = load(generate(tmp_path / "s.h5", count=30, **options))
    split = store["train"]
    assert split.counts.dtype == dtype
    if dtype is np.float32:
        assert not store.sensor.quantised
        clean = np.stack([store.sensor.render(each) for each in split.targets])
        np.testing.assert_allclose(split.images, clean, rtol=1e-6, atol=1e-6)
    if options.get("clip"):
        assert (store.sensor.bits, store.sensor.floor) == (int(options["bits"]), 0.0)
        assert (split.images.max() == 255) == (int(options["bits"]) == 8)


def test_clip_keeps_a_lower_limit_of_the_sensor(tmp_path: Path) -> None:
    store = load(generate(tmp_path / "s.h5", count=30, sensor=Sensor(bits=8), bits=16, clip=True))
    assert (store.sensor.bits, store["train"].images.max()) == (8, 255)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bits": 8}, "add --clip to clip them at 0 and 255, or use --bits 16"),
        ({"sensor": Sensor(background=70000.0)}, "use --bits float"),
        ({"bits": 12}, "bits must be 8, 16, 32 or float, got 12"),
        ({"bits": "deep"}, "got deep"),
        ({"bits": "float", "clip": True}, "clip"),
        ({"count": 0}, "count must be a whole number >= 1, got 0"),
        ({"count": -5}, "got -5"),
        ({"count": 2.5}, "got 2.5"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**63}, "seed must be"),
        ({"layout": "zip"}, "store, grokcso"),
        ({"noise_std": -1.0}, "read_noise"),
        ({"prior": ScenePrior(count_range=(1, 2)), "bits": "float"}, "noise is 0"),
    ],
)
def test_bad_arguments_leave_nothing_behind(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        generate(tmp_path / "s.h5", **({"count": 50} | options))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_interrupt_leaves_the_old_file_untouched(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    path.write_bytes(b"old")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(path, count=30, progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]
    assert path.read_bytes() == b"old"


def test_path_is_checked_before_the_work(tmp_path: Path) -> None:
    def never(done: int, total: int) -> None:
        raise AssertionError

    for path, said in ((tmp_path / "no" / "s.h5", "does not exist"), (tmp_path / "s.txt", "must end in .h5")):
        with pytest.raises(InputError, match=said):
            generate(path, count=30, progress=never)


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    generate(tmp_path / "s.h5", count=2600, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2000, 2600), (2080, 2600), (2340, 2600), (2600, 2600)]


@given(st.integers(1, 10**6))
def test_split_sizes_add_up(count: int) -> None:
    sizes = split_sizes(count)
    assert sum(sizes.values()) == count
    assert sizes["test"] >= 1
    assert all(size >= (count >= 3) for size in sizes.values())


@pytest.mark.parametrize("count", range(1, 11))
def test_tiny_counts_give_valid_stores(tmp_path: Path, count: int) -> None:
    store = load(generate(tmp_path / "s.h5", count=count))
    assert store.splits == split_sizes(count)
    for name, size in store.splits.items():
        split = store[name]
        assert split.images.shape == (size, 11, 11) == split.shape
        assert len(split.targets) == len(split) == size


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**63 - 1),
    rows=st.integers(3, 9),
    columns=st.integers(3, 9),
    sigma=st.floats(0.3, 1.5),
)
def test_any_sensor_comes_back_with_images_that_re_render(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, columns: int, sigma: float
) -> None:
    sensor = Sensor(psf=GaussianPSF(sigma), shape=(rows, columns), background=4.0)
    store = load(generate(tmp_path_factory.mktemp("any") / "s.h5", count=10, seed=seed, sensor=sensor))
    assert (store.sensor, store.seed) == (sensor, seed)
    image, targets = store["test"][0]
    np.testing.assert_array_equal(image, np.rint(4.0 + naive_image(targets, sigma, (rows, columns))))


def test_zero_targets_and_a_psf_card_beyond_64_kb(tmp_path: Path) -> None:
    axis = np.arange(-80, 81) / 20
    psf = SampledPSF(np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / 0.36), oversampling=20)
    sensor = Sensor(psf=psf, shape=(7, 9))
    prior = ScenePrior(count_range=(0, 2), intensity_range=(100, 200))
    store = load(generate(tmp_path / "s.h5", count=40, sensor=sensor, prior=prior))
    assert len(str(store.sensor.to_card())) > 65536
    assert store.sensor.psf == psf
    assert store.prior == prior
    split = store["train"]
    empty = [i for i, targets in enumerate(split.targets) if not len(targets)]
    assert empty
    assert not split.images[empty].any()
    full = next(i for i, targets in enumerate(split.targets) if len(targets) == 2)
    np.testing.assert_allclose(split.images[full], sensor.render(split.targets[full]), atol=0.51)


def test_slicing_limit_and_pickling(small: Path) -> None:
    split = load(small)["train"]
    images, targets = split.images, split.targets
    for key in (
        slice(5, 20),
        slice(None, None, 7),
        slice(-3, None),
        slice(None, None, -1),
        slice(40, 10, -3),
        slice(9, 9),
    ):
        part = split[key]
        np.testing.assert_array_equal(part.images, images[key])
        assert part.targets == targets[key]
    np.testing.assert_array_equal(split[10:50][5:9].images, images[15:19])
    np.testing.assert_array_equal(split[-1][0], images[-1])
    assert len(split.limit(10)) == 10
    assert len(split.limit(10**9)) == len(split.limit(None)) == 240
    with pytest.raises(InputError, match="limit"):
        split.limit(0)
    copy = ForkingPickler.loads(ForkingPickler.dumps(load(small)["val"]))
    np.testing.assert_array_equal(copy.images, load(small)["val"].images)
    assert sum(1 for _ in split) == 240


def test_missing_split_is_named(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no split 'tset': it has train, val, test"):
        load(small)["tset"]
    arrays = SplitArrays.from_targets(np.zeros((2, 11, 11), np.uint8), [Targets.empty()] * 2)
    only = load(write_store(tmp_path / "only.h5", {"test": arrays}, Sensor()))
    assert (only.seed, only.prior) == (None, ScenePrior.flat())
    assert only["test"].targets == [Targets.empty()] * 2
    with pytest.raises(InputError, match="no split 'train': it has test"):
        only["train"]


def test_write_store_checks_shapes(tmp_path: Path) -> None:
    arrays = SplitArrays.from_targets(np.zeros((2, 9, 9)), [Targets.empty()] * 2)
    with pytest.raises(InputError, match="images of test"):
        write_store(tmp_path / "a.h5", {"test": arrays}, Sensor())
    with pytest.raises(InputError, match="'extra'"):
        write_store(tmp_path / "a.h5", {"extra": arrays}, Sensor(shape=(9, 9)))
    with pytest.raises(InputError, match="one Targets per image"):
        SplitArrays.from_targets(np.zeros((2, 9, 9)), [Targets.empty()])
    wrong = SplitArrays(arrays.images, arrays.targets[:1], arrays.count)
    with pytest.raises(InputError, match="must have targets"):
        write_store(tmp_path / "a.h5", {"test": wrong}, Sensor(shape=(9, 9)))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_store(small: Path, tmp_path: Path, share: float) -> None:
    data = small.read_bytes()
    path = tmp_path / "cut.h5"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=r"cut\.h5") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_foreign_files(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        load(tmp_path / "none.h5")
    with pytest.raises(InputError, match="it is a folder"):
        load(tmp_path)
    text = tmp_path / "text.h5"
    text.write_text("no HDF5 at all")
    with pytest.raises(InputError, match="not an HDF5 file"):
        load(text)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["image"] = np.zeros((3, 3))
    with pytest.raises(InputError, match="no csist dataset"):
        load(other)


def _spoil(small: Path, tmp_path: Path, change: Any) -> Path:
    path = tmp_path / "spoilt.h5"
    path.write_bytes(small.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def test_damaged_contents(small: Path, tmp_path: Path) -> None:
    def newer(file: Any) -> None:
        file.attrs["schema_version"] = 99

    def card(file: Any) -> None:
        file.attrs["sensor"] = '{"psf": {"kind": "square"}}'

    def json_error(file: Any) -> None:
        file.attrs["prior"] = "{"

    def no_targets(file: Any) -> None:
        del file["val"]["targets"]

    def no_sensor(file: Any) -> None:
        del file.attrs["sensor"]

    def shape(file: Any) -> None:
        del file["val"]["image"]
        file["val"]["image"] = np.zeros((30, 5, 5))

    for change, said in (
        (newer, "update csist"),
        (card, "square"),
        (json_error, "cannot read"),
        (no_targets, "damaged"),
        (no_sensor, "damaged"),
        (shape, "do not fit"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            load(_spoil(small, tmp_path, change))
        assert "spoilt.h5" in str(caught.value)
        assert "\n" not in str(caught.value)

    def count(file: Any) -> None:
        file["val"]["count"][3] = 9

    split = load(_spoil(small, tmp_path, count))["val"]
    with pytest.raises(InputError, match="targets and count disagree"):
        _ = split.targets


def test_window_dataset_in_a_loader(small: Path) -> None:
    torch = pytest.importorskip("torch")
    split = load(small)["val"]
    dataset = WindowDataset(split, 3)
    image, cells = dataset[4]
    assert (image.shape, cells.shape, image.dtype, cells.dtype) == (
        (1, 11, 11),
        (1, 33, 33),
        torch.float32,
        torch.float32,
    )
    np.testing.assert_array_equal(image[0].numpy(), split.images[4].astype(np.float32))
    np.testing.assert_allclose(cells[0].numpy(), SubPixelGrid((11, 11), 3).encode(split.targets[4]), rtol=1e-6)
    image.zero_()  # what a caller does with a sample stays with the caller
    assert dataset[4][0].any()
    images, maps = next(iter(torch.utils.data.DataLoader(dataset, batch_size=8)))
    assert (images.shape, maps.shape) == ((8, 1, 11, 11), (8, 1, 33, 33))
    with pytest.raises(InputError, match="ratio"):
        WindowDataset(split, 0)


def test_importing_datasets_leaves_torch_alone() -> None:
    code = "import sys, csist.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
