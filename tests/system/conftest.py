"""Fixtures of the system tests: the daemon as a process, real backends, a real PostgreSQL, keys and certificates.

`daemon(text)` starts the daemon and judges its end; `http_backend`, `tcp_backend` and `udp_backend` start servers that
tell what reached them; `postgres` and `postgres_replica` are one cluster for the whole run, with role `app` (SCRAM),
role `legacy` (md5), both with password `secret`, and database `app`. Ports come from `free_tcp_port` and
`free_udp_port`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervisor.cli.demo import ports
from supervisor.cli.demo.credentials import Certificate, Issuer, write_certificate
from supervisor.cli.demo.postgres import Cluster, Unavailable, find
from tests.system.supervised.daemon import Supervised
from tests.system.support.abused import Abused, open_abused
from tests.system.support.backends import Backend
from tests.system.support.daemon import Daemon
from tests.system.support.site import Site, open_site

HERE = Path(__file__).parent
PASSWORD = "secret"

BackendMaker = Callable[..., Backend]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder starts real processes."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture
def free_tcp_port() -> Callable[[], int]:
    """A function that gives another free TCP port each time."""
    return ports.free_tcp_port


@pytest.fixture
def free_udp_port() -> Callable[[], int]:
    """A function that gives another free UDP port each time."""
    return ports.free_udp_port


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """`daemon(text, name=..., ready=True)` starts a daemon; each is ended and judged after the test."""
    with ExitStack() as stack:

        def start(text: str, name: str = "portway.toml", ready: bool = True) -> Daemon:
            started = Daemon.start(tmp_path, text, name, ready)
            stack.callback(started.stop)
            return started

        yield start


@pytest.fixture
def port(free_tcp_port: Callable[[], int]) -> int:
    """A free TCP port."""
    return free_tcp_port()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """`start(text, *prefix)` is a daemon with the fake tier, which may fail to start; whatever it leaves is ended."""
    with ExitStack() as stack:

        def start(text: str, *prefix: str) -> Supervised:
            started = Supervised.start(tmp_path, text, *prefix)
            stack.callback(started.stop)
            return started

        yield start


def _backends(program: str) -> Iterator[BackendMaker]:
    with ExitStack() as stack:

        def make(name: str = "a", *modes: str, port: int = 0) -> Backend:
            backend = Backend(program, name, port, modes).start()
            stack.callback(backend.stop)
            return backend

        yield make


@pytest.fixture
def http_backend() -> Iterator[BackendMaker]:
    """`http_backend(name)` starts an HTTP server; see support/servers/http_server.py."""
    yield from _backends("http")


@pytest.fixture
def tcp_backend() -> Iterator[BackendMaker]:
    """`tcp_backend(name, *modes)` starts a TCP server; see support/servers/tcp_server.py."""
    yield from _backends("tcp")


@pytest.fixture
def udp_backend() -> Iterator[BackendMaker]:
    """`udp_backend(name)` starts a UDP server; see support/servers/udp_server.py."""
    yield from _backends("udp")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A primary with the roles `app` and `legacy` and the database `app`. Debian's PostgreSQL, or the wheel's."""
    try:
        cluster = Cluster.create(find(prefer_system=True))
    except Unavailable as reason:
        pytest.skip(str(reason))
    try:
        cluster.start()
        cluster.add_role("app", PASSWORD)
        cluster.add_role("legacy", PASSWORD, "md5")
        cluster.add_database("app", "app")
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def postgres_replica(postgres: Cluster) -> Iterator[Cluster]:
    """A streaming replica of `postgres`."""
    replica = postgres.replica()
    try:
        yield replica.start()
    finally:
        replica.stop()


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    """Keys `rsa`, `ec`, `ed` and `hmac`, made once."""
    made = Issuer()
    for kid, algorithm in (("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA"), ("hmac", "HS256")):
        made.add_key(kid, algorithm)
    return made


@pytest.fixture(scope="module")
def site(postgres: Cluster, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One daemon with all three tiers for all tests of a file; see support/site.py."""
    with open_site(tmp_path_factory.mktemp("site"), postgres, issuer) as opened:
        yield opened


@pytest.fixture(scope="module")
def abused(postgres: Cluster, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abused]:
    """A site with bad backends and a neighbour at work, for all tests of a file; see support/abused.py."""
    with open_abused(tmp_path_factory.mktemp("abused"), postgres, issuer) as opened:
        yield opened


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """A certificate for localhost and 127.0.0.1, with its authority."""
    return write_certificate(tmp_path)
