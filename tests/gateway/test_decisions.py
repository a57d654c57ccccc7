"""What request lines lead to, and that only what leads somewhere is remembered, and not for ever."""

from __future__ import annotations

import json

import pytest

from gateway import memo
from gateway.decisions import Decisions, Target, undecided_words
from gateway.errors import PeerError
from gateway.fields import FieldParser
from gateway.route_tables import RouteTable
from gateway.routes import Router
from gateway.targets import Redirect, Rewrite

ROUTER = Router([
    (RouteTable(pool="p", path="/a/*"), "a"),
    (RouteTable(pool="p", path="/b", headers={"X-Beta": "1, 2"}), "b"),
])  # fmt: skip


def test_a_decision_is_remembered_by_host_and_line() -> None:
    decisions = Decisions(ROUTER, False)
    decision = decisions.decide(b"GET /a/./x?y HTTP/1.1", b"H:80")
    assert (decision.line, decision.route) == (b"GET /a/x?y HTTP/1.1", "a")
    assert (decision.head, decision.idempotent) == (False, True)
    assert decisions.by_host == {b"H:80": {b"GET /a/./x?y HTTP/1.1": decision}}
    assert json.loads("{" + decision.log + "}") == {"method": "GET", "host": "h", "path": "/a/x"}


def test_post_is_not_idempotent_and_head_is_head() -> None:
    decisions = Decisions(ROUTER, False)
    assert not decisions.decide(b"POST /a HTTP/1.1", b"h").idempotent
    assert decisions.decide(b"HEAD /a HTTP/1.1", b"h").head


def test_headers_choose_when_the_request_is_there() -> None:
    decision = Decisions(ROUTER, False).decide(b"GET /b HTTP/1.1", b"h")
    assert decision.route is None
    parser = FieldParser((), [b"X-Beta"])
    assert decision.choose([parser(b"X-Beta: 1"), parser(b"x-beta: 2")]).route == "b"
    for extras in (None, [], [parser(b"X-Beta: 1")]):
        with pytest.raises(PeerError) as refusal:
            decision.choose(extras)
        assert refusal.value.code == "no_route"


@pytest.mark.parametrize(("line", "code"), [
    (b"GET /c HTTP/1.1", "no_route"), (b"OPTIONS * HTTP/1.1", "no_route"), (b"nonsense", "bad_request_line"),
    (b"CONNECT h:443 HTTP/1.1", "method_refused"), (b"TRACE / HTTP/1.1", "method_refused"),
    (b"GET /a%2Fb HTTP/1.1", "encoded_slash"),
])  # fmt: skip
def test_what_leads_nowhere_is_not_remembered(line: bytes, code: str) -> None:
    decisions = Decisions(ROUTER, False)
    with pytest.raises(PeerError) as refusal:
        decisions.decide(line, b"h")
    assert refusal.value.code == code
    assert not decisions.by_host


def test_memory_is_bounded_in_number_and_size() -> None:
    decisions = Decisions(ROUTER, False)
    for number in range(memo.MAX_LINES * 2 + 5):
        decisions.decide(b"GET /a/%d HTTP/1.1" % number, b"h%d" % (number % 7))
    assert sum(map(len, decisions.by_host.values())) <= memo.MAX_LINES
    for number in range(2000):
        decisions.decide(b"GET /a/%d?" % number + b"x" * 1000 + b" HTTP/1.1", b"h")
    assert sum(len(line) for lines in decisions.by_host.values() for line in lines) <= memo.MAX_BYTES
    decisions.by_host.clear()
    decisions.decide(b"GET /a?" + b"x" * 5000 + b" HTTP/1.1", b"h")
    assert not decisions.by_host


def test_an_encoded_slash_may_be_allowed() -> None:
    assert Decisions(ROUTER, True).decide(b"GET /a/b%2fc HTTP/1.1", b"h").line == b"GET /a/b%2Fc HTTP/1.1"


def test_an_undecided_request_is_told_as_far_as_it_is_understood() -> None:
    words = json.loads("{" + undecided_words(b'GET /"?secret HTTP/1.1', b"H") + "}")
    assert words == {"method": "GET", "host": "h", "path": '/"'}
    assert json.loads("{" + undecided_words(b"\xff\x00", None) + "}")["method"] is None


def test_routes_may_send_a_line_to_another_path_and_clients_elsewhere() -> None:
    targets: dict[str, Target] = {"a": lambda pattern, host, path, query: (b"/x" + path[2:], b""), "b": Redirect(
        "https", None, None, Rewrite(), True)}  # fmt: skip
    decisions = Decisions(ROUTER, False, targets)
    decision = decisions.decide(b"GET /a/1?q HTTP/1.1", b"h")
    assert (decision.line, decision.location) == (b"GET /x/1?q HTTP/1.1", b"")
    assert '"path":"/a/1"' in decision.log
    fork = decisions.decide(b"GET /b?q HTTP/1.1", b"H:80")
    [(_, only)] = fork.choices
    assert (only.location, only.line) == (b"https://h/b?q", b"GET /b?q HTTP/1.1")


def test_parameters_are_part_of_the_line_and_decide_once() -> None:
    router = Router([(RouteTable(pool="p"), "any"), (RouteTable(pool="p", query={"v": "2"}), "two")])
    decisions = Decisions(router, False)
    assert decisions.decide(b"GET /?v=2 HTTP/1.1", b"h").route == "two"
    assert decisions.decide(b"GET /?v=1 HTTP/1.1", b"h").route == "any"


def test_a_clients_certificate_chooses_when_the_request_is_there() -> None:
    router = Router([(RouteTable(pool="p"), "any"), (RouteTable(pool="p", client_certificates=("a.example",)), "a")])
    decision = Decisions(router, False).decide(b"GET / HTTP/1.1", b"h")
    assert decision.route is None
    assert [decision.choose(None, peer).route for peer in ("", "a.example", "b.example")] == ["any", "a", "any"]
