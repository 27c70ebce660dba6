"""Training of the grid methods; needs the extra `train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from csist.training.config import TrainingConfig

if TYPE_CHECKING:
    from csist.training.run import TrainingResult, train

__all__ = ["TrainingConfig", "TrainingResult", "train"]


def __getattr__(name: str) -> Any:
    # Lightning takes seconds to import: only once training is asked for.
    if name in __all__:
        from csist.training import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
