"""The grpc check against h2 as a server; its messages against arbitrary bytes."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.ground.config import HealthTable
from supervisor.prober.failure import CheckFailed
from supervisor.prober.grpc import MAX_MESSAGE, PATH, GrpcCheck, parse, request

SERVING, NOT_SERVING = b"\0\0\0\0\2\x08\1", b"\0\0\0\0\2\x08\2"

Fields = dict[str, str]


class Server:
    """Answers one call."""

    def __init__(self, body: bytes = SERVING, trailers: Fields | None = None, status: str = "200") -> None:
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.http.initiate_connection()
        self.body, self.status = body, status
        self.trailers = {"grpc-status": "0"} if trailers is None else trailers
        self.asked: dict[str, str] = {}
        self.message = b""
        self.reset = False

    def answer(self, data: bytes) -> bytes:
        for event in self.http.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.asked = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, h2.events.DataReceived):
                self.message += event.data
            elif isinstance(event, h2.events.StreamEnded):
                self.reply(event.stream_id)
        return bytes(self.http.data_to_send())

    def reply(self, stream: int) -> None:
        if self.reset:
            self.http.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        self.http.send_headers(stream, [(":status", self.status), ("content-type", "application/grpc")])
        if self.body:
            self.http.send_data(stream, self.body)
        self.http.send_headers(stream, list(self.trailers.items()), end_stream=True)


def run(server: Server, step: int = 1 << 16, **more: Any) -> str | None:
    """The cause of the failure; None for a pass."""
    core = GrpcCheck(HealthTable(type="grpc", **more), "127.0.0.1:50051")
    try:
        while core.answer is None:
            answer = server.answer(core.data_to_send())
            for at in range(0, len(answer), step):
                core.receive_data(answer[at : at + step])
        core.judge()
    except CheckFailed as error:
        return str(error)
    return None


def test_the_call_names_the_service_and_the_host() -> None:
    server = Server()
    assert run(server, service="feed.Feed", host="feed.example") is None
    assert (server.asked[":path"], server.asked[":authority"]) == (PATH, "feed.example")
    assert server.asked["te"] == "trailers"
    assert server.message == b"\0\0\0\0\x0b\x0a\x09feed.Feed"


@pytest.mark.parametrize("step", [1, 1 << 16])
@pytest.mark.parametrize(
    ("server", "cause"),
    [
        (Server(), None),
        (Server(NOT_SERVING), "NOT_SERVING"),
        (Server(b"\0\0\0\0\0"), "UNKNOWN"),
        (Server(b"\0\0\0\0\2\x08\x09"), "health 9"),
        (Server(b"", {"grpc-status": "5", "grpc-message": "unknown service"}), "grpc-status 5 unknown service"),
        (Server(b"", {"grpc-status": "12"}), "grpc-status 12"),
        (Server(trailers={"x": "y"}), "grpc-status missing"),
        (Server(b"hello", status="503"), "status 503"),
        (Server(b"hello"), "not a gRPC message"),
        (Server(b"x" * (MAX_MESSAGE + 1)), f"an answer of more than {MAX_MESSAGE} bytes"),
    ],
    ids=lambda value: str(value) if not isinstance(value, Server) else "",
)
def test_answers_are_judged(server: Server, cause: str | None, step: int) -> None:
    fresh = Server(server.body, server.trailers, server.status)
    assert run(fresh, step) == cause


def test_a_call_that_is_refused_says_so() -> None:
    server = Server()
    server.reset = True
    assert run(server) == "the call was refused with HTTP/2 error 7"


def test_what_is_not_http_2_says_so() -> None:
    core = GrpcCheck(HealthTable(type="grpc"), "a")
    with pytest.raises(CheckFailed, match="not HTTP/2"):
        core.receive_data(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(CheckFailed, match="ended"):
        GrpcCheck(HealthTable(type="grpc"), "a").receive_data(b"")


@pytest.mark.parametrize(("length", "head"), [(0, b"\0\0\0\0\0"), (200, b"\0\0\0\0\xcb\x0a\xc8\x01")])
def test_a_request_says_its_length(length: int, head: bytes) -> None:
    assert request("s" * length) == head + b"s" * length


@given(st.binary(max_size=20))
def test_any_answer_is_a_status_or_a_failed_check(body: bytes) -> None:
    try:
        assert 0 <= parse(body) <= 127
    except CheckFailed:
        pass
