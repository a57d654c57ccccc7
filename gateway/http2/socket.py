"""A WebSocket on a stream to a server (RFC 8441): asked for by extended CONNECT, accepted by a 2xx."""

from __future__ import annotations

from gateway.framing import Body
from gateway.http2.asking import socket_block
from gateway.http2.client import AskedStream
from gateway.http2.pipe import Pipe
from gateway.http2.trunk import Http2Call
from gateway.messages import Head, Message, Switch
from gateway.websocket import as_switch, key_of


class SocketCall(Http2Call):
    """A request for one. The server has said that it takes such."""

    __slots__ = ("_key",)

    def _ask(self, scheme: bytes, payload: bytes, body: Body, trailers: bool) -> AskedStream:
        self._key = key_of(payload)
        head, _, _ = payload.partition(b"\r\n\r\n")
        return self._trunk.core.open(socket_block(head, scheme), False)

    def _head(self, status: int, head: bytes) -> Message:
        message = super()._head(status, head)
        if isinstance(message, Head) and status < 300:
            trunk, stream = self._trunk, self._stream
            stream.expected = -1  # RFC 9110 §9.3.6: a length that is given means nothing here
            pipe = Pipe(trunk.core, stream, trunk.wake)
            return Switch(as_switch(message.lines, self._key), b"", pipe, lambda up, down: None)  # the trunk counts
        return message
