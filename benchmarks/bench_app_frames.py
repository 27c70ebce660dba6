"""Measured infrared frames through the app's own functions: no error, and no row that contradicts itself.

The result is written when all frames are done: docs/results/app_frames.json.

python benchmarks/bench_app_frames.py FOLDER [accurate|fast]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from common import write_result
from csist.app import page
from csist.app.result import Result, results
from csist.app.scene import Files, make_scene
from csist.app.settings import Settings

FOLDERS = ("drone_ir_cc0/frames", "sirst/images", "thermal16_flir/raw16")

CERTAIN, WIDE_PX = 0.5, 1.0
"""A target of a frame with a higher score has a smaller standard error."""


def frames(folder: Path) -> list[Path]:
    """Return the images of a folder with measured frames."""
    return [path for name in FOLDERS for path in sorted((folder / name).glob("*.png"))]


def unmixed(path: Path, settings: Settings) -> Result:
    """The result of a frame, with all that the page shows of it."""
    *_, result = results(make_scene(settings, Files(path)), settings, lambda _: None)
    groups = result.first_groups(0)
    parts = [page.pictures(result), page.tables(result), page.downloads(result, 0, groups)]
    if groups:
        parts.append(page.close_ups(result.group_pictures(0, groups)))
    if not all(parts):
        raise RuntimeError(f"{path.name}: a part of the page is empty")
    return result


def disagreements(result: Result) -> list[str]:
    """Targets whose score says that they are certain and whose error says that they are not."""
    targets = result.answers[0].targets
    spread = np.nan_to_num(np.hypot(targets.x_std, targets.y_std))
    wrong = (targets.score > CERTAIN) & (spread > WIDE_PX)
    return [
        f"score {score:.3f}, error {error:.2f} px"
        for score, error in zip(targets.score[wrong], spread[wrong], strict=True)
    ]


def main(folder: Path, mode: str) -> int:
    """Unmix all frames, write the counts of each folder, and return the number of frames that failed."""
    counts: dict[str, dict[str, int]] = {}
    for path in frames(folder):
        name = str(path.parent.relative_to(folder))
        count = counts.setdefault(name, {"frames": 0, "failed": 0, "targets": 0, "disagreements": 0})
        count["frames"] += 1
        started = time.perf_counter()
        try:
            found = unmixed(path, Settings(source="upload", mode=mode))
        except Exception as error:
            count["failed"] += 1
            print(f"{path.name}: {type(error).__name__}: {error}")
            continue
        number, seconds, wrong = len(found.answers[0].targets), time.perf_counter() - started, disagreements(found)
        count["targets"] += number
        count["disagreements"] += len(wrong)
        print(path.name, f"{number} targets, {seconds:.1f} s", *wrong, sep=": ", flush=True)
    total = {key: sum(each[key] for each in counts.values()) for key in next(iter(counts.values()))}
    write_result("app_frames", {"mode": mode, "folders": counts, "total": total})
    return total["failed"]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "accurate") > 0)
