"""The handshake of a WebSocket (RFC 6455 §4), which is all that the gateway understands of one before the bytes pass.

A server that answers 101 without having read the key did not mean a WebSocket: a cache or a careless handler may repeat
such an answer. Clients look for that themselves; by HTTP/2 (RFC 8441) they have no key to look with, so one is made for
the server, and the gateway looks.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

from gateway.errors import PeerError

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"\r\nsec-websocket-key:[ \t]*([^\r\n]*)", re.IGNORECASE).search
_ACCEPT: Final = b"sec-websocket-accept:"


def new_key(random: bytes) -> bytes:
    """A key of 16 random bytes."""
    return base64.b64encode(random)


def accept_of(key: bytes) -> bytes:
    """What a server answers to a key."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def key_of(payload: bytes) -> bytes | None:
    """The key in a request's head; None without one."""
    match = _KEY(payload, 0, payload.index(b"\r\n\r\n"))
    return None if match is None else match[1].strip(b" \t")


def check(lines: list[bytes], key: bytes | None) -> None:
    """Whether the head of a 101 answers this key. Raises PeerError("bad_answer")."""
    if key is None:
        return
    answers = [line[len(_ACCEPT) :].strip(b" \t") for line in lines if line.lower().startswith(_ACCEPT)]
    if answers != [accept_of(key)]:
        raise PeerError("bad_answer", "the server's 101 does not answer the key of this request")


def as_switch(lines: list[bytes], key: bytes | None) -> list[bytes]:
    """The head of a 2xx to an extended CONNECT as HTTP/1.1 has it: 101, and the answer to the key of who asked, if it
    gave one."""
    accepts = [] if key is None else [b"Sec-WebSocket-Accept: " + accept_of(key)]
    # RFC 9110 §8.6 has no length here. HAProxy 2.6 answers, beside the 200, a key that it made up itself.
    kept = (line for line in lines[1:] if not line.lower().startswith((b"content-length:", _ACCEPT)))
    return [b"HTTP/1.1 101 Switching Protocols", *accepts, *kept]


def as_answer(lines: list[bytes]) -> list[bytes]:
    """The head of a 101 as HTTP/2 has it: 200, and nothing of the key (RFC 8441 §5.1)."""
    return [b"HTTP/1.1 200 ", *(line for line in lines[1:] if not line.lower().startswith(_ACCEPT))]
