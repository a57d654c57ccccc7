"""Two streams joined: both ways, with half-closes, backpressure and an end for the silent."""

from __future__ import annotations

from gateway.tunnel import FAREWELL_SECONDS, IDLE_SECONDS, Farewell, tunnel
from supervisor.ground.lane import Overdue
from supervisor.ground.net.memory import MemoryConn, Rehearsal


class Joined:
    """A tunnel between two pairs; `client` and `server` are the far ends."""

    def __init__(self, from_client: bytes = b"", from_server: bytes = b"") -> None:
        self.lane = Rehearsal()
        near, self.client = self.lane.pair(1000)
        there, self.server = self.lane.pair(1000)
        self.result: BaseException | None = None
        self.over = False
        self.moved = [0, 0]
        self.farewell = Farewell()

        async def session(a: MemoryConn, b: MemoryConn) -> None:
            try:
                await tunnel(self.lane.current, a, b, from_client, from_server, self.count, self.farewell)
            except (OSError, Overdue) as error:
                self.result = error
            self.over = True
            a.close()
            b.close()

        self.session = self.lane.spawn(session(near, there))
        self.lane.run()

    def part(self) -> None:
        """As a drain does."""
        self.farewell.asked = True
        self.lane.wake(self.session)
        self.lane.run()

    def count(self, up: int, down: int) -> None:
        self.moved[0] += up
        self.moved[1] += down


def test_bytes_go_both_ways_those_already_read_first() -> None:
    joined = Joined(b"a", b"b")
    joined.lane.feed(joined.client, b"c")
    joined.lane.feed(joined.server, b"d")
    assert (joined.server.take(), joined.client.take()) == (b"ac", b"bd")


def test_each_half_ends_on_its_own() -> None:
    joined = Joined()
    joined.client.shutdown_write()
    joined.lane.run()
    assert joined.server.at_end
    joined.lane.feed(joined.server, b"later")
    assert joined.client.take() == b"later"
    joined.server.close()
    joined.lane.run()
    assert joined.over
    assert joined.result is None
    assert joined.moved == [0, 5]


def test_a_side_is_read_only_as_fast_as_the_other_takes_it() -> None:
    joined = Joined()
    sent = 0
    while True:
        joined.client.writable = True
        taken = joined.client.send_nowait(b"x" * 500)
        joined.lane.run()
        sent += taken
        if not taken:
            break
    assert sent <= 4000
    assert len(joined.server.take()) > 0


def test_a_broken_side_ends_both() -> None:
    joined = Joined()
    joined.server.abort()
    joined.lane.run()
    assert isinstance(joined.result, OSError)


def test_silence_ends_it_and_every_byte_puts_that_off() -> None:
    joined = Joined()
    joined.lane.advance(IDLE_SECONDS - 10)
    joined.lane.feed(joined.client, b"x")
    joined.lane.advance(IDLE_SECONDS - 10)
    assert not joined.over
    joined.lane.advance(20)
    assert isinstance(joined.result, Overdue)


# -- the farewell of a drain

TEXT = b"\x81\x05hello"
GOING_AWAY = b"\x88\x02\x03\xe9"


def test_between_two_frames_the_client_is_told_at_once_and_hears_no_frame_after_it() -> None:
    joined = Joined(b"", TEXT)
    joined.part()
    joined.lane.feed(joined.server, TEXT)
    assert joined.client.take() == TEXT + GOING_AWAY
    echo = b"\x88\x82abcd\x62\x8b"
    joined.lane.feed(joined.client, echo)
    assert joined.server.take() == echo
    joined.server.close()
    joined.lane.run()
    assert joined.client.at_end
    joined.client.close()
    joined.lane.run()
    assert joined.over
    assert joined.result is None


def test_within_a_frame_its_end_is_waited_for() -> None:
    for cut in range(1, len(TEXT)):
        joined = Joined()
        joined.lane.feed(joined.server, TEXT + TEXT[:cut])
        joined.part()
        assert joined.client.take() == TEXT + TEXT[:cut]
        joined.lane.feed(joined.server, TEXT[cut:] + TEXT)
        assert joined.client.take() == TEXT[cut:] + GOING_AWAY


def test_a_server_that_closes_by_itself_is_not_interrupted() -> None:
    joined = Joined(b"", b"\x88\x02\x03\xe8")
    joined.part()
    assert joined.client.take() == b"\x88\x02\x03\xe8"


def test_what_is_no_websocket_is_left_as_it_is() -> None:
    joined = Joined(b"", b"hello")
    joined.part()
    joined.lane.feed(joined.server, b"world")
    assert joined.client.take() == b"helloworld"


def test_a_client_that_does_not_answer_has_ten_seconds() -> None:
    joined = Joined()
    joined.part()
    joined.lane.advance(FAREWELL_SECONDS - 1)
    joined.lane.feed(joined.client, b"\x81\x80abcd")
    assert not joined.over
    joined.lane.advance(2)
    assert isinstance(joined.result, Overdue)
