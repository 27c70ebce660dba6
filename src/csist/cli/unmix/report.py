"""Summary of a run of `csist unmix`, its table of groups and its figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from csist.cli.output import make_console, write_json
from csist.cli.unmix.blocks import GROUP_PLACE, Block
from csist.cli.unmix.frames import TrackRows
from csist.cli.unmix.joint import JointRows

if TYPE_CHECKING:
    from csist.plots import View
    from csist.targets import Targets

VIEWS_KEPT = 4
"""Largest number of windows in one figure."""


SHOWN_PSFS = 4
"""Number of measured PSFs in the printed summary; the JSON holds all of them."""
SHOWN_DETECTORS = 3
"""Number of detectors there, with the reasons for them."""


@dataclass
class Tally:
    """Running summary of `csist unmix`."""

    files: int = 0
    images: int = 0
    targets: int = 0
    masked: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    """Number of pixels of all frames of each kind that is not ordinary."""
    detectors: Counter[str] = field(default_factory=Counter)
    """Number of frames by what found their targets, and why."""
    failed: list[dict[str, str]] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    frame_notes: list[str] = field(default_factory=list)
    """Notes for the user that apply to every file of frames."""
    groups: list[dict[str, Any]] = field(default_factory=list)
    windows: list[tuple[int, View]] = field(default_factory=list)
    frame: tuple[float, View] | None = None
    psfs: list[dict[str, Any]] = field(default_factory=list)
    tracks: TrackRows | JointRows | None = None

    def note(self, text: str, name: str) -> None:
        """Add a note for the user about a file."""
        names = self.notes.setdefault(text, [])
        if name not in names:
            names.append(name)

    def note_all(self, texts: Iterable[str], name: str) -> None:
        """Add notes for the user about a file, one line each."""
        for text in texts:
            self.note(text, name)

    def add(self, block: Block, image: str, sequence: str, window: bool) -> None:
        """Count the images and targets of a block, store the rows of its groups and link its targets into tracks.

        Args:
            block: results of some images.
            image: name of the images in the tables.
            sequence: name of the file of the images.
            window: whether the images are windows, which have no tracks.
        """
        if isinstance(self.tracks, JointRows) and block.tracks is not None:
            self.tracks.add(sequence, block.start, block.tracks)
        if isinstance(self.tracks, TrackRows) and not window:
            for index, targets in enumerate(block.targets):
                self.tracks.add(sequence, block.start + index, targets)
        self.images += len(block.targets)
        self.targets += sum(map(len, block.targets))
        self.masked += block.masked
        self.kinds.update(block.kinds)
        self.detectors.update([block.detector] if block.detector is not None else [])
        self.groups += [{"image": image, **row} for row in block.groups]
        if block.psf is not None:
            self.psfs.append({"image": sequence, **block.psf})

    def keep_view(self, block: Block, window: bool) -> None:
        """Keep for the figure the windows with the most targets, or the frame with the most certain pair."""
        for index, targets in enumerate(block.targets):
            if window:
                if len(self.windows) < VIEWS_KEPT or len(targets) > self.windows[-1][0]:
                    self._keep_window(len(targets), block.view(index))
            elif self.frame is None or _interest(targets) > self.frame[0]:
                view = block.view(index)
                self.frame = self.frame if view is None else (_interest(targets), view)

    def _keep_window(self, count: int, view: View | None) -> None:
        if view is not None:
            self.windows.append((count, view))
            self.windows.sort(key=lambda each: -each[0])
            del self.windows[VIEWS_KEPT:]

    @property
    def warnings(self) -> list[str]:
        """Notes, one line for each text."""
        lines = []
        for text, names in self.notes.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            lines.append(f"{names[0]}{more}: {text}")
        return lines


def psf_text(psf: dict[str, Any]) -> str:
    """A measured PSF in words."""
    text = f"sigma {psf['sigma_px']:.3f} +- {psf['sigma_px_std']:.3f} px, {psf['sources']} sources"
    if "angle_deg" not in psf:
        return text
    long, short, angle = (psf[name] for name in ("sigma_x_px", "sigma_y_px", "angle_deg"))
    return f"{text}; elongated: {long:.3f} x {short:.3f} px, {angle:.0f} degrees from x towards y"


def _interest(targets: Targets) -> float:
    """Rank a frame for the figure: the highest second-best score in a group, or 0.01 times the best score."""
    import numpy as np

    most = 0.01 * float(np.nan_to_num(targets.score).max(initial=0.0))
    for group in np.unique(targets.group[targets.group >= 0]):
        scores = np.sort(np.nan_to_num(targets.score[targets.group == group]))
        most = max(most, float(scores[-2])) if len(scores) > 1 else most
    return most


def groups_table(rows: list[dict[str, Any]]) -> Any:
    """One row a group; a probability that a group does not have (fewer targets possible) is blank."""
    from csist.io import rows_table

    place = [name for name in GROUP_PLACE if any(name in row for row in rows)]
    first = ["image", "frame", "group", *place, "count", "chi_squared", "degrees_of_freedom", "flags"]
    most = max((int(key[2:]) for row in rows for key in row if key.startswith("p_")), default=-1)
    return rows_table(rows, [*first, *(f"p_{k}" for k in range(most + 1))])


def draw_unmixed(tally: Tally, path: Path) -> None:
    """Draw the frame or the windows that were kept, if any.

    Raises:
        InputError: if the figure cannot be written.
    """
    from csist.plots import frame_panel, save_figure, window_gallery

    if tally.frame is not None:
        view = tally.frame[1]
        panel = frame_panel(view.image, view.targets, view.model, view.truth, view.title, masks=view.masks)
        save_figure(panel, path)
    elif tally.windows:
        save_figure(window_gallery([view for _, view in tally.windows]), path)


def report_unmixed(tally: Tally, output: Path, seconds: float, json_target: str | None) -> None:
    """Print the summary of a run, or write it as JSON."""
    tracks = None if tally.tracks is None else int(tally.tracks.table()["track"].nunique())
    figures = {
        "files": tally.files,
        "failed": tally.failed,
        "images": tally.images,
        "targets": tally.targets,
        "masked_pixels": tally.masked,
        **({"pixels_by_kind": dict(tally.kinds)} if tally.kinds else {}),
        **({"detectors": dict(tally.detectors)} if tally.detectors else {}),
        **({"psf": tally.psfs} if tally.psfs else {}),
        **({} if tracks is None else {"tracks": tracks}),
        "seconds": round(seconds, 3),
        "warnings": tally.warnings,
        "output": str(output),
    }
    if json_target is not None:
        write_json(figures, json_target)
    if json_target == "-":
        return
    # The summary must not mix with targets written to standard output.
    console = make_console(stderr=str(output) == "/dev/stdout")
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = [("files", f"{tally.files}"), ("images", f"{tally.images}"), ("targets", f"{tally.targets}")]
    if tally.failed:
        rows.insert(1, ("failed", f"{len(tally.failed)}"))
    if tally.masked:
        rows.append(("masked pixels", f"{tally.masked}"))
    if tally.kinds:
        rows.append(("by kind", ", ".join(f"{count} {kind}" for kind, count in tally.kinds.items())))
    for used, frames in tally.detectors.most_common(SHOWN_DETECTORS):
        rows.append(("detector", used if len(tally.detectors) == 1 else f"{used}: {frames} frames"))
    for psf in tally.psfs[:SHOWN_PSFS]:
        rows.append(("PSF", psf_text(psf)))
    if tracks is not None:
        rows.append(("tracks", f"{tracks}"))
    rows += [("seconds", f"{seconds:.1f}"), ("written to", str(output))]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in tally.warnings:
        console.print(f"note: {line}", soft_wrap=True)
