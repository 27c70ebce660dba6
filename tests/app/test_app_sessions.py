"""Users are kept apart, and nothing of them stays."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from csist.app.scene import Files
from csist.app.server import LOCAL_HOST, check_address
from csist.app.sessions import Sessions
from csist.checks import InputError


def received(folder: Path, name: str, content: str) -> Path:
    """A file in a folder of its own, as a server receives it."""
    path = folder / "received" / content / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    return path


def test_two_users_have_a_file_each(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    for session in ("one", "two"):
        sessions.keep(session, received(tmp_path, "image.png", session))
    for session in ("one", "two"):
        kept = sessions.files(session).image
        assert kept is not None and kept.name == "image.png" and kept.read_text() == session
    sessions.end("one")
    assert sessions.files("one") == Files() and sessions.files("two").image is not None


def test_a_new_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    sessions.keep("one", received(tmp_path, "a.png", "old"))
    sessions.keep("one", received(tmp_path, "b.png", "new"))
    kept = sessions.files("one").image
    assert kept is not None and kept.name == "b.png"
    sessions.end("one")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_maps_lie_beside_the_image_and_every_change_has_a_new_version(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    versions = [sessions.version("one")]
    for kind in ("image", "error", "mask"):
        sessions.keep("one", received(tmp_path, "same.npy", kind), kind)
        versions.append(sessions.version("one"))
    files = sessions.files("one")
    assert [path.read_text() for path in (files.image, files.error, files.mask) if path] == ["image", "error", "mask"]
    sessions.forget("one", "error")
    versions.append(sessions.version("one"))
    assert sessions.files("one").error is None and sessions.files("one").mask is not None
    assert len(set(versions)) == len(versions) and sessions.version("two") == 0


def test_a_result_is_its_users_own_and_goes_with_them(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    sessions.remember("one", "mine")
    assert sessions.recall("one") == "mine" and sessions.recall("two") is None
    sessions.end("one")
    assert sessions.recall("one") is None


def test_a_session_cannot_leave_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    kept = Sessions(inside).keep("../../outside", received(tmp_path, "a.png", "x"))
    assert kept.resolve().is_relative_to(inside.resolve())


def test_new_work_stops_the_old_and_leaving_stops_all(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    first, other = sessions.begin("one"), sessions.begin("two")
    second = sessions.begin("one")
    assert first.is_set() and not second.is_set()
    sessions.stop("one")
    assert second.is_set() and not other.is_set()
    sessions.end("two")
    assert other.is_set()
    sessions.stop("nobody")


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind((LOCAL_HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port}: .*--port"):
            check_address(LOCAL_HOST, port)
    with pytest.raises(InputError, match="--host"):
        check_address("no.such.host.invalid", 7860)
