"""The PROXY header that a server gets: who connected, to what, and what is known of it."""

from __future__ import annotations

import random
from collections.abc import Callable

from edge.connection import Connection
from supervisor.ground.net import proxy

_PASSED_ON = (proxy.TLV_ALPN, proxy.TLV_AUTHORITY, proxy.TLV_UNIQUE_ID)


def unique_ids() -> Callable[[], str]:
    """A function whose results nobody else's equal: 128 bits, as a UUID has."""
    random_bytes = random.Random().randbytes  # seeded in this process: a fork shares no sequence
    return lambda: random_bytes(16).hex()


def announcement(version: str, connection: Connection) -> bytes:
    """The header of `version`, "v1" or "v2". Version 2 tells in TLVs the server's name that TLS asked for, the protocol
    if it is known, TLS that was ended here, and an id that is this connection's alone, or was when it came through
    another proxy."""
    assert connection.local is not None
    if version == "v1":
        return proxy.encode_v1(connection.client, connection.local)
    return proxy.encode_v2(connection.client, connection.local, tlvs=tuple(_tlvs(connection).items()))


def _tlvs(connection: Connection) -> dict[int, bytes]:
    passed_on = (proxy.TLV_ALPN, proxy.TLV_AUTHORITY, proxy.TLV_UNIQUE_ID)
    told = (
        {}
        if connection.header is None
        else {what: value for what, value in connection.header.tlvs if what in passed_on}
    )
    hello = connection.hello
    if hello is not None:
        if hello.name:
            told[proxy.TLV_AUTHORITY] = hello.name.encode()
        if len(hello.protocols) == 1:  # of several, the server will choose
            told[proxy.TLV_ALPN] = hello.protocols[0]
    if connection.tls is not None:
        what, value = proxy.ssl_tlv(*connection.tls)
        told[what] = value
    told.setdefault(proxy.TLV_UNIQUE_ID, connection.unique_id.encode())
    return told
