"""The sample services: what each asks the database, and what it answers."""

from typing import Any

import pytest

from supervisor.cli.demo.services import Database, feed, payment, user


class Scripted(Database):
    """A database that answers from a list, and remembers what it was asked."""

    def __init__(self, *answers: list[dict[str, Any]]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, tuple[object, ...]]] = []

    def query(self, sql: str, *values: object) -> list[dict[str, Any]]:
        self.asked.append((sql.split()[0], values))
        return self.answers.pop(0)


def test_user_is_looked_up_by_the_verified_id() -> None:
    database = Scripted([{"login": "alice"}])
    assert user(database, "alice", "GET", b"") == {"login": "alice"}
    assert database.asked == [("SELECT", ("alice",))]


def test_unknown_user_is_nobody() -> None:
    assert user(Scripted([]), "eve", "GET", b"") is None


def test_feed_says_where_it_read() -> None:
    assert feed(Scripted([{"author": "bob"}], [{"replica": True}]), "alice", "GET", b"")["read_from"] == "replica"


def test_payment_inserts_on_post_only() -> None:
    database = Scripted([{"id": 1, "amount": 5}], [])
    assert payment(database, "alice", "POST", b'{"amount": 5}') == {"id": 1, "amount": 5}
    assert payment(database, "alice", "GET", b"") == {"payments": []}
    assert [verb for verb, _ in database.asked] == ["INSERT", "SELECT"]


def test_payment_of_nonsense_is_the_callers_fault() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        payment(Scripted(), "alice", "POST", b"nonsense")
