"""Tables of sequences: the joint posterior of windows, tracks of labelled clips, and streams."""

from __future__ import annotations

from typing import Any

from docs_tables import markdown_table, read_result, with_interval

METHODS = {
    "joint_5": "5 frames together",
    "joint_20": "20 frames together",
    "joint_20_fast": "20 frames together, `fast`",
}

TRACKERS = {
    "nearest": "nearest assignment of targets",
    "groups": "nearest assignment of groups (`--tracker groups`)",
    "jpda": "joint probabilities (`--tracker jpda`)",
    "joint": "joint posterior of 20 frames (`--joint 20`)",
}


def sequences() -> str:
    """Scores, calibration and time of one frame and of several together, by noise."""
    result, rows = read_result("sequences"), []
    goal = result["goal"]
    rows.append([f"{goal['noise']:g}", "one frame", with_interval(*goal["alone"]["first_frame"]), *[""] * 5])
    for noise, each in sorted(result["noise"].items(), key=lambda item: float(item[0])):
        rows.append([noise, "one frame", with_interval(*each["alone"]["first_frame"]), *[""] * 5])
        rows.append([noise, "one frame, `dista-net`", *_network_cells(each["dista-net"])])
        rows += [[noise, name, *_cells(each[key])] for key, name in METHODS.items()]
    head = ["noise", "method", "CSO-mAP", "track mAP", "right count", "positions in 68 / 95 %",
            "velocities in 68 / 95 %", "ms"]  # fmt: skip
    return markdown_table(head, rows, numbers_from=2)


def sequence_trajectories() -> str:
    """Number of trajectories that the table was measured on."""
    return str(read_result("sequences")["trajectories"])


def sequence_goal() -> str:
    """Twenty frames at the highest noise beside one frame at the noise that they are compared with."""
    result = read_result("sequences")
    goal, (noise, row) = result["goal"], max(result["noise"].items(), key=lambda item: float(item[0]))
    rows = [
        [f"one frame at a noise of {goal['noise']:g}", with_interval(*goal["alone"]["first_frame"])],
        [f"20 frames at {noise}, all frames", with_interval(*row["joint_20"]["all_frames"])],
        [f"20 frames at {noise}, first frame", with_interval(*row["joint_20"]["first_frame"])],
        [
            f"the limit of that on {row['limit']['trajectories']} of the trajectories",
            with_interval(*row["limit"]["20"]["first_frame"]),
        ],
    ]
    return markdown_table(["", "CSO-mAP"], rows)


def sequence_calibration() -> str:
    """Coverages of 20 frames on more trajectories, by noise, with intervals."""
    result = read_result("sequences")["calibration"]
    names = [f"{name}_{level}" for name in ("position", "velocity") for level in (68, 95)]
    rows = [
        [noise, str(result["trajectories"]), *(with_interval(*row[name]) for name in names)]
        for noise, row in result["noise"].items()
    ]
    head = ["noise", "trajectories", *(f"{name.replace('_', ' in ')} %" for name in names)]
    return markdown_table(head, rows)


def clip_tracks() -> str:
    """Targets found and tracks of labelled infrared clips, by tracker: means over the clips."""
    result, rows = read_result("clips"), []
    for name, label in TRACKERS.items():
        row = result["mean"][name]
        rows.append([
            label, f"{100.0 * row['found']:.1f} %", f"{100.0 * row['longest_track']:.1f} %",
            f"{row['tracks_of_the_label']:.2f}", f"{row['false_tracks_a_minute']:.0f}",
            f"{result['mean_reported_on'][name]['false_tracks_a_minute']:.0f}",
            f"{row['cpu_milliseconds_a_frame']:.1f}",
        ])  # fmt: skip
    head = ["tracks", "target found", "longest track", "tracks of the target", "other tracks a minute",
            "on the other half", "ms a frame"]  # fmt: skip
    return markdown_table(head, rows)


def clips_measured() -> str:
    """Number of labelled clips that the table was measured on."""
    return str(len(read_result("clips")["clips"]))


def shaking_camera() -> str:
    """Targets and errors of whole frames of a camera that shakes, by the size of the shifts."""
    rows = [
        [
            str(row["groups"]), f"{row['shake_px']:g}", f"{100.0 * row['joint']:.0f} %", str(row["targets"]),
            str(row["rows"]), str(row["right"]),
            *(f"{100.0 * row[name]:.1f} %" for name in ("within_68", "within_95", "beyond_5")),
        ]
        for row in read_result("shake")["rows"]
    ]  # fmt: skip
    head = ["groups a frame", "shift, rms px", "joint posteriors", "targets", "rows", "right",
            "within 1 standard error", "within 1.96", "beyond 5"]  # fmt: skip
    return markdown_table(head, rows)


def stream_memory() -> str:
    """Peak memory and speed of streams of two lengths."""
    result, rows = read_result("streams"), []
    for kind, label in (("windows", "windows of 11 x 11 px"), ("frames", "frames of 48 x 48 px")):
        for length, row in result.get(kind, {}).items():
            rows.append([label, length, f"{row['peak_mb']:.0f} MB", f"{row['frames_a_cpu_second']:.0f}"])
    return markdown_table(["stream", "frames", "peak memory", "frames a second of one core"], rows)


def _cells(row: dict[str, Any]) -> list[str]:
    shares = [f"{row[f'{name}_68'][0]:.1f} / {row[f'{name}_95'][0]:.1f}" for name in ("position", "velocity")]
    return [
        with_interval(*row["first_frame"]), f"{row['tracks']['track_map']:.1f}", f"{row['count_accuracy'][0]:.1f} %",
        *shares, f"{row['cpu_milliseconds_mean']:.0f}",
    ]  # fmt: skip


def _network_cells(row: dict[str, Any]) -> list[str]:
    """Without tracks and standard errors; the time is that of 20 frames."""
    counts, time = f"{row['count_accuracy']:.1f} %", f"{row['cpu_milliseconds_median']:.0f}"
    return [with_interval(*row["first_frame"]), "", counts, "", "", time]
