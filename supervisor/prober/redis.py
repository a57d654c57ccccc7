"""The redis check: PING, behind AUTH where there is a password. The protocol is RESP2 (redis.io, protocol spec)."""

from __future__ import annotations

import trio

from supervisor.ground.config import HealthTable
from supervisor.prober.failure import CheckFailed

MAX_LINE = 1024  # bytes of an answer; Redis' errors are sentences
CHUNK = 4096


async def check_redis(stream: trio.abc.Stream, check: HealthTable) -> None:
    """Ask and judge. Raises CheckFailed, trio.BrokenResourceError."""
    commands = []
    if check.password is not None:
        user = () if check.user is None else (check.user,)
        commands.append(("AUTH", *user, check.password.value))
    commands.append(("PING",))
    await stream.send_all(b"".join(map(encode, commands)))
    received = b""
    for name, *_ in commands:
        while b"\r\n" not in received:
            if len(received) > MAX_LINE:
                raise CheckFailed(f"an answer of more than {MAX_LINE} bytes")
            data = await stream.receive_some(CHUNK)
            if not data:
                raise CheckFailed("the connection ended before the answer")
            received += data
        line, _, received = received.partition(b"\r\n")
        judge(name, line)


def encode(words: tuple[str, ...]) -> bytes:
    """A command as an array of bulk strings."""
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def judge(command: str, line: bytes) -> None:
    """Raises CheckFailed unless the answer to the command is a simple string: +OK, +PONG."""
    if not line.startswith(b"+"):
        text = line[1:].decode("utf-8", "replace") if line.startswith(b"-") else "not RESP"
        raise CheckFailed(f"{command}: {text}")
