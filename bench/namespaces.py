"""Network namespaces, for the benchmark and the tests of the kernel datapath: a client, the balancer, and servers
behind it, joined by veth pairs.

    client 10.90.0.2 --- 10.90.0.1 balancer 10.91.N.1 --- 10.91.N.2 server N
           fd90::2           fd90::1       fd91:N::1           fd91:N::2

Only the balancer forwards. Needs root and iproute2; `missing` says what is not there.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def missing() -> str:
    """Why there can be no namespaces with nftables here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nft"):
        if shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
            return f"there is no program {program}"
    name = f"pw{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode:
        return f"no network namespace to be had: {made.stderr.decode().strip()}"
    try:
        rules = "table inet probe { chain c { type nat hook prerouting priority 0; ct status dnat counter; }; }"
        tried = subprocess.run(
            ["ip", "netns", "exec", name, "nft", "-f", "-"], input=rules.encode(), capture_output=True, check=False
        )
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
    return f"no nftables to be had: {tried.stderr.decode().strip()}" if tried.returncode else ""


@attrs.frozen
class Namespace:
    """One of them, by name."""

    name: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """What goes in front of a command that is to run inside."""
        return ("ip", "netns", "exec", self.name)

    def run(self, *command: str | Path, check: bool = True, **more: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a command inside."""
        return subprocess.run([*self.prefix, *command], capture_output=True, check=check, **more)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function inside: in a thread of its own, since that is what has a network. Sockets made there stay
        there, whoever uses them."""
        results: list[T] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                with open(f"/run/netns/{self.name}", "rb") as file:
                    if _libc.setns(file.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]


@attrs.frozen
class Network:
    client: Namespace
    balancer: Namespace
    servers: Sequence[Namespace]


@contextmanager
def network(servers: int) -> Iterator[Network]:
    """All of it; deleted at the end, with whatever still runs in it left to its owner."""
    prefix = f"pw{os.getpid()}"
    names = [f"{prefix}c", f"{prefix}b", *(f"{prefix}s{number}" for number in range(servers))]
    made = Network(Namespace(names[0]), Namespace(names[1]), [Namespace(name) for name in names[2:]])
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _join(made.balancer, made.client, "c", "10.90.0", "fd90:")
        for number, server in enumerate(made.servers):
            _join(made.balancer, server, f"s{number}", f"10.91.{number}", f"fd91:{number}:")
        made.balancer.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        yield made
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _join(hub: Namespace, leaf: Namespace, device: str, network4: str, network6: str) -> None:
    _ip("link", "add", device, "netns", hub.name, "type", "veth", "peer", "name", "up0", "netns", leaf.name)
    for name, end, host in ((hub.name, device, 1), (leaf.name, "up0", 2)):
        _ip("-n", name, "addr", "add", f"{network4}.{host}/24", "dev", end)
        _ip("-n", name, "addr", "add", f"{network6}:{host}/64", "dev", end, "nodad")
        _ip("-n", name, "link", "set", end, "up")
    _ip("-n", leaf.name, "route", "add", "default", "via", f"{network4}.1")
    _ip("-n", leaf.name, "-6", "route", "add", "default", "via", f"{network6}:1")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, check=False)
    assert not done.returncode, f"ip {' '.join(arguments)}: {done.stderr.decode()}"
