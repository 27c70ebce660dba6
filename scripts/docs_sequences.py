"""Table of the joint posterior of sequences, from docs/results/sequences.json."""

from __future__ import annotations

from typing import Any

from docs_tables import markdown_table, read_result, with_interval

METHODS = {
    "joint_5": "5 frames together",
    "joint_20": "20 frames together",
    "joint_20_fast": "20 frames together, `fast`",
}


def sequences() -> str:
    """Scores, calibration and time of one frame and of several together, by noise."""
    result, rows = read_result("sequences"), []
    goal = result["goal"]
    rows.append([f"{goal['noise']:g}", "one frame", with_interval(*goal["alone"]["first_frame"]), *[""] * 5])
    for noise, each in sorted(result["noise"].items(), key=lambda item: float(item[0])):
        rows.append([noise, "one frame", with_interval(*each["alone"]["first_frame"]), *[""] * 5])
        rows += [[noise, name, *_cells(each[key])] for key, name in METHODS.items()]
    head = ["noise", "method", "CSO-mAP", "track mAP", "right count", "positions in 68 / 95 %",
            "velocities in 68 / 95 %", "ms"]  # fmt: skip
    return markdown_table(head, rows, numbers_from=2)


def sequence_trajectories() -> str:
    """Number of trajectories that the table was measured on."""
    return str(read_result("sequences")["trajectories"])


def _cells(row: dict[str, Any]) -> list[str]:
    shares = [f"{row[f'{name}_68'][0]:.1f} / {row[f'{name}_95'][0]:.1f}" for name in ("position", "velocity")]
    return [
        with_interval(*row["first_frame"]), f"{row['tracks']['track_map']:.1f}", f"{row['count_accuracy'][0]:.1f} %",
        *shares, f"{row['cpu_milliseconds_mean']:.0f}",
    ]  # fmt: skip
