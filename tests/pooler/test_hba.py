"""Rules in pg_hba.conf's format."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler import hba
from pooler.authentication import Method

FILE = """
# who  where
local   all        ops                      peer
hostssl app,"My DB" all      10.0.0.0/8      scram-sha-256
hostssl all        /^cert_   all             cert
host    all        bad       0.0.0.0/0       reject
host    sameuser   all       192.0.2.1 255.255.255.255  md5
hostnossl all      all       127.0.0.1/32    trust   # at home
host    all        all       ::1/128         password
"""


def test_physical_replication_is_meant_by_its_own_word_alone() -> None:
    rules, problems = hba.read("host all all all md5\nhost app,replication replication all trust")
    assert not problems
    origin = hba.origin(("10.0.0.1", 5), False)
    assert rules.find(origin, "replication", "app", physical=True) is None
    rule = rules.find(origin, "other", "replication", physical=True)
    assert rule is not None
    assert rule.method is Method.TRUST
    rules, _ = hba.read("host replication all all trust")
    assert rules.find(origin, "replication", "app") is None


def found(address: Any, database: str, user: str, secure: bool = False) -> Method | None:
    rules, problems = hba.read(FILE)
    assert not problems
    rule = rules.find(hba.origin(address, secure), database, user)
    return rule.method if rule is not None else None


def test_the_first_rule_that_fits_counts() -> None:
    assert found("", "app", "ops") is Method.PEER
    assert found("", "app", "other") is None
    assert found(("10.1.2.3", 5), "My DB", "x", True) is Method.SCRAM
    assert found(("10.1.2.3", 5), "app", "x") is None
    assert found(("198.51.100.1", 5), "x", "cert_a", True) is Method.CERT
    assert found(("198.51.100.1", 5), "x", "bad") is Method.REJECT
    assert found(("192.0.2.1", 5), "me", "me") is Method.MD5
    assert found(("192.0.2.1", 5), "you", "me") is None
    assert found(("::ffff:127.0.0.1", 5), "x", "x") is Method.TRUST
    assert found(("127.0.0.1", 5), "x", "x", True) is None
    assert found(("::1", 5, 0, 0), "x", "x") is Method.PASSWORD


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("remote all all trust", "'remote' is none of"),
        ("host all all", "expected an address"),
        ("host all all 10.0.0.0/8", "expected type, database, user, address, method"),
        ("host all all example.com trust", "names of hosts are not looked up"),
        ("host all all 10.0.0.0/8 ldap", "method 'ldap' is not known"),
        ("host all all 10.0.0.0/8 md5 clientcert=1", "options"),
        ("host all all 10.0.0.0/8 peer", "local connections"),
        ("host all all 10.0.0.0/8 cert", "hostssl"),
        ("host all +group 10.0.0.0/8 md5", "not known here"),
        ("host all /( 10.0.0.0/8 md5", "no regular expression"),
        ('host "all all 10.0.0.0/8 md5', "quotation"),
    ],
)
def test_every_problem_has_its_line(line: str, said: str) -> None:
    _, problems = hba.read(f"# first\n{line}\n")
    assert len(problems) == 1
    assert problems[0].startswith("line 2: ")
    assert said in problems[0]


@given(st.text(alphabet=st.sampled_from("host al/\"'#,.0123456789:+@md5trust\n\t\\"), max_size=200))
def test_any_file_gives_rules_or_problems(text: str) -> None:
    rules, _ = hba.read(text)
    rules.find(hba.origin(("127.0.0.1", 1), False), "a", "b")
