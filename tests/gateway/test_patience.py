"""How long each side of an exchange may take."""

from __future__ import annotations

import math

from gateway.patience import BODY_GRACE, CLIENT_SECONDS, MIN_BODY_RATE, Patience

BEGAN = 100.0


def patience() -> Patience:
    return Patience(BEGAN, 15.0, 60.0)


def test_a_server_has_the_routes_time_for_its_answer() -> None:
    one = patience()
    assert one.until(BEGAN, False, False) == BEGAN + 15
    assert one.left(BEGAN + 5) == 10
    assert one.verdict(BEGAN + 15, False).code == "answer_timeout"


def test_an_answer_that_has_begun_must_not_rest() -> None:
    one = patience()
    one.answer_began(BEGAN + 1)
    assert one.until(BEGAN + 1, False, False) == BEGAN + 61
    one.server_moved(BEGAN + 50)
    assert one.until(BEGAN + 50, False, False) == BEGAN + 110
    assert one.verdict(BEGAN + 110, False).code == "answer_cut"


def test_a_client_must_take_what_it_is_sent() -> None:
    one = patience()
    assert one.until(BEGAN, True, False) == BEGAN + CLIENT_SECONDS
    assert one.until(BEGAN + 10, True, False) == BEGAN + CLIENT_SECONDS
    one.client_took(BEGAN + 20)
    assert one.until(BEGAN + 20, True, False) == BEGAN + 20 + CLIENT_SECONDS
    assert one.verdict(BEGAN + 20 + CLIENT_SECONDS, True).code == "client_timeout"


def test_a_body_must_keep_its_rate() -> None:
    one = patience()
    assert one.until(BEGAN, False, True) == BEGAN + BODY_GRACE
    one.waited(4)
    assert one.until(BEGAN + 4, False, True) == BEGAN + BODY_GRACE
    one.body_came(int(2 * MIN_BODY_RATE), BEGAN + 4)
    assert one.until(BEGAN + 4, False, True) == BEGAN + 4 + BODY_GRACE - 2
    assert one.verdict(BEGAN + 12, False).code == "body_timeout"


def test_waiting_for_the_server_costs_a_body_nothing() -> None:
    one = patience()
    one.until(BEGAN, False, False)
    one.waited(9)
    assert one.until(BEGAN + 9, False, True) == BEGAN + 9 + BODY_GRACE
    assert not math.isinf(one.until(BEGAN + 9, False, False))


def test_a_conversation_may_rest_and_ends_with_its_deadline() -> None:
    one = patience()
    one.converse(BEGAN, 100.0)
    assert one.until(BEGAN, False, True) == BEGAN + 60
    assert one.left(BEGAN) == 100
    one.answer_began(BEGAN + 50)
    assert one.until(BEGAN + 50, False, True) == BEGAN + 100
    assert one.verdict(BEGAN + 100, False).code == "deadline_passed"


def test_a_body_that_has_no_room_loses_no_patience() -> None:
    one = patience()
    assert one.until(BEGAN, False, True, True) == BEGAN + 60
    one.waited(20)
    assert one.until(BEGAN + 20, False, True) == BEGAN + 20 + BODY_GRACE


def test_everything_may_have_an_end() -> None:
    one = Patience(BEGAN, 15.0, 60.0, 20.0)
    one.answer_began(BEGAN + 5)
    one.server_moved(BEGAN + 19)
    assert one.until(BEGAN + 19, True, False) == BEGAN + 20
    assert one.verdict(BEGAN + 20, True).code == "deadline_passed"
