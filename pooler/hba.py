"""Who may come in from where and how: rules in the format of pg_hba.conf, read once, the first that fits counts.

`local`, `host`, `hostssl` and `hostnossl`; databases and users by name, `all`, `sameuser`, `/regular expression`, and
`replication` for physical replication, which names no database;
addresses as networks, with a mask, `all`, `samehost` is not known. Source: PostgreSQL 21.1 "The pg_hba.conf File".
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Sequence

import attrs

from pooler.authentication import Method

MAX_RULES = 10_000  # a rule costs about a microsecond at each login

_KINDS = ("local", "host", "hostssl", "hostnossl")
_METHODS = {
    "trust": Method.TRUST, "reject": Method.REJECT, "md5": Method.MD5, "scram-sha-256": Method.SCRAM,
    "password": Method.PASSWORD, "cert": Method.CERT, "peer": Method.PEER,
}  # fmt: skip
_NETWORKS = {"all": ("0.0.0.0/0", "::/0")}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@attrs.frozen
class Names:
    """A list of databases or of users."""

    words: frozenset[str]
    patterns: tuple[re.Pattern[str], ...] = ()
    replication: bool = False  # physical replication, which is of no database, and which `all` does not mean

    def fit(self, name: str, user: str) -> bool:
        words = self.words
        if "all" in words or name in words or ("sameuser" in words and name == user):
            return True
        return any(pattern.search(name) for pattern in self.patterns)


@attrs.frozen
class Rule:
    """One line."""

    kind: str
    databases: Names
    users: Names
    networks: tuple[Network, ...]
    method: Method
    line: int

    def fits(self, origin: Origin, database: str, user: str, physical: bool = False) -> bool:
        if (self.kind == "local") != (origin.address is None):
            return False
        if self.kind in ("hostssl", "hostnossl") and (self.kind == "hostssl") != origin.secure:
            return False
        if origin.address is not None and not any(origin.address in network for network in self.networks):
            return False
        wanted = self.databases.replication if physical else self.databases.fit(database, user)
        return wanted and self.users.fit(user, "")


@attrs.frozen
class Origin:
    """Where a client comes from: its address, None for a Unix socket."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
    secure: bool


def origin(address: object, secure: bool) -> Origin:
    """Of what `accept` returned. A v4 address mapped into v6 is the v4 one."""
    if not isinstance(address, tuple):
        return Origin(None, secure)
    found = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if found.version == 6 and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return Origin(found, secure)


@attrs.frozen
class Rules:
    """All of a file."""

    rules: tuple[Rule, ...] = ()

    def find(self, origin: Origin, database: str, user: str, physical: bool = False) -> Rule | None:
        """The first that fits. None: nobody has thought of this client, so it may not come in. `physical`: it wants
        replication of everything, not of a database."""
        return next((rule for rule in self.rules if rule.fits(origin, database, user, physical)), None)


def read(text: str) -> tuple[Rules, list[str]]:
    """The rules, and what is wrong with the file, each with its line number."""
    rules: list[Rule] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            rule = _rule(line, number)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if rule is not None:
            rules.append(rule)
    if len(rules) > MAX_RULES:
        problems.append(f"{len(rules)} rules; {MAX_RULES} are possible")
    return Rules(tuple(rules)), problems


def _rule(line: str, number: int) -> Rule | None:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "#", ""
    words = [*lexer]
    if not words:
        return None
    kind = words[0]
    if kind not in _KINDS:
        raise ValueError(f"{kind!r} is none of {', '.join(_KINDS)}")
    networks: tuple[Network, ...] = ()
    rest: Sequence[str] = words[3:]
    if kind != "local":
        networks, rest = _networks(rest)
    if len(words) < 3 or not rest:
        raise ValueError("expected type, database, user" + (", method" if kind == "local" else ", address, method"))
    method = _METHODS.get(rest[0])
    if method is None:
        raise ValueError(f"method {rest[0]!r} is not known; there are {', '.join(_METHODS)}")
    if method is Method.PEER and kind != "local":
        raise ValueError("method peer is for local connections")
    if method is Method.CERT and kind != "hostssl":
        raise ValueError("method cert is for hostssl")
    if len(rest) > 1:
        raise ValueError(f"options such as {rest[1]!r} are not known")
    databases = [word for word in words[1].split(",") if word != "replication"]
    named = attrs.evolve(_names(",".join(databases)), replication="replication" in words[1].split(","))
    return Rule(kind, named, _names(words[2]), networks, method, number)


def _networks(words: Sequence[str]) -> tuple[tuple[Network, ...], Sequence[str]]:
    if not words:
        raise ValueError("expected an address")
    text, rest = words[0], words[1:]
    if text in _NETWORKS:
        return tuple(ipaddress.ip_network(one) for one in _NETWORKS[text]), rest
    if "/" not in text:
        if not rest:
            raise ValueError("expected a mask or a method behind the address")
        text, rest = f"{text}/{rest[0]}", rest[1:]
    try:
        return (ipaddress.ip_network(text, strict=False),), rest
    except ValueError:
        raise ValueError(f"{text!r} is not a network such as 10.0.0.0/8; names of hosts are not looked up") from None


def _names(text: str) -> Names:
    words: list[str] = []
    patterns: list[re.Pattern[str]] = []
    for word in text.split(","):
        if word.startswith("/"):
            try:
                patterns.append(re.compile(word[1:]))
            except re.error as error:
                raise ValueError(f"{word!r} is no regular expression: {error}") from None
        elif word.startswith(("+", "@")) or word in ("samerole", "samegroup"):
            raise ValueError(f"{word!r} is not known here")
        elif word:
            words.append(word)
    return Names(frozenset(words), tuple(patterns))
