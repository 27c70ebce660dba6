"""Groups put into a user's frame: what is drawn, what is counted, agreement with the benchmark of injected groups."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import csist
from csist.cli.entry import main
from csist.injection import APART_PX, BORDER_PX, InjectedGroup, InjectionPlan, InjectionResult, Spread, inject_groups
from csist.io import read_image
from csist.metrics import match_errors

SKY = csist.Sensor(csist.GaussianPSF(1.1), shape=(120, 130), background=50.0, read_noise=2.0)


def frame(seed: int = 0, own: csist.Targets | None = None) -> np.ndarray:
    return SKY.observe(csist.Targets.empty() if own is None else own, seed)


@pytest.fixture(scope="module")
def result() -> InjectionResult:
    plan = InjectionPlan(
        groups=24, flux=Spread((20.0, 3000.0)), separation_px=Spread((4.0, 6.0)), counts=(1, 2), seed=3
    )
    return inject_groups(frame(), plan, psf=1.1, mode="fast", noise_std=2.0)


def test_bright_targets_are_complete_and_faint_ones_are_not(result: InjectionResult) -> None:
    rows = {(row["by"], round(row["flux_low"])): row for row in result.rows() if row["by"] == "flux"}
    faint, bright = rows["flux", 20], rows["flux", 1510]
    assert bright["completeness"] == 1.0 and bright["completeness_low"] < 1.0 == bright["completeness_high"]
    assert faint["completeness"] < 0.2
    assert bright["purity"] > 0.9
    assert abs(bright["flux_bias"]) < 5 * max(bright["flux_bias_std"], 1e-3)
    assert bright["position_rms_px"] < 0.1
    assert 0.4 < bright["x_within_68"] <= 1.0


def test_groups_of_a_pass_are_apart_and_all_are_injected(result: InjectionResult) -> None:
    assert len(result.groups) == 24 and result.passes >= 3
    first = [group.truth for group in result.groups[:4]]
    for k, one in enumerate(first):
        for other in first[:k]:
            assert np.hypot(one.x[:, None] - other.x, one.y[:, None] - other.y).min() >= APART_PX
    everything = csist.Targets.concatenate([group.truth for group in result.groups])
    assert min(everything.x.min(), everything.y.min()) >= BORDER_PX
    assert everything.x.max() <= 129 - BORDER_PX and everything.y.max() <= 119 - BORDER_PX
    pairs = [group for group in result.groups if len(group.truth) == 2]
    assert len(pairs) == 12
    for group in pairs:
        assert np.hypot(*(np.diff(group.truth.x), np.diff(group.truth.y))) == pytest.approx(group.separation_px)


def test_the_same_seed_gives_the_same_groups_and_the_frame_is_unchanged() -> None:
    image = frame()
    before = image.copy()
    plan = InjectionPlan(groups=6, flux=Spread((100.0, 900.0), ranged=True), seed=5)
    one, other = (inject_groups(image, plan, psf=1.1, mode="fast") for _ in range(2))
    assert [a.truth == b.truth and a.found == b.found for a, b in zip(one.groups, other.groups, strict=True)] == [
        True
    ] * 6
    assert np.array_equal(image, before)


def test_the_frames_own_targets_are_neither_injected_nor_false() -> None:
    truth = csist.Targets(x=[30.0], y=[30.0], intensity=[500.0])
    own = csist.Targets(x=[32.0], y=[30.0], intensity=[400.0])
    both = csist.Targets(x=[30.1, 32.0], y=[30.0, 30.0], intensity=[500.0, 400.0])
    plan = InjectionPlan(groups=1, flux=Spread((500.0,)), separation_px=Spread((2.0,)), counts=(1,))
    psf = inject_groups(frame(), plan, psf=1.1, mode="fast").psf
    for found, complete, pure in (
        (both, 1.0, 1.0),
        (own, 0.0, 1.0),
        (csist.Targets.concatenate([both, truth]), 1.0, 2 / 3),
    ):
        row = InjectionResult([InjectedGroup(500.0, np.nan, truth, own, found)], plan, psf, 1).rows()[0]
        assert (row["completeness"], row["purity"]) == (complete, pytest.approx(pure))


def test_what_is_not_stated_follows_from_the_noise() -> None:
    result = inject_groups(frame(), InjectionPlan(groups=2), psf=1.1, mode="fast", noise_std=2.0)
    low, high = result.plan.flux.values
    assert low == pytest.approx(4.0 * 2.0 * np.sqrt(4 * np.pi) * 1.1, rel=0.1) and high == pytest.approx(50 * low)


def test_an_error_map_decides_what_is_found() -> None:
    """The same frame with noise that is told to be higher: fewer faint targets; photons of the groups add to it."""
    plan = InjectionPlan(groups=12, flux=Spread((150.0,)), counts=(1,), seed=2)
    image, even = frame(), np.full(SKY.shape, 2.0)
    plain = inject_groups(image, plan, psf=1.1, mode="fast", noise_std=2.0).rows()[0]
    told = inject_groups(image, plan, psf=1.1, mode="fast", error=even).rows()[0]
    assert told["completeness"] == pytest.approx(plain["completeness"], abs=0.1)
    noisy = inject_groups(image, plan, psf=1.1, mode="fast", error=6.0 * even).rows()[0]
    assert noisy["completeness"] < told["completeness"] - 0.4
    bright = InjectionPlan(groups=8, flux=Spread((400.0,)), counts=(1,), seed=2)
    dark, lit = (
        inject_groups(image, bright, sensor=csist.Sensor(SKY.psf, gain=gain), mode="fast", error=even)
        for gain in (None, 0.5)
    )
    errors = [np.concatenate([each.found.intensity_std for each in found.groups]) for found in (dark, lit)]
    assert np.median(errors[1]) > 2.0 * np.median(errors[0])  # 200 electrons


def test_completeness_is_that_of_the_benchmark_of_injected_groups() -> None:
    real = pytest.importorskip("real.injected")
    image = np.random.default_rng(1).normal(60.0, 3.0, (220, 240))
    snr, options = 8.0, {"psf": real.PSF, "false_alarm_rate": 1e-5, "mode": "fast"}
    theirs = real.inject(
        np.rint(image), "sirst_backgrounds", snr, lambda each: csist.unmix_frame(each, **options).targets,
        np.random.default_rng(2),
    )  # fmt: skip
    chosen = [each for each in theirs if len(each.truth) == 2]
    chosen += [each for k in range(3, 9) for each in real.inject(
        np.rint(image), "sirst_backgrounds", snr, lambda each: csist.unmix_frame(each, **options).targets,
        np.random.default_rng(k),
    ) if len(each.truth) == 2]  # fmt: skip
    pairs = match_errors([each.real for each in chosen], [each.truth for each in chosen], 0.7)
    share = len(pairs) / (2 * len(chosen))
    flux = float(np.median(np.concatenate([each.truth.intensity for each in chosen])))
    plan = InjectionPlan(
        groups=40, flux=Spread((flux,)), separation_px=Spread(tuple(real.RAYLEIGH_PX * s for s in real.SEPARATIONS))
    )
    ours = inject_groups(np.rint(image), plan, **options).rows()[0]
    error = np.sqrt(share * (1 - share) / len(chosen))
    assert ours["completeness_low"] - 2 * error < share < ours["completeness_high"] + 2 * error


def test_the_command_writes_table_figures_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "f.npy", frame())
    before = (tmp_path / "f.npy").read_bytes()
    given = [
        "inject",
        str(tmp_path / "f.npy"),
        "--groups",
        "8",
        "--flux",
        "300:3000",
        "--separation",
        "2,4",
        "--seed",
        "4",
    ]
    given += ["--psf-sigma", "1.1", "--mode", "fast", "-o", str(tmp_path / "t.csv"), "--json", str(tmp_path / "j.json")]
    assert main([*given, "--plot", str(tmp_path / "p.png")]) == 0
    assert "complete %" in capsys.readouterr().out
    figures = json.loads((tmp_path / "j.json").read_text())
    assert figures["groups"] == 8 and figures["rows"][0]["targets"] == 16
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0].startswith("by,flux_low,flux_high,separation_px_low") and len(lines) == len(figures["rows"]) + 1
    assert read_image(tmp_path / "p.png").shape[1] > 100
    assert (tmp_path / "f.npy").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--flux", "bright"], "--flux must be values such as 1,2,3 or a range such as 1:4, got 'bright'"),
        (["--flux", "9:3"], "a range must be LOW:HIGH with LOW < HIGH, got 9:3"),
        (["--separation", "0"], "must be a finite number > 0, got 0"),
        (["--count", "two"], "--count must be whole numbers such as 2 or 1,2,3, got 'two'"),
        (["--groups", "0"], "groups must be a whole number >= 1, got 0"),
        (["--count", "0"], "count must be whole numbers >= 1, got 0"),
        (["--separation", "200"], "has no room for a group"),
        (["--psf", "auto"], "the PSF cannot be measured"),
    ],
)
def test_bad_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    np.save(tmp_path / "f.npy", frame())
    psf = [] if "--psf" in options else ["--psf-sigma", "1.1"]
    assert main(["inject", str(tmp_path / "f.npy"), *psf, "--mode", "fast", *options]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and said in error[0]


def test_only_one_frame_with_a_known_psf_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "s.npy", np.stack([frame(0), frame(1)]))
    np.save(tmp_path / "w.npy", frame()[:12, :12])
    np.save(tmp_path / "f.npy", frame())
    for name, said in (("s", "holds 2 images: choose one"), ("w", "is a window"), ("f", "need the PSF")):
        assert main(["inject", str(tmp_path / f"{name}.npy")]) == 2
        assert said in capsys.readouterr().err


def test_the_instrument_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("f.npy", frame())
    np.save("error.npy", np.full(SKY.shape, 12.0))
    mask = np.zeros(SKY.shape)
    mask[:, :60] = 1
    np.save("mask.npy", mask)
    Path("camera.toml").write_text('method = "continuous"\nmode = "fast"\npsf-sigma = 1.1\nmask = "mask.npy"\n')
    given = ["--groups", "6", "--count", "1", "--flux", "150", "--config", "camera.toml"]
    rows = []
    for options in (["--error", "error.npy"], ["--gain", "2", "--read-noise", "2"]):
        assert main(["inject", "f.npy", *given, *options, "-o", "t.csv", "--json", "j.json"]) == 0
        rows.append(json.loads(Path("j.json").read_text())["rows"][0])
    assert rows[0]["completeness"] < rows[1]["completeness"]
    Path("camera.toml").write_text("grups = 3\n")
    assert main(["inject", "f.npy", *given]) == 2
    Path("camera.toml").write_text("psf-sigma = 1.1\n")
    assert main(["inject", "f.npy", *given, "--gain", "-1"]) == 2
    np.save("error.npy", np.ones((5, 5)))
    assert main(["inject", "f.npy", *given, "--error", "error.npy"]) == 2
