"""gRPC through the real edge and gateway, with grpcio on both ends: four kinds of calls, deadlines, cancellation."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor.cli.demo.credentials import write_certificate
from supervisor.cli.demo.ports import free_tcp_port
from tests.system.support.daemon import Daemon
from tests.system.support.front import behind_edge, shows
from tests.system.support.poll import until

grpc: Any = pytest.importorskip("grpc", reason="grpcio is not installed")

MB = 1 << 20
CONFIG = """
[supervisor]
workers = 1
[log]
access = "access.log"
[pools.echo]
servers = ["{server}"]
protocol = "h2c"
[pools.nobody]
servers = ["127.0.0.1:1"]
protocol = "h2c"
{listeners}
[gateway.limits.few]
key = "route"
rate = "1/h"
[gateway.routes.echo]
path = "/Echo/*"
pool = "echo"
[gateway.routes.limited]
path = "/Limited/*"
pool = "echo"
limits = ["few"]
[gateway.routes.nobody]
path = "/Nobody/*"
pool = "nobody"
"""


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Unary: the request again. Collect: the digest of all. Spread: so many messages. Talk: each as it comes."""

    def __init__(self) -> None:
        self.deadlines: list[float | None] = []
        self.cancelled = threading.Event()

    def service(self, details: Any) -> Any:
        kinds: dict[str, Any] = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
            "Spread": grpc.unary_stream_rpc_method_handler(self.spread),
            "Talk": grpc.stream_stream_rpc_method_handler(self.talk),
            "Sleep": grpc.unary_unary_rpc_method_handler(self.sleep),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
        }
        return kinds.get(details.method.rpartition("/")[2])

    def unary(self, request: bytes, context: Any) -> bytes:
        self.deadlines.append(context.time_remaining())
        context.set_trailing_metadata((("x-seen", dict(context.invocation_metadata()).get("x-given", "")),))
        return request

    def collect(self, requests: Iterator[bytes], context: Any) -> bytes:
        digest = hashlib.sha256()
        for request in requests:
            digest.update(request)
        return digest.digest()

    def spread(self, request: bytes, context: Any) -> Iterator[bytes]:
        number, size = map(int, request.split())
        for at in range(number):
            yield bytes([at % 256]) * size

    def talk(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        context.add_callback(self.cancelled.set)
        yield from requests

    def sleep(self, request: bytes, context: Any) -> bytes:
        time.sleep(float(request))
        return b"slept"

    def fail(self, request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "nö: 100 %")
        raise AssertionError


@attrs.define(eq=False)
class Site:
    daemon: Daemon
    handler: Echo
    channels: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("grpc")
    shown = write_certificate(folder)
    handler = Echo()
    sizes = [("grpc.max_receive_message_length", 64 * MB), ("grpc.max_send_message_length", 64 * MB)]
    server = grpc.server(futures.ThreadPoolExecutor(16), options=sizes)
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    plain, tls, inner, inner_tls = (f"127.0.0.1:{free_tcp_port()}" for _ in range(4))
    listeners = behind_edge("plain", plain, inner, "http2 = true")
    listeners += behind_edge("tls", tls, inner_tls, shows(shown))
    daemon = Daemon.start(folder, CONFIG.format(server=f"127.0.0.1:{port}", listeners=listeners))
    trusted = grpc.ssl_channel_credentials(shown.authority.read_bytes())
    channels = {
        "plain": grpc.insecure_channel(plain, options=sizes),
        "tls": grpc.secure_channel(tls.replace("127.0.0.1", "localhost"), trusted, options=sizes),
    }
    yield Site(daemon, handler, channels, folder)
    for channel in channels.values():
        channel.close()
    daemon.stop()
    server.stop(None).wait()


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_the_four_kinds_of_calls(site: Site, way: str) -> None:
    channel = site.channels[way]
    unary = channel.unary_unary("/Echo/Unary")
    for size in (0, 5, 100_000, 3 * MB):
        assert unary(b"x" * size, timeout=20) == b"x" * size
    _, call = unary.with_call(b"", timeout=20, metadata=(("x-given", "me"),))
    assert dict(call.trailing_metadata())["x-seen"] == "me"
    pieces = [bytes([at]) * 50_000 for at in range(100)]
    assert channel.stream_unary("/Echo/Collect")(iter(pieces), timeout=20) == hashlib.sha256(b"".join(pieces)).digest()
    got = list(channel.unary_stream("/Echo/Spread")(b"100 50000", timeout=20))
    assert got == pieces
    assert list(channel.stream_stream("/Echo/Talk")(iter(pieces), timeout=20)) == pieces


def test_a_conversation_goes_to_and_fro(site: Site) -> None:
    said: list[bytes] = []
    turn = threading.Semaphore(1)

    def speak() -> Iterator[bytes]:
        for number in range(20):
            turn.acquire()
            yield b"%d" % number

    for answer in site.channels["plain"].stream_stream("/Echo/Talk")(speak(), timeout=20):
        said.append(answer)
        turn.release()
    assert said == [b"%d" % number for number in range(20)]


def test_a_deadline_reaches_the_server_and_is_kept(site: Site) -> None:
    channel = site.channels["plain"]
    channel.unary_unary("/Echo/Unary")(b"", timeout=30)
    left = site.handler.deadlines[-1]
    assert left is not None
    assert 20 < left < 31
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/Echo/Sleep")(b"3", timeout=0.3)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_cancelled_call_is_cancelled_at_the_server(site: Site) -> None:
    site.handler.cancelled.clear()
    quiet = threading.Event()

    def speak() -> Iterator[bytes]:
        yield b"hello"
        quiet.wait(20)

    call = site.channels["plain"].stream_stream("/Echo/Talk")(speak(), timeout=20)
    assert next(call) == b"hello"
    call.cancel()
    assert site.handler.cancelled.wait(10)
    quiet.set()


def test_errors_of_the_server_pass(site: Site) -> None:
    with pytest.raises(grpc.RpcError) as error:
        site.channels["plain"].unary_unary("/Echo/Fail")(b"", timeout=20)
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.NOT_FOUND, "nö: 100 %")
    with pytest.raises(grpc.RpcError) as error:
        site.channels["plain"].unary_unary("/Echo/Unknown")(b"", timeout=20)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("method", "code", "reason"),
    [
        ("/Other/Unary", "UNIMPLEMENTED", "no_route"),
        ("/Nobody/Unary", "UNAVAILABLE", "connect_failed"),
        ("/Limited/Unary", "RESOURCE_EXHAUSTED", "limited"),
    ],
)
def test_errors_of_the_gateway_are_grpcs(site: Site, method: str, code: str, reason: str) -> None:
    call = site.channels["plain"].unary_unary(method)
    try:
        call(b"", timeout=20)  # of what is limited, the first passes
    except grpc.RpcError:
        pass
    with pytest.raises(grpc.RpcError) as error:
        call(b"", timeout=20)
    assert error.value.code() is getattr(grpc.StatusCode, code)
    assert error.value.details().startswith(reason)


def test_many_calls_share_the_connection_to_the_server(site: Site) -> None:
    before = site.daemon.metric("portway_server_connections_total", pool="echo")
    unary = site.channels["plain"].unary_unary("/Echo/Unary")
    calls = [unary.future(b"%d" % number, timeout=20) for number in range(200)]
    assert [call.result() for call in calls] == [b"%d" % number for number in range(200)]
    assert site.daemon.metric("portway_server_connections_total", pool="echo") - before <= 3
    until(lambda: not site.daemon.metric("portway_server_in_flight", pool="echo"), "all to be accounted for")


@pytest.mark.soak
def test_soak_streams_of_a_hundred_megabytes_pass_both_ways(site: Site) -> None:
    piece, number = b"x" * MB, 100
    channel = site.channels["tls"]
    digest = hashlib.sha256(piece * number).digest()
    assert channel.stream_unary("/Echo/Collect")((piece for _ in range(number)), timeout=300) == digest
    assert (
        sum(len(one) for one in channel.unary_stream("/Echo/Spread")(b"%d %d" % (number, MB), timeout=300)) == 100 * MB
    )
    talk = channel.stream_stream("/Echo/Talk")((piece for _ in range(number)), timeout=300)
    assert sum(len(one) for one in talk) == 100 * MB
