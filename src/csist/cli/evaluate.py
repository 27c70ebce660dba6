"""`csist evaluate`: score methods and tables of targets on a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csist.checks import InputError
from csist.cli.options import (
    DataArgument,
    JsonOption,
    LimitOption,
    ModeOption,
    PlotOption,
    PriorOption,
    RatioOption,
    RuntimeOption,
    SplitOption,
    WeightsOption,
    check_mode,
    check_runtime,
)
from csist.cli.output import (
    check_outputs,
    complain,
    data_line,
    files_among,
    interval_cell,
    make_console,
    number,
    print_figures,
    progress,
    write_json,
)

if TYPE_CHECKING:
    from csist._types import IntArray
    from csist.targets import Targets


def evaluate(
    data: DataArgument,
    split: SplitOption = "test",
    method: Annotated[
        list[str] | None, typer.Option("--method", help="See `csist methods`; may be given several times.")
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option("--predictions", help="Table written by `csist unmix`, to be scored as well."),
    ] = None,
    ratio: RatioOption = 3,
    limit: LimitOption = None,
    mode: ModeOption = None,
    prior: PriorOption = None,
    weights: WeightsOption = None,
    runtime: RuntimeOption = "torch",
    oracle: Annotated[bool, typer.Option(help="Add the scores of an ideal read-out on the grid.")] = True,
    exact_map: Annotated[
        bool, typer.Option("--exact-map", help="Add the posterior-mean map, which no map of a network can exceed.")
    ] = False,
    resamples: Annotated[
        int, typer.Option("--resamples", help="Bootstrap resamples of the intervals; 0 for none.")
    ] = 1000,
    json_target: JsonOption = None,
    plot: PlotOption = None,
) -> None:
    """Score methods on a dataset: CSO-mAP, counts, errors, calibration, speed, and tracks where it holds sequences.

    Sensor, noise and prior are those of the dataset. Without --method and --predictions, `continuous` is scored.
    """
    from csist import evaluation
    from csist.checks import check_ratio
    from csist.io.cards import read_prior
    from csist.methods.table import canonical_name

    names = [canonical_name(name) for name in (method or ([] if predictions else ["continuous"]))]
    if len(set(names)) < len(names):
        raise InputError(f"a method is given twice: {', '.join(names)}")
    if weights is not None and len(names) != 1:
        raise InputError(f"--weights {weights} needs exactly one --method, got {len(names)}")
    if resamples < 0:
        raise InputError(f"resamples must be a whole number >= 0, got {resamples}")
    check_mode(mode)
    check_runtime(runtime, names)
    check_ratio(ratio)
    chosen = None if prior is None else read_prior(prior)
    sources = [data, *(predictions or [])]
    check_outputs([*sources, *files_among(prior, weights)], json_target, plot)
    if plot is not None:
        from csist.plots import check_picture

        check_picture(plot)
    references = [name for name, wanted in zip(evaluation.REFERENCES, (oracle, exact_map), strict=True) if wanted]
    with progress() as report:
        images = evaluation.read_labelled(data, split, limit, lambda done, total: report("reading", done, total))
        tables = predictions or []
        known = Counter(path.name for path in tables)
        labels = {str(path) if known[path.name] > 1 else path.name: path for path in tables}
        given = {label: evaluation.read_predictions(path, images) for label, path in labels.items()}
        for name, found in given.items():
            if any(len(each) for each in found) and not evaluation.states_scores(found):
                complain(f"{name} states no score: its detections are ranked as they stand in the table")
        result = evaluation.evaluate(
            images, names, ratio, prior=chosen, mode=mode, weights=weights, runtime=runtime,
            predictions=given, references=references, resamples=resamples, progress=report,
        )  # fmt: skip
    if images.trajectory is not None:
        _add_tracks(result, images.truths, images.trajectory)
    if plot is not None:
        _draw_evaluation(result, images.truths, plot)
    if json_target is not None:
        write_json(result.to_dict(), json_target)
    if json_target != "-":
        _report_evaluation(result)


def _draw_evaluation(result: Any, truths: list[Targets], path: Path) -> None:
    from csist.metrics import match_detections, precision_recall_curve, reliability_curve
    from csist.plots import evaluation_panel, save_figure

    distance_px = 0.15  # the middle one of the five matching distances
    shown = {row["name"]: result.predictions[row["name"]] for row in result.rows}
    curves = {
        name: precision_recall_curve(match_detections(found, truths), distance_px) for name, found in shown.items()
    }
    reliability = {
        row["name"]: reliability_curve(shown[row["name"]], truths) for row in result.rows if row["calibration"]
    }
    title = data_line(result.data | {"path": Path(result.data["path"]).name})
    save_figure(evaluation_panel(result.rows, curves, distance_px, reliability, title), path)


def _report_evaluation(result: Any) -> None:
    from csist.evaluation import SCORE_NAMES

    console = make_console()
    console.print(data_line(result.data), soft_wrap=True)
    names = ("", [row["name"] for row in result.rows])
    scores: dict[str, Callable[[dict[str, Any]], str]] = {
        SCORE_NAMES[0]: lambda row: number(row[SCORE_NAMES[0]], ".2f"),
        "95 % interval": lambda row: "-" if row["interval"] is None else interval_cell(row["interval"], ".1f"),
        **{name: partial(_score, name) for name in SCORE_NAMES[1:]},
        "by intensity": lambda row: number(row["by_intensity"]["CSO-mAP"], ".2f"),
    }
    print_figures(console, names, [(name, [make(row) for row in result.rows]) for name, make in scores.items()])
    console.print()
    details: dict[str, Callable[[dict[str, Any]], str]] = {
        "count %": lambda row: number(row["count_accuracy"], ".2f"),
        "missed": lambda row: number(row["errors"]["missed"], "d"),
        "spurious": lambda row: number(row["errors"]["spurious"], "d"),
        "rms px": lambda row: number(row["errors"]["distance_rms"], ".4f"),
        "flux rms %": lambda row: number(100 * row["errors"]["intensity_rms"], ".2f"),
        "PSNR dB": lambda row: number(row.get("psnr"), ".2f"),
        "squared error": lambda row: number(row.get("squared_error"), ".2f"),
        "times exact map's": lambda row: number(row.get("squared_error_ratio"), ".2f"),
        "SSIM": lambda row: number(row.get("ssim"), ".4f"),
        "calibration": lambda row: number((row["calibration"] or {}).get("expected_calibration_error"), ".3f"),
        "x in 1 std %": lambda row: number(100 * (row["coverage"] or {}).get("x_within_1", float("nan")), ".1f"),
        "images/s": lambda row: number(row.get("images_per_second"), ".0f"),
    }
    cells = [(name, [make(row) for row in result.rows]) for name, make in details.items()]
    print_figures(console, names, [column for column in cells if set(column[1]) != {"-"}])
    if tracked := [row for row in result.rows if "tracks" in row]:
        _report_tracks(tracked)


def _add_tracks(result: Any, truths: Sequence[Targets], trajectory: IntArray) -> None:
    """Add the figures of tracks to the rows of methods and tables."""
    from csist.tracks.score import score_sequences

    for row in result.rows:
        if not row["reference"]:
            row["tracks"] = score_sequences(result.predictions[row["name"]], truths, trajectory)


def _report_tracks(rows: list[dict[str, Any]]) -> None:
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "track mAP": lambda row: number(row["track_map"], ".2f"),
        "GOSPA px": lambda row: number(row["gospa_px"], ".4f"),
        "OSPA px": lambda row: number(row["ospa_px"], ".4f"),
        "switches": lambda row: number(row["identity_switches"], "d"),
        "tracks": lambda row: f"{row['found_tracks']} of {row['true_tracks']}",
        "rms px": lambda row: number(row["distance_rms_px"], ".4f"),
    }
    console = make_console()
    console.print()
    names = ("tracks", [row["name"] for row in rows])
    cells = [(name, [make(row["tracks"]) for row in rows]) for name, make in columns.items()]
    print_figures(console, names, cells)


def _score(name: str, row: dict[str, Any]) -> str:
    return number(row[name], ".2f")
