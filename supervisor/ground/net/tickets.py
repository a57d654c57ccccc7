"""TLS session tickets that every worker can read: the same keys in all contexts of a listener.

OpenSSL has a call for it, SSL_CTX_set_tlsext_ticket_keys, but `cryptography` offers neither the call nor, being linked
statically, the symbol. So the keys are written to where OpenSSL keeps them (`ssl_ctx_ext_secure_st`, the same since
1.1.1), and only after that place has been proven: a handshake in memory yields a ticket; its first 16 bytes are the
key's name (RFC 5077 §4); where that name stands in the context, a pointer to the keys follows; and they are the keys if
and only if the ticket's MAC and content agree with them. Memory is read by a system call, so that a wrong guess is an
error and no crash. Where the proof fails nothing is written, and contexts share the keys they were born with.
"""

from __future__ import annotations

import datetime
import errno
import functools
import hashlib
import hmac
import os
import weakref
from collections.abc import MutableSequence
from typing import Any

import attrs
import cffi
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL._util import ffi as _openssl_ffi
from OpenSSL._util import lib as _openssl
from structlog.typing import FilteringBoundLogger

from supervisor.plane import tickets

LOOK = 1.0  # seconds until a worker notices a new secret; until all have, some sessions don't resume
_NAME, _KEYS = 16, 64  # bytes: TLSEXT_KEYNAME_LENGTH; HMAC-SHA-256 and AES-256 key
_WINDOW = 4096  # bytes searched; an SSL_CTX of OpenSSL 3 and 4 has 1.2 to 1.9 KiB
_CHUNK = 64  # bytes: read apart, so that the end of a mapping costs no more than what lies there
_POINTER = 8
_MAC = 32

_ffi = cffi.FFI()
_ffi.cdef(
    """
    struct iovec { void *iov_base; size_t iov_len; };
    ssize_t process_vm_readv(int, const struct iovec *, unsigned long, const struct iovec *, unsigned long,
                             unsigned long);
    """
)
_libc: Any = _ffi.dlopen(None)


@attrs.frozen
class TicketKeys:
    """As OpenSSL has them."""

    name: bytes  # 16, in clear at the front of each ticket
    keys: bytes = attrs.field(repr=False)  # 32 for HMAC-SHA-256, 32 for AES-256-CBC

    @classmethod
    def derive(cls, secret: bytes, listener: str) -> TicketKeys:
        """One listener's: a session of another one, which may ask for other certificates, does not resume here."""
        info = b"portway session tickets, version 1: " + listener.encode()
        made = HKDFExpand(hashes.SHA256(), _NAME + _KEYS, info).derive(secret)
        return cls(made[:_NAME], made[_NAME:])

    def opens(self, ticket: bytes) -> bool:
        """Whether the ticket was sealed with these keys (RFC 5077 §4) and holds a session, an ASN.1 SEQUENCE."""
        sealed, mac = ticket[:-_MAC], ticket[-_MAC:]
        if not hmac.compare_digest(hmac.digest(self.keys[:32], sealed, hashlib.sha256), mac):
            return False
        opener = Cipher(algorithms.AES(self.keys[32:]), modes.CBC(sealed[_NAME : _NAME + 16])).decryptor()
        return opener.update(sealed[_NAME + 16 :])[:1] == b"\x30"


class Tickets:
    """The contexts of one worker, keyed alike with those of all others by the plane's secret."""

    def __init__(self, cells: MutableSequence[int] | memoryview[int], log: FilteringBoundLogger) -> None:
        self._cells = cells
        self._log = log
        self._since = 0
        self._secret = b""
        # A listener that a reload took away takes its context along.
        self._shared: weakref.WeakKeyDictionary[SSL.Context, str] = weakref.WeakKeyDictionary()

    def share(self, context: SSL.Context, listener: str) -> None:
        """Key this base context of `listener` ("tier/name") now, and whenever the secret changes."""
        if place() is None:
            self._log.warning("TLS sessions resume only where they began", listener=listener, cause="unknown OpenSSL")
            return
        self._shared[context] = listener
        self.look()
        if self._secret:
            put(context, TicketKeys.derive(self._secret, listener))

    def look(self) -> None:
        """Whether the secret is another than before."""
        found = tickets.secret(self._cells)
        if found is None or found[0] == self._since:
            return
        self._since, self._secret = found
        for context, listener in self._shared.items():
            put(context, TicketKeys.derive(self._secret, listener))


def put(context: SSL.Context, keys: TicketKeys) -> None:
    """What the context seals and opens tickets with, from now on. Only where `place` is known."""
    at = place()
    assert at is not None, "asked before"
    name = _address(context) + at
    _ffi.memmove(_ffi.cast("char *", name), keys.name, _NAME)
    _ffi.memmove(_ffi.cast("char *", _ffi.cast("uintptr_t *", name + _NAME)[0]), keys.keys, _KEYS)


@functools.cache
def place() -> int | None:
    """Where in an SSL_CTX the name of the ticket key stands, behind it the pointer to the keys; None if that can't be
    proven. Takes some milliseconds, once a process and its children."""
    try:
        context, ticket = _sample()
        memory = _read(_address(context), _WINDOW)
        at = memory.find(ticket[:_NAME])
        if at < 0:
            return None
        keys = _read(int.from_bytes(memory[at + _NAME : at + _NAME + _POINTER], "little"), _KEYS)
        return at if len(keys) == _KEYS and TicketKeys(ticket[:_NAME], keys).opens(ticket) else None
    except (OSError, ValueError, SSL.Error):
        _openssl.ERR_clear_error()  # its queue is one for the thread
        return None


def _sample(context: SSL.Context | None = None) -> tuple[SSL.Context, bytes]:
    """A context, and a ticket of its making. Raises SSL.Error, ValueError."""
    if context is None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        certificate, key = _throwaway()
        context.use_certificate(certificate)
        context.use_privatekey(key)
    ours = SSL.Context(SSL.TLS_CLIENT_METHOD)
    ours.set_max_proto_version(SSL.TLS1_2_VERSION)  # under TLS 1.3 tickets come encrypted
    server, client = SSL.Connection(context), SSL.Connection(ours)
    server.set_accept_state()
    client.set_connect_state()
    flight = b""
    for speaker, listener in ((client, server), (server, client), (client, server), (server, client)):
        try:
            speaker.do_handshake()
        except SSL.WantReadError:
            pass
        flight = speaker.bio_read(_WINDOW)
        listener.bio_write(flight)
    # RFC 5077 §3.3, in a record of its own: type 22, version, length; NewSessionTicket is 4, length, lifetime, ticket.
    length = int.from_bytes(flight[13:15], "big")
    ticket = flight[15 : 15 + length]
    if flight[:1] != b"\x16" or flight[5:6] != b"\x04" or len(ticket) != length or length < _NAME + 16 + _MAC:
        raise ValueError("no ticket")
    return context, ticket


def _throwaway() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ticket")])
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=1))
    return builder.public_key(key.public_key()).sign(key, hashes.SHA256()), key


def _address(context: SSL.Context) -> int:
    return int(_openssl_ffi.cast("uintptr_t", context._context))


def _read(address: int, size: int) -> bytes:
    """Our own memory from `address` on, as far as there is any, at most `size`. Raises OSError where it can't be asked
    for."""
    found = b""
    space = _ffi.new("char[]", _CHUNK)
    local = _ffi.new("struct iovec *", (space, _CHUNK))
    while len(found) < size:
        there = _ffi.cast("void *", address + len(found))
        remote = _ffi.new("struct iovec *", (there, min(_CHUNK, size - len(found))))
        done = _libc.process_vm_readv(os.getpid(), local, 1, remote, 1, 0)
        if done <= 0:
            if done < 0 and _ffi.errno != errno.EFAULT:  # a filter of system calls
                raise OSError(_ffi.errno, os.strerror(_ffi.errno))
            break
        found += bytes(_ffi.buffer(space, done))
    return found
