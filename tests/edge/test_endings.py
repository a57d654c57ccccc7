"""Every error that may end a connection has its counter and its word."""

from __future__ import annotations

import pytest

from edge.arrival import Unrouted
from edge.endings import ENDINGS, ending_of
from edge.peek.hello import PeekError
from supervisor.ground.net.proxy import ProxyError
from supervisor.plane.layout import Listener


@pytest.mark.parametrize(
    ("error", "counter", "reason"),
    [
        (Unrouted(), Listener.REFUSED, "no_route"),
        (PeekError(), Listener.PROTOCOL_ERRORS, "malformed"),
        (ProxyError(), Listener.PROTOCOL_ERRORS, "no_proxy_header"),
        (ConnectionResetError(), Listener.RESETS, "reset"),
    ],
)
def test_an_error_is_counted_and_named(error: Exception, counter: int, reason: str) -> None:
    ending = ending_of(error)
    assert (ending.counter, ending.reason) == (counter, reason)


def test_each_has_a_word_of_its_own() -> None:
    words = [ending.reason for ending in ENDINGS.values()]
    assert len(set(words)) == len(words)
