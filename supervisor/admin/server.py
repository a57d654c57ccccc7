"""The admin's HTTP server: trio and h11, for scrapers and people; speed is not at stake here, bounds are.

It listens on the socket that the supervisor opened and left in `worker.inherited`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus

import h11
import trio

from supervisor.admin.answers import TEXT, Answer, View, answer
from supervisor.ground.orders import Held
from supervisor.ground.status import version
from supervisor.ground.tier import Worker

MAX_HEAD = 8 * 1024  # bytes: a scraper sends 300, a browser 2,000
PATIENCE = 5.0  # seconds for a head to arrive, for an answer to be taken, and for the next request to begin
MAX_CONNECTIONS = 64  # at once; the next one waits in the queue for one of these to end, 5 s at the latest
LINGER_READS = 8  # of MAX_HEAD bytes, after a refusal; who sends more gets a reset
HELD_SECONDS = 3.0  # for which what was told of a drain is shown; it is told anew each second
RETRY = 0.1  # seconds until accepting is tried again when the process is out of descriptors

Stream = trio.abc.HalfCloseableStream

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError)


class Admin:
    """The service; a reload does not interrupt it, nor anything a scrape under way. `reasons` names the gateway's
    reason codes for the metrics."""

    def __init__(self, reasons: Sequence[str] = ()) -> None:
        self._reasons = reasons
        self._accepting = trio.CancelScope()
        self._answering = 0  # requests under way
        self._held: dict[int, tuple[float, Held]] = {}  # by process id, and when it was told (monotonic seconds)

    async def run(self, worker: Worker) -> None:
        """Serve until cancelled."""
        listening: socket.socket = worker.inherited
        listening.setblocking(False)
        slots = trio.Semaphore(MAX_CONNECTIONS)
        async with (
            trio.open_nursery() as nursery,
            trio.SocketListener(trio.socket.from_stdlib_socket(listening)) as listener,
        ):
            with self._accepting:
                while True:
                    await slots.acquire()
                    try:
                        stream = await listener.accept()
                    except OSError as error:
                        slots.release()
                        worker.log.warning("admin can't accept", reason=error.strerror)
                        await trio.sleep(RETRY)
                        continue
                    nursery.start_soon(self._hold, stream, worker, slots)
            await trio.sleep_forever()

    def receive(self, message: object) -> None:
        """What holds up the drain of a process."""
        if isinstance(message, Held):
            self._held[message.pid] = (time.monotonic(), message)

    def drain(self) -> None:
        """Others accept now: a successor has the same socket."""
        self._accepting.cancel()

    def holding(self) -> Sequence[str]:
        return [f"admin: {self._answering} requests"] if self._answering else []

    def view(self, worker: Worker) -> View:
        """What there is to be seen now."""
        fresh = time.monotonic() - HELD_SECONDS
        self._held = {pid: told for pid, told in self._held.items() if told[0] > fresh}
        held = sorted((told for _, told in self._held.values()), key=lambda told: told.process)
        holding = [
            {"process": told.process, "pid": told.pid, "left": told.left, "holding": list(told.lines)} for told in held
        ]
        return View(worker.config, worker.plane, self._reasons, holding)

    async def _hold(self, stream: Stream, worker: Worker, slots: trio.Semaphore) -> None:
        """One connection, and its place among the 64."""
        try:
            async with stream:
                await serve(stream, worker, lambda: self.view(worker), self._under_way)
        finally:
            slots.release()

    def _under_way(self, change: int) -> None:
        self._answering += change


async def serve(stream: Stream, worker: Worker, view: Callable[[], View], under_way: Callable[[int], None]) -> None:
    """Answer the requests of one connection until it ends, is silent for too long, or breaks the protocol. `under_way`
    is told +1 with each request and -1 with the end of its answer."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    try:
        while True:
            with trio.move_on_after(PATIENCE) as scope:
                request = await _request(stream, http)
            if scope.cancelled_caught or request is None:
                return
            under_way(+1)
            try:
                given = _given(request, view, worker)
                with trio.fail_after(PATIENCE):
                    await _send(stream, http, request, given)
            finally:
                under_way(-1)
            if http.our_state is h11.MUST_CLOSE or http.their_state is not h11.DONE:
                return
            http.start_next_cycle()
    except h11.RemoteProtocolError as error:
        await _refuse(stream, http, error.error_status_hint)
    except (*_GONE, trio.TooSlowError):
        pass


async def _request(stream: Stream, http: h11.Connection) -> h11.Request | None:
    """The next request; None when the client is done."""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(MAX_HEAD)))
        elif isinstance(event, h11.Request):
            # The end of a request without a body is there already. A body is not waited for: it came to the wrong
            # place, and its connection ends with the answer.
            http.next_event()
            return event
        else:
            return None


def _given(request: h11.Request, view: Callable[[], View], worker: Worker) -> Answer:
    try:
        return answer(request.method, request.target, view())
    except Exception:
        worker.log.exception("admin failed to answer", target=request.target.decode("ascii", "backslashreplace"))
        return Answer(500, TEXT, b"Internal error.\n")


async def _send(stream: Stream, http: h11.Connection, request: h11.Request, given: Answer) -> None:
    fields = [
        ("content-type", given.content_type),
        ("content-length", str(len(given.body))),
        ("cache-control", "no-store"),
        ("server", f"portway/{version()}"),
        *given.fields,
    ]
    if http.their_state is not h11.DONE:
        fields.append(("connection", "close"))
    data = (
        http.send(h11.Response(status_code=given.status, headers=fields, reason=HTTPStatus(given.status).phrase)) or b""
    )
    if request.method != b"HEAD":
        data += http.send(h11.Data(data=given.body)) or b""
    data += http.send(h11.EndOfMessage()) or b""
    await stream.send_all(data)


async def _refuse(stream: Stream, http: h11.Connection, status: int) -> None:
    """Say what was wrong, as far as the connection still allows it."""
    if http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    body = b"Malformed or oversized request.\n"
    fields = [("content-type", TEXT), ("content-length", str(len(body))), ("connection", "close")]
    data = http.send(h11.Response(status_code=status, headers=fields, reason=HTTPStatus(status).phrase)) or b""
    data += http.send(h11.Data(data=body)) or b""
    data += http.send(h11.EndOfMessage()) or b""
    with trio.move_on_after(PATIENCE):
        try:
            await stream.send_all(data)
            await stream.send_eof()
            # Closing with bytes unread would reset the connection, and the answer with it (RFC 9112 §9.6).
            for _ in range(LINGER_READS):
                if not await stream.receive_some(MAX_HEAD):
                    break
        except _GONE:
            pass
