"""Pictures in one style: what was measured, what was found, what is left, and how well methods do."""

from csist.plots.comparison import (
    accuracy_against_speed,
    calibration,
    draw_calibration,
    draw_comparison,
    draw_precision_recall,
    evaluation_panel,
    method_comparison,
    precision_recall,
)
from csist.plots.images import View, cut_out
from csist.plots.panels import frame_panel, unmixing_panel, window_gallery
from csist.plots.style import (
    DETECTION,
    ERROR,
    PICTURE_SUFFIXES,
    STYLE,
    TRUTH,
    YELLOW,
    check_picture,
    save_figure,
)

__all__ = [
    "DETECTION",
    "ERROR",
    "PICTURE_SUFFIXES",
    "STYLE",
    "TRUTH",
    "YELLOW",
    "View",
    "accuracy_against_speed",
    "calibration",
    "check_picture",
    "cut_out",
    "draw_calibration",
    "draw_comparison",
    "draw_precision_recall",
    "evaluation_panel",
    "frame_panel",
    "method_comparison",
    "precision_recall",
    "save_figure",
    "unmixing_panel",
    "window_gallery",
]
