"""Groups of simulated targets in real infrared frames, compared with the same groups on a flat background.

There are no real frames with known sub-pixel truth, so targets are injected. Each group has 1 to 5 targets at a random
place in a frame, with a given brightness in units of the local noise and a given distance between nearest neighbours.
The same groups, in units of the noise, are placed on a constant background with white noise of one count, where the
score of the exact posterior with known count is sampled for some of the groups in the target figures.

The noise is measured independently of csist's estimator, as the robust spread about a plane in a square of
`NOISE_SIDE_PX` around the group. Clutter in the square adds to the noise, so that targets in clutter are brighter.
Detections away from all groups are not scored, because the frames' own targets are unknown. Intervals are bootstraps
over groups.

The detector's ring, the noise of a window, the stated false-alarm rate and the score of spots whose PSF is known
(`fit_clutter.py`) were chosen on four frames of each set, evenly spaced by name. The main figures are those of the
other frames; those of the four frames are listed separately.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csist.evaluation import LabelledImages
from csist.frames import unmix_frame
from csist.injection import of_group, place_group
from csist.io import read_image
from csist.io.store import Progress
from csist.limits import measure_limits
from csist.metrics import bootstrap_scores, coverage, cso_map, match_errors
from csist.metrics.errors import MAD_TO_STD
from csist.physics.psf import RAYLEIGH_PER_SIGMA, GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Targets
from real.common import folder_of, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]
Finder = Callable[[FloatArray], Targets]

SETS = {
    "sirst_backgrounds": "sirst_backgrounds/images",
    "thermal16_flir": "thermal16_flir/raw16",
    "drone_ir_cc0": "drone_ir_cc0/frames",
}
FOLDERS = tuple(SETS)

SIGMA_PX = 0.7
PSF = GaussianPSF(SIGMA_PX)
RAYLEIGH_PX = RAYLEIGH_PER_SIGMA * SIGMA_PX
SNRS = (10.0, 20.0, 50.0)
"""Brightest pixel of each isolated target, in units of the noise around the group."""
COUNTS = (1, 2, 3, 4, 5)
SEPARATIONS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Distance between nearest neighbours in Rayleigh units."""

GROUPS_A_FRAME = 30
NOISE_SIDE_PX = 21
LEAST_NOISE = 1.0
FLAT_LEVEL = 100.0
LIMIT_GROUPS = 100
LIMIT_SIDE_PX = 19
LIMIT_STEPS = 100_000

CHOSEN_FRAMES = 4
"""Number of frames of each set on which options were chosen."""
OPTIONS: dict[str, Any] = {"psf": PSF, "false_alarm_rate": 1e-5}

AIMED_SNR, AIMED_COUNTS, AIMED_SEPARATION = 20.0, (1, 2, 3), 1.0


@dataclass(frozen=True)
class Injection:
    """Injected group of targets and its detections.

    Args:
        source: name of the set of frames.
        snr: brightest pixel of each isolated target over the noise.
        separation: distance between nearest neighbours in Rayleigh units; NaN for one target.
        noise: noise around the group in counts.
        truth: true targets in frame coordinates, in counts.
        chosen_on: whether options were chosen on this frame.
        real: detections in the frame.
        flat: detections on the flat background, intensities in units of the noise.
    """

    source: str
    snr: float
    separation: float
    noise: float
    truth: Targets
    chosen_on: bool = False
    real: Targets = field(default_factory=Targets.empty)
    flat: Targets = field(default_factory=Targets.empty)

    @property
    def flat_truth(self) -> Targets:
        """True targets with intensities in units of the noise."""
        return self.truth.replace(intensity=self.truth.intensity / self.noise)


def local_noise(frame: FloatArray, x: float, y: float) -> float:
    """Return the robust spread in counts about a plane in the square around a position, at least `LEAST_NOISE`."""
    half = NOISE_SIDE_PX // 2
    column, row = round(x), round(y)
    part = frame[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1]
    i, j = np.indices(part.shape)
    design = np.stack([np.ones(part.size), i.ravel(), j.ravel()], axis=1)
    residual = part.ravel() - design @ np.linalg.lstsq(design, part.ravel(), rcond=None)[0]
    return max(float(MAD_TO_STD * np.median(np.abs(residual - np.median(residual)))), LEAST_NOISE)


def peak_share(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the fraction (n,) of a target's light in its brightest pixel, for positions in px."""
    share: FloatArray = PSF.response(x - np.rint(x), y - np.rint(y))
    return share


def place_groups(
    frame: FloatArray, source: str, snr: float, rng: np.random.Generator, number: int = GROUPS_A_FRAME
) -> list[Injection]:
    """Place groups of all counts and separations in turn at random positions, away from each other and the border.

    Args:
        frame: (H, W) in counts.
        source: name of the set of the frame.
        snr: brightest pixel of each isolated target over the noise.
        rng: generator of the positions.
        number: number of groups; fewer if there is no room.
    """
    groups: list[Injection] = []
    taken = np.empty((0, 2))
    size = np.array([frame.shape[1], frame.shape[0]])
    kinds = [(count, separation) for count in COUNTS for separation in SEPARATIONS]
    order = rng.permutation(len(kinds))
    for k in range(number):
        count, separation = kinds[order[k % len(kinds)]]
        places = place_group(size, count, separation * RAYLEIGH_PX, taken, rng)
        if places is None:
            continue
        taken = np.concatenate([taken, places])
        noise = local_noise(frame, *places.mean(axis=0))
        x, y = places.T
        intensity = snr * noise / peak_share(x, y)
        groups.append(
            Injection(
                source, snr, separation if count > 1 else float("nan"), noise, Targets(x=x, y=y, intensity=intensity)
            )
        )
    return groups


def add_targets(frame: FloatArray, targets: Targets) -> FloatArray:
    """Return a frame with the light of some targets added, (H, W) in counts."""
    return frame + Sensor(PSF, shape=(frame.shape[0], frame.shape[1])).render(targets)


def inject(frame: FloatArray, source: str, snr: float, finder: Finder, rng: np.random.Generator) -> list[Injection]:
    """Inject groups into a frame and a flat background, and detect them in both.

    Args:
        frame: (H, W) in counts, rounded by the camera; the frame with targets is rounded too.
        source: name of the set of the frame.
        snr: brightest pixel of each isolated target over the noise.
        finder: function that unmixes a frame.
        rng: generator of positions and noise.
    """
    groups = place_groups(frame, source, snr, rng)
    if not groups:
        return groups
    real = finder(np.rint(add_targets(frame, Targets.concatenate([each.truth for each in groups]))))
    white = rng.normal(FLAT_LEVEL, 1.0, frame.shape)
    flat = finder(add_targets(white, Targets.concatenate([each.flat_truth for each in groups])))
    return [replace(each, real=of_group(real, each.truth), flat=of_group(flat, each.truth)) for each in groups]


def summarise(groups: list[Injection]) -> dict[str, Any]:
    """Return the figures of some groups in the frames and on the flat background."""
    result: dict[str, Any] = {"groups": len(groups), "noise_median": float(np.median([each.noise for each in groups]))}
    truths = [each.truth for each in groups]
    flat_truths = [each.flat_truth for each in groups]
    for name, found, true in (
        ("real", [each.real for each in groups], truths),
        ("flat", [each.flat for each in groups], flat_truths),
    ):
        right = np.array([len(a) == len(b) for a, b in zip(found, true, strict=True)])
        scores = bootstrap_scores(found, true, 0)["CSO-mAP"]
        pairs = [(a, b) for a, b, good in zip(found, true, right, strict=True) if good]
        within = coverage(match_errors([a for a, _ in pairs], [b for _, b in pairs]))
        result[name] = {
            "count_right": share(right),
            "CSO-mAP": {"value": scores.value, "interval": [scores.low, scores.high]},
            "within_68": {axis: within[f"{axis}_within_1"] for axis in ("x", "y", "intensity")},
            "within_95": {axis: within[f"{axis}_within_1.96"] for axis in ("x", "y", "intensity")},
            "pairs": sum(len(a) for a, _ in pairs),
        }
    return result


def aimed_at(each: Injection) -> bool:
    """Return whether a group belongs to the target figures."""
    apart = len(each.truth) == 1 or each.separation >= AIMED_SEPARATION
    return each.snr == AIMED_SNR and len(each.truth) in AIMED_COUNTS and apart


def _belongs(each: Injection, labels: dict[str, Any]) -> bool:
    """Return whether a group matches the labels of a row."""
    own = {
        "aimed_at": aimed_at(each), "chosen_on": each.chosen_on, "source": each.source, "snr": each.snr,
        "count": len(each.truth), "separation": each.separation,
    }  # fmt: skip
    return all(own[key] == value for key, value in ({"chosen_on": False} | labels).items())


def rows(groups: list[Injection]) -> Iterator[dict[str, Any]]:
    """Return the row of the target figures, then rows by brightness, set, number of targets and separation.

    The frames on which options were chosen form the second row and are in no other row.
    """
    cuts: list[dict[str, Any]] = [{"aimed_at": True}, {"aimed_at": True, "chosen_on": True}]
    cuts += [{"aimed_at": True, "source": name} for name in SETS]
    for snr in SNRS:
        cuts.append({"snr": snr})
        for key, values in (("source", SETS), ("count", COUNTS), ("separation", SEPARATIONS)):
            cuts += [{"snr": snr, key: value} for value in values]
    for labels in cuts:
        members = [each for each in groups if _belongs(each, labels)]
        if members:
            yield labels | summarise(members)


def limit_of(groups: list[Injection], progress: Progress, steps: int = LIMIT_STEPS) -> dict[str, Any]:
    """Return the scores of the exact posterior and of csist for some of the groups on the flat background."""
    half = LIMIT_SIDE_PX // 2
    sensor = Sensor(PSF, shape=(LIMIT_SIDE_PX, LIMIT_SIDE_PX), read_noise=1.0, quantised=False)
    chosen = [each for each in groups if np.ptp(each.truth.x) < half and np.ptp(each.truth.y) < half][:LIMIT_GROUPS]
    truths = []
    for each in chosen:
        true = each.flat_truth
        corner = np.rint([true.x.mean(), true.y.mean()]) - half
        truths.append(true.replace(x=true.x - corner[0], y=true.y - corner[1]))
    rng = np.random.default_rng(0)
    images = np.stack([sensor.observe(true, rng) for true in truths])
    data = LabelledImages(
        Path("injected"), "test", images, truths, sensor, ScenePrior.flat(),
        [("injected", k) for k in range(len(truths))], len(truths),
    )  # fmt: skip
    found = measure_limits(
        data, steps, progress=lambda what, done, total: progress(f"limit, {what}", done, total)
    ).posterior
    flat, flat_truths = [each.flat for each in chosen], [each.flat_truth for each in chosen]
    result: dict[str, Any] = {
        "groups": len(chosen),
        "steps": steps,
        "flat_CSO-mAP": cso_map(flat, flat_truths)["CSO-mAP"],
    }
    if found is None:
        return result
    return result | {
        "from_truth": found.from_truth["CSO-mAP"],
        "from_modes": found.from_modes["CSO-mAP"],
        "bracket": found.bracket,
    }


def ours(frame: FloatArray) -> Targets:
    """Unmix a frame with `OPTIONS`."""
    return unmix_frame(frame, **OPTIONS).targets


def paths_of(data: Path) -> dict[str, list[Path]]:
    """Return the files of each set of frames, by name.

    Raises:
        InputError: if a set is missing.
    """
    return {name: sorted(folder_of(data, place).glob("*.png")) for name, place in SETS.items()}


def chosen_of(paths: list[Path]) -> list[Path]:
    """Return the files of a set on which options are chosen."""
    return paths[:: max(len(paths) // CHOSEN_FRAMES, 1)][:CHOSEN_FRAMES]


def run(data: Path, progress: Progress) -> dict[str, Any]:
    """Compute the figures of all groups.

    Args:
        data: folder with the sub-folders sirst_backgrounds, thermal16_flir and drone_ir_cc0.
        progress: called for every frame.

    Raises:
        InputError: if the data are missing or cannot be read.
    """
    paths = paths_of(data)
    chosen = [path for each in paths.values() for path in chosen_of(each)]
    work = [(name, path) for name, each in paths.items() for path in each]
    groups: list[Injection] = []
    for done, (name, path) in enumerate(work):
        frame = read_image(path)[0]
        for k, snr in enumerate(SNRS):
            progress("injected groups", done + k / len(SNRS), len(work))
            found = inject(frame, name, snr, ours, np.random.default_rng([done, k]))
            groups += [replace(each, chosen_on=path in chosen) for each in found]
    figures = list(rows(groups))
    limit = limit_of([each for each in groups if aimed_at(each) and not each.chosen_on], progress)
    return {
        "sigma_px": SIGMA_PX,
        "rayleigh_px": RAYLEIGH_PX,
        "frames": {name: len(each) for name, each in paths.items()},
        "options": OPTIONS | {"psf": SIGMA_PX},
        "options_chosen_on": [path.name for path in chosen],
        "aimed_at": {"snr": AIMED_SNR, "counts": AIMED_COUNTS, "least_separation": AIMED_SEPARATION},
        "rows": figures,
        "limit": limit,
        "targets": targets_met(figures),
    }


def targets_met(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the target figures of this part and whether they are met."""
    row = next(each for each in figures if each.get("aimed_at") and not {"source", "chosen_on"} & set(each))
    right, gain = row["real"]["count_right"]["value"], row["real"]["CSO-mAP"]["value"] / row["flat"]["CSO-mAP"]["value"]
    within = row["real"]["within_68"]
    worst = max(within.values(), key=lambda each: abs(each - 0.68))
    kind = "1-3 targets at 20 times the noise, at least 1 R apart"
    return [
        {"aim": f"{kind}: count right in at least 90 %", "value": right, "met": right >= 0.9},
        {"aim": f"{kind}: CSO-mAP at least 0.9 of that on a flat background", "value": gain, "met": gain >= 0.9},
        {
            "aim": f"{kind}: 68 % intervals cover 60 to 75 %",
            "value": worst,
            "met": all(0.6 <= each <= 0.75 for each in within.values()),
        },
    ]


def draw(result: dict[str, Any]) -> Figure:
    """Draw count accuracy and CSO-mAP against the separation, in the frames and on the flat background."""
    from matplotlib.figure import Figure

    from csist.plots.style import LINE_COLOURS, styled

    def line(axis: Axes, snr: float, colour: str, value: Callable[[dict[str, Any]], float]) -> None:
        cells = [each for each in result["rows"] if each.get("snr") == snr and "separation" in each]
        places = [each["separation"] for each in cells]
        axis.plot(places, [value(each["real"]) for each in cells], "o-", color=colour, label=f"{snr:g} times the noise")
        axis.plot(places, [value(each["flat"]) for each in cells], "--", color=colour, alpha=0.7)

    with styled():
        figure = Figure(figsize=(8.4, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        for snr, colour in zip(SNRS, LINE_COLOURS, strict=False):
            line(left, snr, colour, lambda row: 100.0 * row["count_right"]["value"])
            line(right, snr, colour, lambda row: row["CSO-mAP"]["value"])
        for axis, label in ((left, "groups with the right count in %"), (right, "CSO-mAP")):
            axis.set_xlabel("distance of nearest neighbours in R")
            axis.set_ylabel(label)
            axis.set_ylim(0.0, 102.0)
        left.legend(loc="lower right")
        figure.suptitle("Groups of 2-5 targets in real infrared frames (dashed: on a flat background)", fontsize=11)
    return figure
