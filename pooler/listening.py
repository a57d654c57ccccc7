"""What one client listens to in transaction mode, and the notifications that wait for it.

A client hears a channel from its LISTEN on, and gets what it heard when it is between transactions, if the LISTEN has
been committed by then: so nothing that PostgreSQL would have delivered is missed, whenever the commit happened. The
connection that hears for all stands in `fanout`. Sans-I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from pooler.encodings import codec, recoded
from pooler.messages import HEAD_SIZE, message
from pooler.prepared import Step
from pooler.sql import Act, Kind

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.fanout import Fanout

MAX_NAME = 63  # bytes of an identifier: PostgreSQL's NAMEDATALEN - 1, the rest is cut off
MAX_CHANNELS = 10_000  # of one client: about 2 MiB
# bytes that wait for one client: a few hundred notifications with the longest payload, tens of thousands of the usual.
MAX_WAITING = 4 << 20
OVERHEAD = 128  # bytes that one costs in memory, whatever its payload
AT_ONCE = 64 * 1024  # bytes given to the client in one go

EVERYBODY = b""  # instead of a channel: for the client whatever it listens to


@attrs.define(eq=False)
class Listening:
    """Of one client. Names of channels are in UTF-8 here, or in no encoding if the database is SQL_ASCII."""

    client: Client
    fanout: Fanout
    channels: set[bytes] = attrs.field(factory=set)  # of LISTENs that were committed
    pending: set[bytes] = attrs.field(factory=set)  # of others, whose transaction is not settled
    waiting: deque[tuple[bytes, bytes]] = attrs.field(factory=deque)  # channel, message
    size: int = 0  # of what waits

    @property
    def codec(self) -> str | None:
        """The client's, as against UTF-8."""
        server = self.client.server_encoding
        return codec(self.client.settings.get("client_encoding", server), server)

    def channel(self, name: bytes) -> bytes:
        """A name as the client wrote it, as it is called here."""
        name = recoded(name, self.codec, None)
        return name if len(name) <= MAX_NAME else name[:MAX_NAME].decode("utf-8", "ignore").encode()

    def hears(self, name: bytes) -> bool:
        """Whether what is sent to this channel comes here."""
        channel = self.channel(name)
        return channel in self.channels or channel in self.pending

    def settle(self, acts: Iterable[Act]) -> None:
        """These have held, in this order; nothing else has."""
        before = self.channels | self.pending
        for act in acts:
            if act.kind is Kind.LISTEN:
                self.channels.add(self.channel(act.name))
            elif act.kind is Kind.UNLISTEN:
                self.channels.discard(self.channel(act.name))
            else:
                self.channels.clear()
        self.pending.clear()
        self.channels &= before
        self.fanout.leave(self.client, before - self.channels)

    def deliver(self, channel: bytes, notification: bytes) -> bool:
        """One more; False if too much waits: the client does not read."""
        self.waiting.append((channel, notification))
        self.size += len(notification) + OVERHEAD
        return self.size <= MAX_WAITING

    def take(self) -> bytes:
        """What the client, being between transactions, is to be sent now."""
        pieces: list[bytes] = []
        size, target = 0, self.codec
        while self.waiting and size < AT_ONCE:
            channel, notification = self.waiting.popleft()
            self.size -= len(notification) + OVERHEAD
            if channel in self.channels or channel is EVERYBODY:
                if target is not None and not notification.isascii():
                    head = notification[: HEAD_SIZE + 4]
                    text = recoded(notification[len(head) :], None, target)
                    notification = message(head[:1], head[HEAD_SIZE:] + text)
                pieces.append(notification)
                size += len(notification)
        return b"".join(pieces)

    def close(self) -> None:
        """The client is gone."""
        self.fanout.leave(self.client, self.channels | self.pending)
        self.channels.clear()
        self.pending.clear()
        self.waiting.clear()


def unheard(steps: tuple[Step, ...], listening: Listening | None) -> tuple[bytes, ...]:
    """The channels that these statements LISTEN to, as far as the client can't hear them yet."""
    names = tuple(step.act.name for step in steps if step.mark and step.act and step.act.kind is Kind.LISTEN)
    return tuple(name for name in names if listening is None or not listening.hears(name))
