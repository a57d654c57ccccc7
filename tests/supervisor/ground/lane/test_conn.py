"""A socket on the lane: what is known of it without asking, backpressure, half-close, resets, and giving it up."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from supervisor.ground.lane import READ_SIZE, Conn, Lane, wait_any
from supervisor.ground.lane.sessions import TURN_READS

Pair = tuple[socket.socket, Conn]


@pytest.fixture
def pair(by_hand: Lane) -> Iterator[Callable[[], Pair]]:
    """Make a peer, which the test plays, and the connection on the lane."""
    made: list[Pair] = []

    def make() -> Pair:
        peer, ours = socket.socketpair()
        peer.setblocking(False)
        made.append((peer, by_hand.adopt(ours)))
        return made[-1]

    yield make
    for peer, conn in made:
        peer.close()
        conn.close()


@pytest.fixture
def tcp_pair(by_hand: Lane) -> Iterator[Callable[[], Pair]]:
    made: list[Pair] = []

    def make() -> Pair:
        with socket.create_server(("127.0.0.1", 0)) as server:
            peer = socket.create_connection(server.getsockname())
            ours, _ = server.accept()
        peer.settimeout(5)
        made.append((peer, by_hand.adopt(ours)))
        return made[-1]

    yield make
    for peer, conn in made:
        peer.close()
        conn.close()


def rounds(lane: Lane, most: int = 1000) -> None:
    """Until nothing happens any more."""
    for _ in range(most):
        if not lane._round():
            return
    raise AssertionError("never rests")


# -- reading


def test_a_short_read_says_that_nothing_is_left(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    peer, conn = pair()
    peer.send(b"hello")
    rounds(by_hand)
    assert conn.readable
    assert conn.recv_nowait() == b"hello"
    assert not conn.readable
    assert conn.recv_nowait() is None
    peer.send(b"more")
    assert conn.recv_nowait() is None
    rounds(by_hand)
    assert conn.recv_nowait() == b"more"


def test_a_full_read_is_followed_by_another_try(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    peer, conn = pair()
    peer.send(b"abcdef")
    rounds(by_hand)
    assert conn.recv_nowait(3) == b"abc"
    assert conn.readable
    assert conn.recv_nowait(3) == b"def"
    assert conn.readable
    assert conn.recv_nowait(3) is None
    assert not conn.readable


def test_the_end_of_the_stream_is_told_even_when_it_came_with_the_data(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    peer, conn = pair()
    peer.send(b"last words")
    peer.shutdown(socket.SHUT_WR)
    rounds(by_hand)
    assert conn.recv_nowait() == b"last words"
    assert conn.recv_nowait() == b""
    assert conn.recv_nowait() == b""


def test_the_end_of_the_stream_is_told_when_it_comes_after_a_short_read(
    by_hand: Lane, pair: Callable[[], Pair]
) -> None:
    peer, conn = pair()
    peer.send(b"words")
    rounds(by_hand)
    peer.shutdown(socket.SHUT_WR)  # before the read, unknown to the lane
    assert conn.recv_nowait() == b"words"
    assert conn.recv_nowait() is None
    rounds(by_hand)
    assert conn.recv_nowait() == b""


def test_recv_waits_only_when_nothing_is_there(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    peer, conn = pair()
    got: list[bytes] = []

    async def reader() -> None:
        while data := await conn.recv():
            got.append(data)
        conn.close()

    peer.send(b"early")
    session = by_hand.spawn(reader())
    by_hand._round()
    assert got == [b"early"]
    for text in (b"one", b"two"):
        peer.send(text)
        rounds(by_hand)
    assert got == [b"early", b"one", b"two"]
    peer.close()
    rounds(by_hand)
    assert session.done
    assert not by_hand.conns


def test_a_session_reads_no_more_than_its_budget_in_a_turn(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    """Its peer always has more: the run queue, not epoll, brings it back."""
    peer, conn = pair()
    reads: list[int] = []

    async def greedy() -> None:
        while True:
            peer.send(b"xxxx")
            await conn.recv(4)
            reads[-1] += 1

    session = by_hand.spawn(greedy())
    for _ in range(20):
        reads.append(0)
        by_hand._round()
    # The read that found its credit spent is the first of its next turn, and is not counted there.
    assert set(reads[1:-1]) == {TURN_READS + 1}
    session.cancel()
    rounds(by_hand)


# -- writing


def test_send_goes_as_fast_as_the_peer_reads(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    peer, conn = pair()
    message = os.urandom(3_000_000)

    async def sender() -> None:
        await conn.send(message)
        conn.shutdown_write()

    session = by_hand.spawn(sender())
    rounds(by_hand)
    assert not session.done
    assert not conn.writable
    assert conn.send_nowait(b"more") == 0
    got = bytearray()
    while True:
        try:
            data = peer.recv(100_000)
        except BlockingIOError:
            rounds(by_hand)
            continue
        if not data:
            break
        got += data
    assert got == message
    assert session.done


def test_a_short_write_says_that_no_more_goes(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    peer, conn = pair()
    message = bytes(2_000_000)
    assert 0 < conn.send_nowait(message) < len(message)
    assert not conn.writable
    while peer.recv(1_000_000, socket.MSG_DONTWAIT | socket.MSG_PEEK):
        peer.recv(1_000_000)
        by_hand._round()
        if conn.writable:
            break
    assert conn.send_nowait(b"more") == 4


def test_what_the_kernel_takes_at_once_needs_no_turn(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    peer, conn = pair()
    with pytest.raises(StopIteration):
        conn.send(b"all of it").send(None)
    assert peer.recv(100) == b"all of it"
    assert conn.send_nowait(memoryview(b"abc")) == 3


def test_half_close_leaves_the_other_direction(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    peer, conn = pair()

    async def session() -> None:
        got = bytearray()
        while data := await conn.recv():
            got += data
        await conn.send(bytes(reversed(got)))
        conn.shutdown_write()
        conn.shutdown_write()

    by_hand.spawn(session())
    peer.send(b"abc")
    peer.shutdown(socket.SHUT_WR)
    rounds(by_hand)
    assert peer.recv(100) == b"cba"
    assert peer.recv(100) == b""


# -- errors


def test_a_reset_is_seen_as_an_oserror_by_who_reads(by_hand: Lane, tcp_pair: Callable[[], Pair]) -> None:
    peer, conn = tcp_pair()
    seen: list[type] = []

    async def reader() -> None:
        try:
            while await conn.recv():
                pass
        except OSError as error:
            seen.append(type(error))
        conn.close()

    by_hand.spawn(reader())
    rounds(by_hand)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    rounds(by_hand)
    assert seen == [ConnectionResetError]


def test_a_reset_is_seen_as_an_oserror_by_who_writes(by_hand: Lane, tcp_pair: Callable[[], Pair]) -> None:
    peer, conn = tcp_pair()
    seen: list[type] = []

    async def sender() -> None:
        try:
            while True:
                await conn.send(b"x" * READ_SIZE)
        except OSError as error:
            seen.append(type(error))
        conn.shutdown_write()  # one that is gone is none the worse
        conn.close()

    by_hand.spawn(sender())
    rounds(by_hand)
    assert not seen
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    rounds(by_hand)
    assert len(seen) == 1
    assert issubclass(seen[0], OSError)


# -- giving it up


def test_close_sends_the_end_of_the_stream_and_twice_is_once(by_hand: Lane, tcp_pair: Callable[[], Pair]) -> None:
    peer, conn = tcp_pair()
    conn.close()
    conn.close()
    conn.abort()
    by_hand._close_all()
    assert peer.recv(10) == b""
    assert conn.fd == -1
    assert not by_hand.conns


def test_abort_sends_a_reset_and_twice_is_once(by_hand: Lane, tcp_pair: Callable[[], Pair]) -> None:
    peer, conn = tcp_pair()
    conn.abort()
    conn.abort()
    conn.close()
    by_hand._close_all()
    with pytest.raises(ConnectionResetError):
        peer.recv(10)


def test_closing_wakes_who_waits_for_it_with_an_oserror(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    _peer, conn = pair()
    _other_peer, other = pair()
    seen: list[str] = []

    async def reader() -> None:
        try:
            await conn.recv()
        except OSError as error:
            seen.append(f"reader: {error.strerror}")

    async def sender() -> None:
        try:
            while True:
                await other.send(b"x" * READ_SIZE)
        except OSError as error:
            seen.append(f"sender: {error.strerror}")

    by_hand.spawn(reader())
    by_hand.spawn(sender())
    rounds(by_hand)
    conn.close()
    other.close()
    rounds(by_hand)
    assert seen == ["reader: Bad file descriptor", "sender: Bad file descriptor"]


def test_waiting_for_a_closed_one_fails_at_once(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    _peer, conn = pair()
    conn.close()
    seen: list[str] = []

    async def user() -> None:
        for use in (conn.recv, lambda: conn.send(b"x")):
            try:
                await use()
            except OSError as error:
                seen.append(str(error.strerror))

    by_hand.spawn(user())
    rounds(by_hand)
    assert seen == ["Bad file descriptor"] * 2
    assert conn.recv_nowait() is None
    assert conn.send_nowait(b"x") == 0


def test_release_hands_the_socket_over_with_all_that_is_in_it(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    peer, conn = pair()
    rounds(by_hand)
    peer.send(b"unread")
    sock = conn.release()
    conn.close()
    assert not by_hand.conns
    rounds(by_hand)
    assert sock.recv(100) == b"unread"
    other = Lane()
    try:
        again = other.adopt(sock)
        peer.send(b"for the next")
        assert not by_hand._round()
        assert other._round()
        assert again.recv_nowait() == b"for the next"
        again.close()
    finally:
        other.close()
    assert peer.recv(10) == b""


def test_releasing_twice_or_after_closing_is_an_error(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    _peer, conn = pair()
    conn.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        conn.release()


# -- who owns it


def test_an_idle_connection_calls_back_and_a_session_takes_it_again(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    peer, conn = pair()
    happened: list[Conn] = []
    got: list[bytes] = []

    async def user() -> None:
        conn.attach()
        while data := await conn.recv():
            got.append(data)

    rounds(by_hand)
    conn.idle(happened.append)
    assert happened == []
    peer.send(b"unasked")
    rounds(by_hand)
    assert happened == [conn]
    by_hand.spawn(user())
    rounds(by_hand)
    peer.send(b"asked")
    rounds(by_hand)
    assert happened == [conn]
    assert got == [b"unasked", b"asked"]
    conn.idle(happened.append)
    peer.close()
    rounds(by_hand)
    assert happened == [conn, conn]
    conn.close()


def test_an_idle_callback_that_fails_is_reported(by_hand: Lane, pair: Callable[[], Pair], crashes: list[Any]) -> None:
    peer, conn = pair()
    rounds(by_hand)

    def fail(_conn: Conn) -> None:
        raise KeyError("callback")

    conn.idle(fail)
    peer.send(b"x")
    rounds(by_hand)
    assert [(session, type(error)) for session, error in crashes] == [(None, KeyError)]
    crashes.clear()
    conn.close()


def test_a_connection_adopted_outside_of_a_session_belongs_to_nobody(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    """Else its events would wake whoever ran last."""
    peer, conn = pair()
    adopted: list[Conn] = []
    turns = 0
    other_peer, other = socket.socketpair()

    async def last_to_run() -> None:
        nonlocal turns
        while True:
            turns += 1
            await conn.recv()

    def adopt(_idle: Conn) -> None:
        adopted.append(by_hand.adopt(other))

    third_peer, third = pair()
    by_hand.spawn(last_to_run())
    rounds(by_hand)
    third.idle(adopt)
    third_peer.send(b"x")
    peer.send(b"y")
    rounds(by_hand)
    assert adopted[0].waiter is None
    third.idle(Conn.close)
    before = turns
    other_peer.send(b"z")
    rounds(by_hand)
    assert turns == before
    adopted[0].close()
    other_peer.close()


def test_wait_any_returns_when_something_happens_to_one(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    (peer, conn), (other_peer, other) = pair(), pair()
    got: list[bytes | None] = []

    async def session() -> None:
        while len(got) < 4:
            data = conn.recv_nowait(), other.recv_nowait()
            got.extend(one for one in data if one is not None)
            await wait_any(conn, other)

    by_hand.spawn(session())
    for sender, text in ((peer, b"1"), (other_peer, b"2"), (peer, b"3")):
        rounds(by_hand)
        sender.send(text)
    rounds(by_hand)
    peer.close()
    rounds(by_hand)
    assert got == [b"1", b"2", b"3", b""]


# -- descriptors


def busy_batch(lane: Lane, pair: Callable[[], Pair], reuse: Callable[[Conn, list[Conn]], None]) -> list[Conn]:
    """Two connections become ready in one batch; the session of the first gives up the second by `reuse`, which may
    take its descriptor's number again."""
    (first_peer, first), (second_peer, second) = pair(), pair()
    made: list[Conn] = []

    async def session() -> None:
        await first.recv()
        reuse(second, made)
        first.close()

    async def other() -> None:
        await second.recv()

    lane.spawn(session())
    lane.spawn(other())
    rounds(lane)
    first_peer.send(b"x")
    second_peer.send(b"y")
    lane._round()
    assert made
    return made


def test_a_number_closed_in_a_batch_is_not_used_again_in_it(by_hand: Lane, pair: Callable[[], Pair]) -> None:
    peers: list[socket.socket] = []

    def reuse(gone: Conn, made: list[Conn]) -> None:
        number = gone.fd
        gone.close()
        peer, ours = socket.socketpair()
        assert number not in (peer.fileno(), ours.fileno())
        peers.append(peer)
        conn = by_hand.adopt(ours)
        conn.readable = False
        made.append(conn)

    (conn,) = busy_batch(by_hand, pair, reuse)
    assert not conn.readable
    conn.close()
    peers[0].close()


def test_a_number_released_in_a_batch_is_not_used_again_in_it(by_hand: Lane, pair: Callable[[], Pair]) -> None:

    def reuse(gone: Conn, made: list[Conn]) -> None:
        gone.release().close()
        for sock in [one for _ in range(3) for one in socket.socketpair()]:
            conn = by_hand.adopt(sock)
            conn.readable = False
            made.append(conn)

    made = busy_batch(by_hand, pair, reuse)
    assert not any(conn.readable for conn in made)
    for conn in made:
        conn.close()


# -- connecting


def test_connect_reaches_a_server_from_a_socket_that_was_prepared(on_lane: Any) -> None:
    async def main(lane: Lane) -> None:
        got: list[bytes] = []
        with socket.create_server(("127.0.0.1", 0)) as server:

            async def client() -> None:
                conn = await lane.connect(
                    socket.AF_INET, server.getsockname(), lambda sock: sock.bind(("127.0.0.2", 0))
                )
                assert not conn.readable  # what comes will make an event
                await conn.send(b"ping")
                got.append(await conn.recv())
                conn.close()

            session = lane.spawn(client())
            await trio.lowlevel.wait_readable(server)
            peer, address = server.accept()
            assert address[0] == "127.0.0.2"
            with trio.socket.from_stdlib_socket(peer) as ours:
                assert await ours.recv(10) == b"ping"
                await ours.send(b"pong")
                while not session.done:
                    await trio.lowlevel.checkpoint()
        assert got == [b"pong"]

    on_lane(main)


def test_connect_refused_is_an_oserror_and_leaves_no_descriptor(on_lane: Any, until: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    seen: list[type] = []

    async def client(lane: Lane, family: int, address: Any, prepare: Any = None) -> None:
        try:
            await lane.connect(family, address, prepare)
        except OSError as error:
            seen.append(type(error))

    async def main(lane: Lane) -> None:
        lane.spawn(client(lane, socket.AF_INET, address))
        lane.spawn(client(lane, socket.AF_UNIX, "/nonexistent/socket"))
        lane.spawn(client(lane, socket.AF_INET, address, lambda sock: sock.bind(("192.0.2.1", 0))))
        await until(lambda: not lane.sessions)

    on_lane(main)
    assert sorted(one.__name__ for one in seen) == ["ConnectionRefusedError", "FileNotFoundError", "OSError"]


def test_connect_past_its_deadline_leaves_no_descriptor(on_lane: Any, until: Any) -> None:
    seen: list[str] = []

    async def main(lane: Lane) -> None:
        # A full accept queue: the kernel drops what comes.
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(server.getsockname())

            async def client() -> None:
                lane.current.expire_in(0.05)
                try:
                    await lane.connect(socket.AF_INET, server.getsockname())
                finally:
                    seen.append("ended")

            lane.spawn(client())
            await until(lambda: seen)
            for filler in fillers:
                filler.close()

    on_lane(main)
    assert seen == ["ended"]
