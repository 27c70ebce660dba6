"""The command `csist app`, as far as it goes without a browser."""

from __future__ import annotations

import sys

import pytest
from cli_helpers import Run

from csist.app import server


def test_it_says_what_it_does_and_offers_no_public_link(run: Run) -> None:
    code, out, _ = run("app", "--help")
    assert code == 0 and "--port" in out and "--host" in out and "--share" not in out


def test_a_port_that_is_none(run: Run) -> None:
    code, _, err = run("app", "--port", "70000")
    assert code == 2 and "70000" in err


def test_without_gradio_it_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "csist.app.layout", raising=False)
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(server, "check_address", lambda host, port: None)
    code, _, err = run("app")
    assert code == 2 and "pip install 'csist[app]'" in err
