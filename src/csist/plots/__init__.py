"""Figures in one style: images, detections and residuals, and comparisons of methods."""

from csist.plots.comparison import (
    accuracy_against_multiply_adds,
    accuracy_against_speed,
    calibration,
    draw_calibration,
    draw_comparison,
    draw_precision_recall,
    evaluation_panel,
    method_comparison,
    precision_recall,
)
from csist.plots.completeness import completeness_curve
from csist.plots.diagnostics import limits_by_noise, psf_fit, training_curves
from csist.plots.images import View, cut_out
from csist.plots.panels import (
    frame_overview,
    frame_panel,
    group_panel,
    group_views,
    unmixing_panel,
    window_gallery,
)
from csist.plots.style import (
    DETECTION,
    ERROR,
    PICTURE_SUFFIXES,
    SAMPLES,
    STYLE,
    TRUTH,
    YELLOW,
    check_picture,
    contact_sheet,
    figure_png,
    save_figure,
)

__all__ = [
    "DETECTION",
    "ERROR",
    "PICTURE_SUFFIXES",
    "SAMPLES",
    "STYLE",
    "TRUTH",
    "YELLOW",
    "View",
    "accuracy_against_multiply_adds",
    "accuracy_against_speed",
    "calibration",
    "check_picture",
    "completeness_curve",
    "contact_sheet",
    "cut_out",
    "draw_calibration",
    "draw_comparison",
    "draw_precision_recall",
    "evaluation_panel",
    "figure_png",
    "frame_overview",
    "frame_panel",
    "group_panel",
    "group_views",
    "limits_by_noise",
    "method_comparison",
    "precision_recall",
    "psf_fit",
    "save_figure",
    "training_curves",
    "unmixing_panel",
    "window_gallery",
]
