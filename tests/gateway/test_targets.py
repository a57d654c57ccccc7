"""Other paths for servers, other places for clients."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import PeerError
from gateway.paths import normalise
from gateway.patterns import compiled, parse_path
from gateway.targets import Redirect, Rewrite, replacement

PREFIX = parse_path("/api/*")


@pytest.mark.parametrize(("pattern", "prefix", "path", "expected"), [
    ("/api/*", b"/v2", b"/api/user", b"/v2/user"), ("/api/*", b"/v2/", b"/api/user", b"/v2/user"),
    ("/api/*", b"/", b"/api/user", b"/user"), ("/api/*", b"/", b"/api", b"/"), ("/api/*", b"/", b"/api/", b"/"),
    ("/api/*", b"/v2", b"/api", b"/v2"), ("/*", b"/v2", b"/", b"/v2/"), ("/*", b"/v2", b"/x", b"/v2/x"),
])  # fmt: skip
def test_a_prefix_is_exchanged(pattern: str, prefix: bytes, path: bytes, expected: bytes) -> None:
    assert Rewrite(prefix=prefix)(parse_path(pattern), "h", path, b"?q") == (expected, b"")


def test_a_path_is_replaced_whole_or_by_an_expression() -> None:
    assert Rewrite(path=b"/index")(PREFIX, "h", b"/api/x", b"")[0] == b"/index"
    rewrite = Rewrite(expression=compiled("^/api/v([0-9])/(.*)$"), replacement=replacement(r"/\2/\1", "(a)(b)"))
    assert rewrite(PREFIX, "h", b"/api/v1/user", b"")[0] == b"/user/1"
    assert rewrite(PREFIX, "h", b"/api/user", b"")[0] == b"/api/user"


@pytest.mark.parametrize("path", [b"/api/..;/admin", b"/api/%00"])
def test_no_rewrite_makes_a_path_that_routing_would_refuse(path: bytes) -> None:
    with pytest.raises(PeerError) as refusal:
        Rewrite(expression=compiled("/api"), replacement=b"")(PREFIX, "h", path, b"")
    assert refusal.value.code == "bad_path"


def test_a_rewrite_stays_within_the_root() -> None:
    assert Rewrite(expression=compiled("api"), replacement=b"")(PREFIX, "h", b"/api/x", b"")[0] == b"/x"
    for expression, text in (("^/api", b""), ("api", b"..")):
        with pytest.raises(PeerError):
            Rewrite(expression=compiled(expression), replacement=text)(PREFIX, "h", b"/api", b"")


@pytest.mark.parametrize(("keys", "expected"), [
    ({"scheme": "https"}, b"https://h/api/x?q"), ({"host": "new.example"}, b"//new.example/api/x?q"),
    ({"scheme": "https", "port": 443}, b"https://h/api/x?q"), ({"scheme": "https", "port": 8443}, b"https://h:8443/api/x?q"),
    ({"port": 81}, b"//h:81/api/x?q"), ({"rewrite": Rewrite(prefix=b"/v2")}, b"/v2/x?q"),
    ({"rewrite": Rewrite(path=b"/"), "keep_query": False, "host": "n"}, b"//n/"),
])  # fmt: skip
def test_a_redirect_keeps_what_it_does_not_name(keys: dict[str, Any], expected: bytes) -> None:
    given: dict[str, Any] = {
        "scheme": None,
        "host": None,
        "port": None,
        "rewrite": Rewrite(),
        "keep_query": True,
        **keys,
    }
    assert Redirect(**given)(PREFIX, "h", b"/api/x", b"?q") == (b"/api/x", expected)


def test_a_redirect_to_https_needs_a_host() -> None:
    with pytest.raises(PeerError) as refusal:
        Redirect("https", None, None, Rewrite(), True)(PREFIX, "", b"/api", b"")
    assert refusal.value.code == "bad_host"


@pytest.mark.parametrize(("text", "message"), [
    (r"/\2", "no group 2"), (r"/\x", "number of a group"), ("/a b", "visible ASCII"), ("/a?b", "no query"),
    ("\\", "number"),
])  # fmt: skip
def test_replacements_that_could_fail_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replacement(text, "/(a)")


@given(st.text("ab/.%25;\\", max_size=12), st.text("/ab.", max_size=6), st.text("/ab.", max_size=6))
def test_property_what_is_rewritten_is_in_its_one_form(path: str, expression: str, text: str) -> None:
    try:
        came = normalise(b"/" + path.encode())
        found = compiled(expression)
    except (PeerError, ValueError):
        return
    try:
        new, _ = Rewrite(expression=found, replacement=text.encode())(PREFIX, "h", came, b"")
    except PeerError:
        return
    assert new.startswith(b"/")
    assert normalise(new, encoded_slash=True) == new
