"""The fixtures themselves: backends, PostgreSQL, tokens and certificates do what the other tests rely on."""

import socket
import ssl
from collections.abc import Callable

import jwt
import psycopg

from supervisor.cli.demo.credentials import Certificate, Issuer
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.backends import Backend
from tests.system.support.clients import Client, UdpClient, fetch, raw, trusting
from tests.system.support.daemon import with_admin
from tests.system.support.poll import until


def test_http_backend_tells_what_reached_it(http_backend: Callable[..., Backend]) -> None:
    server = http_backend("a")
    with Client(server.address) as client:
        first = client.request("POST", "/x?y=1", {"X-One": "1"}, b"hello")
        assert first.json()["body"] == "hello"
        assert first.seen("x-one") == ["1"]
        second = client.request("PUT", "/", body=iter([b"ab", b"cd"]))
        assert (second.json()["length"], second.json()["connection"], second.json()["request"]) == (4, 1, 2)
        assert client.get("/?size=100000&chunked=1").body == (b"0123456789abcdef" * 6250)
    assert raw(server.address, b"GET /?garbage=1 HTTP/1.1\r\n\r\n").startswith(b"\x00\xff")
    server.turn_health()
    until(lambda: fetch(server.address, "/healthz").status == 503, "the health to turn")


def test_backend_comes_back_on_its_port(http_backend: Callable[..., Backend]) -> None:
    server = http_backend("a")
    port = server.port
    server.stop()
    server.start()
    assert server.port == port
    assert fetch(server.address).json()["server"] == "a"


def test_tcp_backend_echoes_and_reports(tcp_backend: Callable[..., Backend]) -> None:
    assert raw(tcp_backend("a").address, b"hello", half_close=True) == b"hello"
    answer = raw(tcp_backend("b", "proxy", "report").address, b"PROXY UNKNOWN\r\nx", half_close=True)
    assert b'"proxy": "50524f5859' in answer
    assert answer.endswith(b"\nx")
    assert b'"length": 5' in raw(tcp_backend("c", "sink").address, b"hello", half_close=True)


def test_udp_backend_reports_server_and_source(udp_backend: Callable[..., Backend]) -> None:
    with UdpClient(udp_backend("a").address) as client:
        answer = client.ask(b"hi")
        assert answer["server"] == "a"
        assert answer["source"][1] == client.sock.getsockname()[1]


def test_postgres_has_the_roles_and_a_replica(postgres: Cluster, postgres_replica: Cluster) -> None:
    for user in ("app", "legacy"):
        with psycopg.connect(
            host="127.0.0.1", port=postgres.port, user=user, password="secret", dbname="app"
        ) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (user,)
    assert postgres_replica.execute("SELECT pg_is_in_recovery()") == [(True,)]


def test_tokens_verify_against_the_jwks(issuer: Issuer) -> None:
    keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(issuer.jwks()).keys}
    assert set(keys) == {"rsa", "ec", "ed"}
    for kid, algorithm in (("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")):
        claims = jwt.decode(issuer.token("bob", kid=kid), keys[kid], algorithms=[algorithm], audience="api")
        assert claims["sub"] == "bob"


def test_certificate_serves_a_client_that_trusts_the_authority(certificate: Certificate) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    ours, theirs = socket.socketpair()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    back, forth = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(certificate.authority).wrap_bio(back, forth, server_hostname="localhost")
    done = set()
    while len(done) < 2:
        for side, end in (("client", client), ("server", server)):
            try:
                end.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
            incoming.write(forth.read())
            back.write(outgoing.read())
    ours.close()
    theirs.close()


def test_admin_address_is_added_where_there_is_none() -> None:
    assert 'admin = "127.0.0.1:' in with_admin("[supervisor]\nworkers = 1\n[log]\n")
    assert with_admin('[supervisor]\nadmin = "x"\n') == '[supervisor]\nadmin = "x"\n'
