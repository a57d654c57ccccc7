"""The engine on real sockets: accepting, fairness, shared listeners, full descriptor tables, and that nothing leaks."""

from __future__ import annotations

import errno
import gc
import os
import random
import resource
import select
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from supervisor.ground.lane import READ_SIZE, Cancelled, Conn, Event, Lane, wait_any
from supervisor.ground.lane.epoll import ACCEPTS_A_ROUND, REST_SECONDS, ROUNDS_A_VISIT
from supervisor.ground.lane.sessions import TURN_READS
from tests.leftovers import open_files

Until = Callable[..., Awaitable[None]]


def listener(backlog: int = 1024) -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=backlog)


def dial(server: socket.socket) -> socket.socket:
    return socket.create_connection(server.getsockname(), timeout=10)


async def echo(lane: Lane, sock: socket.socket) -> None:
    conn = lane.adopt(sock)
    try:
        while data := await conn.recv():
            await conn.send(data)
        conn.shutdown_write()
    finally:
        conn.close()


async def ask(sock: socket.socket, data: bytes) -> bytes:
    """Send `data` from a client and read as many bytes back."""
    sock.setblocking(False)
    client = trio.socket.from_stdlib_socket(sock)
    got = b""
    await client.send(data)
    while len(got) < len(data):
        more = await client.recv(READ_SIZE)
        assert more
        got += more
    return got


# -- accepting


def test_accepted_connections_are_served(on_lane: Any) -> None:
    async def main(lane: Lane) -> None:
        with listener() as server:
            listening = lane.listen(server, lambda sock, _: echo(lane, sock))
            clients = [dial(server) for _ in range(50)]
            for number, client in enumerate(clients):
                text = f"hello {number}".encode()
                assert await ask(client, text) == text
            for client in clients:
                client.close()
            listening.close()

    on_lane(main)


def test_the_callback_gets_the_address_and_may_refuse(by_hand: Lane) -> None:
    seen: list[Any] = []

    def refuse(sock: socket.socket, address: Any) -> None:
        seen.append(address)
        sock.close()

    with listener() as server:
        listening = by_hand.listen(server, refuse)
        client = dial(server)
        by_hand._round()
        assert seen == [client.getsockname()]
        assert client.recv(10) == b""
        assert not by_hand.sessions
        client.close()
        listening.close()


def test_a_callback_that_fails_is_reported_and_costs_that_connection_alone(by_hand: Lane, crashes: list[Any]) -> None:
    accepted = 0

    def fails_first(sock: socket.socket, _address: Any) -> Any:
        nonlocal accepted
        accepted += 1
        if accepted == 1:
            raise KeyError("accept")
        return echo(by_hand, sock)

    with listener() as server:
        listening = by_hand.listen(server, fails_first)
        clients = [dial(server) for _ in range(3)]
        for _ in range(4):
            by_hand._round()
        assert [(session, type(error)) for session, error in crashes] == [(None, KeyError)]
        crashes.clear()
        assert len(by_hand.conns) == 2
        assert clients[0].recv(10) == b""
        for client in clients:
            client.close()
        while by_hand.sessions:
            by_hand._round()
        listening.close()


def test_a_storm_of_connections_leaves_turns_for_those_already_here(by_hand: Lane) -> None:
    accepts: list[int] = []

    def count(sock: socket.socket, _address: Any) -> None:
        accepts[-1] += 1
        sock.close()

    async def quiet() -> None:
        while True:
            accepts.append(0)
            await by_hand.pause()

    with listener() as server:
        by_hand.spawn(quiet())
        by_hand._round()
        listening = by_hand.listen(server, count)
        clients = [dial(server) for _ in range(100)]
        while sum(accepts) < 100:
            by_hand._round()
        assert max(accepts) == ACCEPTS_A_ROUND
        for client in clients:
            client.close()
        listening.close()


def test_what_is_put_off_is_done_at_the_end_of_the_round(by_hand: Lane) -> None:
    said: list[str] = []

    async def first() -> None:
        by_hand.at_round_end.append(lambda: said.append("end"))

    async def second() -> None:
        said.append("second")

    by_hand.spawn(first())
    by_hand.spawn(second())
    by_hand._round()
    assert said == ["second", "end"]


def test_closing_a_listening_leaves_the_socket_and_polls_no_more(by_hand: Lane) -> None:
    with listener() as server:
        listening = by_hand.listen(server, lambda sock, _: echo(by_hand, sock))
        listening.close()
        listening.close()
        client = dial(server)
        assert not by_hand._round()
        other = Lane()
        again = other.listen(server, lambda sock, _: echo(other, sock))
        assert other._round()
        assert len(other.conns) == 1
        again.close()
        other.end_all()
        other.close()
        client.close()


def test_a_datagram_socket_is_polled_level_triggered(by_hand: Lane) -> None:
    got: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        watching = by_hand.watch(server, lambda: got.append(server.recv(100)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for text in (b"one", b"two"):
                client.sendto(text, server.getsockname())
        by_hand._round()
        assert got == [b"one"]
        by_hand._round()
        assert got == [b"one", b"two"]
        assert not by_hand._round()
        watching.close()


def test_a_listener_shared_by_two_epolls_serves_each_connection_once(on_lane: Any, until: Until) -> None:
    served = {1: 0, 2: 0}

    def counting(lane: Lane, number: int) -> Any:
        def accepted(sock: socket.socket, _address: Any) -> Any:
            served[number] += 1
            return echo(lane, sock)

        return accepted

    async def main(lane: Lane) -> None:
        other = Lane()
        with listener() as server:
            async with trio.open_nursery() as nursery:
                await nursery.start(other.run)
                first = lane.listen(server, counting(lane, 1))
                second = other.listen(server, counting(other, 2))
                clients = [dial(server) for _ in range(60)]
                for client in clients:
                    assert await ask(client, b"hello") == b"hello"
                assert served[1] + served[2] == 60
                # The one that gives it up is not woken by it any more; the other serves all.
                first.close()
                late = [dial(server) for _ in range(20)]
                for client in late:
                    assert await ask(client, b"hello") == b"hello"
                assert served[1] + served[2] == 80
                for client in clients + late:
                    client.close()
                await until(lambda: not lane.sessions and not other.sessions)
                assert not lane.epoll.poll(0)
                second.close()
                nursery.cancel_scope.cancel()
        other.close()

    on_lane(main)


# -- when descriptors run out


def fill_up() -> int:
    """Take every descriptor that is left; the last one taken."""
    last = -1
    while True:
        try:
            last = os.dup(0)
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            return last


def test_without_descriptors_accepting_pauses_is_counted_and_resumes(forked: Any, until: Until) -> None:
    def child() -> None:
        async def main() -> None:
            lane = Lane()
            server = listener()
            async with trio.open_nursery() as nursery:
                await nursery.start(lane.run)
                lane.listen(server, lambda sock, _: echo(lane, sock))
                first = dial(server)
                assert await ask(first, b"first") == b"first"
                waiting = [dial(server) for _ in range(4)]
                # No number is left for what is accepted now; those who wait in the queue are not cut.
                soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                highest = max(map(int, os.listdir("/proc/self/fd")))
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 3, hard))
                os.close(fill_up())
                late = dial(server)
                await until(lambda: lane.accept_paused >= 1)
                polls = lane.accept_paused
                assert await ask(first, b"still served") == b"still served"
                assert lane.accept_paused - polls <= 3  # it rests, it doesn't spin
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for client in [*waiting, late]:
                    assert await ask(client, b"late") == b"late"
                nursery.cancel_scope.cancel()
            lane.close()

        trio.run(main)

    forked(child)


class Broken:
    """A listening socket whose `accept` fails as it is told."""

    def __init__(self, sock: socket.socket, error: int) -> None:
        self.sock = sock
        self.family, self.type, self.proto, self.setsockopt = sock.family, sock.type, sock.proto, sock.setsockopt
        self.error = error
        self.tries = 0

    def _accept(self) -> Any:
        self.tries += 1
        raise OSError(self.error, os.strerror(self.error))

    def fileno(self) -> int:
        return self.sock.fileno()

    def setblocking(self, flag: bool) -> None:
        self.sock.setblocking(flag)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EINVAL])
def test_a_listener_that_fails_rests_instead_of_spinning(by_hand: Lane, error: int) -> None:
    with listener() as server:
        broken: Any = Broken(server, error)
        listening = by_hand.listen(broken, lambda sock, _: None)
        client = dial(server)
        while not listening.paused:
            assert by_hand._round()
        tries = broken.tries
        assert not by_hand._round()
        assert broken.tries == tries
        assert by_hand.accept_paused == (0 if error == errno.EINVAL else 1)
        by_hand.now += REST_SECONDS
        by_hand._resume_listening()
        by_hand._round()
        assert broken.tries > tries
        listening.close()
        client.close()


def test_connections_aborted_in_the_queue_do_not_hold_up_the_others(by_hand: Lane) -> None:
    with listener() as server:

        class Aborting(Broken):
            def _accept(self) -> Any:
                self.tries += 1
                if self.tries < 5:
                    raise OSError(self.error, os.strerror(self.error))
                return self.sock._accept()  # type: ignore[attr-defined]

        listening = by_hand.listen(Aborting(server, errno.ECONNABORTED), lambda sock, _: echo(by_hand, sock))  # type: ignore[arg-type]
        client = dial(server)
        while not by_hand.conns:
            assert by_hand._round()
        assert len(by_hand.conns) == 1
        assert not listening.paused
        client.close()
        while by_hand.sessions:
            by_hand._round()
        listening.close()


def test_listeners_rest_each_for_its_own_time(by_hand: Lane) -> None:
    with listener() as one, listener() as two, listener() as three:
        long, short, gone = (by_hand.listen(sock, lambda sock, _: None) for sock in (one, two, three))
        long.rest(10)
        short.rest(0.1)
        short.rest(60)
        gone.rest(0.1)
        gone.close()
        by_hand.now += 0.2
        by_hand._resume_listening()
        assert (long.paused, short.paused) == (True, False)
        long.close()
        short.close()


# -- fairness


def saturated() -> tuple[socket.socket, socket.socket]:
    """A peer that is never out of data: whoever reads fills it up again by `top_up`."""
    peer, ours = socket.socketpair()
    peer.setblocking(False)
    return peer, ours


def top_up(peer: socket.socket) -> None:
    try:
        while peer.send(b"x" * READ_SIZE):
            pass
    except BlockingIOError:
        pass


def test_a_saturating_connection_takes_one_budget_between_the_turns_of_a_quiet_one(by_hand: Lane) -> None:
    peer, ours = saturated()
    quiet_peer, quiet_ours = socket.socketpair()
    between: list[int] = [0]

    async def saturating() -> None:
        conn = by_hand.adopt(ours)
        while True:
            top_up(peer)
            await conn.recv()
            between[-1] += 1

    async def quiet() -> None:
        conn = by_hand.adopt(quiet_ours)
        while await conn.recv():
            between.append(0)

    by_hand.spawn(saturating())
    by_hand.spawn(quiet())
    for _ in range(30):
        quiet_peer.send(b"?")
        by_hand._round()
    assert len(between) >= 30
    assert 0 < max(between) <= 2 * (TURN_READS + 1)
    by_hand.end_all()
    for conn in list(by_hand.conns.values()):
        conn.close()
    peer.close()
    quiet_peer.close()


def test_trio_has_its_turn_after_a_bounded_number_of_rounds(on_lane: Any) -> None:
    rounds = 0
    between: list[int] = []

    async def main(lane: Lane) -> None:
        async def busy() -> None:
            nonlocal rounds
            while True:
                rounds += 1  # a session that pauses has one turn a round
                await lane.pause()

        lane.spawn(busy())
        before = 0
        for _ in range(50):
            await trio.lowlevel.checkpoint()
            between.append(rounds - before)
            before = rounds

    on_lane(main)
    assert max(between) <= 2 * ROUNDS_A_VISIT  # trio shuffles: the lane may come last in one batch, first in the next
    assert rounds > 100


@pytest.mark.parametrize("busy", [True, False])
def test_a_lull_follows_every_event_soon(on_lane: Any, busy: bool) -> None:
    """Where there is always another event, and where there is none."""
    lull = trio.Event()

    async def main(lane: Lane) -> None:
        async def one() -> None:
            while busy and not lull.is_set():
                await lane.pause()

        lane.lulls.append(lambda quiet: lull.set() if quiet is not busy else None)
        lane.spawn(one())
        with trio.fail_after(10):
            await lull.wait()

    on_lane(main)


def test_many_ready_at_once_are_all_served_in_rounds(by_hand: Lane) -> None:
    """More than one batch of events."""
    pairs = [socket.socketpair() for _ in range(600)]
    served: set[int] = set()

    async def once(number: int, conn: Conn) -> None:
        await conn.recv()
        served.add(number)
        conn.close()

    for number, (_, ours) in enumerate(pairs):
        by_hand.spawn(once(number, by_hand.adopt(ours)))
    while by_hand._round():
        pass
    assert not served
    for peer, _ in pairs:
        peer.send(b"x")
    rounds = 0
    while by_hand._round():
        rounds += 1
    assert len(served) == 600
    assert rounds <= 4
    for peer, _ in pairs:
        peer.close()


def blast(address: Any) -> None:
    """Send as fast as it is taken, from a process of its own, and read what comes back."""
    sock = socket.create_connection(address)
    sock.setblocking(False)
    data = b"x" * READ_SIZE
    while True:
        readable, writable, _ = select.select([sock], [sock], [])
        try:
            if readable and not sock.recv(READ_SIZE):
                return
            if writable:
                sock.send(data)
        except BlockingIOError:
            pass


def test_a_quiet_connection_is_answered_soon_beside_saturating_ones(on_lane: Any) -> None:
    """By the clock: a bound that a scheduler which starves somebody misses by far, and a busy machine does not."""
    times: list[float] = []
    children: list[int] = []

    async def main(lane: Lane) -> None:
        with listener() as server:
            listening = lane.listen(server, lambda sock, _: echo(lane, sock))
            for _ in range(2):
                child = os.fork()
                if child == 0:
                    try:
                        blast(server.getsockname())
                    finally:
                        os._exit(0)
                children.append(child)
            with dial(server) as client:
                while len(lane.conns) < 3:
                    assert await ask(client, b"?") == b"?"
                for _ in range(200):
                    begun = time.perf_counter()
                    assert await ask(client, b"?") == b"?"
                    times.append(time.perf_counter() - begun)
            for child in children:
                os.kill(child, signal.SIGKILL)
            listening.close()

    on_lane(main)
    for child in children:
        os.waitpid(child, 0)
    assert sorted(times)[int(len(times) * 0.99)] < 0.5


# -- time


def test_deadlines_rests_and_timers_keep_the_real_clock(on_lane: Any, until: Until) -> None:
    took: dict[str, float] = {}
    calls: list[float] = []

    async def main(lane: Lane) -> None:
        stop = lane.every(0.1, lambda: calls.append(lane.now))

        async def late() -> None:
            lane.current.expire_in(0.2)
            begun = time.monotonic()
            try:
                await Event(lane).wait()
            finally:
                took["deadline"] = time.monotonic() - begun

        async def rest() -> None:
            begun = time.monotonic()
            await lane.sleep(0.2)
            took["sleep"] = time.monotonic() - begun

        lane.spawn(late())
        lane.spawn(rest())
        await until(lambda: len(took) == 2)
        stop()
        assert abs(lane.now - time.monotonic()) < 5
        assert abs(lane.wall - time.time()) < 5
        assert abs(lane.now_ns / 1e9 - lane.now) < 1e-3

    on_lane(main)
    assert took["deadline"] >= 0.19
    assert took["sleep"] >= 0.19
    assert calls


def test_a_timer_that_fails_does_not_end_the_lane(on_lane: Any, until: Until, crashes: list[Any]) -> None:
    async def main(lane: Lane) -> None:
        def fail() -> None:
            raise KeyError("timer")

        stop = lane.every(0.01, fail)
        await until(lambda: len(crashes) >= 2)
        stop()
        client, ours = socket.socketpair()
        lane.spawn(echo(lane, ours))
        assert await ask(client, b"alive") == b"alive"
        client.close()
        await until(lambda: not lane.sessions)
        crashes.clear()

    on_lane(main)


def test_a_session_woken_from_another_task_runs_at_once(on_lane: Any, until: Until) -> None:
    """The lane sleeps in trio meanwhile."""
    said: list[str] = []

    async def main(lane: Lane) -> None:
        event = Event(lane)

        async def session() -> None:
            await event.wait()
            said.append("woken")

        lane.spawn(session())
        await until(lambda: event.waiting and lane._asleep)
        event.set()
        with trio.fail_after(5):
            while not said:
                await trio.lowlevel.checkpoint()

    on_lane(main)


# -- the end


def test_a_crash_in_a_session_is_reported_and_harms_no_other(on_lane: Any, until: Until, crashes: list[Any]) -> None:
    async def main(lane: Lane) -> None:
        async def crash(sock: socket.socket) -> None:
            conn = lane.adopt(sock)
            try:
                await conn.recv()
                raise KeyError("session")
            finally:
                conn.close()

        (bad, theirs), (good, ours) = socket.socketpair(), socket.socketpair()
        lane.spawn(crash(theirs), "bad one")
        lane.spawn(echo(lane, ours))
        assert await ask(good, b"before") == b"before"
        bad.send(b"x")
        await until(lambda: crashes)
        assert await ask(good, b"after") == b"after"
        assert [(session.name, type(error)) for session, error in crashes] == [("bad one", KeyError)]
        crashes.clear()
        assert bad.recv(10) == b""
        bad.close()
        good.close()
        await until(lambda: not lane.sessions)

    on_lane(main)


def test_shutting_down_runs_every_finally_and_leaves_no_descriptor(on_lane: Any, until: Until) -> None:
    ended: list[str] = []

    async def main(lane: Lane) -> None:
        peers: list[socket.socket] = []
        server = listener()
        lane.listen(server, lambda sock, _: echo(lane, sock))

        async def reading() -> None:
            peer, ours = socket.socketpair()
            peers.append(peer)
            conn = lane.adopt(ours)
            try:
                await conn.recv()
            finally:
                conn.close()
                ended.append("reading")

        async def writing() -> None:
            peer, ours = socket.socketpair()
            peers.append(peer)
            conn = lane.adopt(ours)
            try:
                while True:
                    await conn.send(b"x" * READ_SIZE)
            finally:
                conn.abort()
                ended.append("writing")

        async def connecting() -> None:
            try:
                conn = await lane.connect(socket.AF_INET, server.getsockname())
                await conn.recv()
                conn.close()
            finally:
                ended.append("connecting")

        async def waiting() -> None:
            try:
                await Event(lane).wait()
            except Cancelled:
                ended.append("waiting")
                raise

        async def sleeping() -> None:
            try:
                await lane.sleep(60)
            finally:
                ended.append("sleeping")

        async def offloading() -> None:
            try:
                await lane.offload(trio.sleep_forever)
            finally:
                ended.append("offloading")

        async def scoped() -> None:
            try:
                async with lane.scope() as scope:
                    scope.spawn(reading())
                    scope.spawn(waiting())
            finally:
                ended.append("scoped")

        for kind in (reading, writing, connecting, waiting, sleeping, offloading, scoped):
            for _ in range(5):
                lane.spawn(kind())
        await until(lambda: len(peers) == 15 and len(lane.sessions) >= 45)
        for peer in peers:
            peer.close()
        server.close()

    lane = on_lane(main)
    assert not lane.conns
    counts = {kind: ended.count(kind) for kind in set(ended)}
    assert counts == {
        "reading": 10, "writing": 5, "connecting": 5, "waiting": 10, "sleeping": 5, "offloading": 5, "scoped": 5,
    }  # fmt: skip


def test_a_session_spawned_as_the_lane_ends_closes_what_it_was_given(on_lane: Any) -> None:
    async def main(lane: Lane) -> None:
        peer, ours = socket.socketpair()
        lane.spawn(echo(lane, ours))
        peer.close()

    on_lane(main)


def test_what_no_session_owns_is_closed_with_the_lane(on_lane: Any) -> None:
    async def main(lane: Lane) -> None:
        peer, ours = socket.socketpair()
        lane.adopt(ours).idle(lambda conn: None)
        peer.close()

    before = open_files()
    on_lane(main)
    assert open_files() <= before


def attack(server: socket.socket, dice: random.Random) -> socket.socket:
    """A client that may say something, may end its side, and then leaves in one of several ways."""
    client = dial(server)
    client.setblocking(False)
    try:
        for _ in range(dice.randrange(3)):
            client.send(bytes(dice.randrange(1, 5000)))
        if dice.random() < 0.3:
            client.shutdown(socket.SHUT_WR)
        if dice.random() < 0.4:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if dice.random() < 0.3:
            client.recv(100)
    except OSError:
        pass
    return client


@pytest.mark.soak
def test_connections_killed_at_random_points_leave_everything_where_it_was(on_lane: Any, until: Until) -> None:
    count = 100_000 if os.environ.get("PORTWAY_LONG") else 2_000
    dice = random.Random(20)
    in_flight = 0
    ended = 0

    async def main(lane: Lane) -> None:
        async def serve(sock: socket.socket) -> None:
            """Each connection is relayed to another one; what comes back is read by a child session."""
            nonlocal in_flight, ended
            in_flight += 1
            client = lane.adopt(sock)
            upstream: Conn | None = None
            try:
                if dice.random() < 0.3:
                    lane.current.expire_in(dice.random() * 0.3)
                if dice.random() < 0.2:
                    await lane.pause()
                upstream = await lane.connect(socket.AF_INET, backend.getsockname())
                event = Event(lane)
                async with lane.scope() as scope:
                    scope.spawn(wait(event))
                    await relay(client, upstream)
                    event.set()
            finally:
                client.close()
                if upstream is not None:
                    upstream.close()
                in_flight -= 1
                ended += 1

        async def wait(event: Event) -> None:
            await event.wait()

        async def relay(client: Conn, upstream: Conn) -> None:
            asking = answering = True
            while answering:
                moved = False
                for source, target, going in ((client, upstream, asking), (upstream, client, answering)):
                    data = source.recv_nowait() if going else None
                    if data:
                        await target.send(data)
                        moved = True
                    elif data is not None:
                        target.shutdown_write()
                        asking = asking and source is not client
                        answering = answering and source is not upstream
                        moved = True
                if not moved:
                    await wait_any(client, upstream)

        backend, front = listener(), listener()
        polled = [
            lane.listen(backend, lambda sock, _: echo(lane, sock)),
            lane.listen(front, lambda sock, _: serve(sock)),
        ]
        before: tuple[int, int, int] | None = None
        clients: list[socket.socket] = []
        for number in range(count):
            clients.append(attack(front, dice))
            if len(clients) > 50:
                clients.pop(dice.randrange(50)).close()
            if dice.random() < 0.05 and lane.sessions:
                dice.choice(list(lane.sessions)).cancel()
            await trio.lowlevel.checkpoint()
            if number == count // 4:  # once everything has been used
                for client in clients:
                    client.close()
                clients.clear()
                await until(lambda: not lane.sessions)
                gc.collect()
                before = open_files(), len(lane.conns), len(gc.get_objects())
        for client in clients:
            client.close()
        await until(lambda: not lane.sessions)
        assert in_flight == 0
        assert ended > count // 2
        gc.collect()
        assert before is not None
        assert (open_files(), len(lane.conns)) == before[:2]
        assert len(gc.get_objects()) - before[2] < 500
        assert not lane.soon
        assert not lane._sleeping
        for one in polled:
            one.close()
        backend.close()
        front.close()

    on_lane(main)
