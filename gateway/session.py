"""A client's connection, request by request: read, decide, forward, account.

This is the hot path. A request that came whole in one read and whose answer comes whole in one is carried from end to
end in `serve`, in local variables, with one send each way. What does not fit goes over to an Exchange, at whichever
point that shows. Nothing of a request outlives its turn of the loop but what is remembered by its exact bytes.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.admission import UNREAD, Admission
from gateway.connection import Connection
from gateway.decisions import Decision
from gateway.errors import PeerError
from gateway.fields import CHUNKED, CLOSE, CONTINUE, OLD, WANTS_UPGRADE, WEBSOCKET
from gateway.framing import Body, ChunkedRequest, LengthBody
from gateway.guard import MAX_HEAD, Judged, find_end
from gateway.http1 import Http1Exchange
from gateway.patience import CLIENT_SECONDS
from gateway.plan import ID_NAME, ListenerPlan, Plan, Route
from gateway.refusal import linger, refuse
from gateway.shared import Shared
from gateway.upstreams import MAX_IDLE
from supervisor.ground.lane import PARK, Overdue
from supervisor.ground.pools import Server
from supervisor.plane.layout import Route as RouteCells
from supervisor.plane.layout import Server as ServerCells

HEAD_SECONDS: Final = 10.0  # for a head, from its first byte
NEXT_SECONDS: Final = 60.0  # between two requests

_SLOW: Final = CHUNKED | CONTINUE | OLD | WEBSOCKET  # such a request is an Exchange from the start
_SLOW_ANSWER: Final = CHUNKED | CLOSE | OLD
_LINE_END: Final = b"\r\n"
_END: Final = b"\r\n\r\n"
_IN_FLIGHT, _REQUESTS, _STREAK = ServerCells.IN_FLIGHT, ServerCells.REQUESTS, ServerCells.STREAK
_FLYING: Final = RouteCells.IN_FLIGHT


async def serve(shared: Shared, connection: Connection, data: bytes) -> None:
    """Serve requests until either side ends the connection. `data` was read already.

    Raises OSError and Overdue when nothing more can be said to the client.
    """
    lane, cells = shared.lane, shared.cells
    session = lane.current
    stream, client, listener = connection.stream, connection.client, connection.listener
    recv, send = stream.recv_nowait, stream.send_nowait
    admission = Admission()
    admit, identities = admission.admit, shared.identities
    peer, shown = client.ip, client.json
    nothing: tuple[Route | None, Decision[Route] | None] = None, None  # of these types: `admit` changes what they are
    idle, account = shared.upstreams.idle, shared.account
    counters = listener.counters
    server: Server | None = None
    upstream: Any = None
    flying = 0  # the cell that counts the request as in flight on its route
    out: list[bytes]
    judged: Judged | None
    exchange: Http1Exchange | None
    patience = HEAD_SECONDS
    try:
        while True:
            # Read: mostly one whole request.
            if not data:
                connection.busy = False
                session.deadline = lane.now + patience
                while not stream.readable or (got := recv()) is None:
                    # A connection at rest must not hold what its last request and answer were made of.
                    out, judged, exchange, got = [], None, None, None
                    request = answer = reply = b""
                    stream.waiter = session
                    await PARK
                if not got:
                    return
                data = got
            lane.credit -= 1
            if lane.credit < 0:
                await lane.pause()
            patience = NEXT_SECONDS
            connection.busy = True
            connection.seen = lane.now
            began = lane.now_ns
            plan, here = listener.plan, listener.here
            # The same as `begin`, inlined.
            admission.route, admission.decision = nothing
            admission.asked, admission.user = UNREAD, "null"
            admission.ip, admission.shown = peer, shown
            admission.request_id, admission.span = (identities.ready or identities.more()).pop()
            flags, length, total = 0, -1, -1
            exchange = None
            try:
                end = data.find(_END)
                if end < 0:
                    data, end = await _rest_of_head(shared, connection, data)
                    if end < 0:
                        return
                # Decide: where to, who is it, may it.
                guard = plan.guard
                if end <= MAX_HEAD:  # the same as `judge`, inlined
                    judged = guard.judge_lines(data[:end].split(_LINE_END))
                else:
                    judged = guard.judge(data, end)
                flags, length = judged[2], judged[3]
                total = end + 4 + length if length > 0 else end + 4
                out = admit(shared, connection, here, judged)
                route, decision, ip = admission.route, admission.decision, admission.ip
                assert route is not None
                assert decision is not None
                flying = route.counters + _FLYING
                cells[flying] += 1
                # Forward: on the express lane if it fits and a connection is there.
                if flags & _SLOW or total > len(data):
                    exchange = _exchange(shared, connection, plan, here, route, decision, out, flags, length,
                                         judged[4], data, end + 4, ip, plan.tail(admission.request_id))  # fmt: skip
                else:
                    if length > 0:
                        out += (b"", data[end + 4 : total])
                    else:
                        out.append(_LINE_END)  # joined like a line, it ends the last one, and the head
                    request = _LINE_END.join(out)
                    server = route.pick(ip)
                    stack = None if server is None else idle.get(server)
                    sent, answer = 0, b""
                    if server is not None and stack:
                        upstream = stack.pop()[0]
                        upstream.waiter = session
                        base = server.base
                        cells[base + _IN_FLIGHT] += 1
                        cells[base + _REQUESTS] += 1
                        session.deadline = lane.now + route.timeout
                        if route.timeout < 1.0:
                            session.expire_in(route.timeout)
                        try:
                            sent = upstream.send_nowait(request)
                            if sent == len(request):
                                while not upstream.readable or (got := upstream.recv_nowait()) is None:
                                    if stream.last and route.abort_on_close:
                                        got = b""  # the Exchange will find that the client has gone
                                        break
                                    await PARK
                                answer = got
                        except OSError:
                            pass  # the Exchange will find out what this means
                        except Overdue:
                            raise PeerError("answer_timeout", f"no answer within {route.timeout:g} s") from None
                        at = answer.find(_END)
                        if at > 0:
                            recall = route.recall
                            status, head, kind, size, dated = recall(answer[:at])
                            if decision.head or status == 304:
                                size = 0
                            if (
                                at + 4 + size == len(answer)
                                and status >= 200
                                and status != 204
                                and not (kind & _SLOW_ANSWER or upstream.readable or len(stack) >= MAX_IDLE)
                            ):
                                upstream.waiter = None
                                stack.append((upstream, lane.now))
                                if count := cells[base + _IN_FLIGHT]:
                                    cells[base + _IN_FLIGHT] = count - 1
                                if count := cells[flying]:
                                    cells[flying] = count - 1
                                flying = 0
                                if not server.bytes_out:
                                    lane.at_round_end.append(server.settle)
                                server.bytes_out += sent
                                server.bytes_in += len(answer)
                                if cells[base + _STREAK]:
                                    server.succeeded()
                                name = server.name
                                server = upstream = None
                                closing = flags & CLOSE or listener.draining
                                if closing or not dated:
                                    head = _more(shared, head, not dated, bool(closing))
                                reply = b"".join((
                                    head, ID_NAME, admission.request_id, plan.end, answer[at + 4 :]
                                ))  # fmt: skip
                                reason = ""
                                try:
                                    taken = send(reply)
                                    if taken < len(reply):
                                        session.deadline = lane.now + CLIENT_SECONDS
                                        await stream.send(memoryview(reply)[taken:])
                                except (OSError, Overdue):
                                    reason = "client_gone"
                                    raise
                                finally:
                                    account(counters, route, admission.asked, admission.shown, admission.user, name,
                                            status, reason, admission.request_id, total, len(reply),
                                            began)  # fmt: skip
                                if closing:
                                    return
                                data = data[total:]
                                continue
                    exchange = Http1Exchange(shared, connection, route, decision, request, LengthBody(0), flags, ip,
                                             plan.tail(admission.request_id))  # fmt: skip
                    exchange.body.rest = data[total:]
                    if server is not None:
                        exchange.take_over(server, upstream, sent, answer)
                        server = upstream = None
                left = await _carry(shared, exchange, admission, total, began)
            except PeerError as error:
                name = "" if exchange is None else exchange.server_name
                if server is not None:
                    name = server.name
                    server.failed(lane.now_ns)  # on the express lane, only its answer can be what is wrong
                    shared.upstreams.close(upstream)
                    server.ended()
                    server = upstream = None
                left = await _refuse(shared, connection, plan, error, exchange, name, data, total, flags, admission,
                                     began)  # fmt: skip
            if flying:
                cells[flying] = max(1, cells[flying]) - 1
                flying = 0
            if left is None:
                return
            data = left
    finally:
        if flying:
            cells[flying] = max(1, cells[flying]) - 1
        if upstream is not None:
            shared.upstreams.close(upstream)
        if server is not None:
            server.ended()


def _more(shared: Shared, head: bytes, undated: bool, closing: bool) -> bytes:
    """An answer's head with what it lacks."""
    lines = [head]
    if undated:
        lines.append(shared.date_line())
    if closing:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines)


async def _rest_of_head(shared: Shared, connection: Connection, data: bytes) -> tuple[bytes, int]:
    """What was received once the head is complete, and where it ends; -1 if the client left before."""
    lane, stream = shared.lane, connection.stream
    end = find_end(data)
    lane.current.deadline = lane.now + HEAD_SECONDS
    while end < 0:
        try:
            more = await stream.recv()
        except Overdue:
            raise PeerError("head_timeout", f"the head was not complete after {HEAD_SECONDS:g} s") from None
        if not more:
            return b"", -1
        before = len(data)
        data += more
        end = find_end(data, before)
    return data, end


def _exchange(
    shared: Shared, connection: Connection, plan: Plan, here: ListenerPlan, route: Route, decision: Decision[Route],
    out: list[bytes], flags: int, length: int, host: bytes | None, data: bytes, body_at: int, ip: str, tail: bytes,
) -> Http1Exchange:  # fmt: skip
    """An Exchange for a request that the express lane does not take."""
    body: Body
    upgrade = WEBSOCKET | WANTS_UPGRADE
    first = data[body_at:]
    if flags & CHUNKED:
        body = ChunkedRequest(data[:body_at], plan.guard.parser, route.max_body)
        out.append(b"Transfer-Encoding: chunked")
        first = body.take(first) if first else b""
    else:
        body = LengthBody(max(0, length))
        if body.done:
            body.rest, first = first, b""
        elif first:
            first = body.take(first)
    if flags & upgrade == upgrade and decision.line.startswith(b"GET ") and body.done and not flags & CHUNKED:
        out += (b"Connection: Upgrade", b"Upgrade: websocket")
    else:
        flags &= ~upgrade
    if flags & CONTINUE:
        if body.done or body.received:
            flags &= ~CONTINUE  # RFC 9110 §10.1.1: who sends its body does not wait
        else:
            out.append(b"Expect: 100-continue")
    if host is None:
        out.append(b"Host: " + here.fallback_host)
    request = b"\r\n".join((*out, b"", first))
    return Http1Exchange(shared, connection, route, decision, request, body, flags, ip, tail)


async def _carry(shared: Shared, exchange: Http1Exchange, asked: Admission, head: int, began: int) -> bytes | None:
    """Run an Exchange and account for it; what is left to serve, or None if the connection is at its end."""
    connection, body = exchange.connection, exchange.body
    reason, finished = "client_gone", False
    try:
        await exchange.run()
        reason, finished = exchange.reason, True
    except PeerError:
        reason = ""
        raise
    except (OSError, Overdue):
        reason = exchange.reason or reason
        raise
    finally:
        if finished or reason:
            shared.account(
                connection.listener.counters, exchange.route, asked.asked, asked.shown, asked.user,
                exchange.server_name, exchange.status or 499, reason, asked.request_id, head + body.received,
                exchange.bytes_out, began,
            )  # fmt: skip
    if reason:
        return None  # cut short
    if exchange.reusable:
        return body.rest
    if exchange.status != 101 and (not body.done or body.rest):
        await linger(connection)
    return None


async def _refuse(
    shared: Shared, connection: Connection, plan: Plan, error: PeerError, exchange: Http1Exchange | None,
    server: str, data: bytes, total: int, flags: int, asked: Admission, began: int,
) -> bytes | None:  # fmt: skip
    """Answer an error; what is left to serve, or None if the connection is at its end. `data` begins the request."""
    rest: bytes | None = None
    if exchange is not None:
        if exchange.body.done and not flags & CLOSE:
            rest = exchange.body.rest
    elif 0 <= total <= len(data) and not flags & (CHUNKED | CLOSE | OLD):
        rest = data[total:]
    return await refuse(
        shared,
        connection,
        plan,
        error,
        rest=rest,
        head_request=data.startswith(b"HEAD "),
        before=b"" if exchange is None else exchange.unsent,
        route=asked.route,
        asked=asked.asked,
        client=asked.shown,
        user=asked.user,
        server=server,
        request_id=asked.request_id,
        bytes_in=max(0, total),
        began_ns=began,
    )
