"""Load of every kind at once: threads that ask, check each answer, and keep count. It goes on until its block ends.

A wrong answer is always a failure. What breaks off (a connection that was lost, an answer that did not come) is noted
as lost: whoever kills processes meanwhile expects that, whoever reloads does not. `slowest` is the longest that one
step took, in seconds.
"""

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import attrs
import psycopg

from tests.system.support.clients import Response, connect
from tests.system.support.poll import until
from tests.system.support.site import Site

PACE = 0.002  # s between the steps of one thread: a load that leaves the two cores some time for the daemon
DATAGRAM_TIMEOUT = 1.0  # s until a datagram may be lost, with the worker that had read it, and is asked after
TIMEOUT = 20.0  # s for anything else

# What a client sees of a connection that was cut. A certificate that is not trusted is no such thing.
LOSSES = (OSError, http.client.HTTPException, psycopg.OperationalError)

Step = Callable[[int], object]
Kind = Callable[[Site], AbstractContextManager[Step]]


class Again(Exception):
    """The connection has served its time, by agreement: open another."""


class Missed(Exception):
    """No answer came, which ends nothing: the same client asks again."""


class Unserved(OSError):
    """The gateway says that it had no answer from a server."""


def served(answer: Response) -> None:
    """It is a 200."""
    if answer.status in (502, 503, 504):
        raise Unserved(answer.status, answer.body[:300].decode())
    assert answer.status == 200, (answer.status, answer.headers, answer.body[:300])


def judge(answer: Response, number: int, user: str) -> None:
    """The answer to this request, for this user, from the echoing backend."""
    served(answer)
    told = answer.json()
    assert told["target"] == f"/api/user/{number}", told
    assert answer.seen("x-user-id") == [user], told
    assert answer.seen("x-request-id") == [answer.headers["x-request-id"]], told


@contextmanager
def kept_requests(site: Site) -> Iterator[Step]:
    """HTTPS on a connection that is kept."""
    user, turn = f"user-{threading.get_ident()}", iter(range(1 << 30))
    with site.browser() as browser:

        def step(number: int) -> None:
            who = f"{user}-{next(turn) % 3}"
            answer = browser.get(f"/api/user/{number}", site.bearer(who))
            judge(answer, number, who)
            if answer.headers.get("connection") == "close":
                raise Again

        yield step


@contextmanager
def fresh_requests(site: Site) -> Iterator[Step]:
    """HTTPS on a new connection for each request."""
    user = f"fresh-{threading.get_ident()}"

    def step(number: int) -> None:
        with site.browser() as browser:
            judge(browser.get(f"/api/user/{number}", site.bearer(user)), number, user)

    yield step


@contextmanager
def bodies(site: Site) -> Iterator[Step]:
    """Uploads, chunked or not, and downloads that do not fit into one read."""
    with site.browser() as browser:

        def step(number: int) -> None:
            body = b"%08d" % number * 8192
            sent = browser.request("POST", "/open/up", body=iter([body]) if number % 2 else body)
            served(sent)
            assert sent.json()["length"] == len(body)
            got = browser.get(f"/open/down?size=100000{'&chunked=1' if number % 2 else ''}")
            served(got)
            assert len(got.body) == 100000
            if "close" in (sent.headers.get("connection"), got.headers.get("connection")):
                raise Again

        yield step


@contextmanager
def transactions(site: Site) -> Iterator[Step]:
    """Transactions on a connection that is kept."""
    with site.sql() as connection:

        def step(number: int) -> None:
            with connection.transaction():
                connection.execute("SELECT set_config('application_name', %s, true)", (str(number),))
                row = connection.execute("SELECT %s::int, current_setting('application_name')", (number,)).fetchone()
                assert row == (number, str(number)), row

        yield step


@contextmanager
def fresh_logins(site: Site) -> Iterator[Step]:
    """A login and a query, with the md5 user."""

    def step(number: int) -> None:
        with site.sql("legacy") as connection:
            row = connection.execute("SELECT %s::int, current_user", (number,)).fetchone()
            assert row == (number, "legacy"), row

    yield step


@contextmanager
def datagrams(site: Site) -> Iterator[Step]:
    """One player."""
    with site.player(timeout=DATAGRAM_TIMEOUT) as player:

        def step(number: int) -> None:
            wanted, after = str(number), f"{number} again"
            end = time.monotonic() + TIMEOUT
            player.sock.send(wanted.encode())
            while True:
                try:
                    told = player.answer()["data"]
                except TimeoutError as error:
                    if time.monotonic() > end:
                        raise Missed from error
                    player.sock.send(after.encode())
                    continue
                if told == wanted:
                    return
                if told == after:
                    raise Missed  # nothing overtakes in a flow: what came before this is lost, not late
                assert int(told.split()[0]) < number, told  # late, of an earlier step

        yield step


@contextmanager
def streams(site: Site) -> Iterator[Step]:
    """An echo on a connection that is kept."""
    with connect(site.address("rtmp")) as sock:

        def step(number: int) -> None:
            line = b"%d\n" % number * 100
            sock.sendall(line)
            echoed = b""
            while len(echoed) < len(line):
                data = sock.recv(1 << 16)
                if not data:
                    raise ConnectionResetError("the end of the stream")
                echoed += data
            assert echoed == line

        yield step


KINDS: Mapping[str, Kind] = {
    "kept": kept_requests,
    "fresh": fresh_requests,
    "bodies": bodies,
    "sql": transactions,
    "logins": fresh_logins,
    "udp": datagrams,
    "stream": streams,
}


@attrs.define(eq=False)
class Tally:
    """What became of one thread's steps."""

    done: int = 0
    lost: int = 0
    losses: list[str] = attrs.Factory(list)
    wrong: list[str] = attrs.Factory(list)
    slowest: float = 0.0


@attrs.define(eq=False)
class Load:
    """A context manager: one thread of each kind, or as many as `threads` says."""

    site: Site
    kinds: Mapping[str, Kind] = attrs.field(default=KINDS)
    threads: int = 1
    pace: float = PACE
    tallies: dict[str, list[Tally]] = attrs.Factory(dict)
    _over: threading.Event = attrs.Factory(threading.Event)
    _running: list[threading.Thread] = attrs.Factory(list)

    def __enter__(self) -> "Load":
        for name, kind in self.kinds.items():
            self.tallies[name] = [Tally() for _ in range(self.threads)]
            for tally in self.tallies[name]:
                thread = threading.Thread(target=self._run, args=(kind, tally), name=name, daemon=True)
                self._running.append(thread)
                thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._running:
            thread.join(2 * TIMEOUT)
        stuck = [thread.name for thread in self._running if thread.is_alive()]
        assert not stuck, f"these never got an answer: {stuck}"

    def _run(self, kind: Kind, tally: Tally) -> None:
        number = 0
        while not self._over.is_set():
            try:
                with kind(self.site) as step:
                    while not self._over.is_set():
                        number += 1
                        began = time.monotonic()
                        try:
                            step(number)
                        except Again:
                            tally.done += 1
                            break
                        except Missed:
                            tally.lost += 1
                            tally.losses.append(f"{number}: no answer")
                            continue
                        finally:
                            tally.slowest = max(tally.slowest, time.monotonic() - began)
                        tally.done += 1
                        self._over.wait(self.pace)
            except LOSSES as error:
                tally.lost += 1
                tally.losses.append(f"{number}: {error!r}")
                self._over.wait(self.pace)
            except Exception as error:
                tally.wrong.append(f"{number}: {error!r}")
                return

    def done(self) -> dict[str, int]:
        """Steps done, by kind."""
        return {name: sum(tally.done for tally in tallies) for name, tallies in self.tallies.items()}

    def lost(self) -> dict[str, int]:
        """Steps lost, by kind."""
        return {name: sum(tally.lost for tally in tallies) for name, tallies in self.tallies.items()}

    def losses(self) -> list[str]:
        """The first of what was lost, in words."""
        return [f"{name} {loss}" for name, tallies in self.tallies.items() for one in tallies for loss in one.losses]

    def wrong(self) -> list[str]:
        """Answers that were wrong."""
        return [f"{name} {what}" for name, tallies in self.tallies.items() for one in tallies for what in one.wrong]

    def slowest(self) -> float:
        """The longest step of all."""
        return max(one.slowest for tallies in self.tallies.values() for one in tallies)

    def progress(self, steps: int = 1, seconds: float = 20.0) -> None:
        """Wait until every kind has done that many more steps; a wrong answer ends it at once."""
        before = self.done()

        def further() -> bool:
            assert not self.wrong(), self.wrong()
            now = self.done()
            return all(now[name] >= before[name] + steps for name in before)

        try:
            until(further, f"{steps} more of everything", seconds)
        except AssertionError as error:
            behind = {name: self.done()[name] - before[name] for name in before}
            raise AssertionError(f"{error}: {behind}, losses {self.losses()[-5:]}") from None

    def whole(self) -> None:
        """Nothing was wrong, nothing lost."""
        assert not self.wrong(), self.wrong()
        assert not any(self.lost().values()), (self.lost(), self.losses())
