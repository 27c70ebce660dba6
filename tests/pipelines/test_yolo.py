"""Maps as pictures, targets as boxes, and back; what needs ultralytics itself is skipped where that is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import csist
from csist.checks import InputError
from csist.create import create_method
from csist.grid import SubPixelGrid
from csist.methods.base import GridMethod
from csist.methods.table import canonical_name
from csist.physics.sensor import Sensor
from csist.pipelines import yolo
from csist.pipelines.boxes import (
    BOX_CELLS,
    CELL_PX,
    PHASES,
    STRIDE_PX,
    WHITE_COUNTS,
    WINDOW_PX,
    Canvas,
    label_text,
    windows_around,
    write_detection_set,
)
from csist.scenes import ScenePrior, sample_scenes
from csist.targets import Targets

SHAPES = [((11, 11), 3), ((7, 9), 4), ((3, 3), 1), ((11, 11), 7)]
HAVE_YOLO = all(importlib.util.find_spec(name) is not None for name in yolo.NEEDED)


def scenes(n: int, shape: tuple[int, int] = (11, 11), seed: int = 0) -> list[Targets]:
    return sample_scenes(ScenePrior.csist_100k(), Sensor(shape=shape), n, seed)


class Oracle(GridMethod):
    """A grid method that knows the truth of the images it is shown, by their first pixel."""

    def __init__(self, truths: list[Targets]) -> None:
        super().__init__(Sensor(), 3)
        self.truths = truths

    def predict_maps(self, images: NDArray[np.float64]) -> NDArray[np.float64]:
        """The true maps."""
        maps = [self.grid.encode(self.truths[int(image[0, 0])]) for image in images]
        return np.array(maps).reshape(-1, *self.grid.map_shape)


def numbered(n: int, first: int = 0) -> NDArray[np.float64]:
    return np.arange(first, first + n)[:, None, None] * np.ones((1, 11, 11))


# --- pictures and boxes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "ratio"), SHAPES)
def test_a_picture_has_strides_and_room_for_whole_boxes(shape: tuple[int, int], ratio: int) -> None:
    for phase in ((0, 0), (PHASES - 1, 1)):
        canvas = Canvas(SubPixelGrid(shape, ratio), phase)
        rows, columns = canvas.grid.map_shape
        u, v = canvas.corner
        assert canvas.side % STRIDE_PX == u % CELL_PX == v % CELL_PX == 0
        for start, cells in ((u, columns), (v, rows)):
            assert min(start, canvas.side - start - CELL_PX * cells) >= BOX_CELLS * CELL_PX // 2
    assert [Canvas(SubPixelGrid((side, side), 3)).side for side in (11, WINDOW_PX)] == [320, 128]


@pytest.mark.parametrize(("shape", "ratio"), SHAPES)
def test_a_box_lies_around_its_target_in_the_picture(shape: tuple[int, int], ratio: int) -> None:
    grid = SubPixelGrid(shape, ratio)
    canvas = Canvas(grid)
    target = grid.snap(Targets(x=[shape[1] - 1.2], y=[0.3], intensity=[WHITE_COUNTS]))
    picture = canvas.draw(grid.encode(target))
    assert picture.shape == (canvas.side, canvas.side) and picture.dtype == np.uint8
    row, column = np.nonzero(picture)
    assert len(row) == CELL_PX**2 and (picture[row, column] == 255).all()
    ((u, v, width, height),) = canvas.boxes(target) * canvas.side
    assert (u, v) == pytest.approx((column.mean() + 0.5, row.mean() + 0.5))
    assert width == height == pytest.approx(BOX_CELLS * CELL_PX)


@pytest.mark.parametrize(("shape", "ratio"), SHAPES)
def test_boxes_and_targets_undo_each_other(shape: tuple[int, int], ratio: int) -> None:
    canvas, rng = Canvas(SubPixelGrid(shape, ratio)), np.random.default_rng(1)
    x, y = rng.uniform(-0.5, np.array([shape[1], shape[0]])[:, None] - 0.5, (2, 20))
    truth = Targets(x=x, y=y, intensity=np.ones(20))
    boxes = canvas.boxes(truth)
    assert (boxes[:, :2] - boxes[:, 2:] / 2 > -1e-12).all() and (boxes[:, :2] + boxes[:, 2:] / 2 < 1 + 1e-12).all()
    score = rng.uniform(size=20)
    found = canvas.targets(boxes[:, :2] * canvas.side, score, np.zeros(canvas.grid.map_shape))
    np.testing.assert_allclose([found.x, found.y], [x, y], atol=1e-9)
    assert (found.score == score).all() and (found.intensity == 0.0).all()


def test_levels_are_clipped_and_other_maps_refused() -> None:
    canvas = Canvas(SubPixelGrid((3, 3), 1))
    cells = np.zeros((3, 3))
    cells[0] = [-20.0, WHITE_COUNTS / 2, 3.0 * WHITE_COUNTS]
    u, v = canvas.corner
    assert [int(canvas.draw(cells)[v, u + CELL_PX * k]) for k in range(3)] == [0, 128, 255]
    with pytest.raises(InputError, match=r"shape \(3, 3\) is needed"):
        canvas.draw(np.zeros((4, 3)))


def test_a_box_beside_the_map_is_moved_to_its_edge() -> None:
    canvas = Canvas(SubPixelGrid((11, 11), 3))
    found = canvas.targets(np.array([[0.0, 320.0]]), np.array([0.5]), np.zeros((33, 33)))
    assert (found.x[0], found.y[0]) == pytest.approx((-0.5, 10.5))


def test_no_box_is_no_target() -> None:
    canvas = Canvas(SubPixelGrid((11, 11), 3))
    assert canvas.targets(np.zeros((0, 2)), np.zeros(0), np.ones((33, 33))) == Targets.empty()
    assert canvas.boxes(Targets.empty()).shape == (0, 4) and label_text(np.zeros((0, 4))) == ""


def test_a_cell_s_flux_goes_to_the_nearest_box_that_reaches_it() -> None:
    grid, rng = SubPixelGrid((11, 11), 3), np.random.default_rng(2)
    canvas, cells = Canvas(grid), rng.normal(20.0, 30.0, (33, 33))
    place = rng.uniform(10.0, 20.0, (4, 2))
    expected = np.zeros(4)
    for row in range(33):
        for column in range(33):
            distances = [np.hypot(column - a, row - b) for a, b in place]
            k = int(np.argmin(distances))
            if max(abs(column - place[k, 0]), abs(row - place[k, 1])) <= BOX_CELLS / 2:
                expected[k] += max(cells[row, column], 0.0)
    centre = np.asarray(canvas.corner) + CELL_PX * (place + 0.5)
    np.testing.assert_allclose(canvas.targets(centre, np.ones(4), cells).intensity, expected)


# --- the detection set ------------------------------------------------------------------------------------


def test_a_detection_set_is_written(tmp_path: Path) -> None:
    grid, truths = SubPixelGrid((11, 11), 3), [*scenes(3), Targets.empty()]
    maps = np.stack([grid.encode(truth) for truth in truths])
    description = write_detection_set(tmp_path / "set", grid, {"train": (maps, truths), "val": (maps[2:], truths[2:])})
    assert description.read_text() == "train: images/train\nval: images/val\nnames:\n  0: target\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
    for split, kept in (("train", truths), ("val", truths[2:])):
        pictures = sorted((tmp_path / "set" / "images" / split).iterdir())
        assert len(pictures) == len(kept)
        for path, truth in zip(pictures, kept, strict=True):
            label = tmp_path / "set" / "labels" / split / f"{path.stem}.txt"
            rows = np.array([line.split() for line in label.read_text().splitlines()], dtype=float).reshape(-1, 5)
            assert (rows[:, 0] == 0).all()
            np.testing.assert_allclose(rows[:, 1:], Canvas(grid).boxes(truth), atol=1e-8)
            np.testing.assert_array_equal(np.asarray(Image.open(path)), Canvas(grid).draw(grid.encode(truth)))


def test_a_detection_set_needs_both_parts(tmp_path: Path) -> None:
    grid, truths = SubPixelGrid((11, 11), 3), scenes(2)
    maps = np.stack([grid.encode(truth) for truth in truths])
    for parts, message in (
        ({"train": (maps, truths)}, "got none for val"),
        ({"train": (maps[:0], []), "val": (maps, truths)}, "got none for train"),
        ({"train": (maps, truths), "val": (maps, truths[:1])}, "got 1 for 2 maps of val"),
    ):
        with pytest.raises(InputError, match=message):
            write_detection_set(tmp_path / "set", grid, parts)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("shape", "ratio", "side_px"), [((11, 11), 3, WINDOW_PX), ((11, 11), 7, 3), ((7, 9), 4, 5)])
def test_windows_hold_the_group_as_it_lies(shape: tuple[int, int], ratio: int, side_px: int) -> None:
    grid, truths = SubPixelGrid(shape, ratio), [*scenes(40, shape), Targets.empty()]
    maps = np.stack([grid.encode(truth) for truth in truths])
    maps[-1, -1, -1] = 60.0  # a false target in the last cell
    cut, moved = windows_around(grid, (maps, truths), side_px)
    small = SubPixelGrid((side_px, side_px), ratio)
    assert cut.shape == (41, *small.map_shape)
    np.testing.assert_allclose(cut[:-1].sum((1, 2)), maps[:-1].sum((1, 2)))
    for cells, truth, inside in zip(cut[:-1], truths, moved, strict=False):
        np.testing.assert_array_equal(cells, small.encode(inside))
        shift = {float(round(value, 9)) for value in (truth.x - inside.x)}
        assert len(shift) == 1 and shift.pop().is_integer()
    assert cut[-1, -1, -1] == 60.0 and moved[-1] == Targets.empty()
    nothing, nobody = windows_around(grid, (maps[:0], []), side_px)
    assert nothing.shape == (0, *small.map_shape) and nobody == []


def test_windows_that_do_not_fit_are_refused() -> None:
    grid = SubPixelGrid((11, 11), 3)
    wide = [Targets(x=[2.0, 6.0], y=[5.0, 5.0], intensity=[230.0, 230.0])]
    for side_px, message in (
        (3, "windows of 3 px do not hold the group of map 0"),
        (12, "between 1 and 11, .* got 12"),
    ):
        with pytest.raises(InputError, match=message):
            windows_around(grid, (np.stack([grid.encode(wide[0])]), wide), side_px)


def test_windows_are_drawn_in_all_phases(tmp_path: Path) -> None:
    grid, truths = SubPixelGrid((3, 3), 3), scenes(60, (3, 3))
    maps = np.stack([grid.encode(truth) for truth in truths])
    parts = {"train": (maps, truths), "val": (maps[:2], truths[:2])}
    for name in ("one", "two"):
        write_detection_set(tmp_path / name, grid, parts, seed=4)
    places = set()
    for number, (cells, truth) in enumerate(zip(maps, truths, strict=True)):
        image, label = (
            tmp_path / "one" / kind / "train" / f"{number:06d}.{end}"
            for kind, end in (("images", "png"), ("labels", "txt"))
        )
        drawn = np.asarray(Image.open(image))
        phase = next(
            (u, v) for u in range(PHASES) for v in range(PHASES)
            if (drawn == Canvas(grid, (u, v)).draw(cells)).all()
        )  # fmt: skip
        rows = np.array([line.split() for line in label.read_text().splitlines()], dtype=float)[:, 1:]
        np.testing.assert_allclose(rows, Canvas(grid, phase).boxes(truth), atol=1e-8)
        places.add(phase)
        assert image.read_bytes() == (tmp_path / "two" / image.relative_to(tmp_path / "one")).read_bytes()
    assert len(places) == PHASES**2


# --- the suffix -------------------------------------------------------------------------------------------


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yolo.importlib.util, "find_spec", lambda name: None)
    assert canonical_name("ISTA+YOLO") == "ista+yolo"
    with pytest.raises(InputError, match=r"needs ultralytics and torchvision.*AGPL.*pip install 'csist\[yolo\]'"):
        create_method("ista+yolo")
    with pytest.raises(InputError, match="needs ultralytics and torchvision"):
        yolo.train_detector(Oracle([]), {}, minutes=1.0, path="detector.pt")


class FakeDetector:
    """Finds each white square, as one box of confidence 0.9; cannot read a file that says "damaged"."""

    def __init__(self, path: str, task: str) -> None:
        if Path(path).read_text() == "damaged":
            raise KeyError("no model\nin here")

    def predict(self, pictures: list[Any], imgsz: int, conf: float, **options: Any) -> list[Any]:
        """One result for each picture."""
        assert all(picture.shape == (imgsz, imgsz, 3) for picture in pictures)
        return [SimpleNamespace(boxes=FakeBoxes(picture[:, :, 0])) for picture in pictures]


class FakeBoxes:
    """The boxes of a picture, with the methods of a tensor."""

    def __init__(self, picture: NDArray[np.uint8]) -> None:
        offset = Canvas(SubPixelGrid((11, 11), 3)).corner[0] % CELL_PX
        row, column = np.nonzero(picture[offset::CELL_PX, offset::CELL_PX])
        centre = np.stack([column, row], axis=1) * CELL_PX + offset + CELL_PX / 2
        self.xywh = np.concatenate([centre, np.full_like(centre, 24.0)], axis=1).astype(np.float32)
        self.conf = np.full(len(centre), 0.9, dtype=np.float32)

    def cpu(self) -> FakeBoxes:
        """The same boxes."""
        return self

    def numpy(self) -> FakeBoxes:
        """The same boxes."""
        return self


@pytest.fixture
def fake_yolo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A package that looks like ultralytics, an empty present folder, and the switches of its settings."""
    module, settings = ModuleType("ultralytics"), {"sync": True, "hub": True, "uuid": "x", "off": False}
    module.YOLO, module.settings = FakeDetector, settings  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ultralytics", module)
    monkeypatch.setattr(yolo.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (*yolo.SURROUNDINGS, "YOLO_CONFIG_DIR"):
        monkeypatch.setenv(name, "before")  # put back afterwards
    monkeypatch.chdir(tmp_path)
    return settings


def test_detections_become_targets(fake_yolo: dict[str, Any], tmp_path: Path) -> None:
    truths = [*scenes(3), Targets.empty()]
    method = Oracle(truths)
    (tmp_path / "detector.pt").write_text("fine")
    found = yolo.YoloReadOut(method, tmp_path / "detector.pt").predict(numbered(4))
    assert len(found) == 4 and found[3] == Targets.empty()
    for targets, truth in zip(found[:3], truths[:3], strict=True):
        cells = method.grid.decode(method.grid.encode(truth))
        np.testing.assert_allclose([targets.x, targets.y], [cells.x, cells.y], atol=1e-6)
        np.testing.assert_allclose(targets.intensity, cells.intensity)
        assert (targets.score == np.float32(0.9)).all()
    assert yolo.YoloReadOut(method, tmp_path / "detector.pt").predict(numbered(0)) == []


def test_nothing_is_looked_up(fake_yolo: dict[str, Any], tmp_path: Path) -> None:
    yolo._ultralytics()
    assert fake_yolo == {"sync": False, "hub": False, "uuid": "x", "off": False}
    assert (os.environ["YOLO_OFFLINE"], os.environ["YOLO_AUTOINSTALL"]) == ("true", "false")
    folder = Path(os.environ["YOLO_CONFIG_DIR"])
    assert folder == tmp_path / "cache" / "csist" / "yolo"
    font = folder / "Ultralytics" / "Arial.ttf"
    assert font.read_bytes()[:4] == b"\x00\x01\x00\x00"  # a TrueType font
    font.write_bytes(b"mine")
    yolo.make_configuration(folder)
    assert font.read_bytes() == b"mine"


def test_a_missing_or_damaged_detector_is_named(fake_yolo: dict[str, Any], tmp_path: Path) -> None:
    missing = r"no detector runs.yolo.ISTA-c3.pt for the maps of ISTA at ratio 3: make it with .*train_detector"
    with pytest.raises(InputError, match=missing):
        create_method("ista+yolo")
    (tmp_path / "bad.pt").write_text("damaged")
    with pytest.raises(InputError, match=r"bad.pt is damaged or no detector: no model in here"):
        create_method("ista+yolo", detector="bad.pt")


def test_the_core_never_imports_it() -> None:
    root = Path(csist.__file__).parent
    pattern = re.compile(r"^\s*(import|from)\s+(ultralytics|csist\.pipelines)", re.MULTILINE)
    core = [path for path in root.rglob("*.py") if "pipelines" not in path.relative_to(root).parts]
    assert core and not [path for path in core if pattern.search(path.read_text(encoding="utf-8"))]
    for path in (root / "pipelines").glob("*.py"):
        assert not re.search(r"^(import|from)\s+ultralytics", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.skipif(not HAVE_YOLO, reason="needs ultralytics and torchvision, of the extra `yolo`")
@pytest.mark.filterwarnings("default")
def test_a_detector_is_trained_and_used(tmp_path: Path) -> None:
    method = Oracle(scenes(24))
    parts = {"train": (numbered(16), method.truths[:16]), "val": (numbered(8, 16), method.truths[16:])}
    path = yolo.train_detector(method, parts, minutes=0.05, path=tmp_path / "detector.pt", batch_size=8)
    assert [each.name for each in tmp_path.iterdir()] == ["detector.pt"]
    found = yolo.YoloReadOut(method, path).predict(numbered(3), confidence=1e-4)
    assert len(found) == 3 and sum(map(len, found))
    for targets in found:
        assert ((targets.score >= 0.0) & (targets.score <= 1.0)).all() and np.isfinite(targets.intensity).all()
