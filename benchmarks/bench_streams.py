"""Sequences of whole frames: labelled infrared clips, and memory and speed of streams.

`--part clips` takes the clips of FOLDER (clips/*.mp4 and labels/*.csv with the columns frame0, x, y, w, h, 1-based
corners), unmixes some frames of each alone and compares four ways to tracks on the same targets: nearest assignment,
the same of whole groups, joint probabilities (extra `tracking`), and the joint posterior of windows of frames. A target
is found in a frame if one lies in its box, with a margin. A track is false if less than half of its targets lie in the
box; unlabelled birds and aircraft count as false. `--part memory` unmixes simulated streams of two lengths, each in a
process of its own. The rules of tracks were chosen on the clips of the half `chosen_on` of `real/split.json`; the
means of the other half are given beside those of all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import csist
from common import write_result
from csist.frames.options import FrameOptions
from csist.io import ReadOptions
from csist.io.sequences import sequence_of_video
from csist.sequences.shots import Shot, shot_of
from csist.sequences.stream import Sliding, unmix_stream
from csist.sequences.whole import JointOptions, unmix_shots
from csist.targets import Targets
from csist.tracks.jpda import ProbabilisticLinker
from csist.tracks.link import Linker, is_confirmed
from csist.tracks.middles import group_middles
from csist.trajectories import MotionPrior
from real.wild import SPLIT

MARGIN_PX = 2.0
WINDOW = 20
RATE = 30.0
"""Frames a second of the clips."""
SKY = csist.Sensor(csist.GaussianPSF(0.9), shape=(48, 48), background=50.0, read_noise=3.0)


def in_box(targets: Targets, box: Any) -> np.ndarray:
    """Which targets lie in a box x, y, w, h with 1-based corners."""
    x, y = targets.x + 1.0, targets.y + 1.0
    return (
        (x >= box.x - MARGIN_PX) & (x <= box.x + box.w + MARGIN_PX)
        & (y >= box.y - MARGIN_PX) & (y <= box.y + box.h + MARGIN_PX)
    )  # fmt: skip


def scores(frames: list[Targets], boxes: list[Any]) -> dict[str, Any]:
    """Share of frames with the target found, tracks of the label, false tracks a minute."""
    own: dict[int, list[bool]] = {}
    seen: dict[int, list[int]] = {}
    found, covered = 0, 0
    for t, (targets, box) in enumerate(zip(frames, boxes, strict=True)):
        inside = in_box(targets, box)
        found += bool(inside.any())
        covered += bool((inside & (targets.track >= 0)).any())
        for track, hit in zip(targets.track.tolist(), inside.tolist(), strict=True):
            if track >= 0:
                own.setdefault(track, []).append(hit)
                seen.setdefault(track, []).append(t)
    long = {track: hits for track, hits in own.items() if is_confirmed(seen[track])}
    true = [hits for hits in long.values() if 2 * sum(hits) >= len(hits)]
    return {
        "found": found / len(frames),
        "tracked": covered / len(frames),
        "longest_track": max((sum(hits) for hits in true), default=0) / len(frames),
        "tracks_of_the_label": len(true),
        "false_tracks_a_minute": 60.0 * RATE * (len(long) - len(true)) / len(frames),
    }


def linked(shots: list[Shot], linker: Any, seen_as: Callable[[Targets], Targets] = Targets.replace) -> list[Targets]:
    """Targets of single frames, or what they are seen as, with the tracks of a linker."""
    frames = [seen_as(shot.targets) for shot in shots]
    return [targets.replace(track=linker.update(t, targets)) for t, targets in enumerate(frames)]


def joint(shots: list[Shot], options: FrameOptions) -> list[Targets]:
    """Targets and tracks of the joint posterior, window by window."""

    def solve(items: list[Shot], times: np.ndarray) -> Any:
        return unmix_shots(items, times, JointOptions(options, MotionPrior(), "acceleration"))

    sliding: Sliding[Shot] = Sliding(solve, WINDOW, WINDOW)
    parts = [part for shot in shots if (part := sliding.add(shot)) is not None]
    parts += [part for part in [sliding.finish()] if part is not None]
    return [targets for part in parts for targets in part.result.frames]


def clips(folder: Path, frames: int, start: int) -> None:
    """Measure all clips of a folder."""
    options = FrameOptions(mode="fast", workers=1)
    rows: dict[str, Any] = {}
    for path in sorted((folder / "clips").glob("*.mp4")):
        labels = pd.read_csv(folder / "labels" / f"{path.stem}.csv").set_index("frame0")
        sequence = sequence_of_video(path, options=ReadOptions(frames=(start, start + frames)))
        began = time.process_time()
        shots = [shot_of(frame, options) for _, frame in sequence]
        alone = time.process_time() - began
        boxes = [labels.loc[start + t] for t in range(len(shots))]
        row: dict[str, Any] = {"frames": len(shots), "cpu_milliseconds_a_frame_alone": 1e3 * alone / len(shots)}
        ways: dict[str, Callable[[], list[Targets]]] = {
            "nearest": lambda shots=shots: linked(shots, Linker()),
            "jpda": lambda shots=shots: linked(shots, ProbabilisticLinker()),
            "groups": lambda shots=shots: linked(shots, Linker(), group_middles),
            "joint": lambda shots=shots: joint(shots, options),
        }
        for name, way in ways.items():
            began = time.process_time()
            result = way()
            row[name] = scores(result, boxes) | {
                "cpu_milliseconds_a_frame": 1e3 * (time.process_time() - began) / len(shots)
            }
        rows[path.stem] = row
        means = {"mean": means_of(rows), "mean_reported_on": means_of({n: rows[n] for n in rows if n in reported_on()})}
        write_result("clips", {"first_frame": start, "window": WINDOW, **means, "clips": rows})


def reported_on() -> set[str]:
    """Names of the clips of the half that chose nothing."""
    scenes = json.loads(SPLIT.read_text())["reported_on"]["drone_ir_cc0"]
    return {frame.rsplit("_", 1)[0] for scene in scenes for frame in scene}


def means_of(rows: dict[str, Any]) -> dict[str, Any]:
    """Mean over clips of each way's figures; empty without clips."""
    ways = next(iter(rows.values()), {})
    return {
        way: {key: float(np.mean([row[way][key] for row in rows.values()])) for key in figures}
        for way, figures in ways.items() if isinstance(figures, dict)
    }  # fmt: skip


def stream(kind: str, length: int) -> Iterator[np.ndarray]:
    """Frames or windows of targets that move, over and over again."""
    rng, sky = np.random.default_rng(0), SKY if kind == "frames" else csist.Sensor(read_noise=2.0)
    for t in range(length):
        place = [10.0 + 0.5 * (t % 40), 40.0 - 0.4 * (t % 40)] if kind == "frames" else [5.0, 5.4]
        yield sky.observe(csist.Targets(place, place, [400.0, 350.0] if kind == "frames" else [230.0, 240.0]), rng)


def measure(kind: str, length: int) -> dict[str, float]:
    """Peak memory in MB and frames a second of one stream, in this process."""
    import resource

    sensor = SKY if kind == "frames" else csist.Sensor(read_noise=2.0)
    prior = None if kind == "frames" else csist.ScenePrior.csist_100k()
    options = {"workers": 1} if kind == "frames" else {}
    for _ in unmix_stream(stream(kind, 2 * WINDOW), sensor, prior, window=WINDOW, mode="fast", **options):
        pass
    began = time.process_time()
    parts = unmix_stream(stream(kind, length), sensor, prior, window=WINDOW, mode="fast", **options)
    number = sum(len(part.result.frames) for part in parts)
    spent = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    return {"frames": number, "peak_mb": peak, "frames_a_cpu_second": number / spent}


def memory(lengths: list[int]) -> None:
    """Measure both kinds of streams at some lengths."""
    result: dict[str, Any] = {"window": WINDOW}
    for kind in ("windows", "frames"):
        for length in [0, *lengths]:  # the first run compiles, which takes memory
            command = [sys.executable, __file__, "--part", "one", "--kind", kind, "--frames", str(length)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            if length:
                result.setdefault(kind, {})[str(length)] = json.loads(output)
                write_result("streams", result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("clips", "memory", "one"), required=True)
    parser.add_argument("--folder", type=Path, help="of the clips")
    parser.add_argument("--frames", type=int, default=60, help="of each clip")
    parser.add_argument("--start", type=int, default=100, help="first frame of each clip")
    parser.add_argument("--kind", default="windows", help="of the stream of --part one")
    parser.add_argument("--lengths", type=int, nargs="+", default=[500, 5000], help="of the streams")
    options = parser.parse_args()
    if options.part == "clips":
        clips(options.folder, options.frames, options.start)
    elif options.part == "memory":
        memory(options.lengths)
    else:
        print(json.dumps(measure(options.kind, options.frames)))


if __name__ == "__main__":
    main()
