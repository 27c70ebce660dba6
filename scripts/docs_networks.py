"""Tables of the trained networks: cost, training, and scores beside the published ones."""

from __future__ import annotations

from typing import Any

from csist.methods.cost import COUNTED_BATCH
from csist.methods.table import METHODS
from csist.weights.pretrained import weights_folder
from docs_tables import RESULTS, SCORES, evaluations, folded, markdown_table, read_result, with_interval


def budgets() -> str:
    """Cost and training of each network, then its scores beside the published ones."""
    reported = read_result("published")
    # The authors' own figures come last: they hold where others have run the same methods.
    every = [row for part in [*reported["beside"], reported] for row in part["rows"] if "," not in row["name"]]
    literature = {(_plain(row["name"]), row["ratio"]): row for row in every if " without " not in row["name"]}
    costs, scores = [], []
    for each in evaluations():
        for row in each["rows"]:
            if "training" not in row or "+" in row["name"]:
                continue
            known = literature.get((_plain(row["name"]), each["ratio"]), {})
            cost, theirs = row["multiply_adds_per_image"] / 1e6, known.get("multiply_adds_G")
            name = [f"`{row['name']}`", str(each["ratio"])]
            costs.append([
                *name, f"{row['parameters'] / 1e6:.3f}", f"{cost:.0f}",
                "" if theirs is None else f"{1000 * theirs / COUNTED_BATCH:.0f}",
                f"{row['training']['samples']:,}", f"{row['training']['minutes']:.0f}",
            ])  # fmt: skip
            scores.append([
                *name, with_interval(row["by_intensity"]["CSO-mAP"], *row["interval"], ".2f"),
                "" if known.get("CSO-mAP") is None else f"{known['CSO-mAP']:.2f}",
                _difference(row), f"{row['psnr']:.1f}", f"{row['ssim']:.4f}",
                *("" if row.get(key) is None else f"{row[key]:.1f}"
                  for key in ("squared_error", "squared_error_ratio")),
            ])  # fmt: skip
    cost_head = ["network", "ratio", "parameters, M", "multiply-adds per image, M", "published"]
    score_head = [
        "network", "ratio", "CSO-mAP", "published", "minus DISTA-Net", "PSNR, dB", "SSIM",
        "squared error", "relative to the exact map",
    ]  # fmt: skip
    return "\n\n".join(
        [
            markdown_table([*cost_head, "training samples", "training minutes"], costs),
            _without_empty_columns(score_head, scores),
        ]
    )


def _without_empty_columns(head: list[str], rows: list[list[str]], numbers_from: int = 1) -> str:
    """A table without the columns that no row fills, such as figures that have not been measured yet."""
    kept = [place for place in range(len(head)) if any(row[place] for row in rows)]
    return markdown_table(
        [head[place] for place in kept], [[row[place] for place in kept] for row in rows], numbers_from
    )


def recipes() -> str:
    """Number of samples that DISTA-Net needs, by training recipe."""
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
    """CSO-mAP minus that of DISTA-Net on the same images, with interval; empty for DISTA-Net and if unknown."""
    found = row.get("difference")
    if found is None or found["to"] == row["name"]:
        return ""
    value, low, high = found["CSO-mAP"]
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def _plain(name: str) -> str:
    """The name used here for a method of the literature."""
    return name.partition(" without ")[0].lower().replace("+", "-plus").replace("tilista", "ti-lista")


def weights_size() -> str:
    """Size in MB of the trained weights in the package."""
    return f"{sum(path.stat().st_size for path in weights_folder().glob('*.safetensors')) / 1e6:.0f}"


def published() -> str:
    """The figures reported by the authors of the benchmark."""
    head = ["method", "ratio", "parameters, M", "multiply-adds, G", *SCORES, "PSNR, dB", "SSIM", "here"]
    every = sorted(read_result("published")["rows"], key=lambda row: (row["ratio"], -row["CSO-mAP"]))
    return markdown_table(head, [_published_cells(row, head) for row in every])


def published_beside() -> str:
    """Figures reported by others, and further figures of the same authors."""
    head = ["source", "method", "multiply-adds, G", *SCORES, "here"]
    rows = [
        [part["source"], *_published_cells(row, head[1:])]
        for part in read_result("published")["beside"]
        for row in sorted(part["rows"], key=lambda row: -(row["CSO-mAP"] or 0.0))
    ]
    return folded("Other published figures", markdown_table(head, rows, 2))


PUBLISHED_COLUMNS = {
    "parameters, M": ("parameters_M", "g"),
    "multiply-adds, G": ("multiply_adds_G", "g"),
    "PSNR, dB": ("psnr", ".2f"),
    "SSIM": ("ssim", ".4f"),
    **{score: (score, ".2f") for score in SCORES},
}
"""Key and format of each column of published figures."""


def _published_cells(row: dict[str, Any], head: list[str]) -> list[str]:
    """Cells of a row of published figures, by column name."""
    name = _plain(row["name"].partition(",")[0])
    cells = {
        "method": row["name"] + (f" ({row['note']})" if "note" in row else ""),
        "ratio": str(row["ratio"]),
        "here": f"`{name}`" if name in METHODS else "no",
    }
    for column, (key, form) in PUBLISHED_COLUMNS.items():
        cells[column] = "" if row.get(key) is None else f"{row[key]:{form}}"
    return [cells[column] for column in head]


def short_trainings(name: str) -> str:
    """Trainings with a short budget.

    Args:
        name: file in docs/results, without suffix.
    """
    every = read_result(name)
    tested = all("test" in row for row in every)
    rows = []
    for row in every:
        options = ", ".join(f"`{name}={value}`" for name, value in row["options"].items()) or "as published"
        score = with_interval(row["CSO-mAP"]["value"], *row["CSO-mAP"]["interval"])
        rows.append([
            f"`{row['method']}`", options, f"{row['seed']}", f"{row['samples']:,}", f"{row['minutes']:.0f}", score,
        ])  # fmt: skip
        if tested:
            test = row["test"]
            rows[-1] += [
                with_interval(*test["CSO-mAP"], ".2f", ".2f"), with_interval(*test["difference"], "+.2f", "+.2f"),
                f"{test['squared_error']:.1f}",
            ]  # fmt: skip
    head = ["network", "options", "seed", "samples", "minutes", "CSO-mAP"]
    if tested:
        head += [f"on {every[0]['test']['images']:,} test images", "minus the first row", "squared error"]
    return markdown_table(head, rows, 2)


def training_steps() -> str:
    """Seconds per training step of DISTA-Net, by the way it is run."""
    result = read_result("training_speed")
    forms = {
        "plain": "plain eager loop, default memory layout", "trainer": "`csist train`",
        "compiled": "`csist train --compile`",
        "window": f"`csist train --window {result['window_px']}`",
    }  # fmt: skip
    rows = [
        [forms[name], f"{row['seconds_per_step']:.2f}", f"{row['times_faster_than_plain']:.2f}"]
        for name, row in result["rows"].items()
    ]
    return markdown_table([f"step of {result['batch']} images", "s", "speed-up"], rows)


def yolo() -> str:
    """Maps read out by a detector, beside their own read-out; detectors that find nothing are named."""
    result = read_result("yolo")
    rows = []
    for each in result["methods"]:
        trained = f"{each['training_minutes']:g}"
        for read_out, minutes, figures in (("threshold", "", each["threshold"]), ("YOLO11n", trained, each["yolo"])):
            rows.append(
                [
                    each["name"], read_out, minutes, with_interval(figures["CSO-mAP"], *figures["interval"], ".2f"),
                    f"{figures['AP05']:.1f}", f"{figures['AP25']:.1f}", f"{figures['count_accuracy']:.1f} %",
                    f"{figures['distance_rms']:.3f}" if "distance_rms" in figures else "",
                ]
            )  # fmt: skip
    head = ["map", "read out by", "minutes", "CSO-mAP", "AP05", "AP25", "count right", "rms error, px"]
    notes = [
        f"The row of zeros is a detector whose training failed: within the budget, the one for the maps of "
        f"`{each['name']}` reported no box at all on the test images. It says nothing about the maps, which score well "
        "by threshold."
        for each in result["methods"]
        if not each["yolo"]["detections"]
    ]
    return "\n\n".join([_without_empty_columns(head, rows, 2), *notes])


def yolo_budget() -> str:
    """Number of maps for training and test of the detectors."""
    result = read_result("yolo")
    return f"{result['budget']['train_maps']:,} training maps and {result['data']['images']:,} test images"
