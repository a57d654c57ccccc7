"""TLS for checks, in memory: what a server sees of it, and which servers are none."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
import trio
import trio.testing

from supervisor.cli.demo.credentials import Certificate, write_certificate
from supervisor.ground.config import File, PoolTlsTable
from supervisor.prober.secure import secured


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return write_certificate(tmp_path_factory.mktemp("tls"), ["user.internal", "192.0.2.1"])


def table(made: Certificate, *, shows: bool = False, **more: Any) -> PoolTlsTable:
    def file(name: str) -> File:
        path = getattr(made, name)
        return File(path, path.read_bytes())

    pair = {"cert": file("cert"), "key": file("key")} if shows else {}
    trusted = {} if more.get("verify") is False else {"ca": file("authority")}
    return PoolTlsTable(**trusted, **pair, **more)


def server_context(made: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def shake(
    tls: PoolTlsTable, context: ssl.SSLContext, name: str = "192.0.2.1", alpn: str = "http/1.1"
) -> dict[str, Any]:
    """What a server sees of a check that says "ping" to it, and hears "pong"."""
    seen: dict[str, Any] = {"sni": None}
    context.sni_callback = lambda connection, asked, base: seen.update(sni=asked)

    async def serve(stream: trio.abc.Stream) -> None:
        secure = trio.SSLStream(stream, context, server_side=True)
        try:
            seen["said"] = bytes(await secure.receive_some(10))
        except trio.BrokenResourceError:
            return
        seen["alpn"], seen["shown"] = secure.selected_alpn_protocol(), secure.getpeercert(True)
        await secure.send_all(b"pong")

    async def main() -> ssl.SSLError | None:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, theirs)
            try:
                stream = await secured(ours, tls, name, alpn)
            except ssl.SSLError as error:
                await ours.aclose()
                return error
            await stream.send_all(b"ping")
            assert bytes(await stream.receive_some(10)) == b"pong"
        return None

    refused = trio.run(main)
    if refused is not None:
        raise refused
    return seen


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
def test_a_server_is_asked_by_its_name_and_told_what_will_be_spoken(made: Certificate, alpn: str) -> None:
    seen = shake(table(made), server_context(made), "user.internal", alpn)
    assert seen == {"sni": "user.internal", "said": b"ping", "alpn": alpn, "shown": None}


def test_a_server_without_a_name_proves_its_address(made: Certificate) -> None:
    assert shake(table(made), server_context(made))["said"] == b"ping"
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        shake(table(made), server_context(made), "192.0.2.2")


def test_the_pools_name_counts_before_the_servers(made: Certificate) -> None:
    assert shake(table(made, sni="user.internal"), server_context(made), "one.of.many")["sni"] == "user.internal"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(table(made, sni="other.internal"), server_context(made), "user.internal")


def test_without_verification_any_server_will_do(made: Certificate) -> None:
    assert shake(table(made, verify=False), server_context(made), "other.internal")["said"] == b"ping"


def test_a_server_of_another_authority_is_none(made: Certificate, tmp_path: Any) -> None:
    other = write_certificate(tmp_path, ["user.internal"])
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        shake(table(made), server_context(other), "user.internal")


def test_what_the_pool_shows_is_shown_and_is_no_file_of_anybodys(made: Certificate) -> None:
    context = server_context(made)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(made.authority)
    shown = shake(table(made, shows=True), context)["shown"]
    assert shown == ssl.PEM_cert_to_DER_cert(made.cert.read_text())


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(100)])
def test_what_answers_in_another_protocol_is_an_error_of_tls(made: Certificate, said: bytes) -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(said)
        with pytest.raises(ssl.SSLError):
            await secured(ours, table(made), "user.internal", "h2")

    trio.run(main)


@pytest.mark.parametrize("half", [False, True])
def test_a_server_that_ends_the_connection_within_the_handshake_is_an_error(made: Certificate, half: bool) -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        if half:
            await theirs.send_all(b"\x16\x03\x03\x00\x7a\x02")
        await theirs.send_eof()
        with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
            await secured(ours, table(made), "user.internal", "h2")

    trio.run(main)
