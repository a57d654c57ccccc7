"""Fetching key sets: whole ones of a bounded size, in time, and what is known is never lost.

The keeper's time is a clock that jumps to whatever is due next: nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from gateway import keeper
from gateway.config import AuthTable, GatewayTable, KeySetFile
from gateway.keeper import AGAIN_SECONDS, FRESH_SECONDS, Keeper, Unfetched, _asked, sets_of
from gateway.keymessages import Keys as KeysMessage
from gateway.keymessages import KeysWanted
from tests.gateway.conftest import Keys

URL = "https://issuer.example/jwks.json"


def config(*urls: str) -> Any:
    auth = {url: AuthTable(type="jwt", algorithms=("RS256",), jwks=KeySetFile(Path(url), b"", url)) for url in urls}
    return SimpleNamespace(tier=lambda name: GatewayTable(auth=auth))


class Scene:
    """A keeper whose fetches the test answers, and everything it tells workers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
        self.told: list[tuple[int, Any]] = []
        self.fetches: list[float] = []
        self.answer: bytes | Exception = Unfetched("not now")
        self.said: list[str] = []
        log = SimpleNamespace(
            warning=lambda event, **words: self.said.append(words["reason"]), info=lambda event, **words: None
        )
        mailbox = SimpleNamespace(send=lambda column, message: self.told.append((column, message)))
        self.worker: Any = SimpleNamespace(
            config=config(*urls), log=log, mailbox=mailbox, plane=SimpleNamespace(live=lambda tier: [5, 6])
        )
        self.keeper = Keeper()
        monkeypatch.setattr(keeper, "fetched", self._fetched)

    async def _fetched(self, url: str, authorities: bytes | None) -> bytes:
        self.fetches.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def run(self, script: Callable[[], Any]) -> None:
        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.keeper.run, self.worker)
                await script()
                nursery.cancel_scope.cancel()

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_set_is_told_to_all_workers_and_kept_when_fetching_fails(monkeypatch: pytest.MonkeyPatch, keys: Keys) -> None:
    scene = Scene(monkeypatch, URL)
    known = keys.key_set("RS256")

    async def script() -> None:
        await trio.sleep(1)
        assert scene.told == []
        scene.answer = known
        await trio.sleep(AGAIN_SECONDS + 1)
        assert scene.told == [(5, KeysMessage(URL, known.decode())), (6, KeysMessage(URL, known.decode()))]
        scene.told.clear()
        for answer in (Unfetched("status 500"), b"hello", known.decode().encode("utf-16"), keys.key_set("ES256")):
            scene.answer = answer
            await trio.sleep(FRESH_SECONDS)
        assert scene.told == []
        scene.keeper.receive(KeysWanted(6, URL))
        scene.keeper.receive(KeysWanted(6, "https://elsewhere.example/"))
        assert scene.told == [(6, KeysMessage(URL, known.decode()))]

    scene.run(script)
    assert scene.said[0] == "not now"
    assert {"status 500", "not JSON", "no key in it can verify RS256"} <= set(scene.said)


def test_an_unknown_key_makes_it_fetch_again_but_not_too_often(monkeypatch: pytest.MonkeyPatch, keys: Keys) -> None:
    scene = Scene(monkeypatch, URL)
    scene.answer = keys.key_set("RS256")

    async def script() -> None:
        await trio.sleep(30)
        assert len(scene.fetches) == 1
        scene.answer = keys.key_set("RS256", "ES256")
        for _ in range(100):
            scene.keeper.receive(KeysWanted(5, URL, again=True))
            await trio.sleep(0.1)
        await trio.sleep(AGAIN_SECONDS)
        assert 2 <= len(scene.fetches) <= 4
        assert scene.told[-1][1].data == scene.answer.decode()  # type: ignore[union-attr]
        assert len(scene.told) == 4

    scene.run(script)
    assert all(
        later - earlier >= AGAIN_SECONDS for earlier, later in zip(scene.fetches, scene.fetches[1:], strict=False)
    )


def test_a_reload_adds_and_takes_away(monkeypatch: pytest.MonkeyPatch, keys: Keys) -> None:
    scene = Scene(monkeypatch, URL)
    scene.answer = keys.key_set("RS256")

    async def script() -> None:
        await trio.sleep(2)
        scene.worker.config = config("http://other.example/keys")
        await trio.sleep(2)
        assert scene.told[-1][1].url == "http://other.example/keys"
        scene.told.clear()
        scene.keeper.receive(KeysWanted(5, URL))
        assert scene.told == []

    scene.run(script)


def test_a_fetch_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, URL)

    async def hang(url: str, authorities: bytes | None) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(keeper, "fetched", hang)

    async def script() -> None:
        await trio.sleep(11)

    scene.run(script)
    assert scene.said == ["not there after 10 s"]


class Answered:
    """A stream on which an answer comes, in pieces, and then the end."""

    def __init__(self, answer: bytes) -> None:
        self.left = answer

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        piece, self.left = self.left[:1000], self.left[1000:]
        return piece


def served(answer: bytes) -> bytes:
    """What `_asked` makes of these bytes."""
    return trio.run(_asked, Answered(answer), "h", "/")


@pytest.mark.parametrize(("answer", "message"), [
    (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"), (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", "status 302"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50000, "more than 48 KiB"),
])  # fmt: skip
def test_what_is_no_key_set_is_not_taken(answer: bytes, message: str) -> None:
    with pytest.raises(Unfetched, match=message):
        served(answer)


def test_a_body_is_read_whole() -> None:
    assert served(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n") == b"{}"


@given(
    st.binary(max_size=60),
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"]),
)
def test_property_whatever_comes_is_a_body_or_a_reason(tail: bytes, head: bytes) -> None:
    try:
        served(head + tail)
    except (Unfetched, keeper.h11.ProtocolError):
        pass


def test_only_sets_with_a_url_are_fetched(keys: Keys) -> None:
    assert set(sets_of(config(URL))) == {URL}
    auth = AuthTable(type="jwt", algorithms=("RS256",), jwks=KeySetFile(Path("x"), keys.key_set("RS256")))
    assert sets_of(SimpleNamespace(tier=lambda name: GatewayTable(auth={"a": auth}))) == {}  # type: ignore[arg-type]
