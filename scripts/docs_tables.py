"""Tables and figures of the site: measured ones from docs/results, the rest from the package itself."""

from __future__ import annotations

import ast
import inspect
import json
import re
from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from csist import Flag, Targets
from csist.methods.cost import COUNTED_BATCH
from csist.methods.table import METHODS
from csist.metrics import CSO_DISTANCES_PX, cso_map, match_detections, precision_recall_curve
from csist.weights.cards import training_budget
from csist.weights.pretrained import list_pretrained
from results_table import ROOT, SECTIONS, results_table

RESULTS: Path = ROOT / "docs" / "results"
SCORES = ("CSO-mAP", "AP05", "AP10", "AP15", "AP20", "AP25")

RATIOS = (3, 5, 7)

PARTED = ("continuous", "continuous, fast", "dista-net+refine", "dista-net", "limit, annealed")
"""Methods whose score is shown by parts."""

FALSE_ALARMS = ("5e-06", "1e-05", "2e-05", "0.0001")
"""A pixel: where the detectors are compared."""

PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def read_result(name: str) -> Any:
    """What a command wrote to docs/results, by the file's name without its suffix."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def markdown_table(head: list[str], rows: list[list[str]], numbers_from: int = 1) -> str:
    """A table in Markdown, columns from `numbers_from` on to the right."""
    rule = ["---:" if place >= numbers_from else "---" for place in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def with_interval(value: float, low: float, high: float, form: str = ".1f", ends: str = ".1f") -> str:
    """A score with the ends of its interval."""
    return f"{value:{form}} ({low:{ends}} to {high:{ends}})"


def figure(name: str, row: str, key: str, form: str = ".1f") -> str:
    """One figure of an evaluation in docs/results.

    Args:
        name: the file's, without its suffix.
        row: name of the method or oracle.
        key: name of the figure.
        form: how it is printed.

    Raises:
        ValueError: if there is no such row or figure.
    """
    found = [each for each in read_result(name)["rows"] if each["name"] == row]
    if not found or found[-1].get(key) is None:
        raise ValueError(f"docs/results/{name}.json has no {key!r} of {row!r}")
    return format(found[-1][key], form)


def table(section: str) -> str:
    """A table of the README, by the name of its section."""
    return SECTIONS[section](RESULTS)


def results() -> str:
    """All rows of all evaluations."""
    return results_table(RESULTS)


def _evaluations() -> list[dict[str, Any]]:
    return [read_result(f"csist-100k-ratio-{ratio}") for ratio in RATIOS]


def budgets() -> str:
    """What each trained network costs, how it was trained and how it scores, beside the literature."""
    reported = read_result("published")
    # The authors' own figures come last: they hold where others have run the same methods.
    every = [row for part in [*reported["beside"], reported] for row in part["rows"] if "," not in row["name"]]
    literature = {(_plain(row["name"]), row["ratio"]): row for row in every if " without " not in row["name"]}
    rows = []
    for each in _evaluations():
        for row in each["rows"]:
            if "training" not in row or "+" in row["name"]:
                continue
            known = literature.get((_plain(row["name"]), each["ratio"]), {})
            cost, theirs = row["multiply_adds_per_image"] / 1e6, known.get("multiply_adds_G")
            rows.append(
                [
                    f"`{row['name']}`", str(each["ratio"]), f"{row['parameters'] / 1e6:.3f}",
                    f"{cost:.0f}", "" if theirs is None else f"{1000 * theirs / COUNTED_BATCH:.0f}",
                    f"{row['training']['samples']:,}", f"{row['training']['minutes']:.0f}",
                    with_interval(row["by_intensity"]["CSO-mAP"], *row["interval"], ".2f"),
                    "" if known.get("CSO-mAP") is None else f"{known['CSO-mAP']:.2f}",
                    _difference(row), f"{row['psnr']:.1f}", f"{row['ssim']:.4f}",
                    *("" if row.get(key) is None else f"{row[key]:.1f}"
                      for key in ("squared_error", "squared_error_ratio")),
                ]
            )  # fmt: skip
    head = ["method", "ratio", "parameters, M", "multiply-adds, M an image", "published", "samples seen", "minutes"]
    return markdown_table(
        [*head, "CSO-mAP", "published", "minus DISTA-Net", "PSNR, dB", "SSIM", "squared error", "over the exact map's"],
        rows,
    )


def recipes() -> str:
    """Samples that DISTA-Net needs by the way it is trained."""
    if not (RESULTS / "recipes.json").exists():
        return "Not measured yet: run `python benchmarks/bench_recipes.py`"
    result = read_result("recipes")
    rows = [
        [
            name, seed, f"{needed['bound']} {needed['samples']:,}",
            ", ".join(
                f"{run['cso_map']:.2f} ({run['squared_error']:.1f}) after {run['samples']:,}"
                for run in result["runs"] if (run["recipe"], str(run["seed"])) == (name, seed)
            ),
        ]
        for name, by_seed in result["needed"].items()
        for seed, needed in by_seed.items()
    ]  # fmt: skip
    return markdown_table(
        ["recipe", "seed", f"samples to reach {result['goal']:g}", "CSO-mAP (squared error) of each training"], rows
    )


def _difference(row: dict[str, Any]) -> str:
    """CSO-mAP of a row minus DISTA-Net's on the same images, with its interval; empty where it is unknown or itself."""
    found = row.get("difference")
    if found is None or found["to"] == row["name"]:
        return ""
    value, low, high = found["CSO-mAP"]
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def _plain(name: str) -> str:
    """A method's name in the registry's spelling, from the literature's."""
    return name.partition(" without ")[0].lower().replace("+", "-plus").replace("tilista", "ti-lista")


def parts() -> str:
    """CSO-mAP by number of targets, smallest distance and place, at the first ratio."""
    each = _evaluations()[0]
    shown = [row for row in each["rows"] if row["name"] in PARTED and "breakdown" in row]
    if not shown:
        return "Not measured yet: run `make results`"
    head, cells = ["images of", "images"], []
    for row in shown:
        head.append(row["name"] if row.get("reference") else f"`{row['name']}`")
    for kind, choices in shown[0]["breakdown"].items():
        for part, values in choices.items():
            scores = [row["breakdown"][kind].get(part, {}).get("CSO-mAP") for row in shown]
            label = f"{part} {kind}" if kind == "targets" else part if kind == "border" else f"{kind} {part}"
            cells.append([label, f"{values['images']:,}", *("" if s is None else f"{s:.1f}" for s in scores)])
    return markdown_table(head, cells)


def wrong_model() -> str:
    """What a wrong PSF, a background and dense groups do, and what self-calibration makes good."""
    if not (RESULTS / "wrong_model.json").exists():
        return "Not measured yet: run `python benchmarks/bench_wrong_model.py`"
    result = read_result("wrong_model")
    rows = []
    for error, row in result["sigma"].items():
        rows.append([f"sigma believed {error}", *_model_cells(row["as_believed"])])
        rows.append([f"sigma believed {error}, then calibrated", *_model_cells(row["calibrated"])])
    for name, row in result["backgrounds"].items():
        rows.append([f"background {result['background']:g} counts, {name}", *_model_cells(row["as_believed"])])
        if "calibrated" in row:
            rows.append(
                [f"background {result['background']:g} counts, {name}, calibrated", *_model_cells(row["calibrated"])]
            )
    for count, by_prior in result["dense"].items():
        rows += [
            [f"{count} targets in {result['dense_side_px']:g} px, {prior}", *_model_cells(row)]
            for prior, row in by_prior.items()
        ]
    found = [
        [
            error, f"{row['calibration']['sigma_px']:.4f} ± {row['calibration']['sigma_px_std']:.4f}",
            f"{100 * (row['calibration']['sigma_px'] / row['true_sigma_px'] - 1):+.2f} %",
            f"{row['calibration']['windows_of_one_target']} of {row['calibration']['windows']}",
        ]
        for error, row in result["sigma"].items()
    ]  # fmt: skip
    return "\n\n".join(
        [
            markdown_table(["model", "CSO-mAP", "count right", "mean score", "score error", "flagged"], rows),
            "What `csist.calibrate` finds:",
            markdown_table(["sigma believed", "sigma found, px", "error", "windows of one target"], found),
        ]
    )


def flat_prior() -> str:
    """Pairs against the Cramer-Rao bound, and groups against their own limit, when next to nothing is known."""
    result = read_result("flat_prior")
    pairs = [
        [
            f"{row['separation_r']:g} R", str(row["pairs"]), f"{100 * row['count_accuracy']:.1f} %",
            f"{row['rms_error_px']:.4f}", f"{row['rms_bound_px']:.4f}", f"{row['error_over_bound']:.2f}",
        ]
        for row in result["pairs"]
    ]  # fmt: skip
    groups = [
        [
            f"{row['read_noise']:g}", f"{100 * row['count_accuracy']:.1f} %",
            *(with_interval(*row[key]) for key in ("CSO-mAP", "limit_from_truth", "limit_from_modes")),
        ]
        for row in result["groups"]
    ]  # fmt: skip
    head = ["pairs apart", "pairs", "count right", "rms error, px", "Cramer-Rao bound, px", "ratio"]
    return "\n\n".join(
        [
            markdown_table(head, pairs),
            markdown_table(["noise", "count right", "CSO-mAP", "limit from the truth", "limit from modes"], groups),
        ]
    )


def _model_cells(row: dict[str, Any]) -> list[str]:
    return [
        with_interval(*row["CSO-mAP"]), f"{100 * row['count_accuracy']:.1f} %", f"{row['mean_score']:.2f}",
        f"{row['score_error']:.3f}", f"{100 * row['flagged_poor_fit']:.0f} %",
    ]  # fmt: skip


def published() -> str:
    """The figures that the benchmark's authors report."""
    head = ["method", "ratio", "parameters, M", "multiply-adds, G", *SCORES, "PSNR, dB", "SSIM", "here"]
    every = sorted(read_result("published")["rows"], key=lambda row: (row["ratio"], -row["CSO-mAP"]))
    return markdown_table(head, [_published_cells(row, head) for row in every])


def published_beside() -> str:
    """What others report, and the authors with further parts."""
    head = ["source", "method", "multiply-adds, G", *SCORES, "here"]
    rows = [
        [part["source"], *_published_cells(row, head[1:])]
        for part in read_result("published")["beside"]
        for row in sorted(part["rows"], key=lambda row: -(row["CSO-mAP"] or 0.0))
    ]
    return markdown_table(head, rows, 2)


PUBLISHED_COLUMNS = {
    "parameters, M": ("parameters_M", "g"),
    "multiply-adds, G": ("multiply_adds_G", "g"),
    "PSNR, dB": ("psnr", ".2f"),
    "SSIM": ("ssim", ".4f"),
    **{score: (score, ".2f") for score in SCORES},
}
"""Key and format of a column of the literature's figures."""


def _published_cells(row: dict[str, Any], head: list[str]) -> list[str]:
    """Cells of a row of the literature by the columns' names."""
    name = _plain(row["name"].partition(",")[0])
    cells = {
        "method": row["name"] + (f" ({row['note']})" if "note" in row else ""),
        "ratio": str(row["ratio"]),
        "here": f"`{name}`" if name in METHODS else "no implementation",
    }
    for column, (key, form) in PUBLISHED_COLUMNS.items():
        cells[column] = "" if row.get(key) is None else f"{row[key]:{form}}"
    return [cells[column] for column in head]


def frames() -> str:
    """Detection in real frames: targets found where so many false alarms a pixel are allowed."""
    rows = [
        [
            group, name, f"{row['targets']}",
            *(f"{100 * row['probability_at_false_per_pixel'][allowed]['value']:.1f} %" for allowed in FALSE_ALARMS),
            f"{row['seconds_median']:.2f}",
        ]
        for group, by_name in read_result("real_sirst")["groups"].items()
        for name, row in by_name.items()
    ]  # fmt: skip
    return markdown_table(["frames", "detector", "targets", *FALSE_ALARMS, "s a frame"], rows, 2)


def injected() -> str:
    """Simulated groups in real frames, beside the same on a flat background."""
    rows = []
    for row in read_result("real_injected")["rows"]:
        if row.get("aimed_at"):
            label = "1 to 3 targets, 20 times the noise, at least 1 R apart"
            label += f", {row['source']}" if "source" in row else ""
            label += ", frames that options were chosen on" if row.get("chosen_on") else ""
        else:
            label = f"{row['snr']:g} times the noise"
            label += f", {row['source']}" if "source" in row else ""
            label += f", {row['count']} targets" if "count" in row else ""
            label += f", {row['separation']:g} R apart" if "separation" in row else ""
        real, flat = row["real"], row["flat"]
        rows.append(
            [
                label, str(row["groups"]),
                *(f"{100 * each['count_right']['value']:.1f} %" for each in (real, flat)),
                *(f"{each['CSO-mAP']['value']:.1f}" for each in (real, flat)),
                " / ".join(f"{100 * value:.0f}" for value in real["within_68"].values()),
            ]
        )  # fmt: skip
    head = ["groups of", "groups", "count right", "flat", "CSO-mAP", "flat", "68 % holds, x / y / intensity"]
    return markdown_table(head, rows)


def injected_limit() -> str:
    """What the exact posterior scores for some of the groups on a flat background."""
    limit = read_result("real_injected")["limit"]
    low, high = limit["bracket"]
    return (
        f"On the first {limit['groups']} of the groups in the first row, on the flat background, the exact posterior "
        f"scores {low:.1f} to {high:.1f} with the count known; `unmix_frame` scores {limit['flat_CSO-mAP']:.1f} there."
    )


def short_trainings(name: str) -> str:
    """Trainings of a short budget.

    Args:
        name: of the file in docs/results.
    """
    rows = []
    for row in read_result(name):
        options = ", ".join(f"`{name}={value}`" for name, value in row["options"].items()) or "as published"
        score = with_interval(row["CSO-mAP"]["value"], *row["CSO-mAP"]["interval"])
        rows.append([
            f"`{row['method']}`", options, f"{row['seed']}", f"{row['samples']:,}", f"{row['minutes']:.0f}", score,
        ])  # fmt: skip
    return markdown_table(["network", "options", "seed", "samples", "minutes", "CSO-mAP"], rows, 2)


def training_steps() -> str:
    """Seconds of a training step of DISTA-Net in the trainer's forms."""
    result = read_result("training_speed")
    forms = {
        "plain": "plain eager loop, default layout", "trainer": "as `csist train` does",
        "compiled": "with `--compile`",
        "window": f"without it, on windows of {result['window_px']} px",
    }  # fmt: skip
    rows = [
        [forms[name], f"{row['seconds_per_step']:.2f}", f"{row['times_faster_than_plain']:.2f}"]
        for name, row in result["rows"].items()
    ]
    return markdown_table([f"step of {result['batch']} images", "s", "times as fast"], rows)


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
    head = ["", "best F1", "detections", "stars found, %", "purity, %", "position error, px", "flux ratio", "s"]
    return markdown_table(head, rows)


def infrared_stars() -> str:
    """Stars found, their positions and fluxes by either way to measure the PSF on the frame."""
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
    """What a part of the benchmark on real data was to reach, and whether it does.

    Args:
        name: of the part.
    """
    if not (RESULTS / f"real_{name}.json").exists():
        return f"Not measured yet: run `python benchmarks/bench_real.py --data FOLDER --part {name}`"
    rows = [
        [
            row["aim"],
            f"{row['value']:.3f}" if isinstance(row["value"], float) else str(row["value"]),
            "met" if row["met"] else "missed",
        ]
        for row in read_result(f"real_{name}")["targets"]
    ]
    return markdown_table(["aim", "measured", ""], rows)


def speeds() -> str:
    """Images a second of all contestants of one run."""
    result = read_result("methods_speed")
    rows = [
        [
            row["name"], row["summary"], f"{row['images_per_second']['median']:,.0f}",
            f"{row['ratio_to_dista_net']:.2f}", f"{row['CSO-mAP']:.1f}", f"{row['count_accuracy']:.1f} %",
        ]
        for row in result["methods"]
    ]  # fmt: skip
    return markdown_table(["method", "", "images/s", "times DISTA-Net", "CSO-mAP", "count right"], rows, 2)


def speed(name: str) -> str:
    """Images a second of one contestant."""
    (row,) = (each for each in read_result("methods_speed")["methods"] if each["name"] == name)
    return f"{row['images_per_second']['median']:,.0f}"


def yolo() -> str:
    """Maps read out by a detector, beside their own read-out."""
    result = read_result("yolo")
    rows = []
    for each in result["methods"]:
        for read_out, figures in (("threshold", each["threshold"]), ("YOLO11n", each["yolo"])):
            rows.append(
                [
                    each["name"], read_out, with_interval(figures["CSO-mAP"], *figures["interval"], ".2f"),
                    f"{figures['AP05']:.1f}", f"{figures['AP25']:.1f}", f"{figures['count_accuracy']:.1f} %",
                ]
            )  # fmt: skip
    return markdown_table(["map", "read out by", "CSO-mAP", "AP05", "AP25", "count right"], rows, 2)


def yolo_budget() -> str:
    """How long the detectors were trained, and on what."""
    result = read_result("yolo")
    budget = result["budget"]
    spent = ", ".join(f"{each['minutes']:.0f}" for each in result["methods"])
    return (
        f"{budget['minutes']:g} minutes a method were given ({spent} with its maps and validation), "
        f"{budget['train_maps']:,} maps to learn from, {result['data']['images']:,} test images"
    )


def ista_settings() -> str:
    """CSO-mAP of ISTA by its settings, on validation images."""
    rows = [
        [row["start"], "yes" if row["nonnegative"] else "no", f"{row['penalty']:g}", f"{row['CSO-mAP']:.2f}"]
        for row in read_result("ista")["choice"]
    ]
    return markdown_table(["start", "cells at least 0", "penalty", "CSO-mAP"], rows, 2)


def methods() -> str:
    """All methods of the registry."""
    rows = [
        [f"`{name}`", entry.summary, entry.source, "yes" if entry.trained else "no"] for name, entry in METHODS.items()
    ]
    return markdown_table(["method", "what it is", "source", "needs training"], rows, 4)


def weights() -> str:
    """The trained weights that come with the package."""
    rows = [
        [
            f"`{card['method']}`", str(card["ratio"]), f"{training_budget(card)['samples']:,}",
            f"{card['score']['cso_map']:.2f}",
        ]
        for _, card in list_pretrained()
    ]  # fmt: skip
    if not rows:
        return "None yet: train your own, as below."
    return markdown_table(["method", "ratio", "samples seen", "CSO-mAP on validation images"], rows)


def flags() -> str:
    """The bits of `Flag` and what each says, from the comments in its source."""
    body = ast.parse(inspect.getsource(Flag)).body[0].body  # type: ignore[attr-defined]
    told = {
        first.targets[0].id: second.value.value
        for first, second in pairwise(body)
        if isinstance(first, ast.Assign) and isinstance(second, ast.Expr)
    }
    rows = [[f"`{flag.name}`", str(flag.value), " ".join(told[flag.name].split())] for flag in Flag]
    return markdown_table(["flag", "bit", "meaning"], rows, 3)


def worked_example() -> tuple[list[Targets], list[Targets]]:
    """Detections and true targets of the first code block of the metric's page."""
    page = (ROOT / "docs" / "metric.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    with redirect_stdout(StringIO()):
        exec(PYTHON_BLOCK.findall(page)[0], names)  # noqa: S102 - our own page
    return names["found"], names["truths"]


def metric_example() -> str:
    """What the metric makes of the worked example: hits, curve and score."""
    found, truths = worked_example()
    matches = match_detections(found, truths)
    hits = {distance: matches.hits(distance) for distance in CSO_DISTANCES_PX}
    first = np.cumsum([0, *map(len, found)])
    ranked = []
    for rank, place in enumerate(matches.order, 1):
        image = int(matches.image[place])
        target = found[image][int(place - first[image])]
        ranked.append(
            [
                str(rank), f"{matches.key[place]:.2f}", str(image + 1), f"({target.x[0]:.2f}, {target.y[0]:.2f})",
                f"T{matches.nearest[place] + 1}", f"{matches.distance_px[place]:.3f}",
                *("hit" if hits[distance][place] else "-" for distance in CSO_DISTANCES_PX),
            ]
        )  # fmt: skip
    within = [f"{distance:.2f}" for distance in CSO_DISTANCES_PX]
    head = ["rank", "score", "image", "(x, y) px", "nearest", "apart px", *within]
    curve = precision_recall_curve(matches, CSO_DISTANCES_PX[-1])
    steps = [
        [str(rank), f"{recall:.3f}", f"{precision:.3f}", f"{envelope:.3f}"]
        for rank, (recall, precision, envelope) in enumerate(
            zip(curve.recall, curve.precision, curve.envelope, strict=True), 1
        )
    ]
    scores = cso_map(found, truths)
    return "\n\n".join(
        [
            markdown_table(head, ranked, 1),
            f"The curve at {CSO_DISTANCES_PX[-1]:g} px, with {int(matches.truth_count.sum())} true targets in all:",
            markdown_table(["rank", "recall", "precision", "highest precision from here on"], steps, 1),
            "And the result, in percent:",
            markdown_table(list(scores), [[f"{value:.2f}" for value in scores.values()]], 0),
        ]
    )
