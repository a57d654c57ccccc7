"""What a route may ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.patterns import (
    HostPattern,
    PathPattern,
    exclusive,
    implied,
    literal,
    parse_expression,
    parse_host,
    parse_path,
    wanted,
)


@pytest.mark.parametrize(("text", "pattern"), [
    ("/", PathPattern(b"/", False)), ("/*", PathPattern(b"", True)), ("/a/b", PathPattern(b"/a/b", False)),
    ("/a/b/*", PathPattern(b"/a/b", True)), ("/a%20b", PathPattern(b"/a%20b", False)),
])  # fmt: skip
def test_paths(text: str, pattern: PathPattern) -> None:
    assert parse_path(text) == pattern


@pytest.mark.parametrize(("text", "message"), [
    ("a", 'begins with "/"'), ("", 'begins with "/"'), ("/a b", "visible ASCII"), ("/a*", '"/a/*"'),
    ("/*/a", "only at the end"), ("/a?b", "no query"), ("/a/../b", 'write "/b"'), ("/a//*", 'write "/a/*"'),
    ("/%61", 'write "/a"'), ("/a%2", "two hex"),
])  # fmt: skip
def test_paths_that_no_request_would_match_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as problem:
        parse_path(text)
    assert message in str(problem.value)


def test_hosts() -> None:
    assert parse_host("example.com") == HostPattern("example.com", False)
    assert parse_host("*.example.com") == HostPattern(".example.com", True)
    assert parse_host("127.0.0.1") == HostPattern("127.0.0.1", False)
    assert parse_host("[::1]") == HostPattern("[::1]", False)


@pytest.mark.parametrize("text", ["", "*", "Example.com", "a.*.com", "*example.com", "a:80", "a/b", ".a", "a."])
def test_hosts_that_no_request_would_match_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_host(text)


@pytest.mark.parametrize(("expression", "beginning"), [
    ("/users/[0-9]+", "/users/"), ("/.*", "/"), ("/ab?c", "/a"), ("/ab+c", "/ab"), ("/a|/b", ""), ("/x(a|b)", "/x"),
    ("(/a|/b)", ""), ("^/a$", "/a"), (r"/a\.b", "/a"), ("/ab{2}", "/a"), (r"/a\|b", "/a"), ("/a(b)|c", ""),
])  # fmt: skip
def test_what_an_expression_begins_with(expression: str, beginning: str) -> None:
    assert literal(expression) == beginning


@given(st.text("ab/|()?*+.[]\\{}1^$", max_size=12), st.text("ab/1", max_size=8))
def test_property_every_path_an_expression_takes_begins_so(expression: str, path: str) -> None:
    try:
        pattern = parse_expression("/" + expression)
    except ValueError:
        return
    if pattern.takes(b"/" + path.encode()):
        assert (b"/" + path.encode()).startswith(pattern.path)


def test_an_expression_takes_the_whole_path_and_no_time() -> None:
    pattern = parse_expression("/v[0-9]+/(a|b)*")
    assert pattern.takes(b"/v12/abba")
    assert not pattern.takes(b"/v12/abbac")
    assert not parse_expression("/(a*)*(a*)*(a*)*b").takes(b"/" + b"a" * 8000)


@pytest.mark.parametrize(("text", "message"), [
    ("/(", "missing )"), ("abc", 'begins with "/"'), ("/" + "a" * 2000, "1024 characters"),
    (r"/(a)\1", "invalid escape"),
    ("/é", "visible ASCII"),
])  # fmt: skip
def test_expressions_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as problem:
        parse_expression(text)
    assert message in str(problem.value)


def test_conditions_that_follow_from_others() -> None:
    one, there, two = (wanted({"A": value}, fold=True) for value in ("1", "*", "2"))
    assert implied(there, one)
    assert not implied(one, there)
    assert implied((), one)
    assert exclusive(one, two)
    assert not exclusive(one, there)
    assert not exclusive(one, ())
