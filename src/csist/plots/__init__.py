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
    "accuracy_against_speed",
    "calibration",
    "check_picture",
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
    "method_comparison",
    "precision_recall",
    "save_figure",
    "unmixing_panel",
    "window_gallery",
]
