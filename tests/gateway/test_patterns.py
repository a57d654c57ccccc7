"""What a route may ask for."""

from __future__ import annotations

import pytest

from gateway.patterns import HostPattern, PathPattern, parse_host, parse_path


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
