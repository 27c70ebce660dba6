"""Tables of the measurements on real frames and star fields."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from docs_tables import RESULTS, folded, markdown_table, read_result, with_interval

FALSE_ALARMS = ("5e-06", "1e-05", "2e-05", "0.0001")
"""False alarms per pixel at which the detectors are compared."""


def frames() -> str:
    """Detection in real frames: share of targets found at given rates of false alarms per pixel."""
    rows = [
        [
            group, name, f"{row['targets']}",
            *(f"{100 * row['probability_at_false_per_pixel'][allowed]['value']:.1f} %" for allowed in FALSE_ALARMS),
            f"{row['seconds_median']:.2f}",
        ]
        for group, by_name in read_result("real_sirst")["groups"].items()
        for name, row in by_name.items()
    ]  # fmt: skip
    return markdown_table(["frames", "detector", "targets", *FALSE_ALARMS, "s per frame"], rows, 2)


def injected() -> str:
    """Simulated groups in real frames beside the same groups on a flat background; all parts in a fold."""
    measured = read_result("real_injected")["rows"]
    aimed = [_injected_row(row) for row in measured if row.get("aimed_at")]
    head = ["groups", "number", "count right", "flat", "CSO-mAP", "flat", "68 % covers, x / y / intensity"]
    parts = [
        folded(
            f"SNR {snr:g}, by source, count and separation", markdown_table(head, [_injected_row(row) for row in rows])
        )
        for snr, rows in groupby((row for row in measured if not row.get("aimed_at")), key=lambda row: row["snr"])
    ]
    return "\n\n".join([markdown_table(head, aimed), *parts])


def _injected_row(row: dict[str, Any]) -> list[str]:
    if row.get("aimed_at"):
        label = "1 to 3 targets, SNR 20, at least 1 R apart"
        label += f", {row['source']}" if "source" in row else ""
        label += ", frames used to choose options" if row.get("chosen_on") else ""
    else:
        label = f"SNR {row['snr']:g}"
        label += f", {row['source']}" if "source" in row else ""
        label += f", {row['count']} target{'s' * (row['count'] > 1)}" if "count" in row else ""
        label += f", {row['separation']:g} R apart" if "separation" in row else ""
    real, flat = row["real"], row["flat"]
    return [
        label, str(row["groups"]),
        *(f"{100 * each['count_right']['value']:.1f} %" for each in (real, flat)),
        *(f"{each['CSO-mAP']['value']:.1f}" for each in (real, flat)),
        " / ".join("-" if value is None else f"{100 * value:.0f}" for value in real["within_68"].values()),
    ]  # fmt: skip


def injected_limit() -> str:
    """The score of the exact posterior for some of the groups on a flat background."""
    limit = read_result("real_injected")["limit"]
    low, high = limit["bracket"]
    return (
        f"On the flat background, for the first {limit['groups']} groups of the first row, the exact posterior with "
        f"known count scores {low:.1f} to {high:.1f}; `unmix_frame` scores {limit['flat_CSO-mAP']:.1f}."
    )


def crowded_stars() -> str:
    """Completeness and purity of csist and photutils in the crowded star field."""
    result = read_result("real_m2")
    rows = []
    for name, row in result["rows"].items():
        error = row["position_error_px"]
        rows.append([
            name, f"{result['best_f1'][name]:.2f}", f"{row['detections']}",
            *(with_interval(100 * row[key]["value"], *(100 * end for end in row[key]["interval"]), ".0f", ".0f")
              for key in ("completeness", "purity")),
            with_interval(error["median"], *error["interval"], ".2f", ".2f"), f"{row['flux_ratio']['median']:.2f}",
            f"{row['seconds']:.0f}",
        ])  # fmt: skip
    head = ["program", "best F1", "detections", "stars found, %", "purity, %", "position error, px", "flux ratio", "s"]
    return markdown_table(head, rows)


def infrared_stars() -> str:
    """Stars found, their positions and fluxes, for both ways of measuring the PSF on the frame."""
    rows = [
        [
            f"`--psf {psf}`", f"{100 * row['found']['value']:.1f} %",
            *(with_interval(row["scatter_px"][axis]["value"], *row["scatter_px"][axis]["interval"], ".3f", ".3f")
              for axis in ("x", "y")),
            with_interval(row["flux_ratio"]["value"], *row["flux_ratio"]["interval"], ".3f", ".3f"),
            f"{row['seconds']:.0f}",
        ]
        for psf, row in read_result("real_spitzer")["rows"].items()
    ]  # fmt: skip
    return markdown_table(["PSF", "found", "scatter x, px", "scatter y, px", "median flux ratio", "s"], rows)


def aims(name: str) -> str:
    """The aims of one part of the benchmark on real data, and whether they are met.

    Args:
        name: name of the part.
    """
    if not (RESULTS / f"real_{name}.json").exists():
        return f"Not measured yet: run `python benchmarks/bench_real.py --data FOLDER --part {name}`"
    rows = [
        [
            row["aim"],
            _measured_aim(row["value"]) + _if_calibrated(row.get("if_calibrated")),
            "met" if row["met"] else "missed",
        ]
        for row in read_result(f"real_{name}")["targets"]
    ]
    return markdown_table(["aim", "measured", "result"], rows)


def _if_calibrated(expected: dict[str, Any] | None) -> str:
    """What an exact score would have, in words; nothing where that is not known."""
    if expected is None:
        return ""
    low, high = expected["interval_90"]
    return f" (exact scores: {expected['mean']:.3f}, 90 % within {low:.3f} to {high:.3f})"


def _measured_aim(value: float | str) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if value >= 1e-3 else f"{value:.1e}"


def extended() -> str:
    """The aims of extended sources, streaks and pairs, and the share of right counts by the brightness."""
    result = read_result("extended")
    reached = [
        [
            row["aim"],
            with_interval(row["value"], *row["interval"], form=".3f", ends=".3f"),
            str(row["cases"]),
            "met" if row["met"] else "missed",
        ]
        for row in result["aims"]
    ]
    brightness = sorted({row["snr"] for row in result["rows"]})
    kinds = dict.fromkeys((row["kind"], row["background"]) for row in result["rows"])
    shares = [
        [
            kind,
            background,
            *(f"{_mean_share(result['rows'], kind=kind, background=background, snr=snr):.3f}" for snr in brightness),
        ]
        for kind, background in kinds
    ]
    head = ["source", "background", *(f"SNR {snr:g}" for snr in brightness)]
    return "\n\n".join([
        markdown_table(["aim", "share (95 % interval)", "cases", "result"], reached),
        markdown_table(head, shares, numbers_from=2),
    ])  # fmt: skip


def _mean_share(rows: list[dict[str, Any]], **chosen: Any) -> float:
    """Share of right counts in the rows with these values, over all sizes."""
    counted = [row["count_right"] for row in rows if all(row[key] == value for key, value in chosen.items())]
    return float(sum(each["value"] * each["cases"] for each in counted) / sum(each["cases"] for each in counted))


def dense() -> str:
    """Dense simulated fields by default options, beside photutils and the ceiling of any detector."""
    rows = []
    for field, measured in read_result("dense")["fields"].items():
        ratio, ceiling = measured["ratio"], measured["ceiling"]
        for name in ("csist", "photutils"):
            row = measured[name]
            right, error = f"{100 * row['precision']:.1f} %", f"{row['median_error_px']:.3f} px"
            shown = f"{ratio:.2f}" if name == "csist" else ""
            rows.append([field, name, f"{row['jaccard']:.3f}", f"{100 * row['recall']:.1f} %", right, error, shown])
        found = f"{100 * ceiling['recall']:.1f} %"
        rows.append([field, "ceiling", f"{ceiling['jaccard']:.3f}", found, found, "", f"{ceiling['ratio']:.2f}"])
    return markdown_table(
        ["field", "detector", "Jaccard index", "found", "right", "median error", "ratio of the indices"], rows, 2
    )
