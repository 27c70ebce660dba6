"""Summary of a run of `csist unmix`, and its table of groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table

from csist.cli.output import make_console
from csist.cli.unmix.blocks import GROUP_EXTENT, GROUP_PLACE, Block
from csist.cli.unmix.measured import NUMBERS, Measured, spread
from csist.cli.unmix.tracks import JointRows, TrackRows
from csist.frames.masks.words import KIND_WORDS
from csist.words import counted

if TYPE_CHECKING:
    from csist.cli.unmix.tracks import Further
    from csist.targets import Targets

SHOWN_PSFS = 4
"""Number of measured PSFs in the printed summary; the JSON holds all of them."""
SHOWN_DETECTORS = 3
"""Number of detectors there, with the reasons for them; also of assumptions and of reasons for no targets."""


@dataclass
class Tally:
    """Running summary of `csist unmix`."""

    folders: list[str] = field(default_factory=list)
    """What the folders that were given hold, one line each."""
    files: int = 0
    images: int = 0
    targets: int = 0
    masked: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    """Number of pixels of all frames of each kind that is not ordinary."""
    failed: list[dict[str, str]] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    frame_notes: list[str] = field(default_factory=list)
    """Notes for the user that apply to every file of frames."""
    groups: list[dict[str, Any]] = field(default_factory=list)
    flags: Counter[str] = field(default_factory=Counter)
    """Number of targets by flag, in words."""
    flagged: int = 0
    """Number of targets with a flag."""
    measured: list[Measured] = field(default_factory=list)
    """What each frame, and the windows of each file, were unmixed with."""
    pictures: list[str] = field(default_factory=list)
    """The pictures that were written, and what they show."""
    psfs: list[dict[str, Any]] = field(default_factory=list)
    tracks: TrackRows | JointRows | None = None
    frames: dict[tuple[str, int], Further] = field(default_factory=dict)
    """What gives the further columns of a frame, by file and number."""

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
        self.measured += [] if block.measured is None else [block.measured]
        self._count_flags(block.targets)
        self.groups += [{"image": image, **row} for row in block.groups]
        if block.psf is not None:
            self.psfs.append({"image": sequence, **block.psf})

    def _count_flags(self, batches: Iterable[Targets]) -> None:
        from csist.targets import Flag

        for targets in batches:
            self.flagged += int((targets.flags > 0).sum())
            for flag in Flag:
                number = int((targets.flags & int(flag) > 0).sum())
                self.flags.update({str(flag.name).lower().replace("_", " "): number} if number else {})

    @property
    def detectors(self) -> Counter[str]:
        """Number of frames by what found their targets, and why."""
        return Counter(each.detector for each in self.measured if each.detector is not None)

    @property
    def psf_assumptions(self) -> Counter[str]:
        """Number of frames by what was assumed of their PSF."""
        return Counter(each.psf_assumption for each in self.measured if each.psf_assumption)

    @property
    def gain_assumptions(self) -> Counter[str]:
        """Number of frames by what was assumed of their gain."""
        return Counter(each.gain_assumption for each in self.measured if each.gain_assumption)

    @property
    def empty_reasons(self) -> Counter[str]:
        """Number of frames without targets by the reason."""
        return Counter(each.empty_reason for each in self.measured if each.empty_reason)

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


def groups_table(rows: list[dict[str, Any]]) -> Any:
    """One row per group; a probability that a group does not have (fewer targets possible) is blank."""
    from csist.io import rows_table

    place = [name for name in GROUP_PLACE if any(name in row for row in rows)]
    first = ["image", "frame", "group", *place, "count", "chi_squared", "degrees_of_freedom", "flags"]
    extent = [name for name in (*GROUP_EXTENT, "p_extended", "p_streak") if any(name in row for row in rows)]
    most = max((int(key[2:]) for row in rows for key in row if key[:2] == "p_" and key[2:].isdigit()), default=-1)
    return rows_table(rows, [*first, *extent, *(f"p_{k}" for k in range(most + 1))])


def figures_of(tally: Tally, seconds: float, output: str) -> dict[str, Any]:
    """The summary of a run, for `--json`.

    Args:
        tally: of the run.
        seconds: that it took.
        output: the table of targets.
    """
    found = {name: spread(tally.measured, name) for name in NUMBERS}
    tracks = None if tally.tracks is None else int(tally.tracks.table()["track"].nunique())
    return {
        "files": tally.files,
        "failed": tally.failed,
        "images": tally.images,
        "targets": tally.targets,
        **({"groups": len(tally.groups)} if tally.groups else {}),
        "flagged": tally.flagged,
        "flags": dict(tally.flags),
        "masked_pixels": tally.masked,
        **({"pixels_by_kind": dict(tally.kinds)} if tally.kinds else {}),
        **({"detectors": dict(tally.detectors)} if tally.detectors else {}),
        **({"psf_assumptions": dict(tally.psf_assumptions)} if tally.psf_assumptions else {}),
        **({"gain_assumptions": dict(tally.gain_assumptions)} if tally.gain_assumptions else {}),
        **({"empty_reasons": dict(tally.empty_reasons)} if tally.empty_reasons else {}),
        **{name: values for name, values in found.items() if values is not None},
        **({"psf": tally.psfs} if tally.psfs else {}),
        **({} if tracks is None else {"tracks": tracks}),
        **({"pictures": tally.pictures} if tally.pictures else {}),
        "seconds": round(seconds, 3),
        "warnings": tally.warnings,
        "output": output,
    }


def print_summary(tally: Tally, figures: dict[str, Any], stderr: bool) -> None:
    """Print the summary of a run.

    Args:
        tally: of the run.
        figures: of `figures_of`.
        stderr: whether standard output holds the table of targets.
    """
    console = make_console(stderr=stderr)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in _summary_rows(tally, figures):
        table.add_row(*row)
    console.print(table)
    for line in tally.warnings:
        console.print(f"note: {line}", soft_wrap=True)


def _summary_rows(tally: Tally, figures: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("files", f"{tally.files}")]
    rows += [("failed", f"{len(tally.failed)}")] if tally.failed else []
    rows.append(("images", f"{tally.images}"))
    rows += [("PSF", psf_text(psf)) for psf in tally.psfs[:SHOWN_PSFS]]
    for name, label, unit in (
        ("psf_sigma_px", "PSF", "px"), ("noise_std", "noise", "counts"), ("background", "background", "counts"),
    ):  # fmt: skip
        if name in figures and not (label == "PSF" and tally.psfs):
            rows.append((label, ("sigma " if label == "PSF" else "") + spread_text(figures[name], unit)))
        if label == "PSF":
            rows += _counted_rows("PSF assumed", tally.psf_assumptions)
            rows += _counted_rows("gain", tally.gain_assumptions)
            if "measured_gain" in figures:
                text = spread_text(figures["measured_gain"], "electrons per count")
                rows.append(("gain", f"{text}, measured on bright sources"))
    rows += _counted_rows("detector", tally.detectors)
    if "threshold" in figures:
        rows.append(("threshold", spread_text(figures["threshold"], "standard deviations")))
    saturated = tally.kinds["saturated"]
    kinds = {KIND_WORDS.get(kind, kind): number for kind, number in tally.kinds.items() if kind != "saturated"}
    rows += [("masked pixels", of_which(tally.masked, kinds))] if tally.masked else []
    rows += [("saturated pixels", f"{saturated}")] if saturated else []
    groups = f" in {counted(len(tally.groups), 'group')}" if tally.groups else ""
    rows.append(("targets", f"{tally.targets}{groups}"))
    rows += _counted_rows("no targets", tally.empty_reasons)
    rows += [("flagged targets", of_which(tally.flagged, dict(tally.flags.most_common())))] if tally.flags else []
    rows += [("tracks", f"{figures['tracks']}")] if "tracks" in figures else []
    rows += [("picture", text) for text in tally.pictures]
    return [*rows, ("seconds", f"{figures['seconds']:.1f}"), ("written to", figures["output"])]


def _counted_rows(label: str, texts: Counter[str]) -> list[tuple[str, str]]:
    """Rows of the commonest texts, with the number of frames where there are several."""
    common = texts.most_common(SHOWN_DETECTORS)
    return [(label, text if len(texts) == 1 else f"{text}: {counted(frames, 'frame')}") for text, frames in common]


def of_which(number: int, kinds: dict[str, int]) -> str:
    """A number with the numbers of its kinds.

    >>> of_which(3, {"hot": 1, "dead": 2}), of_which(2, {"hot": 2}), of_which(4, {})
    ('3: 1 hot, 2 dead', '2 hot', '4')
    """
    words = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return words if list(kinds.values()) == [number] else ": ".join([f"{number}", *([words] if words else [])])


def spread_text(values: dict[str, Any], unit: str) -> str:
    """A number in words: its median, its range over images, and how it is known.

    >>> spread_text({"median": 2.0, "min": 1.9, "max": 2.25, "known": ["measured"]}, "counts")
    '2.00 counts (1.90 to 2.25), measured'
    """
    text = f"{_short(values['median'])} {unit}"
    if _short(values["min"]) != _short(values["max"]):
        text += f" ({_short(values['min'])} to {_short(values['max'])})"
    return ", ".join([text, *([" or ".join(values["known"])] if "known" in values else [])])


def _short(value: float) -> str:
    """Three digits, or all that are before the point."""
    if value == 0.0 or not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:.0f}" if abs(value) >= 100.0 else f"{value:#.3g}"
