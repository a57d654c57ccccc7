"""Header edits."""

from __future__ import annotations

from gateway.edits import EditedAnswerReader, edits


def test_removed_then_set_then_added() -> None:
    made = edits({"X-Set": "1"}, {"X-Add": "2"}, ["X-Gone"])
    lines = [b"GET / HTTP/1.1", b"x-set: 0\r\nHost: a", b"X-SET: 9", b"x-gone: 1", b"x-add: 0", b""]
    assert made.apply(lines) == [
        b"GET / HTTP/1.1", b"Host: a", b"x-add: 0", b"", b"X-Set: 1", b"X-Add: 2",
    ]  # fmt: skip


def test_adding_alone_looks_at_nothing() -> None:
    assert edits({}, {"A": "1"}, ()).apply([b"GET", b"b: x\r\nc: d"]) == [b"GET", b"b: x\r\nc: d", b"A: 1"]


def test_an_answer_is_read_as_its_client_is_to_see_it() -> None:
    reader = EditedAnswerReader(edits({"Server": "p"}, {}, ["X-Powered-By"]))
    head = b"HTTP/1.1 200 OK\r\nserver: nginx\r\nContent-Length: 2\r\nx-powered-by: php"
    status, known, _, length, _ = reader.recall(head)
    assert (status, known, length) == (200, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: p", 2)
    assert reader.recall(head)[1] is known
    interim = b"HTTP/1.1 103 Early Hints\r\nserver: nginx"
    assert reader.judge(interim, len(interim))[1] == [b"HTTP/1.1 103 Early Hints", b"server: nginx"]
