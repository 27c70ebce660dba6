"""Metrics of detections against the true targets.

Most functions need only NumPy and SciPy; PyTorch is imported when `CSOMeanAP`, `psnr` or `ssim` is first used.
"""

from typing import TYPE_CHECKING, Any

from csist.metrics.bootstrap import Interval, bootstrap_difference, bootstrap_interval, bootstrap_scores
from csist.metrics.errors import (
    MatchErrors,
    ReliabilityCurve,
    binned_reliability,
    count_accuracy,
    coverage,
    error_summary,
    expected_calibration_error,
    interval_coverage,
    match_errors,
    mean_deviation,
    reliability_curve,
)
from csist.metrics.functional import (
    CSO_DISTANCES_PX,
    Matches,
    PrecisionRecallCurve,
    average_precision,
    cso_map,
    match_detections,
    precision_recall_curve,
    psnr,
    ssim,
)
from csist.metrics.tracks import (
    Gospa,
    PathErrors,
    gospa,
    identity_switches,
    ospa,
    path_errors,
    track_map,
    track_summary,
)

if TYPE_CHECKING:
    from csist.metrics.mean_ap import CSOMeanAP

__all__ = [
    "CSO_DISTANCES_PX",
    "CSOMeanAP",
    "Gospa",
    "Interval",
    "MatchErrors",
    "Matches",
    "PathErrors",
    "PrecisionRecallCurve",
    "ReliabilityCurve",
    "average_precision",
    "binned_reliability",
    "bootstrap_difference",
    "bootstrap_interval",
    "bootstrap_scores",
    "count_accuracy",
    "coverage",
    "cso_map",
    "error_summary",
    "expected_calibration_error",
    "gospa",
    "identity_switches",
    "interval_coverage",
    "match_detections",
    "match_errors",
    "mean_deviation",
    "ospa",
    "path_errors",
    "precision_recall_curve",
    "psnr",
    "reliability_curve",
    "ssim",
    "track_map",
    "track_summary",
]


def __getattr__(name: str) -> Any:
    if name == "CSOMeanAP":
        from csist.metrics.mean_ap import CSOMeanAP

        return CSOMeanAP
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
