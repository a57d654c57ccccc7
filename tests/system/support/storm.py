"""Many clients of a pooler at once, each with its own login by SCRAM and its own query; raw, to cost little."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import attrs

from pooler.errors import decode
from pooler.messages import message, query
from pooler.scram import ScramClient

STARTUP = b"\0\x03\0\0user\0app\0database\0app\0\0"


@attrs.frozen
class Outcome:
    """How it went for one of them; `error` is empty where all went well."""

    seconds: float
    error: str = ""


def storm(port: int, clients: int, within: float) -> Sequence[Outcome]:
    """All connect at once, log in, and ask one thing."""

    async def run() -> Sequence[Outcome]:
        return await asyncio.gather(*(_client(port, within) for _ in range(clients)))

    return asyncio.run(run())


async def _client(port: int, within: float) -> Outcome:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(within):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                error = await _talk(reader, writer)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as failure:
        error = repr(failure)
    return Outcome(loop.time() - began, error)


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    writer.write((len(STARTUP) + 4).to_bytes(4, "big") + STARTUP)
    exchange = ScramClient("secret")
    asked = False
    while True:
        head = await reader.readexactly(5)
        payload = await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
        match head[:1], payload[:4]:
            case b"R", b"\0\0\0\x0a":
                first = exchange.first()
                writer.write(message(b"p", b"SCRAM-SHA-256\0" + len(first).to_bytes(4, "big") + first))
            case b"R", b"\0\0\0\x0b":
                writer.write(message(b"p", exchange.final(payload[4:])))
            case b"E", _:
                return decode(payload)["M"]
            case b"Z", _:
                if asked:
                    return ""
                asked = True
                writer.write(query("SELECT 1"))
