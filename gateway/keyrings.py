"""The fetched key sets in one worker: asked for, taken in, handed to the verifiers, kept over reloads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.keeper import AGAIN_SECONDS, GATEWAY
from gateway.keeper import NAME as KEEPER
from gateway.keymessages import Keys, KeysWanted
from gateway.tokens import Verifier
from supervisor.ground.tier import Worker

ASK_SECONDS: Final = 1.0  # between questions, as long as a set is missing


class KeyRings:
    """What the keeper has told this worker, by URL."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._data: dict[str, bytes] = {}
        self._asked: dict[str, float] = {}  # when a set was asked for again; monotonic seconds
        self._verifiers: tuple[Verifier, ...] = ()
        worker.lane.every(ASK_SECONDS, self.look)

    def take(self, verifiers: Iterable[Verifier]) -> None:
        """These are at work from now on."""
        self._verifiers = tuple(verifier for verifier in verifiers if verifier.url is not None)
        for verifier in self._verifiers:
            verifier.unknown = self.again
            if (data := self._data.get(verifier.url or "")) is not None:
                verifier.renew(data)
        self.look()

    def look(self) -> None:
        """Ask for what is missing."""
        for verifier in self._verifiers:
            if not verifier.keyed and verifier.url is not None:
                self._ask(KeysWanted(self._worker.column, verifier.url))

    def again(self, url: str) -> None:
        """A token names a key that is not in the set."""
        now = self._worker.lane.now
        if now - self._asked.get(url, -AGAIN_SECONDS) >= AGAIN_SECONDS:
            self._asked[url] = now
            self._ask(KeysWanted(self._worker.column, url, again=True))

    def receive(self, keys: Keys) -> None:
        self._data[keys.url] = data = keys.data.encode()
        for verifier in self._verifiers:
            if verifier.url == keys.url:
                verifier.renew(data)

    def _ask(self, message: KeysWanted) -> None:
        for column in self._worker.plane.live(f"{GATEWAY}-{KEEPER}"):
            self._worker.mailbox.send(column, message)
