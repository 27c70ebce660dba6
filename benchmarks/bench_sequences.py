"""One posterior over many frames compared with single frames: scores, counts, calibration, bound and time.

Choices (`--choose`: factors on the spread of the samples, and the effort of `fast`) are made on validation
trajectories, figures on test ones. Earlier test trajectories had been looked at before the factor of `accurate` was
settled; those of the present test seed are fresh and have ruled no choice. The score of the first frame is comparable
between methods, because its prior, all targets inside one pixel, holds for `continuous` there as well; that of all
frames is given beside it. Intervals are bootstrapped over trajectories. The limit is the same posterior sampled by four
times as many chains, each twice as long; its course with the number of frames is measured at the highest noise.
`dista-net` is the trained network of ratio 3 on each frame by itself. Times are of one processor core.
`--calibration N` measures coverages again on N fresh trajectories (a seed of its own, which chooses nothing): a share
of 80 trajectories is known to about 4 points.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from common import read_result, write_result
from csist import metrics
from csist.create import create_method
from csist.methods.continuous import Continuous
from csist.methods.continuous.sequence.solver import PATH_EFFORTS
from csist.physics.bounds import joint_bound
from csist.physics.sensor import Sensor
from csist.sequences.result import SequenceResult
from csist.sequences.solve import unmix_sequence
from csist.targets import Targets
from csist.tracks.link import Linker
from csist.trajectories import MotionPrior, sample_trajectories

NOISES = (0.0, 1.0, 2.0, 5.0)
LENGTHS = (5, 20)
GOAL_NOISE = 1.6
"""Noise of the single frames that 20 frames at the highest of `NOISES` are compared with."""
SEEDS = {"val": 20_262, "test": 1_120_264, "calibration": 3_120_264}
FRAMES = (1, 2, 5, 10, 20)
"""Numbers of frames for the bound and the limit."""
RESAMPLES = 400
TIMED_PASSES = 3
GRID_RATIO = 3
"""Of the network."""
NETWORK_TRAJECTORIES = 10
"""Of which the network sees all frames."""
LEVELS = {"68": 1.0, "95": 1.96}
PATH_EFFORTS["limit"] = replace(PATH_EFFORTS["accurate"], blocks=4, moves=16, last_moves=96, widening=1.0)


class Video(NamedTuple):
    """Frames (T, H, W) of one trajectory, and the true targets of each."""

    stack: np.ndarray
    truth: list[Targets]


def videos(split: str, number: int, noise: float) -> list[Video]:
    """Sample trajectories; the same ones for every noise."""
    sensor, motion = Sensor(read_noise=noise), MotionPrior()
    rng = np.random.default_rng([SEEDS[split], round(10 * noise)])
    paths = sample_trajectories(motion, sensor, number, SEEDS[split])
    return [Video(np.stack([sensor.observe(each, rng) for each in path]), path) for path in paths]


def solve(
    films: list[Video], frames: int, noise: float, mode: str, passes: int = 1
) -> tuple[list[SequenceResult], list[float]]:
    """Results of the first frames of each video, and the seconds of processor time that each took.

    Of several passes over the videos the fastest counts for each, since other processes and a changing clock only
    ever add time.
    """
    sensor, motion = Sensor(read_noise=noise), MotionPrior()
    seconds = np.empty((passes, len(films)))
    for taken in seconds:
        results = []
        for number, film in enumerate(films):
            started = time.process_time()
            results.append(unmix_sequence(film.stack[:frames], sensor, motion, noise_std=noise, mode=mode))
            taken[number] = time.process_time() - started
    return results, seconds.min(0).tolist()


def deviations(results: list[SequenceResult], films: list[Video]) -> list[dict[str, np.ndarray]]:
    """Errors in stated standard errors of positions (all frames), velocities and the count, by trajectory."""
    rows = []
    for result, film in zip(results, films, strict=True):
        truth = film.truth[: len(result.frames)]
        row = {"right": np.array([result.count == len(truth[0])], dtype=float)}
        row["stated"] = result.count_probability[[result.count]]
        if row["right"][0] and result.count:
            place, speed = [], []
            for found, true in zip(result.frames, truth, strict=True):
                i, j = linear_sum_assignment((found.x[:, None] - true.x) ** 2 + (found.y[:, None] - true.y) ** 2)
                place += [(found.x[i] - true.x[j]) / found.x_std[i], (found.y[i] - true.y[j]) / found.y_std[i]]
            found, true = result.frames[0], truth[0]
            i, j = linear_sum_assignment((found.x[:, None] - true.x) ** 2 + (found.y[:, None] - true.y) ** 2)
            velocity = np.stack([truth[1].x - true.x, truth[1].y - true.y], axis=1)
            for one, other in zip(i, j, strict=True):
                track = result.tracks[one]
                speed.append((track.state[2:4] - velocity[other]) / np.sqrt(np.diag(track.covariance)[2:4]))
            row["position"], row["velocity"] = np.abs(np.concatenate(place)), np.abs(np.concatenate(speed))
        rows.append(row)
    return rows


def coverage(rows: list[dict[str, np.ndarray]], rng: np.random.Generator) -> dict[str, Any]:
    """Shares of positions and velocities inside 68 and 95 % intervals, and counts, with bootstrap intervals."""
    result: dict[str, Any] = {}
    for name in ("position", "velocity"):
        kept = [row[name] for row in rows if name in row]
        sizes = np.array([len(values) for values in kept])
        for level, width in LEVELS.items():
            inside = np.array([(values < width).sum() for values in kept])
            drawn = rng.integers(0, len(kept), (RESAMPLES, len(kept)))
            share = 100.0 * inside[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
            result[f"{name}_{level}"] = interval(100.0 * inside.sum() / sizes.sum(), share)
    right = np.concatenate([row["right"] for row in rows])
    drawn = rng.integers(0, len(right), (RESAMPLES, len(right)))
    result["count_accuracy"] = interval(100.0 * right.mean(), 100.0 * right[drawn].mean(axis=1))
    result["count_probability_stated"] = 100.0 * float(np.concatenate([row["stated"] for row in rows]).mean())
    return result


def interval(value: float, drawn: np.ndarray) -> list[float]:
    """Value and its 95 % interval."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return [float(value), float(low), float(high)]


def score(found: list[list[Targets]], truths: list[list[Targets]]) -> list[float]:
    """CSO-mAP and its interval over trajectories; each trajectory's frames are drawn together."""
    every, true = [t for each in found for t in each], [t for each in truths for t in each]
    one = metrics.bootstrap_interval(every, true, 0, resamples=RESAMPLES, together=len(found[0]))
    return [one.value, one.low, one.high]


def alone(films: list[Video], noise: float) -> dict[str, Any]:
    """`continuous` on the first frame, under the exact prior of that frame."""
    sensor, motion = Sensor(read_noise=noise), MotionPrior()
    found = Continuous(sensor=sensor, prior=motion.start, noise_std=noise).predict(
        np.stack([f.stack[0] for f in films])
    )
    truths = [film.truth[0] for film in films]
    return {
        "first_frame": score([[each] for each in found], [[each] for each in truths]),
        "count_accuracy": 100.0 * metrics.count_accuracy(found, truths),
    }


def network(films: list[Video], noise: float) -> dict[str, Any]:
    """DISTA-Net with its stored weights: on the first frame of all trajectories, and on all frames of some."""
    method = create_method("dista-net", sensor=Sensor(read_noise=noise), ratio=GRID_RATIO)
    first = method.predict(np.stack([film.stack[0] for film in films]))
    some, found, seconds = films[:NETWORK_TRAJECTORIES], [], []
    for film in some:
        started = time.process_time()
        found.append(method.predict(film.stack))
        seconds.append(time.process_time() - started)
    truths = [film.truth[0] for film in films]
    return {
        "first_frame": score([[each] for each in first], [[each] for each in truths]),
        "count_accuracy": 100.0 * metrics.count_accuracy(first, truths),
        "all_frames": score(found, [film.truth for film in some]),
        "all_frames_trajectories": len(some),
        "cpu_milliseconds_median": 1e3 * float(np.median(seconds)),
    }


def joint(frames: int, mode: str, films: list[Video], noise: float) -> dict[str, Any]:
    """The joint posterior of the first frames."""
    results, seconds = solve(films, frames, noise, mode, TIMED_PASSES)
    truths = [film.truth[:frames] for film in films]
    return {
        "first_frame": score([result.frames[:1] for result in results], [truth[:1] for truth in truths]),
        "all_frames": score([result.frames for result in results], truths),
        "error_px": error_px(results, films),
        "tracks": tracks([result.frames for result in results], films),
        **coverage(deviations(results, films), np.random.default_rng(0)),
        "cpu_milliseconds_median": 1e3 * float(np.median(seconds)),
        "cpu_milliseconds_mean": 1e3 * float(np.mean(seconds)),
    }


def choose(number: int) -> None:
    """Print the factor on the samples' spread for each mode that gives both levels on validation trajectories."""
    for mode in ("accurate", "fast"):
        rows = []
        for noise in NOISES[1:]:
            films = videos("val", number, noise)
            rows += deviations(solve(films, LENGTHS[-1], noise, mode)[0], films)
        for name in ("position", "velocity"):
            values = np.concatenate([row[name] for row in rows if name in row])
            print(mode, name, np.quantile(values, 0.683), np.quantile(values, 0.95) / 1.96, flush=True)


def calibrate(number: int, noises: list[float]) -> None:
    """Write the coverages of `accurate` over 20 frames on trajectories of a seed of their own."""
    result = read_result("sequences")
    command = " ".join(["bench_sequences.py", *sys.argv[1:]])
    result["calibration"] = {"trajectories": number, "command": command, "noise": {}}
    for noise in noises:
        films = videos("calibration", number, noise)
        rows = deviations(solve(films, LENGTHS[-1], noise, "accurate")[0], films)
        result["calibration"]["noise"][f"{noise:g}"] = coverage(rows, np.random.default_rng(0))
        write_result("sequences", result)


def error_px(results: list[SequenceResult], films: list[Video]) -> float:
    """Robust standard deviation of a coordinate in the middle frame, where the count is right."""
    errors = []
    for result, film in zip(results, films, strict=True):
        truth = film.truth[: len(result.frames)]
        found, true = result.frames[len(truth) // 2], truth[len(truth) // 2]
        if len(found) == len(true):
            pair = metrics.match_errors([found], [true])
            errors += [pair.dx, pair.dy]
    return 1.4826 * float(np.median(np.abs(np.concatenate(errors))))


def tracks(found: list[list[Targets]], films: list[Video]) -> dict[str, float]:
    """Metrics of whole tracks: mean over sequences, and track mAP."""
    truths = [film.truth[: len(each)] for film, each in zip(films, found, strict=True)]
    rows = [metrics.track_summary(one, truth) for one, truth in zip(found, truths, strict=True)]
    mean = {name: float(np.mean([row[name] for row in rows])) for name in ("gospa_px", "ospa_px", "identity_switches")}
    return {**mean, "track_map": metrics.track_map(found, truths)["CSO-mAP"]}


def linked(films: list[Video], noise: float) -> dict[str, float]:
    """Each frame alone, then linked into tracks."""
    sensor, motion = Sensor(read_noise=noise), MotionPrior()
    method = Continuous(sensor=sensor, prior=motion.start, noise_std=noise)
    found = []
    for film in films:
        linker = Linker(gate_px=1.0)
        found.append([each.replace(track=linker.update(t, each)) for t, each in enumerate(method.predict(film.stack))])
    return tracks(found, films)


def limits(films: list[Video], noise: float) -> dict[str, Any]:
    """The posterior sampled far longer, by number of frames, and what `accurate` loses to it on the same sequences."""
    rows: dict[str, Any] = {"trajectories": len(films)}
    sensor = Sensor(read_noise=noise)
    for frames in FRAMES if noise == max(NOISES) else FRAMES[-1:]:
        if frames == 1:
            method = Continuous(sensor=sensor, prior=MotionPrior().start, noise_std=noise)
            found = [[each] for each in method.predict(np.stack([film.stack[0] for film in films]))]
            rows["1"] = {"first_frame": score(found, [film.truth[:1] for film in films])}
            continue
        long, _ = solve(films, frames, noise, "limit")
        truths = [film.truth[:1] for film in films]
        first = [each.frames[:1] for each in long]
        rows[str(frames)] = {"first_frame": score(first, truths), "error_px": error_px(long, films)}
        if frames == LENGTHS[-1]:
            short, _ = solve(films, frames, noise, "accurate")
            lost = metrics.bootstrap_difference(
                [each.frames[0] for each in short], [each[0] for each in first], [each[0] for each in truths], 0,
                resamples=RESAMPLES,
            )  # fmt: skip
            rows["accurate_minus_limit"] = [lost.value, lost.low, lost.high]
    return rows


def bounds(films: list[Video], noise: float) -> dict[str, float]:
    """Median Cramer-Rao bound of positions in the middle frame by number of frames, in px."""
    sensor, flicker = Sensor(read_noise=noise), MotionPrior().scintillation
    return {
        str(n): float(np.median(np.concatenate([joint_bound(f.truth[:n], sensor, flicker).x for f in films])))
        for n in FRAMES
    }


ROWS: dict[str, Callable[[list[Video], float], Any]] = {
    "alone": alone,
    "dista-net": network,
    **{f"joint_{n}": partial(joint, n, "accurate") for n in LENGTHS},
    "joint_20_fast": partial(joint, LENGTHS[-1], "fast"),
    "bound_px": bounds,
    "limit": limits,
    "linked": linked,
}
"""What is measured at each noise."""
CHECKED = ("limit", "linked")
"""Of them, those that are measured on the first of the trajectories only."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=200, help="trajectories")
    parser.add_argument("--checked", type=int, default=40, help="of them: for the limit and for frames linked")
    parser.add_argument("--only", nargs="+", choices=ROWS, help="measure these rows again; the others stay as they are")
    parser.add_argument("--choose", action="store_true", help="choose the factors on validation trajectories instead")
    parser.add_argument("--calibration", type=int, help="measure only coverages, on so many fresh trajectories")
    parser.add_argument("--noise", type=float, nargs="+", default=list(NOISES), help="of --calibration")
    options = parser.parse_args()
    if options.calibration:
        calibrate(options.calibration, options.noise)
        return
    if options.choose:
        choose(options.number)
        return
    if options.only:
        result = read_result("sequences")
    else:
        goal = alone(videos("test", options.number, GOAL_NOISE), GOAL_NOISE)
        result = {
            "trajectories": options.number, "goal": {"noise": GOAL_NOISE, "alone": goal},
            "noise": {f"{noise:g}": {} for noise in reversed(NOISES)},
        }  # fmt: skip
    films = {noise: videos("test", result["trajectories"], noise) for noise in reversed(NOISES)}
    for name in options.only or ROWS:
        for noise, each in films.items():
            used = each[: options.checked] if name in CHECKED else each
            result["noise"][f"{noise:g}"][name] = ROWS[name](used, noise)
            write_result("sequences", result)  # a run that is stopped leaves what it has


if __name__ == "__main__":
    main()
