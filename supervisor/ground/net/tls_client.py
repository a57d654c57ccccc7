"""TLS towards servers: one context for a pool, the name that a server must prove, the certificate we show.

Unlike a browser we know whom we mean before we ask: the name is the configuration's, and a server that can't prove it
gets nothing from us. The connection that comes of it is `tls.TlsConn`, as on the other side.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from OpenSSL import SSL
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _openssl

from supervisor.ground.config import PoolTlsTable
from supervisor.ground.lane.conn import Conn
from supervisor.ground.net.keypairs import KeyPair
from supervisor.ground.net.tls import CIPHERS, install, trust
from supervisor.ground.net.tlsconn import TlsConn

_PARTIAL_WILDCARDS = 0x4  # X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS: only a whole label, RFC 6125 §6.4.3


class Connector:
    """Makes client connections for the servers of one pool.

    `authorities` are PEM certificates to trust, None for the system's; `name` is what a server must prove and is asked
    for (SNI), None for what it is called; `pair` is the certificate to show if asked. Without `named` a certificate of
    the right authority is enough, whatever its names. Raises ValueError for what OpenSSL doesn't take.
    """

    def __init__(
        self, authorities: bytes | None = None, name: str | None = None, pair: KeyPair | None = None,
        alpn: Sequence[bytes] = (), *, verify: bool = True, named: bool = True,
    ) -> None:  # fmt: skip
        self._name = name
        self._named = verify and named
        self._context = context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(CIPHERS)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        if alpn:
            context.set_alpn_protos(list(alpn))
        if verify:
            context.set_verify(SSL.VERIFY_PEER)
            if authorities is None:
                context.set_default_verify_paths()
            else:
                trust(context, authorities)
        if pair is not None:
            install(context, pair)

    def wrap(self, conn: Conn, called: str) -> TlsConn:
        """The client's end over `conn`, which leads to a server with this name or IP address. The handshake is still to
        be made."""
        ssl = SSL.Connection(self._context, conn.sock)
        name = self._name or called
        ip = _is_address(name)
        if not ip:
            ssl.set_tlsext_host_name(name.encode("ascii"))  # RFC 6066 §3: no addresses
        if self._named:
            _expect(ssl, name, ip)
        ssl.set_connect_state()
        return TlsConn(conn, ssl)


def connector(table: PoolTlsTable, *alpn: bytes) -> Connector:
    """What a pool's table asks for. Raises ValueError for what OpenSSL doesn't take."""
    pair = KeyPair(table.cert.data, table.key.data) if table.cert is not None and table.key is not None else None
    authorities = None if table.ca is None else table.ca.data
    return Connector(authorities, table.sni, pair, alpn, verify=table.verify)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _expect(ssl: SSL.Connection, name: str, ip: bool) -> None:
    """Let the handshake fail unless the certificate is for `name`. pyOpenSSL has no public call for this."""
    parameters = _openssl.SSL_get0_param(ssl._ssl)
    if ip:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in name else socket.AF_INET, name)
        done = _openssl.X509_VERIFY_PARAM_set1_ip(parameters, packed, len(packed))
    else:
        _openssl.X509_VERIFY_PARAM_set_hostflags(parameters, _PARTIAL_WILDCARDS)
        text = name.encode("ascii")
        done = _openssl.X509_VERIFY_PARAM_set1_host(parameters, _ffi.new("char[]", text), len(text))
    if not done:
        raise OSError(f"OpenSSL can't check for the name {name}")
