"""`NAME+yolo`: the map of a grid method, read out by a detector of objects instead of a threshold.

Han et al., "DISTA-Net", ICCV 2025, feed maps to YOLO11 (Jocher & Qiu, 2024); here yolo11n learns from nothing, on
maps of the method that it will read. Positions are box centres, so that they are not bound to the grid; the score is
the detector's confidence. How maps become pictures, and boxes targets, is in `csist.pipelines.boxes`.

Licence: this file is Apache-2.0 like the rest, but it runs with the package `ultralytics`, which is AGPL-3.0: who
offers a program or service that uses both has to respect that licence, and so may have to with weights that it
trained. It is the extra `yolo`, nothing else in csist imports it, and it is imported only when a detector is used.

Nothing is looked up or sent: the detector runs offline, with a configuration folder of its own, without its settings'
synchronisation, its installer and its pretrained weights.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError, check_positive
from csist.files import atomic_path, check_writable, one_line
from csist.grid import SubPixelGrid
from csist.methods.base import GridMethod
from csist.methods.readout.base import ReadOut
from csist.pipelines.boxes import WINDOW_PX, Canvas, Labelled, windows_around, write_detection_set
from csist.targets import Targets

NEEDED = ("ultralytics", "torchvision")
"""Packages of the extra `yolo`."""

ARCHITECTURE = "yolo11n.yaml"
DETECTORS = Path("runs/yolo")
"""Folder, below the present one, of the detectors that were trained."""

CONFIDENCE = 0.05
"""Boxes of less confidence are dropped: ranking wants the doubtful ones at its end, a count does not."""

OVERLAP = 0.5
"""Of two boxes that share more than this of their union the less confident one is dropped."""

MOST_BOXES = 64
BATCH = 32

WARMUP_PICTURES = 6400
"""Number of pictures during which the learning rate rises: the detector's own three epochs would be the whole of a
training of an hour without a GPU."""

PICTURES_AT_A_TIME = 64

SURROUNDINGS = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}

UNCHANGED = dict.fromkeys(
    ("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "mosaic", "mixup", "erasing"),
    0.0,
)
"""Augmentations that would resample a map or change its levels; mirroring does neither and is kept."""


def check_extra() -> None:
    """Check that the packages of the extra are there.

    Raises:
        InputError: if not; says how to install them.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"NAME+yolo needs {' and '.join(missing)}, of the extra `yolo` (ultralytics is AGPL-3.0): "
            "pip install 'csist[yolo]', or `make yolo` in a checkout for an environment of its own"
        )


def make_configuration(folder: Path) -> Path:
    """Make the detector's configuration folder, with the font that it would download; returns the folder."""
    import matplotlib as mpl

    font = folder / "Ultralytics" / "Arial.ttf"
    if not font.is_file():
        font.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(font) as partial:
            shutil.copyfile(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", partial)
    return folder


def _ultralytics() -> Any:
    """The package, told to look nothing up."""
    check_extra()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.update(SURROUNDINGS)
    os.environ["YOLO_CONFIG_DIR"] = str(make_configuration(cache / "csist" / "yolo"))
    import ultralytics

    # All of its switches are about services and messages; `sync` sends usage statistics.
    ultralytics.settings.update({key: False for key, value in ultralytics.settings.items() if value is True})
    return ultralytics


def detector_path(method: GridMethod) -> Path:
    """Where the detector for a method's maps is looked for, such as runs/yolo/DISTANet-c3.pt."""
    return DETECTORS / f"{type(method).__name__}-c{method.ratio}.pt"


def train_detector(
    method: GridMethod,
    parts: Mapping[str, tuple[FloatArray, list[Targets]]],
    minutes: float,
    *,
    path: str | Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = BATCH,
    window_px: int | None = WINDOW_PX,
) -> Path:
    """Train a detector on a method's maps, from nothing; returns its weight file.

    Of the detectors after each epoch the best one on the maps of "val" is kept. It reads whole maps, whatever it
    learned from.

    Args:
        method: the grid method, trained.
        parts: images (N, H, W) in counts and true targets, of "train" and of "val".
        minutes: time to train, roughly; the detector ends with the epoch that it expects to be the last.
        path: the weight file (.pt); None for `detector_path(method)`.
        seed: of the first weights and the order.
        device: torch's name of the hardware.
        batch_size: pictures a step.
        window_px: side in px of the windows around the groups that it learns from; None for whole maps.

    Raises:
        InputError: if the extra is missing, an argument does not fit or the path cannot be written.
    """
    check_positive("minutes", minutes)
    check_positive("batch_size", batch_size)
    path = detector_path(method) if path is None else Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    check_writable(path, (".pt",))
    ultralytics = _ultralytics()
    labelled: dict[str, Labelled] = {
        split: (method.predict_maps(images), truths) for split, (images, truths) in parts.items()
    }
    grid = method.grid
    if window_px is not None:
        labelled = {split: windows_around(grid, each, window_px) for split, each in labelled.items()}
        grid = SubPixelGrid((window_px, window_px), grid.ratio)
    with tempfile.TemporaryDirectory(prefix=".training-", dir=path.parent) as name:
        folder = Path(name).resolve()
        description = write_detection_set(folder / "maps", grid, labelled, None if window_px is None else seed)
        detector = ultralytics.YOLO(ARCHITECTURE, task="detect")
        detector.train(
            data=str(description), imgsz=Canvas(grid).side, time=minutes / 60.0, batch=batch_size,
            project=str(folder), name="run", seed=seed, device=device, pretrained=False, amp=False, plots=False,
            workers=0, verbose=False, close_mosaic=0, flipud=0.5, fliplr=0.5, iou=OVERLAP, max_det=MOST_BOXES,
            warmup_epochs=WARMUP_PICTURES / len(parts["train"][1]), **UNCHANGED,
        )  # fmt: skip
        with atomic_path(path) as partial:
            shutil.copyfile(folder / "run" / "weights" / "best.pt", partial)
    return path


class YoloReadOut(ReadOut):
    """A grid method whose maps are read out by a detector.

    Args:
        method: the grid method.
        detector: weight file that `train_detector` wrote for this method's maps; None for `detector_path(method)`.
            It is a pickle, which runs code when it is loaded: use none from strangers.

    Raises:
        InputError: if the extra is missing, or the weight file is or cannot be read.
    """

    def __init__(self, method: GridMethod, detector: str | Path | None = None) -> None:
        check_extra()
        path = detector_path(method) if detector is None else Path(detector)
        if not path.is_file():
            raise InputError(
                f"no detector {path} for the maps of {type(method).__name__} at ratio {method.ratio}: make it with "
                "csist.pipelines.yolo.train_detector, or `make yolo` in a checkout, or give detector=FILE"
            )
        super().__init__(method)
        self.canvas = Canvas(method.grid)
        try:
            self._detector = _ultralytics().YOLO(str(path), task="detect")
        except Exception as error:  # a damaged pickle can raise almost anything
            raise InputError(f"{path} is damaged or no detector: {one_line(error)[:200]}") from error

    def read(self, images: FloatArray, maps: FloatArray, confidence: float = CONFIDENCE) -> list[Targets]:
        """One `Targets` for each image, in order; empty where nothing is found.

        Args:
            images: (N, H, W) in counts.
            maps: (N, cH, cW) that the method makes of them.
            confidence: boxes below are dropped.
        """
        found: list[Targets] = []
        for start in range(0, len(maps), PICTURES_AT_A_TIME):
            part = maps[start : start + PICTURES_AT_A_TIME]
            pictures = [np.repeat(self.canvas.draw(cells)[:, :, None], 3, axis=2) for cells in part]
            results = self._detector.predict(
                pictures, imgsz=self.canvas.side, conf=confidence, iou=OVERLAP, max_det=MOST_BOXES, verbose=False
            )
            for cells, result in zip(part, results, strict=True):
                boxes = result.boxes.cpu().numpy()
                centre, score = boxes.xywh[:, :2].astype(np.float64), boxes.conf.astype(np.float64)
                found.append(self.canvas.targets(centre, score, cells))
        return found
