"""Single header lines: what kind they are, and what goes on of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import fields
from gateway.errors import PeerError
from gateway.fields import Bearer, FieldParser, canonical


@pytest.mark.parametrize("line", [
    b"X-User-Id: 1", b"x-user-id: 1", b"X_User_Id: 1", b"x.user.id: 1", b"X-User_Id: 1", b"X.USER-ID: 1",
])  # fmt: skip
def test_every_spelling_of_an_identity_header_is_dropped(line: bytes) -> None:
    assert FieldParser()(line)[0] == fields.DROPPED


@pytest.mark.parametrize("line", [b"X-Email: a", b"x_email: a", b"X.Email: a"])
def test_identity_headers_of_the_configuration_are_dropped_too(line: bytes) -> None:
    assert FieldParser([b"X-Email"])(line)[0] == fields.DROPPED
    assert FieldParser()(line)[0] == fields.ORDINARY


@pytest.mark.parametrize("line", [
    b"Content_Length: 1", b"content.length: 1", b"Transfer_Encoding: chunked", b"X_Forwarded_For: 1", b"x.real.ip: 1",
    b"Proxy-Connection: close", b"X_Forwarded_Anything: 1",
])  # fmt: skip
def test_other_spellings_of_special_names_are_dropped(line: bytes) -> None:
    assert FieldParser()(line)[0] == fields.DROPPED


@pytest.mark.parametrize("name", [b"X-Forwarded-For", b"X-Real-IP", b"Forwarded", b"X-Request-ID", b"Traceparent",
                                  b"X-Forwarded-Port"])  # fmt: skip
def test_what_proxies_say_is_kept_apart(name: bytes) -> None:
    assert FieldParser()(name + b": 1") == (fields.FORWARDED, name + b": 1", (name.lower(), b"1"))


def test_wanted_fields_are_shown_and_forwarded() -> None:
    assert FieldParser((), [b"X-Api-Key"])(b"x-api-KEY: k") == (fields.WANTED, b"x-api-KEY: k", (b"x-api-key", b"k"))


def test_a_name_seen_with_a_colon_does_not_excuse_a_line_without() -> None:
    parser = FieldParser()
    parser(b"X-A: 1")
    with pytest.raises(PeerError):
        parser(b"X-A")


def test_a_bearer_token_is_found_whatever_the_case_of_its_scheme() -> None:
    first = FieldParser()(b"Authorization: Bearer a.b.c")[2]
    second = FieldParser()(b"authorization: bEARER  a.b.c")[2]
    assert first.token == second.token == b"a.b.c"
    assert first.digest == second.digest
    assert first.digest != Bearer(b"Bearer a.b.d", b"").digest


@pytest.mark.parametrize("value", [b"Basic dTpw", b"Bearerx a", b"", b"a.b.c"])
def test_other_schemes_carry_no_bearer_token(value: bytes) -> None:
    assert Bearer(value, b"").token is None


def test_the_canonical_spelling_joins_what_cgi_joins() -> None:
    assert canonical(b"X_User.ID") == b"x-user-id"


def test_remembered_names_are_bounded() -> None:
    parser = FieldParser()
    for number in range(fields.MAX_NAMES * 2 + 10):
        parser(b"X-%d: 1" % number)
    assert len(parser.kinds) <= fields.MAX_NAMES


def test_many_blanks_before_a_bad_byte_cost_no_more_than_their_length() -> None:
    with pytest.raises(PeerError):
        FieldParser()(b"X:" + b" " * 30000 + b"\x00")
    with pytest.raises(PeerError):
        FieldParser()(b"X:" + b" a" * 15000 + b"\x00")


@given(st.binary(max_size=60))
def test_property_only_peer_errors_escape(line: bytes) -> None:
    try:
        _, forward, _ = FieldParser()(line)
    except PeerError:
        return
    assert b"\r" not in forward
    assert b"\n" not in forward
    assert b"\0" not in forward
