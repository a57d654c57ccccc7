"""The users file, in PgBouncer's format."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from pooler import users
from pooler.scram import derive

SECRET = "SCRAM-SHA-256$4096:AAAA$" + "A" * 43 + "=:" + "A" * 43 + "="
MD5 = "md5" + "0" * 32


def test_every_kind_of_entry() -> None:
    text = f"""
; a comment
# another
"plain" "secret"
  "hashed"\t"{MD5}"  ignored
"scram" "{SECRET}"
"quo""ted" "a""b"
"empty" ""
"plain" "second"
"""
    found, problems = users.read(text)
    assert not problems
    assert list(found.by_name) == ["plain", "hashed", "scram", 'quo"ted', "empty"]
    assert found.by_name["plain"].password == "secret"
    assert (found.by_name["hashed"].md5, found.by_name["hashed"].password) == (MD5, None)
    assert found.by_name["scram"].secret is not None
    assert found.by_name['quo"ted'].password == 'a"b'
    assert found.find("nobody") is None


def test_every_problem_is_told_with_its_line() -> None:
    text = f'"ok" "x"\nnonsense\n"" "x"\n"{"u" * 129}" "x"\n"broken" "SCRAM-SHA-256$x"\n"half" "open\n'
    _, problems = users.read(text)
    assert [problem.split(":")[0] for problem in problems] == ["line 2", "line 3", "line 4", "line 5", "line 6"]


def test_what_each_kind_can_do() -> None:
    plain, hashed, scram = users.user("u", "secret"), users.user("u", MD5), users.user("u", SECRET)
    secret = plain.scram_secret()
    assert secret is not None
    assert secret is plain.scram_secret()
    assert secret == derive("secret", secret.salt, 4096).secret
    assert plain.md5_hash() == "md5" + hashlib.md5(b"secretu", usedforsecurity=False).hexdigest()
    assert (hashed.scram_secret(), hashed.md5_hash()) == (None, MD5)
    assert (scram.md5_hash(), scram.scram_secret() is not None) == (None, True)


def test_md5_over_the_wire() -> None:
    stored = users.md5_stored("u", "secret")
    assert users.md5_matches(stored, b"salt", users.md5_response(stored, b"salt"))
    assert not users.md5_matches(stored, b"salu", users.md5_response(stored, b"salt"))
    assert not users.md5_matches(stored, b"salt", "md5é")


def test_nothing_secret_is_shown() -> None:
    found, _ = users.read(f'"plain" "hunter2"\n"hashed" "{MD5}"')
    shown = repr(found)
    assert "hunter2" not in shown
    assert MD5 not in shown


def test_the_key_depends_on_the_file_alone() -> None:
    assert users.read('"a" "b"')[0].key == users.read('"a" "b"')[0].key != users.read('"a" "c"')[0].key


@given(st.text(max_size=200))
def test_property_any_text_is_read(text: str) -> None:
    users.read(text)
