"""ClientHellos: made by hand to any shape, and real ones from OpenSSL."""

from __future__ import annotations

import ssl
import struct


def extension(kind: int, body: bytes) -> bytes:
    return struct.pack("!HH", kind, len(body)) + body


def server_name(name: bytes) -> bytes:
    return extension(0, struct.pack("!HBH", len(name) + 3, 0, len(name)) + name)


def alpn(*protocols: bytes) -> bytes:
    listed = b"".join(bytes([len(one)]) + one for one in protocols)
    return extension(16, struct.pack("!H", len(listed)) + listed)


def message(*extensions: bytes, bare: bool = False) -> bytes:
    """The handshake message, its header included."""
    body = b"\x03\x03" + bytes(32) + b"\x20" + bytes(32) + b"\x00\x04\x13\x01\x0a\x0a" + b"\x01\x00"
    if not bare:
        whole = b"".join(extensions)
        body += struct.pack("!H", len(whole)) + whole
    return b"\x01" + len(body).to_bytes(3, "big") + body


def records(handshake: bytes, size: int = 16384) -> bytes:
    """The message cut over records of at most `size` bytes."""
    pieces = [handshake[at : at + size] for at in range(0, len(handshake), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack("!H", len(piece)) + piece for piece in pieces)


def openssl(name: str | None, protocols: list[str] | None = None) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()
