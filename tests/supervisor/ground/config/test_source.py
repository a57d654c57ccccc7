"""TOML bytes into values and lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.ground.config import ConfigError
from supervisor.ground.config.source import MAX_FILE, Source, parse, read

TEXT = """\
# a comment
[supervisor]
workers = 2

[pools.user]   # another
balance = "maglev"
servers = [
  { address = "127.0.0.1:1", weight = 2 },   # first
  # second:
  "127.0.0.1:2",
]

[edge.listeners."a b"]
tls.certificates = [{ cert = "c.pem", "key" = "k.pem" }]

[[edge.rules]]
x = 1
[[edge.rules]]
x = 2
[edge.rules.deep]
y = 3
[[edge.rules.inner]]
z = 4
"""


def parsed(text: str | bytes) -> Source:
    return parse(text.encode() if isinstance(text, str) else text, "a.toml", Path("/etc"))


def refusal(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("supervisor",), 2),
        (("supervisor", "workers"), 3),
        (("pools",), 5),
        (("pools", "user"), 5),
        (("pools", "user", "servers"), 7),
        (("pools", "user", "servers", 0), 8),
        (("pools", "user", "servers", 0, "weight"), 8),
        (("pools", "user", "servers", 1), 10),
        (("edge", "listeners", "a b", "tls", "certificates", 0, "key"), 14),
        (("edge", "rules"), 16),
        (("edge", "rules", 0, "x"), 17),
        (("edge", "rules", 1), 18),
        (("edge", "rules", 1, "x"), 19),
        (("edge", "rules", 1, "deep", "y"), 21),
        (("edge", "rules", 1, "inner", 0, "z"), 23),
    ],
)
def test_every_key_has_its_line(path: tuple[str | int, ...], line: int) -> None:
    assert parsed(TEXT).lines[path] == line


def test_a_key_that_is_absent_has_the_line_of_its_table() -> None:
    assert parsed(TEXT).line(("pools", "user", "health", "path")) == 5
    assert parsed(TEXT).line(("absent",)) == 1


def test_a_quoted_key_is_read_as_toml_reads_it() -> None:
    assert parsed('x = 1\n"\\u0061.b" = 1\n\'c"\' = 2\n').lines == {("x",): 1, ("a.b",): 2, ('c"',): 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = = 2\n", "a.toml:2: Invalid value (column 5)"),
        ("[a]\nx = 1\n[a]\n", "a.toml:3: Cannot declare ('a',) twice (column 3)"),
        ("a = 1\na = 2\n", "a.toml:2: Cannot overwrite a value (column 6)"),
        ("a = 1\nb =", "a.toml:2: Invalid value at the end of the file"),
        ('a = "x', "a.toml:1: Unterminated string at the end of the file"),
        (b"a = 1\nb = '\xff'\n", "a.toml:2: is not UTF-8"),
        ("a = " + "[" * 5000 + "]" * 5000, "a.toml: tables nested more than 32 deep"),
        ("a = " + "[" * 40 + "]" * 40, "a.toml: tables nested more than 32 deep"),
        (b"#" * (MAX_FILE + 1), "a.toml: is larger than 4 MiB"),
    ],
)
def test_what_is_not_toml_is_refused_with_its_line(text: str | bytes, message: str) -> None:
    assert refusal(text) == message


def test_a_number_of_too_many_digits_is_refused() -> None:
    assert refusal("a = " + "9" * 5000).startswith("a.toml: Exceeds the limit")


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert parsed(b"\xef\xbb\xbfa = 1\n").values == {"a": 1}


def test_a_missing_file_is_named_as_the_user_named_it(tmp_path: Path) -> None:
    name = tmp_path / "absent.toml"
    with pytest.raises(ConfigError) as caught:
        read(name)
    assert str(caught.value) == f"{name}: cannot be read: No such file or directory"


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"{tmp_path}: cannot be read: Is a directory"


def test_a_name_with_a_nul_is_refused() -> None:
    with pytest.raises(ConfigError):
        read("a\0b")


def test_paths_start_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.toml").write_text("x = 1")
    monkeypatch.chdir(tmp_path)
    assert read("a.toml").directory == tmp_path


@given(st.binary(max_size=200))
def test_property_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        parsed(data)
    except ConfigError:
        pass


_FRAGMENTS = st.sampled_from(
    [*"[]{}=.,\"'a1\n #\0", "b-c", "[[", "]]", '"""', "\\u", "1979-05-27"],
)


@given(st.lists(_FRAGMENTS, max_size=40).map("".join))
def test_property_any_tokens_are_parsed_or_refused(text: str) -> None:
    try:
        source = parsed(text)
    except ConfigError as error:
        problems = error.problems
    else:
        problems = ()
        assert all(path[0] in source.values for path in source.lines)
    assert all(problem.file == "a.toml" for problem in problems)
