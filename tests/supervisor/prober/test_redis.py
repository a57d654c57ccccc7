from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from supervisor.ground.config import HealthTable, Secret
from supervisor.prober.failure import CheckFailed
from supervisor.prober.redis import MAX_LINE, check_redis, encode


async def ask(answer: bytes, step: int, check: HealthTable) -> tuple[bytes, str | None]:
    """What was asked, and how it failed; the answer comes in pieces of `step`."""
    ours, theirs = trio.testing.memory_stream_pair()
    cause = None
    asked = b""

    async def serve() -> None:
        nonlocal asked
        asked = bytes(await theirs.receive_some(65536))
        for at in range(0, len(answer), step):
            await theirs.send_all(answer[at : at + step])
        await theirs.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            await check_redis(ours, check)
        except CheckFailed as error:
            cause = str(error)
        nursery.cancel_scope.cancel()
    return asked, cause


def table(**more: Any) -> HealthTable:
    return HealthTable(type="redis", **more)


def test_a_command_is_an_array_of_bulk_strings() -> None:
    assert encode(("AUTH", "ä b")) == b"*2\r\n$4\r\nAUTH\r\n$4\r\n\xc3\xa4 b\r\n"


def test_the_password_goes_first() -> None:
    check = table(user="probe", password=Secret("secret"))
    asked, cause = trio.run(ask, b"+OK\r\n+PONG\r\n", 100, check)
    assert asked == encode(("AUTH", "probe", "secret")) + encode(("PING",))
    assert cause is None


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"+PONG\r\n", None),
        (b"+PONG\r\nmore", None),
        (b"-NOAUTH Authentication required.\r\n", "PING: NOAUTH Authentication required."),
        (
            b"-LOADING Redis is loading the dataset in memory\r\n",
            "PING: LOADING Redis is loading the dataset in memory",
        ),
        (b"HTTP/1.1 400 Bad Request\r\n", "PING: not RESP"),
        (b"+PON", "the connection ended before the answer"),
        (b"", "the connection ended before the answer"),
        (b"+" * (MAX_LINE + 5000), f"an answer of more than {MAX_LINE} bytes"),
    ],
)
def test_answers_are_judged(answer: bytes, cause: str | None, step: int) -> None:
    assert trio.run(ask, answer, step, table())[1] == cause


WORDS = st.lists(st.sampled_from([b"+OK\r\n", b"+PONG\r\n", b"-ERR x\r\n", b"\r\n", b"$-1"])).map(b"".join)


@given(st.one_of(st.binary(max_size=60), WORDS), st.integers(1, 20))
def test_property_any_answer_is_a_pass_or_a_failed_check(answer: bytes, step: int) -> None:
    for check in (table(), table(password=Secret("secret"))):
        trio.run(ask, answer, step, check)
