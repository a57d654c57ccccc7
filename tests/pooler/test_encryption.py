"""How servers answer when they are asked for TLS."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pooler.encryption import SSL_REQUEST, Encryption, certificate_of
from pooler.errors import ServerError
from supervisor.ground.net.memory import MemoryConn, Rehearsal


class NoConnector:
    def wrap(self, conn: object, address: str) -> object:
        raise AssertionError("no handshake was agreed on")


def start(answer: bytes, required: bool) -> tuple[object, bytes]:
    lane = Rehearsal()
    near, far = lane.pair()
    outcome: list[object] = []

    async def session() -> None:
        try:
            outcome.append(await Encryption(required, NoConnector()).start(near, "127.0.0.1", "pg/1"))  # type: ignore[arg-type]
        except ServerError as error:
            outcome.append(error)

    lane.spawn(session())
    lane.run()
    asked = far.take()
    lane.feed(far, answer)
    lane.finish()
    assert asked == SSL_REQUEST
    return outcome[0], asked


@pytest.mark.parametrize(
    ("answer", "said"), [(b"N", "does not offer TLS"), (b"E", "does not understand"), (b"H", "does not understand")]
)
def test_a_server_without_tls_is_no_server_where_it_is_required(answer: bytes, said: str) -> None:
    outcome, _ = start(answer, required=True)
    assert isinstance(outcome, ServerError)
    assert said in outcome.message


def test_where_it_is_preferred_it_goes_on_without() -> None:
    outcome, _ = start(b"N", required=False)
    assert isinstance(outcome, MemoryConn)
    found: Callable[..., bytes | None] = certificate_of
    assert found(outcome) is None
