"""How problems read."""

from supervisor.ground.config import ConfigError, Located, not_one_of, show, show_path, unknown_name


def test_a_problem_reads_file_line_path_message() -> None:
    problem = Located("conf/a.toml", 14, ("pools", "user", "balence"), "unknown key")
    assert str(problem) == "conf/a.toml:14: pools.user.balence: unknown key"


def test_a_problem_of_the_whole_file_has_no_line_and_no_path() -> None:
    assert str(Located("a.toml", 0, (), "cannot be read")) == "a.toml: cannot be read"


def test_an_error_shows_every_problem_on_its_line() -> None:
    error = ConfigError([Located("a", 1, ("x",), "one"), Located("a", 2, ("y",), "two")])
    assert str(error) == "a:1: x: one\na:2: y: two"


def test_paths_are_written_as_toml_writes_them() -> None:
    assert show_path(("a", "b c", 0, "d", 1, 2)) == 'a."b c"[0].d[1][2]'


def test_strings_are_escaped_and_cut() -> None:
    assert show('a"b\\c\n\u202e') == '"a\\"b\\\\c\\n\\u202e"'
    assert show("x" * 1000) == '"' + "x" * 80 + '…"'


def test_references_that_lead_nowhere_say_what_was_meant() -> None:
    assert unknown_name("pool", "usr", ["user", "game"]) == 'unknown pool "usr"; did you mean "user"?'
    assert unknown_name("pool", "zzz", ["user", "game"]) == 'unknown pool "zzz"'


def test_words_outside_a_list_say_the_list() -> None:
    assert not_one_of("TCP", ["tcp", "udp"]) == '"TCP" is not one of "tcp", "udp"; did you mean "tcp"?'
    assert not_one_of("x", ["jwt"]) == '"x" is not "jwt"'
