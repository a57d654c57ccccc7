"""One spelling for each path, and refusal where a server might find another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import PeerError
from gateway.paths import normalise, split_target


@pytest.mark.parametrize(("path", "expected"), [
    (b"/", b"/"), (b"/a/b", b"/a/b"), (b"/a/b/", b"/a/b/"), (b"//a///b//", b"/a/b/"), (b"/a/./b", b"/a/b"),
    (b"/a/b/..", b"/a/"), (b"/a/b/../c", b"/a/c"), (b"/a/..", b"/"), (b"/a/.", b"/a/"), (b"/a/%2e%2E/b", b"/b"),
    (b"/%61%7edmin", b"/a~dmin"), (b"/a%20b%c3%bC", b"/a%20b%C3%BC"), (b"/%252e%252e/x", b"/%252e%252e/x"),
    (b"/...", b"/..."), (b"/.well-known/x", b"/.well-known/x"), (b"/a..b", b"/a..b"), (b"/a;v=1/b", b"/a;v=1/b"),
    (b"/a/%2e", b"/a/"),
])  # fmt: skip
def test_paths_get_their_one_form(path: bytes, expected: bytes) -> None:
    assert normalise(path) == expected


@pytest.mark.parametrize(("path", "code"), [
    (b"/..", "bad_path"), (b"/a/../..", "bad_path"), (b"/%2e%2e/x", "bad_path"), (b"/a%", "bad_path"),
    (b"/a%2", "bad_path"), (b"/a%zz", "bad_path"), (b"/a%00", "bad_path"), (b"/a\\b", "bad_path"),
    (b"/a/..;/b", "bad_path"), (b"/a/.;x=1/b", "bad_path"), (b"/a%2fb", "encoded_slash"), (b"/a%5Cb", "encoded_slash"),
])  # fmt: skip
def test_paths_without_one_form_are_refused(path: bytes, code: str) -> None:
    with pytest.raises(PeerError) as refusal:
        normalise(path)
    assert refusal.value.code == code


def test_an_encoded_slash_may_be_let_pass_and_stays_encoded() -> None:
    assert normalise(b"/a%2fb", encoded_slash=True) == b"/a%2Fb"


@pytest.mark.parametrize(("target", "host", "expected"), [
    (b"/a?b", b"h", (b"/a", b"?b")), (b"/a?", b"h", (b"/a", b"?")), (b"/a??b", b"h", (b"/a", b"??b")),
    (b"http://h/a?b", b"h", (b"/a", b"?b")), (b"HTTPS://H:1/", b"h:1", (b"/", b"")), (b"http://h", b"h", (b"/", b"")),
    (b"http://h?q", b"h", (b"/", b"?q")),
])  # fmt: skip
def test_targets_are_split(target: bytes, host: bytes, expected: tuple[bytes, bytes]) -> None:
    assert split_target(target, host) == expected


@pytest.mark.parametrize(("target", "host", "code"), [
    (b"http://other/a", b"h", "bad_host"), (b"http://h/a", None, "bad_host"), (b"http://u@h/a", b"h", "bad_host"),
    (b"ftp://h/a", b"h", "bad_request_line"), (b"a", b"h", "bad_request_line"), (b"*", b"h", "bad_request_line"),
    (b"/a#b", b"h", "bad_request_line"), (b"/a?x#b", b"h", "bad_request_line"), (b"h:443", b"h", "bad_request_line"),
])  # fmt: skip
def test_targets_without_a_path_are_refused(target: bytes, host: bytes | None, code: str) -> None:
    with pytest.raises(PeerError) as refusal:
        split_target(target, host)
    assert refusal.value.code == code


path_text = st.lists(
    st.sampled_from([b"/", b".", b"..", b"a", b"%2e", b"%2f", b"%", b"%41", b";", b"\\", b"%00", b"%e4"])
)


@given(path_text.map(lambda parts: b"/" + b"".join(parts)))
def test_property_a_normal_path_is_normal_and_has_no_dot_segments(path: bytes) -> None:
    try:
        normal = normalise(path)
    except PeerError:
        return
    assert normalise(normal) == normal
    assert normal.startswith(b"/")
    assert not {b".", b".."} & set(normal.split(b"/"))
    assert b"" not in normal.split(b"/")[1:-1]
