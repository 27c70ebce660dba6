"""Tables and figures of the site: measurements from docs/results, everything else from the package."""

from __future__ import annotations

import ast
import inspect
import json
import re
import runpy
from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from csist import Flag, Targets
from csist.io.cards import card_schemas
from csist.methods.table import METHODS
from csist.metrics import CSO_DISTANCES_PX, cso_map, match_detections, precision_recall_curve
from csist.weights.cards import training_budget
from csist.weights.pretrained import list_pretrained
from results_table import ROOT, SECTIONS, results_table

RESULTS: Path = ROOT / "docs" / "results"
SCORES = ("CSO-mAP", "AP05", "AP10", "AP15", "AP20", "AP25")

RATIOS = (3, 5, 7)

PARTED = ("continuous", "continuous, fast", "dista-net+refine", "dista-net", "limit, annealed")
"""Methods whose score is broken down by count, separation and border."""

PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def read_result(name: str) -> Any:
    """Content of docs/results/NAME.json."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def markdown_table(head: list[str], rows: list[list[str]], numbers_from: int = 1) -> str:
    """A Markdown table; columns from `numbers_from` on are right-aligned."""
    rule = ["---:" if place >= numbers_from else "---" for place in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def folded(title: str, markdown: str) -> str:
    """Markdown that is shown after a click on its title."""
    return f'??? note "{title}"\n\n' + "\n".join(f"    {line}" for line in markdown.splitlines())


def with_interval(value: float, low: float, high: float, form: str = ".1f", ends: str = ".1f") -> str:
    """A score with its interval."""
    return f"{value:{form}} ({low:{ends}} to {high:{ends}})"


def pulls() -> str:
    """Root mean square of the pulls of stars by noise and mode; of pairs the shares within 1 and 1.96 errors."""
    found = read_result("pulls")["pulls"]
    single = [
        [row["condition"], row["mode"], str(row["single"]), *(f"{value:.2f}" for value in row["rms"].values())]
        for row in found
    ]
    pairs = [
        [
            row["mode"],
            str(row["single"]),
            *(f"{100 * row[key][name]:.1f}" for key in ("within_68", "within_95") for name in row["rms"]),
        ]
        for row in found
        if row["condition"] == "pairs"
    ]
    head = ["mode", "targets", "x 68 %", "y 68 %", "flux 68 %", "x 95 %", "y 95 %", "flux 95 %"]
    return (
        markdown_table(["noise", "mode", "stars", "x", "y", "flux"], single, numbers_from=2)
        + "\n\nOf the pairs, the share in % within the stated 68 % and 95 % errors:\n\n"
        + markdown_table(head, pairs)
    )


def injection() -> str:
    """Completeness by `csist inject` and by an independent injection into the same frames, and their difference."""
    result = read_result("inject")
    rows = [
        [
            row["frame"].replace("_", " "),
            f"{row['flux']:.0f}",
            f"{100 * row['inject']:.0f} ({' to '.join(f'{100 * end:.0f}' for end in row['inject_interval'])})",
            f"{100 * row['own']:.0f} ± {100 * row['own_std']:.0f}",
            f"{row['difference_std']:+.1f}",
        ]
        for row in result["rows"]
    ]
    head = ["frame", "flux", "`csist inject` in % (95 %)", "independent in %", "difference in standard errors"]
    return markdown_table(head, rows)


def card(kind: str) -> str:
    """Fields of a card by its JSON schema: what each may hold, and its default; folded, with those of its parts.

    Args:
        kind: one of the names of `csist.io.cards.card_schemas`.
    """
    schema = card_schemas()[kind]
    parts = {name: part for name, part in schema.get("$defs", {}).items() if "kind" in part["properties"]}
    rows = [[f"`{name}`", _allowed(each), _default(each)] for name, each in schema["properties"].items()]
    for part in parts.values():
        own = dict(part["properties"])
        label = own.pop("kind")["const"]
        rows += [[f"`psf` of kind `{label}`: `{name}`", _allowed(each), "needed"] for name, each in own.items()]
    return folded(f"Fields of a {kind} card", markdown_table(["field", "value", "default"], rows, numbers_from=3))


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        return "needed"
    return "none" if field["default"] is None else f"`{json.dumps(field['default'])}`"


def _allowed(field: dict[str, Any]) -> str:
    """What a field of a JSON schema may hold, in words."""
    choices = [each for each in field.get("anyOf", []) if each.get("type") != "null"]
    if choices:
        return _allowed(choices[0])
    if "oneOf" in field or "$ref" in field:
        return "a card of its own, see below"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        least, most = field.get("minItems"), field.get("maxItems")
        number = f"{least}" if least == most else f"{least} to {most}"
        return f"list of {number}: {_allowed(field['items'])}"
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    limits = " and ".join(f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field)
    return f"{field.get('type', 'anything')} {limits}".strip()


def figure(name: str, row: str, key: str, form: str = ".1f") -> str:
    """One figure of an evaluation in docs/results.

    Args:
        name: file name without suffix.
        row: name of the method or oracle.
        key: name of the figure.
        form: format specification.

    Raises:
        ValueError: if there is no such row or figure.
    """
    found = [each for each in read_result(name)["rows"] if each["name"] == row]
    if not found or found[-1].get(key) is None:
        raise ValueError(f"docs/results/{name}.json has no {key!r} of {row!r}")
    return format(found[-1][key], form)


def table(section: str) -> str:
    """A table of the README, by the name of its marker."""
    return SECTIONS[section](RESULTS)


def results(ratio: int | None = None) -> str:
    """All rows of the evaluations at one grid ratio; without a ratio, those of the methods without a grid."""
    return results_table(RESULTS, lambda row: row["grid"] == ratio)


def summary() -> str:
    """One line per kind of method, one column per grid ratio, and one column for methods without a grid."""
    by_ratio = {each["ratio"]: each["rows"] for each in evaluations()}
    cells = {ratio: _summary_of_ratio(ratio, rows) for ratio, rows in by_ratio.items()}
    limit = read_result("accuracy")["rows"]["rounding only"]["limit"]
    ends = sorted(limit[which]["CSO-mAP"][0] for which in ("annealed", "from_truth"))
    # As in the tables by ratio, the last evaluation of a method counts.
    gridless = {row["name"]: row for rows in by_ratio.values() for row in rows}
    no_ratio = [""] * len(RATIOS)
    lines = [
        ["exact posterior, the physical limit", f"{ends[0]:.2f} to {ends[1]:.2f}", *no_ratio],
        *([f"`{name}`", f"{gridless[name]['CSO-mAP']:.2f}", *no_ratio] for name in ("continuous", "continuous, fast")),
        *([label, "", *(cells[ratio][label] for ratio in RATIOS)] for label in cells[RATIOS[0]]),
    ]
    return markdown_table(["CSO-mAP in percent", "no grid", *(f"ratio {ratio}" for ratio in RATIOS)], lines)


def _summary_of_ratio(ratio: int, rows: list[dict[str, Any]]) -> dict[str, str]:
    by_name = {row["name"]: row for row in rows}
    literature = {row["name"]: row["CSO-mAP"] for row in read_result("published")["rows"] if row["ratio"] == ratio}
    on_grid = [row for row in rows if not row.get("reference") and "psnr" in row and "+" not in row["name"]]
    refined = [row for row in rows if row["name"].endswith("+refine")]
    return {
        "best grid method with `+refine`": _best(refined),
        "perfect grid method (oracle)": f"{by_name[f'oracle, ratio {ratio}, by closeness']['CSO-mAP']:.2f}",
        "best grid method": _best(on_grid),
        "`dista-net`": f"{by_name['dista-net']['CSO-mAP']:.2f}",
        "DISTA-Net, as published": f"{literature['DISTA-Net']:.2f}",
    }


def _best(rows: list[dict[str, Any]]) -> str:
    best = max(rows, key=lambda row: row["CSO-mAP"])
    return f"{best['CSO-mAP']:.2f} (`{best['name'].removesuffix('+refine')}`)"


def evaluations() -> list[dict[str, Any]]:
    """Results of `csist benchmark`, by ratio."""
    return [read_result(f"csist-100k-ratio-{ratio}") for ratio in RATIOS]


def parts() -> str:
    """CSO-mAP by number of targets, smallest separation and position in the image, at the first ratio."""
    each = evaluations()[0]
    shown = [row for row in each["rows"] if row["name"] in PARTED and "breakdown" in row]
    if not shown:
        return "Not measured yet: run `make results`"
    head, cells = ["images with", "images"], []
    for row in shown:
        head.append(row["name"] if row.get("reference") else f"`{row['name']}`")
    for kind, choices in shown[0]["breakdown"].items():
        for part, values in choices.items():
            if part == "one target":  # the same images as "1 targets"
                continue
            scores = [row["breakdown"][kind].get(part, {}).get("CSO-mAP") for row in shown]
            label = _part_label(kind, part)
            cells.append([label, f"{values['images']:,}", *("" if s is None else f"{s:.1f}" for s in scores)])
    return markdown_table(head, cells)


def _part_label(kind: str, part: str) -> str:
    if kind == "targets":
        return f"{part} target{'s' * (part != '1')}"
    if kind == "border":
        return "the group in a border pixel" if part == "in a border pixel" else "the group further inside"
    return f"{kind} {part}".replace("to inf px", "px and more")


def wrong_model() -> str:
    """Scores with a wrong PSF, an unmodelled background and dense groups, without and with calibration."""
    if not (RESULTS / "wrong_model.json").exists():
        return "Not measured yet: run `python benchmarks/bench_wrong_model.py`"
    result = read_result("wrong_model")
    rows = []
    for error, row in result["sigma"].items():
        rows.append([f"assumed σ {error}", *_model_cells(row["as_believed"])])
        rows.append([f"assumed σ {error}, calibrated", *_model_cells(row["calibrated"])])
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
            "Results of `csist.calibrate`, started from each assumed σ:",
            markdown_table(["assumed σ", "calibrated σ, px", "error", "windows with one target"], found),
        ]
    )


def flat_prior() -> str:
    """Pairs against the Cramer-Rao bound, and groups against their own limit, with the flat prior."""
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
    head = ["separation", "pairs", "count right", "rms error, px", "Cramer-Rao bound, px", "error / bound"]
    return "\n\n".join(
        [
            markdown_table(head, pairs),
            markdown_table(
                ["noise, counts", "count right", "CSO-mAP", "limit, from truth", "limit, from modes"], groups
            ),
        ]
    )


def _model_cells(row: dict[str, Any]) -> list[str]:
    return [
        with_interval(*row["CSO-mAP"]), f"{100 * row['count_accuracy']:.1f} %", f"{row['mean_score']:.2f}",
        f"{row['score_error']:.3f}", f"{100 * row['flagged_poor_fit']:.0f} %",
    ]  # fmt: skip


def speeds() -> str:
    """Images per second of all contestants of one run."""
    result = read_result("methods_speed")
    rows = [
        [
            row["name"], row["summary"], f"{row['images_per_second']['median']:,.0f}",
            f"{row['ratio_to_dista_net']:.2f}", f"{row['CSO-mAP']:.1f}", f"{row['count_accuracy']:.1f} %",
        ]
        for row in result["methods"]
    ]  # fmt: skip
    head = ["method", "what is timed", "images/s", "relative to DISTA-Net", "CSO-mAP", "count right"]
    return markdown_table(head, rows, 2)


def speed(name: str) -> str:
    """Images per second of one contestant."""
    (row,) = (each for each in read_result("methods_speed")["methods"] if each["name"] == name)
    return f"{row['images_per_second']['median']:,.0f}"


def ista_settings() -> str:
    """CSO-mAP of ISTA by setting, on validation images."""
    rows = [
        [row["start"], "yes" if row["nonnegative"] else "no", f"{row['penalty']:g}", f"{row['CSO-mAP']:.2f}"]
        for row in read_result("ista")["choice"]
    ]
    return markdown_table(["start", "nonnegative cells", "penalty", "CSO-mAP"], rows, 2)


def methods() -> str:
    """All methods."""
    rows = [
        [f"`{name}`", entry.summary, entry.source, "yes" if entry.trained else "no"] for name, entry in METHODS.items()
    ]
    return markdown_table(["method", "description", "source", "needs training"], rows, 4)


def weights() -> str:
    """The trained weights included in the package."""
    rows = [
        [
            f"`{card['method']}`", str(card["ratio"]), f"{training_budget(card)['samples']:,}",
            f"{card['score']['cso_map']:.2f}",
        ]
        for _, card in list_pretrained()
    ]  # fmt: skip
    if not rows:
        return "None yet: train your own, as described below."
    return markdown_table(["method", "ratio", "training samples", "CSO-mAP on validation images"], rows)


def flags() -> str:
    """The bits of `Flag` and their meaning, from the comments in its source."""
    body = ast.parse(inspect.getsource(Flag)).body[0].body  # type: ignore[attr-defined]
    told = {
        first.targets[0].id: second.value.value
        for first, second in pairwise(body)
        if isinstance(first, ast.Assign) and isinstance(second, ast.Expr)
    }
    rows = [[f"`{flag.name}`", str(flag.value), " ".join(told[flag.name].split())] for flag in Flag]
    return markdown_table(["flag", "bit", "meaning"], rows, 3)


def worked_example() -> tuple[list[Targets], list[Targets]]:
    """Detections and true targets of the first code block on the metric page."""
    page = (ROOT / "docs" / "metric.md").read_text(encoding="utf-8")
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        script = Path(folder) / "metric.py"
        script.write_text(PYTHON_BLOCK.findall(page)[0], encoding="utf-8")
        names = runpy.run_path(str(script))
    return names["found"], names["truths"]


def metric_example() -> str:
    """Hits, curve and score of the worked example."""
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
    head = ["rank", "score", "image", "(x, y), px", "nearest", "distance, px", *within]
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
            f"The curve at {CSO_DISTANCES_PX[-1]:g} px, with {int(matches.truth_count.sum())} true targets in total:",
            markdown_table(["rank", "recall", "precision", "interpolated precision"], steps, 1),
            "The result, in percent:",
            markdown_table(list(scores), [[f"{value:.2f}" for value in scores.values()]], 0),
        ]
    )
