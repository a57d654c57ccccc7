"""TLS on the lane: handshakes whole and in pieces, transfers, ends of every kind, and peers that speak otherwise."""

from __future__ import annotations

import errno
import gc
import os
import socket
import ssl
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from supervisor.ground.lane import Lane, wait_any
from supervisor.ground.net import tlsconn
from supervisor.ground.net.keypairs import KeyPair
from supervisor.ground.net.tls import Acceptor, Certificates, base_context
from supervisor.ground.net.tlsconn import TlsConn, TlsError

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]

Contexts = Callable[..., ssl.SSLContext]


@pytest.fixture
def acceptor(pair_for: Callable[..., KeyPair]) -> Acceptor:
    return Acceptor(base_context(), Certificates([pair_for("example.com")]))


@pytest.fixture
def context() -> Contexts:
    def make(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context

    return make


@pytest.fixture
def ended() -> list[object]:
    """How the server's sessions ended: what they had read, or their error."""
    return []


async def echo(tls: TlsConn, ended: list[object]) -> None:
    """Serve one connection to its end."""
    got = bytearray()
    try:
        await tls.handshake()
        while data := await tls.recv():
            got += data
            await tls.send(data)
        tls.shutdown_write()
        ended.append(bytes(got))
    except OSError as error:
        ended.append(error)
    finally:
        tls.close()


async def swallow(tls: TlsConn, ended: list[object], size: int = 1 << 16) -> None:
    """Read everything, say nothing."""
    got = bytearray()
    try:
        await tls.handshake()
        while data := await tls.recv(size):
            got += data
        ended.append(bytes(got))
    except OSError as error:
        ended.append(error)
    finally:
        tls.close()


# -- handshakes


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("piece", [1 << 20, 100, 1])
def test_handshake_and_echo_whole_and_byte_by_byte(
    by_hand: Lane, dial: Any, acceptor: Acceptor, context: Contexts, ended: list[object], version: Any, piece: int
) -> None:
    client = dial(acceptor, "example.com", context(version))
    by_hand.spawn(echo(client.server, ended))
    client.handshake(piece)
    assert client.tls.version() == version.name.replace("_", ".")
    assert client.server.version() == client.tls.version()
    assert client.server.server_name() == b"example.com"
    client.tls.write(b"hello")
    client.flush(piece)
    assert client.read() == b"hello"
    client.sock.shutdown(socket.SHUT_WR)
    client.rounds()
    assert ended == [b"hello"]


def test_a_version_before_1_2_is_refused(by_hand: Lane, dial: Any, acceptor: Acceptor, ended: list[object]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    client = dial(acceptor, None, context)
    by_hand.spawn(swallow(client.server, ended))
    with pytest.raises(ssl.SSLError):
        client.handshake()
    assert isinstance(ended[0], TlsError)
    assert ended[0].errno == errno.EPROTO
    assert "unsupported protocol" in str(ended[0])


def test_data_sent_with_the_last_flight_is_there_after_the_handshake(
    by_hand: Lane, dial: Any, acceptor: Acceptor, ended: list[object]
) -> None:
    client = dial(acceptor)
    by_hand.spawn(echo(client.server, ended))
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    client.flush()
    client.fetch()
    client.tls.do_handshake()
    client.tls.write(b"at once")
    client.flush()
    assert client.read() == b"at once"


def test_a_deadline_during_the_handshake_ends_it(
    by_hand: Lane, dial: Any, acceptor: Acceptor, ended: list[object]
) -> None:
    client = dial(acceptor)
    session = by_hand.spawn(swallow(client.server, ended))
    client.rounds()
    session.expire_in(0)
    by_hand.sweep()
    client.rounds()
    assert session.done
    assert client.sock.recv(10) == b""


# -- peers that speak something else


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "http request"),
        (b"CONNECT example.com:443 HTTP/1.1\r\n\r\n", ""),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "wrong version number"),
        (b"\x16\x03\x01\xff\xff" + b"x" * 100, "length too long"),
        (b"\x16\x03\x01\x00\x10\x01\x00\x00\x0c" + b"\x00" * 12, ""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "wrong version number"),
        (b"\x80" * 50, ""),
    ],
)
@pytest.mark.parametrize("piece", [1000, 1])
def test_a_peer_that_speaks_something_else_is_a_tls_error(
    by_hand: Lane, dial: Any, acceptor: Acceptor, ended: list[object], hello: bytes, reason: str, piece: int
) -> None:
    client = dial(acceptor)
    by_hand.spawn(swallow(client.server, ended))
    for start in range(0, len(hello), piece):
        try:
            client.sock.send(hello[start : start + piece])
        except BrokenPipeError:
            break
        client.rounds()
    assert isinstance(ended[0], TlsError)
    assert ended[0].errno == errno.EPROTO
    assert reason in str(ended[0])


@given(hello=st.binary(max_size=300), after_record_header=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_property_only_tls_errors_come_of_garbage(acceptor: Acceptor, hello: bytes, after_record_header: bool) -> None:
    lane, ended = Lane(), []
    theirs, ours = socket.socketpair()
    if after_record_header:
        hello = b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello
    lane.spawn(swallow(acceptor.wrap(lane.adopt(ours)), ended))
    theirs.send(hello)
    while lane._round():
        pass
    theirs.close()
    while lane._round():
        pass
    assert not lane.sessions
    assert not lane.conns
    assert isinstance(ended[0], TlsError)
    lane.close()


def test_a_peer_that_leaves_during_the_handshake_is_a_tls_error(
    by_hand: Lane, dial: Any, acceptor: Acceptor, ended: list[object]
) -> None:
    client = dial(acceptor)
    by_hand.spawn(swallow(client.server, ended))
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    client.sock.send(client.outgoing.read()[:50])
    client.rounds()
    client.sock.close()
    client.rounds()
    assert isinstance(ended[0], TlsError)
    assert ended[0].errno == 0


def test_bytes_changed_on_the_way_are_a_tls_error(
    by_hand: Lane, dial: Any, acceptor: Acceptor, ended: list[object]
) -> None:
    client = dial(acceptor)
    by_hand.spawn(swallow(client.server, ended))
    client.handshake()
    client.tls.write(b"secret")
    record = bytearray(client.outgoing.read())
    record[-1] ^= 1
    client.sock.send(record)
    client.rounds()
    assert isinstance(ended[0], TlsError)
    assert "bad record mac" in str(ended[0])


def test_one_that_fails_leaves_the_others_alone(by_hand: Lane, dial: Any, acceptor: Acceptor) -> None:
    """OpenSSL's queue of errors is one for all."""
    good_ended: list[object] = []
    bad_ended: list[object] = []
    good = dial(acceptor)
    by_hand.spawn(echo(good.server, good_ended))
    good.handshake()
    for number in range(20):
        bad = dial(acceptor)
        by_hand.spawn(echo(bad.server, bad_ended))
        bad.sock.send(b"GET / HTTP/1.0\r\n\r\n")
        good.tls.write(b"x%d" % number)
        good.flush()
        assert good.read() == b"x%d" % number
        with pytest.raises(ValueError):
            Certificates([KeyPair(b"nonsense", b"nonsense")])
        assert good.server.recv_nowait() is None
    assert len(bad_ended) == 20
    assert good_ended == []


def test_one_whose_peer_is_gone_leaves_the_others_alone(by_hand: Lane, dial: Any, acceptor: Acceptor) -> None:
    good, bad = dial(acceptor), dial(acceptor)
    for client in (good, bad):
        by_hand.spawn(echo(client.server, []))
        client.handshake()
    bad.sock.close()
    with pytest.raises(BrokenPipeError):
        bad.server.send_nowait(b"x")
    good.server.readable = True
    assert good.server.recv_nowait() is None
    good.send(b"hello")
    assert good.read() == b"hello"


# -- the end


def test_closing_sends_close_notify(by_hand: Lane, dial: Any, acceptor: Acceptor) -> None:
    async def brief(tls: TlsConn) -> None:
        await tls.handshake()
        await tls.send(b"bye")
        tls.close()
        tls.close()

    client = dial(acceptor)
    by_hand.spawn(brief(client.server))
    client.handshake()
    assert client.read() == b"bye"
    assert client.read() == b""  # not SSLEOFError: the end was announced
    assert not by_hand.conns


def test_shutting_down_writing_sends_close_notify_and_reading_goes_on(
    by_hand: Lane, dial: Any, acceptor: Acceptor, ended: list[object]
) -> None:
    async def talk(tls: TlsConn) -> None:
        await tls.handshake()
        tls.shutdown_write()
        tls.shutdown_write()
        ended.append(await tls.recv())
        ended.append(await tls.recv())
        tls.close()

    client = dial(acceptor)
    by_hand.spawn(talk(client.server))
    client.handshake()
    assert client.read() == b""
    client.send(b"still talking")
    client.tls.unwrap()
    client.flush()
    assert ended == [b"still talking", b""]


def test_aborting_sends_none(by_hand: Lane, dial: Any, acceptor: Acceptor) -> None:
    async def brief(tls: TlsConn) -> None:
        await tls.handshake()
        tls.abort()
        tls.abort()

    client = dial(acceptor)
    by_hand.spawn(brief(client.server))
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    client.flush()
    client.fetch()
    client.tls.do_handshake()
    client.flush()
    with pytest.raises(ssl.SSLEOFError):
        client.read()


@pytest.mark.parametrize("version", VERSIONS)
def test_close_notify_of_the_peer_is_the_end_of_the_stream(
    by_hand: Lane, dial: Any, acceptor: Acceptor, context: Contexts, ended: list[object], version: Any
) -> None:
    client = dial(acceptor, None, context(version))
    by_hand.spawn(swallow(client.server, ended))
    client.handshake()
    client.send(b"all I had")
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    client.flush()
    assert ended == [b"all I had"]


def test_a_stream_cut_short_ends_without_an_error(
    by_hand: Lane, dial: Any, acceptor: Acceptor, ended: list[object]
) -> None:
    """Many clients leave so; what lies inside knows its own lengths."""
    client = dial(acceptor)
    by_hand.spawn(swallow(client.server, ended))
    client.handshake()
    client.send(b"and th")
    client.sock.close()
    client.rounds()
    assert ended == [b"and th"]


def test_a_broken_connection_is_freed_without_the_collector(by_hand: Lane, dial: Any, acceptor: Acceptor) -> None:
    """OpenSSL holds 15 KiB for each, of which the collector knows nothing."""

    async def read(tls: TlsConn) -> None:
        try:
            await tls.handshake()
            await tls.recv()
        except OSError:
            pass
        finally:
            tls.close()

    client = dial(acceptor)
    by_hand.spawn(read(client.server))
    client.handshake()
    held = weakref.ref(client.server._ssl)
    gc.disable()
    try:
        client.sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        client.rounds()
        client.server = dial(acceptor).server
        assert held() is None
    finally:
        gc.enable()


def test_a_reset_is_an_oserror(by_hand: Lane, acceptor: Acceptor, ended: list[object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    by_hand.spawn(swallow(acceptor.wrap(by_hand.adopt(ours)), ended))
    by_hand._round()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    while by_hand._round():
        pass
    assert isinstance(ended[0], ConnectionResetError)
    assert ended[0].errno == errno.ECONNRESET


def test_writing_to_one_that_is_gone_is_an_oserror(
    by_hand: Lane, dial: Any, acceptor: Acceptor, ended: list[object]
) -> None:
    async def talker(tls: TlsConn) -> None:
        try:
            await tls.handshake()
            while True:
                await tls.send(b"x" * 100_000)
        except OSError as error:
            ended.append(error)
        tls.close()

    client = dial(acceptor)
    by_hand.spawn(talker(client.server))
    client.handshake()
    client.sock.close()
    client.rounds()
    assert isinstance(ended[0], BrokenPipeError | ConnectionResetError)
    assert ended[0].errno in (errno.EPIPE, errno.ECONNRESET)


def test_closing_wakes_who_waits_for_it(by_hand: Lane, dial: Any, acceptor: Acceptor, ended: list[object]) -> None:
    shaking, reading = dial(acceptor), dial(acceptor)
    for client in (shaking, reading):
        by_hand.spawn(swallow(client.server, ended))
    reading.handshake()
    for client in (shaking, reading):
        client.server.close()
        client.rounds()
    assert [error.errno for error in ended if isinstance(error, OSError)] == [errno.EBADF] * 2


def test_a_closed_one_touches_its_old_descriptor_no_more(by_hand: Lane, dial: Any, acceptor: Acceptor) -> None:
    """Its number may be another connection's by now."""
    seen: list[object] = []

    async def misuse(tls: TlsConn) -> None:
        for use in (tls.handshake, tls.recv, lambda: tls.send(b"x")):
            try:
                await use()
            except OSError as error:
                seen.append(error.errno)

    client = dial(acceptor)
    number = client.server.fd
    client.server.close()
    client.rounds()
    by_hand._close_all()
    peer, other = socket.socketpair()
    assert number in (peer.fileno(), other.fileno())
    client.server.close()
    client.server.shutdown_write()
    by_hand.spawn(misuse(client.server))
    client.rounds()
    assert seen == [errno.EBADF] * 3
    assert client.server.recv_nowait() is None
    assert client.server.send_nowait(b"x") == 0
    for one in (peer, other):
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.recv(10)
    peer.close()
    other.close()


def test_one_closed_underneath_says_no_farewell_on_its_old_descriptor(
    by_hand: Lane, dial: Any, acceptor: Acceptor
) -> None:
    """As when the lane ends with connections that no session owns."""
    client = dial(acceptor)

    async def brief(tls: TlsConn) -> None:
        await tls.handshake()

    by_hand.spawn(brief(client.server))
    client.handshake()
    number = client.server.fd
    by_hand.conns[number].close()
    by_hand._close_all()
    peer, other = socket.socketpair()
    assert number in (peer.fileno(), other.fileno())
    client.server.shutdown_write()
    client.server.close()
    for one in (peer, other):
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.recv(10)
    peer.close()
    other.close()


def test_nothing_of_a_connection_outlives_it(by_hand: Lane, dial: Any, acceptor: Acceptor) -> None:
    """Not even until the next garbage collection: what OpenSSL holds for each is large."""

    async def serve(tls: TlsConn) -> None:
        try:
            await tls.handshake()
        except TlsError:
            pass
        finally:
            tls.close()

    gc.collect()
    gc.disable()
    before = len(SSL.Connection._reverse_mapping)
    try:
        for kind in range(12):
            theirs, ours = socket.socketpair()
            theirs.setblocking(False)
            tls = acceptor.wrap(by_hand.adopt(ours))
            session = by_hand.spawn(serve(tls))
            by_hand._round()
            if kind % 3 == 0:
                theirs.send(b"nonsense, and a good deal of it")
            elif kind % 3 == 1:
                session.cancel()
            theirs.close()
            del tls, session
            while by_hand._round():
                pass
        assert len(SSL.Connection._reverse_mapping) == before
    finally:
        gc.enable()


# -- transfers


@pytest.mark.parametrize("version", VERSIONS)
def test_a_large_transfer_both_ways_arrives_whole(
    by_hand: Lane, dial: Any, acceptor: Acceptor, context: Contexts, ended: list[object], version: Any
) -> None:
    client = dial(acceptor, None, context(version))
    by_hand.spawn(echo(client.server, ended))
    client.handshake()
    message = os.urandom(3_000_000)
    client.tls.write(message)
    got = bytearray()
    for _ in range(10_000):
        client.flush()
        got += client.read() or b""
        if len(got) == len(message):
            break
    assert got == message


def test_who_does_not_read_is_not_sent_more_than_buffers_hold(
    by_hand: Lane, dial: Any, acceptor: Acceptor, ended: list[object]
) -> None:
    """The echo stops reading while nobody takes what it sends."""
    client = dial(acceptor)
    by_hand.spawn(echo(client.server, ended))
    client.handshake()
    message = os.urandom(8_000_000)
    client.tls.write(message)
    assert not client.flush()
    client.rounds()
    assert not client.flush()
    assert len(client.waiting) > 6_000_000
    got = bytearray()
    for _ in range(10_000):
        got += client.read() or b""
        client.flush()
        if len(got) == len(message):
            break
    assert got == message


def test_a_session_reads_no_more_than_its_budget_in_a_turn(by_hand: Lane, dial: Any, acceptor: Acceptor) -> None:
    """Beside a quiet one."""
    turns = 0
    reads: list[int] = [0]

    async def greedy(tls: TlsConn) -> None:
        await tls.handshake()
        while await tls.recv(1):
            reads[-1] += 1

    async def quiet() -> None:
        nonlocal turns
        while True:
            reads.append(0)
            turns += 1
            await by_hand.pause()

    client = dial(acceptor)
    by_hand.spawn(greedy(client.server))
    client.handshake()
    client.tls.write(b"x" * 1000)
    client.sock.send(client.outgoing.read())
    session = by_hand.spawn(quiet())
    while sum(reads) < 1000:
        by_hand._round()
    assert max(reads) <= 20
    session.cancel()
    client.rounds()


@given(
    writes=st.lists(st.integers(1, 40_000), min_size=1, max_size=12),
    pieces=st.lists(st.integers(1, 30_000), min_size=1, max_size=8),
    sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=5),
    any_of_two=st.booleans(),
    old=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_property_nothing_that_has_come_is_left_waiting(
    dial: Any,
    by_hand: Lane,
    acceptor: Acceptor,
    context: Contexts,
    writes: list[int],
    pieces: list[int],
    sizes: list[int],
    any_of_two: bool,
    old: bool,
) -> None:
    """However the bytes are cut on the way and however much is read at a time: records wait inside OpenSSL or in the
    socket, and either way the session is brought back for them without another byte from the peer."""
    got = bytearray()

    async def read(tls: TlsConn) -> None:
        await tls.handshake()
        turn = 0
        while True:
            size = sizes[turn % len(sizes)]
            turn += 1
            if any_of_two:
                data = tls.recv_nowait(size)
                if data is None:
                    await wait_any(tls)
                    continue
            else:
                data = await tls.recv(size)
            if not data:
                break
            got.extend(data)
        tls.close()

    client = dial(acceptor, None, context(VERSIONS[not old]))
    session = by_hand.spawn(read(client.server))
    client.handshake()
    message = os.urandom(sum(writes))
    at = 0
    for write in writes:
        client.tls.write(message[at : at + write])
        at += write
    raw, turn = client.outgoing.read(), 0
    while raw:
        piece = pieces[turn % len(pieces)]
        turn += 1
        client.sock.send(raw[:piece])
        raw = raw[piece:]
        client.rounds()
    assert bytes(got) == message
    client.sock.close()
    client.rounds()
    assert session.done


# -- what OpenSSL may ask for out of turn


def test_sending_before_the_handshake_waits_instead_of_spinning(
    by_hand: Lane, dial: Any, acceptor: Acceptor, ended: list[object]
) -> None:
    async def hasty(tls: TlsConn) -> None:
        await tls.send(b"hasty")
        ended.append("sent")

    client = dial(acceptor)
    by_hand.spawn(hasty(client.server))
    client.rounds()
    assert ended == []
    client.handshake()
    assert client.read() == b"hasty"
    assert ended == ["sent"]


def test_a_read_that_wants_to_write_is_tried_again_when_it_can(
    by_hand: Lane, dial: Any, acceptor: Acceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a key update, with the socket full."""
    client = dial(acceptor)
    got: list[bytes] = []
    real, explain = tlsconn._ssl_read, SSL.Connection._raise_ssl_error
    asked: list[int] = []

    def wants_write(handle: Any, buffer: Any, size: int) -> int:
        asked.append(size)
        return -1 if len(asked) == 1 else real(handle, buffer, size)

    def because(connection: SSL.Connection, handle: Any, result: int) -> None:
        if len(asked) == 1:
            raise SSL.WantWriteError
        explain(connection, handle, result)

    async def read(tls: TlsConn) -> None:
        await tls.handshake()
        monkeypatch.setattr(tlsconn, "_ssl_read", wants_write)
        monkeypatch.setattr(SSL.Connection, "_raise_ssl_error", because)
        got.append(await tls.recv())

    by_hand.spawn(read(client.server))
    client.handshake()
    assert len(asked) >= 2  # at once, for the socket is not really full
    client.send(b"after all")
    assert got == [b"after all"]


def test_a_read_makes_no_event_but_for_what_comes_next(by_hand: Lane, dial: Any, acceptor: Acceptor) -> None:
    """Each event costs a turn."""
    turns = 0

    async def count(tls: TlsConn) -> None:
        nonlocal turns
        await tls.handshake()
        while True:
            turns += 1
            if tls.recv_nowait() is None:
                await wait_any(tls)

    client = dial(acceptor)
    session = by_hand.spawn(count(client.server))
    client.handshake()
    turns = 0
    for _ in range(10):
        client.send(b"x")
    assert turns == 20  # the one that reads, the one that finds nothing
    session.cancel()
    client.rounds()


def test_a_blocked_send_goes_on_after_reads(by_hand: Lane, dial: Any, acceptor: Acceptor) -> None:
    """Reading asks epoll for reading alone; who can't write must be told of that too."""
    message = os.urandom(2_000_000)

    async def talk(tls: TlsConn) -> None:
        await tls.handshake()
        left = memoryview(message)
        while left:
            tls.recv_nowait()
            sent = tls.send_nowait(left)
            left = left[sent:]
            tls.recv_nowait()
            if not sent:
                await wait_any(tls)

    client = dial(acceptor)
    session = by_hand.spawn(talk(client.server))
    client.handshake()
    assert not session.done
    client.send(b"x" * 10)
    assert client.read_all(len(message)) == message
    assert session.done


def test_empty_sends_are_nothing(by_hand: Lane, dial: Any, acceptor: Acceptor, ended: list[object]) -> None:
    async def talk(tls: TlsConn) -> None:
        await tls.handshake()
        await tls.send(b"")
        assert tls.send_nowait(b"") == 0
        await tls.send(memoryview(b"something"))

    client = dial(acceptor)
    by_hand.spawn(talk(client.server))
    client.handshake()
    assert client.read() == b"something"
