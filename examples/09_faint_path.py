"""A path that no single frame shows.

Two targets cross a window in 20 frames. In one frame, each is weaker than the noise allows to detect; the joint
posterior of all frames finds both paths with their uncertainty. The ellipses are 95 % regions of the position.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

import csist
from csist.plots import save_figure
from csist.plots.style import BLUE, VERMILION, styled
from csist.trajectories import MotionPrior

FRAMES = 20
SENSOR = csist.Sensor(csist.GaussianPSF(0.6), shape=(13, 13), read_noise=5.0)
PRIOR = csist.ScenePrior(count_range=(1, 4), intensity_range=(20.0, 200.0))
SHOWN = (0, 6, 13, 19)


def truth(frame: int) -> csist.Targets:
    return csist.Targets(
        x=[2.6 + 0.14 * frame, 9.2 - 0.12 * frame], y=[3.0 + 0.13 * frame, 2.8 + 0.15 * frame], intensity=[32, 34]
    )


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(4)
    video = np.stack([SENSOR.observe(truth(frame), rng) for frame in range(FRAMES)])
    motion = MotionPrior(start=PRIOR, group_speed_px=0.22, own_speed_px=0.22)
    found = csist.unmix_sequence(video, SENSOR, motion)
    alone = sum(len(targets) for targets in csist.unmix(video, SENSOR, noise_std=5.0))
    print(f"single frames: {alone} detections of {2 * FRAMES}; all frames together: {found.count} targets")
    print("probability of each number of targets:", found.count_probability.round(3))
    for track in found.tracks:
        x, y, vx, vy, flux = track.state
        error = np.sqrt(np.diag(track.covariance))
        print(
            f"track {track.id}: x {x:.2f} +- {error[0]:.2f}, y {y:.2f} +- {error[1]:.2f}, "
            f"velocity {vx:+.3f} {vy:+.3f} +- {error[2]:.3f} px, {flux:.0f} counts"
        )
    with styled():
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        parts = figure.subfigures(1, 2)
        for axis, frame in zip(parts[0].subplots(2, 2).ravel(), SHOWN, strict=True):
            axis.imshow(video[frame], cmap="gray", vmin=-15, vmax=25)
            axis.set(title=f"frame {frame}", xticks=[], yticks=[])
        axis = parts[1].subplots()
        axis.imshow(video.mean(axis=0), cmap="gray")
        axis.set(title="mean of all frames, paths from the joint posterior", xticks=[], yticks=[])
        time = np.arange(FRAMES)
        for k in range(2):
            label = "truth" if k == 0 else None
            axis.plot(
                [truth(t).x[k] for t in time], [truth(t).y[k] for t in time], color=BLUE, linewidth=3.5, label=label
            )
        for track in found.tracks:
            label = "found" if track.id == 0 else None
            states = [track.at(t) for t in time]
            axis.plot([s[0] for s, _ in states], [s[1] for s, _ in states], color=VERMILION, linewidth=1.4, label=label)
            for state, covariance in (states[0], states[-1]):
                size, axes = np.linalg.eigh(covariance[:2, :2])
                width, height = 2.0 * np.sqrt(5.99 * size)
                angle = np.degrees(np.arctan2(axes[1, 0], axes[0, 0]))
                axis.add_patch(Ellipse(tuple(state[:2]), width, height, angle=angle, fill=False, color=VERMILION))
        axis.legend(loc="lower right", frameon=True, facecolor="white", framealpha=0.9)
    save_figure(figure, out / "09_faint_path.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples"))
