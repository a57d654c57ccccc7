"""SQL cut into statements and tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.tokens import statements, tokens

CUT = {
    "two statements": (b"SELECT 1; SET x", [b"select 1", b"set x"]),
    "nothing but semicolons": (b" ;; ; ", []),
    "strings": (
        b"SELECT ';', E'\\';', '''', $$;$$, $a$;$$;$a$; B",
        [b"select ';' , E'\\';' , '''' , $$;$$ , $a$;$$;$a$", b"b"],
    ),
    "a quoted name": (b'SELECT "a;""b"; B', [b'select a;"b', b"b"]),
    "comments": (b"/* ; /* ; */ */ SELECT -- ;\n1; B", [b"select 1", b"b"]),
    "a rule's parentheses": (
        b"CREATE RULE r AS ON UPDATE TO t DO (A; B); C",
        [b"create rule r as on update to t do ( a ; b )", b"c"],
    ),
    "a function's body": (
        b"CREATE FUNCTION f() BEGIN ATOMIC A; B; END",
        [b"create function f ( ) begin atomic a ; b ; end"],
    ),
    "what is not closed": (b"A; 'b; c", [b"a", b"'b; c"]),
}


@pytest.mark.parametrize(("text", "cut"), CUT.values(), ids=CUT)
def test_statements(text: bytes, cut: list[bytes]) -> None:
    assert [b" ".join(token.text for token in found) for found in statements(text)] == cut


def test_what_is_quoted_is_no_word() -> None:
    assert [token.word for token in tokens(b"SET \"Set\" 'set' sEt")] == [b"set", b"", b"", b"set"]


@given(st.one_of(st.binary(max_size=60), st.text("ab;'\"$/*-\\ e\n", max_size=40).map(str.encode)))
def test_property_tokens_are_in_order_and_nothing_escapes(text: bytes) -> None:
    at = 0
    for token in tokens(text):
        assert at <= token.start < token.end <= len(text)
        at = token.end
    list(statements(text))
