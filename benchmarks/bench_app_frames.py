"""Measured infrared frames through the app's own functions: no error, and no row that contradicts itself.

python benchmarks/bench_app_frames.py FOLDER [accurate|fast]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

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
    """Unmix all frames and return the number of those that failed."""
    failed = 0
    for path in frames(folder):
        started = time.perf_counter()
        try:
            found = unmixed(path, Settings(source="upload", mode=mode))
        except Exception as error:
            failed += 1
            print(f"{path.name}: {type(error).__name__}: {error}")
            continue
        count, seconds = len(found.answers[0].targets), time.perf_counter() - started
        print(path.name, f"{count} targets, {seconds:.1f} s", *disagreements(found), sep=": ", flush=True)
    print(f"{failed} of {len(frames(folder))} frames failed")
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "accurate") > 0)
