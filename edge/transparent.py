"""`transparent = true`: servers see the client's own address, for the connection to them is made from it.

For that this process needs a capability, and the answers, which are addressed to the client, must come back to this
machine and be delivered here (the kernel's Documentation/networking/tproxy.rst). Both are looked at before anything is
served: without them every connection would hang.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from edge.endings import NoServer
from supervisor.ground.config import Config, Problem
from supervisor.ground.net.proxy import Endpoint

_IPV6_TRANSPARENT = 75  # linux/in6.h
_TRANSPARENT = {
    socket.AF_INET: (socket.SOL_IP, socket.IP_TRANSPARENT),
    socket.AF_INET6: (socket.IPPROTO_IPV6, _IPV6_TRANSPARENT),
}
_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: the port is chosen at connect, so each client has all of them to each server
_ORDINARY = ("local", "main", "default")  # routing tables that every machine has
_IP_SECONDS = 5.0


def from_client(client: Endpoint, family: socket.AddressFamily) -> Callable[[socket.socket], None]:
    """What makes a socket to servers of this family one of this client's; that raises OSError. Raises NoServer for a
    client of another, as one that a PROXY header names may be."""
    if (":" in client[0]) is not (family == socket.AF_INET6):
        raise NoServer
    level, option = _TRANSPARENT[family]

    def prepare(sock: socket.socket) -> None:
        sock.setsockopt(level, option, 1)
        sock.setsockopt(socket.SOL_IP, _BIND_ADDRESS_NO_PORT, 1)
        sock.bind((client[0], 0))

    return prepare


def unable(config: Config) -> Iterator[Problem]:
    """What of this machine keeps listeners from being transparent, with the cure."""
    for name, table in config.tier("edge").listeners.items():
        if table.transparent:
            reason = _no_capability(table.bind.family) or _no_route(table.bind.family)
            if reason:
                yield Problem(("edge", "listeners", name, "transparent"), reason)


def wanted(config: Config) -> bool:
    """Whether any listener is."""
    return any(table.transparent for table in config.tier("edge").listeners.values())


def _no_capability(family: socket.AddressFamily) -> str:
    level, option = _TRANSPARENT[family]
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.setsockopt(level, option, 1)
        except OSError as error:
            return f"not allowed here ({error.strerror}): it needs CAP_NET_ADMIN or CAP_NET_RAW"
    return ""


def _no_route(family: socket.AddressFamily) -> str:
    """Whether some rule leads to a table that delivers every address here; which packets it takes is not looked at."""
    version = "-6" if family == socket.AF_INET6 else "-4"
    tables = {
        str(route.get("table"))
        for route in _ip(version, "route", "show", "table", "all", "type", "local")
        if route.get("dst") in ("default", "0.0.0.0/0", "::/0")
    }
    if any(str(rule.get("table")) in tables - {*_ORDINARY} for rule in _ip(version, "rule", "show")):
        return ""
    everything = "::/0" if family == socket.AF_INET6 else "0.0.0.0/0"
    return (
        "the servers' answers would not be delivered here: mark them (nft: socket transparent 1 meta mark set 1), then "
        f"ip {version} rule add fwmark 1 lookup 100; ip {version} route add local {everything} dev lo table 100"
    )


def _ip(*arguments: str) -> list[dict[str, Any]]:
    """What `ip` tells; nothing if there is no such program, or it fails."""
    program = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        return []
    try:
        done = subprocess.run([program, "-j", *arguments], capture_output=True, timeout=_IP_SECONDS, check=True)
        told: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
    return told
