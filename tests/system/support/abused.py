"""A site that is abused: backends that are dead, silent, full or frozen beside the good ones, and a neighbour.

The neighbour is an ordinary user of everything, at work all the time. Whatever is done to the site, it must get every
answer, right and soon.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from supervisor.cli.demo.credentials import Issuer
from supervisor.cli.demo.ports import free_tcp_port
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.backends import Backend
from tests.system.support.clients import TIMEOUT
from tests.system.support.load import Load
from tests.system.support.site import Site, open_site

NEIGHBOURS_PACE = 0.02  # s between two of its steps
PATIENCE = 8.0  # s that a step of the neighbour may take, on cores that others use too; deadlines have 10 and more

EXTRA = """
[pools.quiet]
servers = ["{quiet}"]

[pools.dead]
servers = ["127.0.0.1:{dead}"]

[pools.frozen]
servers = ["{frozen}"]

[pools.full]
servers = ["127.0.0.1:{full}"]

[pools.full_or_good]
servers = ["127.0.0.1:{full}", "{good}"]

[pools.silent]
servers = ["127.0.0.1:{silent}"]

[edge.listeners.dead]
bind = "127.0.0.1:{edge_dead}"
pool = "dead"

[edge.listeners.full]
bind = "127.0.0.1:{edge_full}"
pool = "full_or_good"
connect_timeout = "300ms"

[gateway.routes.quiet]
path = "/quiet/*"
pool = "quiet"
max_body = "64KiB"

[gateway.routes.dead]
path = "/dead/*"
pool = "dead"

[gateway.routes.frozen]
path = "/frozen/*"
pool = "frozen"
timeout = "500ms"

[gateway.routes.full]
path = "/full/*"
pool = "full"
timeout = "500ms"

[pooler.databases.dead]
primary = "dead"

[pooler.databases.silent]
primary = "silent"
"""


@attrs.define(eq=False)
class Abused:
    """The site and its neighbour. `quiet` is a backend that only the tests ask."""

    site: Site
    quiet: Backend
    neighbour: Load

    def undisturbed(self) -> None:
        """The neighbour goes on, has lost nothing and waited for nobody."""
        self.neighbour.progress(1)
        self.neighbour.whole()
        assert self.neighbour.slowest() < PATIENCE


@contextmanager
def _silent() -> Iterator[int]:
    """A server that takes connections, as the kernel does, and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        yield server.getsockname()[1]


@contextmanager
def _full() -> Iterator[int]:
    """A server whose accept queue is full: further connections get no answer at all."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        while True:
            client = stack.enter_context(socket.socket())
            client.settimeout(0.2)
            try:
                client.connect(server.getsockname())
            except TimeoutError:
                break
        yield server.getsockname()[1]


@contextmanager
def open_abused(folder: Path, postgres: Cluster, issuer: Issuer) -> Iterator[Abused]:
    """Start it all; the neighbour is judged with the block's end once more."""
    with ExitStack() as stack:
        quiet, frozen, good = Backend("http", "quiet"), Backend("http", "frozen"), Backend("tcp", "good")
        for backend in (quiet, frozen, good):
            backend.start()
            stack.callback(backend.stop)
        frozen.freeze()
        ports = {name: free_tcp_port() for name in ("dead", "edge_dead", "edge_full")}
        ports |= {"full": stack.enter_context(_full()), "silent": stack.enter_context(_silent())}
        extra = EXTRA.format(quiet=quiet.address, frozen=frozen.address, good=good.address, **ports)
        site = stack.enter_context(
            open_site(
                folder, postgres, issuer, extra, ports, client_login_timeout="1s", server_connect_timeout="500ms"
            )
        )  # fmt: skip
        with Load(site, pace=NEIGHBOURS_PACE) as neighbour:
            abused = Abused(site, quiet, neighbour)
            abused.undisturbed()
            yield abused
            abused.undisturbed()
        faults = [line for line in site.daemon.lines() if line["level"] in ("error", "critical")]
        assert not faults, faults[:3]


def buffers() -> int:
    """How many bytes one direction of a TCP connection holds at the most, at both its ends, as this kernel is set."""
    return sum(int(Path(f"/proc/sys/net/ipv4/tcp_{way}mem").read_text().split()[2]) for way in "rw")


def rest_of(sock: socket.socket) -> bytes:
    """All that comes until the other side ends the connection, in whatever way. TimeoutError if it does not."""
    sock.settimeout(TIMEOUT)
    found = b""
    with _ended():
        while data := sock.recv(1 << 16):
            found += data
    return found


def said(sock: socket.socket, data: bytes, half_close: bool = False) -> bytes:
    """Send, though the other side may close meanwhile; then all that comes."""
    with _ended():
        sock.sendall(data)
        if half_close:
            sock.shutdown(socket.SHUT_WR)
    return rest_of(sock)


@contextmanager
def _ended() -> Iterator[None]:
    """A connection may break, by a reset, by a close under TLS; only silence is an error."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError:
        pass
