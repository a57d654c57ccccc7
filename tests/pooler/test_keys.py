"""Cancel keys: whose they are, and where they lead."""

from __future__ import annotations

from pooler.keys import Keys, column_of


def test_a_key_leads_to_its_column_and_its_holder() -> None:
    keys: Keys[str] = Keys(61)
    pid, secret = keys.give("holder", long=False)
    assert column_of(pid) == 61
    assert 0 < pid < 1 << 31
    assert len(secret) == 4
    assert keys.find(pid, secret) == "holder"


def test_a_long_secret_for_protocol_3_2() -> None:
    assert len(Keys(2).give("holder", long=True)[1]) == 32


def test_a_wrong_secret_or_a_key_taken_back_leads_nowhere() -> None:
    keys: Keys[str] = Keys(2)
    pid, secret = keys.give("holder", long=False)
    assert keys.find(pid, bytes(4)) is None or secret == bytes(4)
    assert keys.find(pid + 1, secret) is None
    keys.take_back(pid)
    keys.take_back(pid)
    assert keys.find(pid, secret) is None


def test_serial_numbers_begin_again_and_skip_those_in_use() -> None:
    keys: Keys[str] = Keys(2, serial=(1 << 24) - 2)
    pids = [keys.give("holder", long=False)[0] for _ in range(3)]
    assert [pid & 0xFFFFFF for pid in pids] == [0xFFFFFF, 1, 2]
    again: Keys[str] = Keys(2, serial=0, holders={2 << 24 | 1: (b"", "other")})
    assert again.give("holder", long=False)[0] & 0xFFFFFF == 2


def test_any_number_has_some_column() -> None:
    assert 0 <= column_of(0xFFFFFFFF) < 128
