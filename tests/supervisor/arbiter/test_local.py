"""Listeners on Unix sockets."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from supervisor.arbiter import local
from supervisor.arbiter.listeners import CannotListen, Key, Listeners
from supervisor.ground.config import Bind
from supervisor.ground.tier import ListenerSpec


def key(path: Path, name: str = "local") -> Key:
    return Key("pooler", ListenerSpec(name, Bind.at_path(path)))


def test_every_slot_is_a_copy_of_one_socket_and_the_file_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / ".s.PGSQL.6432"
    listeners = Listeners(4)
    opened = listeners.open([key(path)])
    listeners.keep(opened)
    (slots,) = opened.values()
    assert len(slots) == 4
    assert stat.S_IMODE(path.stat().st_mode) == 0o777
    assert listeners.shared == {"pooler/local"}
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        accepted, _ = slots[3].accept()
        accepted.close()
    listeners.close_all()
    assert not path.exists()


def test_a_renamed_listener_keeps_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listeners = Listeners(2)
    listeners.keep(listeners.open([key(path)]))
    listeners.keep(listeners.open([key(path, "renamed")]))
    listeners.close([key(path)])
    assert path.exists()
    listeners.close_all()
    assert not path.exists()


def test_what_a_dead_daemon_left_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listeners = Listeners(1)
    listeners.keep(listeners.open([key(path)]))
    with pytest.raises(CannotListen, match="answers there already"):
        Listeners(1).open([key(path)])
    listeners.close_all()
    path.write_text("mine")
    with pytest.raises(CannotListen, match="is no socket"):
        Listeners(1).open([key(path)])
    with pytest.raises(local.Occupied):
        local.open_local(ListenerSpec("local", Bind.at_path(tmp_path / "no" / "folder")), 1)
    local.remove(str(tmp_path / "nothing"))
