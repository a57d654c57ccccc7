"""Fetches the key sets that tokens are verified with (RFC 7517), once for all workers, in a process of its own.

A set is fetched at the start and every 10 minutes, and again when a token names a key that is not in it, at most once
in 10 seconds. One that can't be fetched, or is none, changes nothing: the keys that worked yesterday work on.
"""

from __future__ import annotations

import ssl
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import h11
import trio

from gateway.config import AuthTable, GatewayTable
from gateway.keymessages import Keys, KeysWanted
from gateway.keys import load_keys
from supervisor.ground.config import Config
from supervisor.ground.net.authorities import client_context
from supervisor.ground.tier import TierService, Worker

NAME: Final = "keys"
GATEWAY: Final = "gateway"
FRESH_SECONDS: Final = 600.0  # a set is good for so long
AGAIN_SECONDS: Final = 10.0  # between fetches, whatever tokens come and however often they fail
FETCH_SECONDS: Final = 10.0  # for one fetch, from the name's resolution to the last byte
MAX_SET: Final = 48 * 1024  # bytes; a message over the wire holds it, and a thousand EC keys don't fit into it
CHUNK: Final = 16 * 1024


class Unfetched(Exception):
    """There is no key set at the URL now; the message says why."""


@attrs.define(eq=False)
class _Set:
    """One key set. Times are trio's."""

    auth: AuthTable
    data: str = ""
    fetched: float = -AGAIN_SECONDS  # or tried
    wanted: trio.Event = attrs.field(factory=trio.Event)


class Keeper:
    """All key sets of the configuration that have a URL. A Resident service: reloads don't interrupt it."""

    def __init__(self) -> None:
        self._sets: dict[str, _Set] = {}
        self._worker: Worker | None = None

    async def run(self, worker: Worker) -> None:
        self._worker = worker
        async with trio.open_nursery() as nursery:
            while True:
                wanted = sets_of(worker.config)
                for url in self._sets.keys() - wanted.keys():
                    self._sets.pop(url).wanted.set()  # its task looks whether it is still asked for
                for url, auth in wanted.items():
                    if url in self._sets:
                        self._sets[url].auth = auth
                    else:
                        self._sets[url] = one = _Set(auth)
                        nursery.start_soon(self._keep, url, one)
                await trio.sleep(1.0)  # a reload gives the worker another configuration

    def receive(self, message: Any) -> None:
        if not isinstance(message, KeysWanted):
            return
        one = self._sets.get(message.url)
        if one is None:
            return
        if message.again:
            one.wanted.set()
        elif one.data:
            self._tell(message.column, message.url, one)

    async def _keep(self, url: str, one: _Set) -> None:
        while self._sets.get(url) is one:
            await trio.sleep_until(one.fetched + AGAIN_SECONDS)
            one.wanted = trio.Event()
            fresh = await self._fetch(url, one)
            with trio.move_on_after(FRESH_SECONDS if fresh else AGAIN_SECONDS):
                await one.wanted.wait()

    async def _fetch(self, url: str, one: _Set) -> bool:
        """Whether the set is as good as new now."""
        assert self._worker is not None
        log = self._worker.log
        one.fetched = trio.current_time()
        try:
            with trio.fail_after(FETCH_SECONDS):
                data = await fetched(url, one.auth.jwks_ca.data if one.auth.jwks_ca is not None else None)
            load_keys(one.auth, data)
            text = data.decode()  # JSON may come as UTF-16, key sets may not (RFC 8259 §8.1)
        except trio.TooSlowError:
            log.warning("key set not fetched", url=url, reason=f"not there after {FETCH_SECONDS:g} s")
            return False
        except (Unfetched, ValueError) as error:
            log.warning("key set not fetched", url=url, reason=str(error))
            return False
        if text != one.data:
            log.info("key set fetched", url=url)
            one.data = text
            for column in self._worker.plane.live(GATEWAY):
                self._tell(column, url, one)
        return True

    def _tell(self, column: int, url: str, one: _Set) -> None:
        assert self._worker is not None
        self._worker.mailbox.send(column, Keys(url, one.data))


def sets_of(config: Config) -> dict[str, AuthTable]:
    """The tables of auth whose keys are to be fetched, by URL."""
    table: GatewayTable = config.tier(GATEWAY)
    found = {auth.jwks.url: auth for auth in table.auth.values() if auth.jwks is not None}
    return {url: auth for url, auth in found.items() if url is not None}


async def fetched(url: str, authorities: bytes | None) -> bytes:
    """What is at the URL; `authorities` (PEM) are believed instead of the system's. Raises Unfetched, ValueError."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    try:
        stream: trio.abc.Stream = await trio.open_tcp_stream(host, parts.port or (443 if secure else 80))
        async with stream:
            if secure:
                stream = trio.SSLStream(
                    stream, client_context(authorities), server_hostname=host, https_compatible=True
                )
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            return await _asked(stream, parts.netloc, path)
    except (OSError, trio.BrokenResourceError, ssl.SSLError) as error:
        raise Unfetched(str(error.__cause__ or error)) from None
    except h11.ProtocolError as error:
        raise Unfetched(f"no HTTP: {error}") from None


async def _asked(stream: trio.abc.Stream, host: str, target: str) -> bytes:
    """The body of the answer to a GET."""
    http = h11.Connection(h11.CLIENT)
    fields = [("Host", host), ("Accept", "application/jwk-set+json, application/json"), ("Connection", "close")]
    await stream.send_all(http.send(h11.Request(method="GET", target=target, headers=fields)) or b"")
    await stream.send_all(http.send(h11.EndOfMessage()) or b"")
    body = b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(CHUNK)))
        elif isinstance(event, h11.Response):
            if event.status_code != 200:
                raise Unfetched(f"status {event.status_code}")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_SET:
                raise Unfetched(f"more than {MAX_SET // 1024} KiB")
        elif isinstance(event, h11.EndOfMessage):
            return body
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise Unfetched("no whole answer")


SERVICE: Final = TierService(run=Keeper(), wanted=lambda config: bool(sets_of(config)))
