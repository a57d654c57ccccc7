"""Tickets that every worker can read: where OpenSSL keeps their keys, how they are derived, and when they change."""

from __future__ import annotations

import gc
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from OpenSSL import SSL

from supervisor.ground.log import logger
from supervisor.ground.net import tickets
from supervisor.ground.net.keypairs import KeyPair
from supervisor.ground.net.tickets import TicketKeys, Tickets
from supervisor.ground.net.tls import Acceptor, Certificates, base_context
from supervisor.plane import layout
from supervisor.plane import tickets as secrets

Served = Callable[..., Any]
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@pytest.fixture
def cells() -> list[int]:
    """A plane's header, with a secret."""
    made = [0] * layout.PAGE_CELLS
    secrets.keep_fresh(made, 1)
    return made


@pytest.fixture
def unknown() -> Iterator[None]:
    """Whatever `place` has found out is forgotten before and after."""
    tickets.place.cache_clear()
    yield
    tickets.place.cache_clear()


@pytest.fixture
def client(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


def worker(cells: list[int], pair: KeyPair, listener: str = "gateway/api") -> tuple[Acceptor, Tickets]:
    """A listener in a worker of its own: nothing but the plane is shared."""
    made, base = Tickets(cells, logger()), base_context()
    made.share(base, listener)
    return Acceptor(base, Certificates([pair])), made


def visit(served: Served, acceptor: Acceptor, context: ssl.SSLContext, session: Any = None) -> tuple[bool, Any]:
    """Whether the session resumed, and the one to come back with."""
    found = served(acceptor, "example.com", context, session)
    found.send(b"x")
    assert found.read() == b"x"
    return found.tls.session_reused, found.tls.session


@VERSIONS
def test_a_ticket_resumes_in_every_worker_with_another_certificate_too(
    served: Served, client: ssl.SSLContext, cells: list[int], pair_for: Any
) -> None:
    one, _ = worker(cells, pair_for("example.com"))
    two, _ = worker(cells, pair_for("example.com", "new.example.com"))
    resumed, session = visit(served, one, client)
    assert not resumed
    resumed, session = visit(served, two, client, session)
    assert resumed
    assert visit(served, one, client, session)[0]


@VERSIONS
def test_a_ticket_of_another_listener_does_not(
    served: Served, client: ssl.SSLContext, cells: list[int], pair_for: Any
) -> None:
    one, _ = worker(cells, pair_for("example.com"))
    two, _ = worker(cells, pair_for("example.com"), "gateway/other")
    _, session = visit(served, one, client)
    assert not visit(served, two, client, session)[0]


@VERSIONS
def test_with_a_new_secret_old_tickets_cost_a_whole_handshake_and_new_ones_resume(
    served: Served, client: ssl.SSLContext, cells: list[int], pair_for: Any
) -> None:
    (one, first), (two, second) = (worker(cells, pair_for("example.com")) for _ in range(2))
    _, old = visit(served, one, client)
    secrets.keep_fresh(cells, 1 + secrets.LIFETIME)
    assert visit(served, two, client, old)[0], "nobody has looked yet"
    first.look()
    second.look()
    resumed, new = visit(served, one, client, old)
    assert not resumed
    assert visit(served, two, client, new)[0]


def test_without_a_secret_a_context_keeps_its_own_keys_until_there_is_one(cells: list[int]) -> None:
    at = tickets.place()
    assert at is not None
    empty = [0] * layout.PAGE_CELLS
    made, base = Tickets(empty, logger()), base_context()
    before = tickets._read(tickets._address(base) + at, 16)
    made.share(base, "gateway/api")
    assert tickets._read(tickets._address(base) + at, 16) == before
    empty[:] = cells
    made.look()
    assert tickets._read(tickets._address(base) + at, 16) != before


def test_contexts_that_are_gone_are_forgotten(cells: list[int]) -> None:
    made = Tickets(cells, logger())
    made.share(base_context(), "gateway/api")
    gc.collect()
    assert len(made._shared) == 0


def test_the_place_is_the_one_that_openssl_seals_with(unknown: None) -> None:
    """The proof itself: keys that we put there open what is sealed afterwards."""
    at = tickets.place()
    assert at is not None, "OpenSSL keeps them elsewhere: tickets are not shared"
    keys = TicketKeys.derive(b"s" * 32, "gateway/api")
    context, before = tickets._sample()
    assert not keys.opens(before)
    tickets.put(context, keys)
    assert tickets._read(tickets._address(context) + at, 16) == keys.name
    _, sealed = tickets._sample(context)
    assert sealed[:16] == keys.name
    assert keys.opens(sealed)
    assert not keys.opens(sealed[:-1] + bytes([sealed[-1] ^ 1]))


def _no_sample() -> Any:
    raise SSL.Error([("", "", "no")])


def _blocked(address: int, size: int) -> bytes:
    raise PermissionError(1, "not permitted")


@pytest.mark.parametrize(
    ("what", "instead"),
    [
        ("_read", lambda address, size: b"\0" * size),  # the name is nowhere
        ("_read", lambda address, size: b""),  # no memory there
        ("_read", _blocked),  # a filter of system calls
        ("_sample", _no_sample),
    ],
)
def test_where_the_place_is_not_proven_nothing_is_written(
    unknown: None, monkeypatch: pytest.MonkeyPatch, cells: list[int], what: str, instead: Any
) -> None:
    base = base_context()
    at = tickets.place()
    assert at is not None
    before = tickets._read(tickets._address(base) + at, 16)
    tickets.place.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(tickets, what, instead)
        assert tickets.place() is None
        Tickets(cells, logger()).share(base, "gateway/api")
    assert tickets._read(tickets._address(base) + at, 16) == before


def test_keys_that_follow_the_name_but_are_not_its_own_prove_nothing(
    unknown: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = tickets._read
    monkeypatch.setattr(tickets, "_read", lambda at, size: bytes(64) if size == 64 else read(at, size))
    assert tickets.place() is None


def test_memory_that_is_not_there_is_read_as_far_as_there_is_any() -> None:
    assert tickets._read(8, 100) == b""


def test_keys_are_never_shown() -> None:
    keys = TicketKeys.derive(b"s" * 32, "gateway/api")
    assert repr(keys.keys) not in repr(keys)
    assert keys == TicketKeys.derive(b"s" * 32, "gateway/api")
    assert keys != TicketKeys.derive(b"t" * 32, "gateway/api")
