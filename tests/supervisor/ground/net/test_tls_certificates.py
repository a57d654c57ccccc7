"""Which certificate serves whom: names, protocols, swaps in a running listener, sessions resumed, and bad pairs."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from OpenSSL._util import lib as openssl

from supervisor.ground.lane import Lane
from supervisor.ground.net.keypairs import KeyPair
from supervisor.ground.net.tls import (
    Acceptor,
    Certificates,
    base_context,
    certificate_context,
)
from tests.supervisor.ground.net.conftest import echo

PairFor = Callable[..., KeyPair]


def der(pair: KeyPair) -> bytes:
    return x509.load_pem_x509_certificate(pair.cert).public_bytes(Encoding.DER)


# -- by name


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com", "example.com"),
        ("api.example.com", "api.example.com"),
        ("other.example.com", "*.example.com"),
        ("a.b.example.com", "example.com"),  # a wildcard stands for one label: so the first
        ("example.net", "example.net"),
        ("www.example.net", "example.net"),  # named beside it
        ("unknown.test", "example.com"),
        ("localhost", "example.com"),
        (None, "example.com"),
    ],
)
def test_the_certificate_is_picked_by_name(served: Any, pair_for: PairFor, asked: str | None, given: str) -> None:
    pairs = {
        "example.com": pair_for("example.com"),
        "*.example.com": pair_for("*.example.com"),
        "api.example.com": pair_for("api.example.com"),
        "example.net": pair_for("example.net", "www.example.net"),
    }
    acceptor = Acceptor(base_context(), Certificates(list(pairs.values())))
    client = served(acceptor, asked)
    assert client.certificate() == der(pairs[given])
    assert client.server.server_name() == (asked.encode() if asked else None)


@pytest.mark.parametrize("name", [b"Example.COM", b"example.com.", b"EXAMPLE.com."])
def test_names_are_compared_as_names(pair_for: PairFor, name: bytes) -> None:
    certificates = Certificates([pair_for("other.test"), pair_for("example.com")])
    assert certificates.pick(name) is certificates.pick(b"example.com")
    assert certificates.pick(name) is not certificates.pick(None)


@pytest.mark.parametrize("name", [None, b"", b".", b"*", b"*.example.com", b"\xff\xfe", b"com", b"x" * 255])
def test_a_name_that_is_none_gets_the_first(pair_for: PairFor, name: bytes | None) -> None:
    certificates = Certificates([pair_for("other.test"), pair_for("*.sub.example.com")])
    assert certificates.pick(name) is certificates.pick(b"other.test")


def test_the_first_of_two_for_one_name_serves_it(served: Any, pair_for: PairFor) -> None:
    first, second = pair_for("first.test", "example.com"), pair_for("example.com")
    client = served(Acceptor(base_context(), Certificates([first, second])), "example.com")
    assert client.certificate() == der(first)


def test_a_client_that_verifies_accepts_it(served: Any, pair_for: PairFor) -> None:
    pair = pair_for("example.com")
    context = ssl.create_default_context(cadata=pair.cert.decode())
    client = served(Acceptor(base_context(), Certificates([pair])), "example.com", context)
    assert client.tls.getpeercert()["subjectAltName"] == (("DNS", "example.com"),)


def test_the_whole_chain_is_sent(served: Any, pair_for: PairFor) -> None:
    leaf, issuer = pair_for("example.com"), pair_for("issuer.test")
    pair = KeyPair(leaf.cert + issuer.cert, leaf.key)
    client = served(Acceptor(base_context(), Certificates([pair])), "example.com")
    # The standard library shows the chain only from Python 3.13 on; its bytes pass in the clear under TLS 1.2.
    assert client.certificate() == der(leaf)
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.check_hostname = False
    plain.verify_mode = ssl.CERT_NONE
    plain.maximum_version = ssl.TLSVersion.TLSv1_2
    client = served(Acceptor(base_context(), Certificates([pair])), "example.com", plain)
    assert der(issuer) in client.seen


def test_names_are_read_from_the_certificate(pair_for: PairFor) -> None:
    assert pair_for("Example.COM", "*.Example.com").names() == {"example.com", "*.example.com"}
    assert pair_for("nobody").names() == frozenset()
    assert "PRIVATE" not in repr(pair_for("example.com"))


# -- ALPN


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["example.com", None])
@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        (["h2", "http/1.1"], b"h2"),
        (["http/1.1", "h2"], b"h2"),  # the server's order
        (["http/1.1"], b"http/1.1"),
        (["postgresql"], b""),
        ([], b""),
    ],
)
def test_the_protocol_is_agreed_in_the_servers_order(
    served: Any, pair_for: PairFor, version: Any, name: str | None, offered: list[str], agreed: bytes
) -> None:
    alpn = (b"h2", b"http/1.1")
    acceptor = Acceptor(base_context(alpn), Certificates([pair_for("example.com")], alpn))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    if offered:
        context.set_alpn_protocols(offered)
    client = served(acceptor, name, context)
    assert client.server.alpn() == agreed
    assert (client.tls.selected_alpn_protocol() or "").encode() == agreed


def test_a_listener_without_protocols_agrees_on_none(served: Any, pair_for: PairFor) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    client = served(Acceptor(base_context(), Certificates([pair_for("example.com")])), None, context)
    assert client.server.alpn() == b""


# -- swapped in a running listener


def test_new_certificates_serve_the_next_connection_and_leave_the_old_one(served: Any, pair_for: PairFor) -> None:
    old, new = pair_for("example.com"), pair_for("example.com", "new.example.com")
    acceptor = Acceptor(base_context(), Certificates([old]))
    before = served(acceptor, "example.com")
    acceptor.certificates = Certificates([new])
    after = served(acceptor, "example.com")
    nameless = served(acceptor)
    assert [client.certificate() for client in (before, after, nameless)] == [der(old), der(new), der(new)]
    for client in (before, after):
        client.send(b"still here")
        assert client.read() == b"still here"


def test_a_swap_between_the_pieces_of_a_hello_takes_effect(by_hand: Lane, dial: Any, pair_for: PairFor) -> None:
    old, new = pair_for("example.com"), pair_for("example.com", "new.example.com")
    acceptor = Acceptor(base_context(), Certificates([old]))
    client = dial(acceptor, "example.com")
    by_hand.spawn(echo(client.server))
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    hello = client.outgoing.read()
    client.sock.send(hello[:100])
    client.rounds()
    acceptor.certificates = Certificates([new])
    client.sock.send(hello[100:])
    client.rounds()
    client.fetch()
    client.handshake()
    assert client.certificate() == der(new)


# -- sessions resumed


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["example.com", None])
def test_a_session_resumes_across_a_swap(served: Any, pair_for: PairFor, version: Any, name: str | None) -> None:
    acceptor = Acceptor(base_context(), Certificates([pair_for("example.com")]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    first = served(acceptor, name, context)
    first.send(b"x")
    assert first.read() == b"x"
    acceptor.certificates = Certificates([pair_for("example.com", "new.example.com")])
    second = served(acceptor, name, context, first.tls.session)
    second.send(b"y")
    assert second.read() == b"y"
    assert not first.tls.session_reused
    assert second.tls.session_reused


def serve_in_a_child(server: socket.socket, base: Any, pair: KeyPair) -> int:
    """A worker: its contexts for certificates are its own, the base is from before the fork."""
    child = os.fork()
    if child:
        return child
    try:
        acceptor = Acceptor(base, Certificates([pair]))

        async def main() -> None:
            lane = Lane()
            async with trio.open_nursery() as nursery:
                await nursery.start(lane.run)
                lane.listen(server, lambda sock, _: echo(acceptor.wrap(lane.adopt(sock))))
                await trio.sleep_forever()

        trio.run(main)
    finally:
        os._exit(1)


def visit(server: socket.socket, context: ssl.SSLContext, name: str | None, session: Any = None) -> Any:
    """Connect, be echoed, and return whether that resumed, the certificate and the session."""
    with (
        socket.create_connection(server.getsockname(), timeout=10) as sock,
        context.wrap_socket(sock, server_hostname=name, session=session) as tls,
    ):
        tls.send(b"x")
        assert tls.recv(1) == b"x"
        return tls.session_reused, tls.getpeercert(binary_form=True), tls.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["example.com", None])
def test_a_session_resumes_in_another_process_with_other_certificates(
    pair_for: PairFor, version: Any, name: str | None
) -> None:
    old, new = pair_for("example.com"), pair_for("example.com", "new.example.com")
    base = base_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        children = [serve_in_a_child(one, base, old), serve_in_a_child(two, base, new)]
        try:
            resumed, certificate, session = visit(one, context, name)
            assert not resumed
            assert certificate == der(old)
            resumed, _, session = visit(two, context, name, session)
            assert resumed
            resumed, _, _ = visit(one, context, name, session)
            assert resumed
            resumed, certificate, _ = visit(two, context, name)
            assert not resumed
            assert certificate == der(new)
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def test_a_ticket_of_another_listener_is_worth_nothing(served: Any, pair_for: PairFor) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    certificates = Certificates([pair_for("example.com")])
    first = served(Acceptor(base_context(), certificates), "example.com", context)
    first.send(b"x")
    first.read()
    second = served(Acceptor(base_context(), certificates), "example.com", context, first.tls.session)
    assert not second.tls.session_reused


# -- kinds of keys, key exchange: OpenSSL at both ends, over buffers


def met(server: SSL.Context, client: SSL.Context) -> SSL.Connection | None:
    """The client's end after the handshake; None if there was none."""
    ends = [SSL.Connection(server, None), SSL.Connection(client, None)]
    ends[0].set_accept_state()
    ends[1].set_connect_state()
    done: set[int] = set()
    while len(done) < 2:
        for own, (one, other) in enumerate((ends, ends[::-1])):
            try:
                one.do_handshake()
                done.add(own)
            except SSL.WantReadError:
                pass
            except SSL.Error:
                return None
            try:
                other.bio_write(one.bio_read(1 << 20))
            except SSL.WantReadError:
                pass
    return ends[1]


def that_verifies(algorithm: bytes) -> SSL.Context:
    """A client that knows this signature algorithm alone."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    assert openssl.SSL_CTX_set1_sigalgs_list(context._context, algorithm) == 1
    return context


def test_a_name_is_served_with_whichever_kind_the_client_can_verify(
    make_pair: Callable[..., KeyPair], pair_for: PairFor
) -> None:
    pairs = [
        make_pair("example.com"),
        make_pair("example.com", "www.example.com", key=rsa.generate_private_key(65537, 2048)),
        make_pair("example.com", key=ed25519.Ed25519PrivateKey.generate()),
        pair_for("example.net"),
        make_pair("example.com"),  # a second of its kind: for nobody
    ]
    certificates = Certificates(pairs)
    algorithms = (b"ecdsa_secp256r1_sha256", b"rsa_pss_rsae_sha256", b"ed25519")
    for pair, algorithm in zip(pairs, algorithms, strict=False):
        client = met(certificates.pick(b"example.com"), that_verifies(algorithm))
        assert client is not None
        shown = client.get_peer_certificate(as_cryptography=True)
        assert shown == x509.load_pem_x509_certificate(pair.cert)
    assert met(certificates.pick(b"www.example.com"), that_verifies(algorithms[0])) is None
    names = (b"example.com", b"www.example.com", b"example.net", b"unknown.test", None)
    assert [certificates.number(name) for name in names] == [0, 1, 3, 0, 0]


def test_each_kind_comes_with_its_own_chain(make_pair: Callable[..., KeyPair], pair_for: PairFor) -> None:
    own, issuer = make_pair("example.com"), pair_for("issuer.test")
    other = make_pair("example.com", key=rsa.generate_private_key(65537, 2048))
    certificates = Certificates([KeyPair(own.cert + issuer.cert, own.key), other])
    for algorithm, length in ((b"ecdsa_secp256r1_sha256", 2), (b"rsa_pss_rsae_sha256", 1)):
        client = met(certificates.pick(b"example.com"), that_verifies(algorithm))
        assert client is not None
        assert len(client.get_peer_cert_chain() or ()) == length


@pytest.mark.skipif(SSL.OPENSSL_VERSION_NUMBER < 0x30500000, reason="OpenSSL before 3.5 has no X25519MLKEM768")
def test_keys_are_agreed_on_in_a_way_that_quantum_computers_do_not_break(pair_for: PairFor) -> None:
    client = met(certificate_context(pair_for("example.com")), SSL.Context(SSL.TLS_CLIENT_METHOD))
    assert client is not None
    assert client.get_group_name() == "X25519MLKEM768"


@pytest.mark.parametrize(("group", "taken"), [(b"X25519", True), (b"P-256", True), (b"P-384", True), (b"X448", False)])
def test_only_curves_that_mozilla_names_are_taken(pair_for: PairFor, group: bytes, taken: bool) -> None:
    client = SSL.Context(SSL.TLS_CLIENT_METHOD)
    assert openssl.SSL_CTX_set1_curves_list(client._context, group) == 1
    assert (met(certificate_context(pair_for("example.com")), client) is not None) is taken


# -- bad pairs


def test_no_certificate_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no certificate"):
        Certificates([])


def test_a_key_of_another_certificate_is_refused(pair_for: PairFor) -> None:
    pair = KeyPair(pair_for("example.com").cert, pair_for("other.test").key)
    with pytest.raises(ValueError, match="the key does not belong to the certificate"):
        certificate_context(pair)


@pytest.mark.parametrize(
    ("cert", "key"),
    [
        (b"", None),
        (b"nonsense", None),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None),
        (None, b""),
        (None, b"nonsense"),
        (None, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ],
)
def test_what_is_no_pem_is_refused(pair_for: PairFor, cert: bytes | None, key: bytes | None) -> None:
    good = pair_for("example.com")
    with pytest.raises(ValueError, match="not a PEM certificate and unencrypted key") as caught:
        certificate_context(KeyPair(good.cert if cert is None else cert, good.key if key is None else key))
    assert "PRIVATE KEY-----\n" not in str(caught.value)


def test_an_encrypted_key_is_refused(pair_for: PairFor) -> None:
    good = pair_for("example.com")
    key = load_pem_private_key(good.key, None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    with pytest.raises(ValueError, match="unencrypted key"):
        certificate_context(KeyPair(good.cert, locked))


def test_a_key_too_weak_for_openssl_is_refused_with_its_reason(make_pair: Callable[..., KeyPair]) -> None:
    with pytest.raises(ValueError, match="key too small"):
        certificate_context(make_pair("example.com", key=rsa.generate_private_key(65537, 1024)))


def test_rsa_serves_too(served: Any, make_pair: Callable[..., KeyPair]) -> None:
    pair = make_pair("example.com", key=rsa.generate_private_key(65537, 2048))
    client = served(Acceptor(base_context(), Certificates([pair])), "example.com")
    assert client.certificate() == der(pair)


def test_pairs_travel_between_processes(pair_for: PairFor) -> None:
    pair = pair_for("example.com")
    assert pickle.loads(pickle.dumps(pair)) == pair
