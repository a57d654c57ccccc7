"""Who may log in, and with what: PgBouncer's userlist format, `"user" "password"`, one a line.

The second word is a password, `md5` and 32 hex digits, or a SCRAM secret as in pg_authid. Owns the file's grammar and
what each kind of entry can do; the exchange itself stands in `authentication` (clients) and `login` (servers).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterator

import attrs

from pooler.scram import ITERATIONS, SALT_SIZE, Keys, Secret, derive, parse_secret

# PgBouncer's MAX_USERNAME is 128 and MAX_PASSWORD 2048 bytes; longer ones are a broken file.
MAX_USER_SIZE = 128
MAX_PASSWORD_SIZE = 2048
_WORD = r'"((?:[^"]|"")*)"'
# Anything may follow the second word, and PgBouncer ignores it; a line that begins with ; or # is a comment.
_LINE = re.compile(rf"\s*{_WORD}\s+{_WORD}(?:\s.*)?")
_MD5 = re.compile(r"md5[0-9a-f]{32}")


@attrs.define(eq=False)
class User:
    """One line of the file. `keys` is learned when the user proves itself against a secret; it then opens servers
    too."""

    name: str
    password: str | None = attrs.field(default=None, repr=False)
    md5: str | None = attrs.field(default=None, repr=False)  # "md5..." as stored
    secret: Secret | None = None
    keys: Keys | None = None

    def scram_secret(self) -> Secret | None:
        """What a client must prove with SCRAM, or None where only an md5 hash is stored."""
        if self.secret is None and self.password is not None:
            self.secret = derive(self.password, os.urandom(SALT_SIZE), ITERATIONS).secret
        return self.secret

    def md5_hash(self) -> str | None:
        """The stored form that md5 authentication needs, or None where only a SCRAM secret is stored."""
        if self.md5 is None and self.password is not None:
            self.md5 = md5_stored(self.name, self.password)
        return self.md5


def user(name: str, stored: str) -> User:
    """A user with what is stored for it; ValueError for something that looks like a secret and is none."""
    if _MD5.fullmatch(stored):
        return User(name, md5=stored)
    if stored.startswith("SCRAM-SHA-256$"):
        return User(name, secret=parse_secret(stored))
    return User(name, password=stored)


def md5_stored(name: str, password: str) -> str:
    """`md5` and the hex digest of password and name, as PostgreSQL stores it."""
    return "md5" + hashlib.md5(password.encode() + name.encode(), usedforsecurity=False).hexdigest()


def md5_response(stored: str, salt: bytes) -> str:
    """What goes over the wire: the stored hash, without its prefix, hashed again with the four bytes of salt."""
    return "md5" + hashlib.md5(stored[3:].encode() + salt, usedforsecurity=False).hexdigest()


def md5_matches(stored: str, salt: bytes, response: str) -> bool:
    """Constant-time comparison."""
    return hmac.compare_digest(md5_response(stored, salt).encode(), response.encode())


def password_matches(user: User | None, name: str, password: str) -> bool:
    """Whether a password in clear text is this user's, however it is stored. Constant-time comparison."""
    if user is None:
        return False
    if user.password is not None:
        return hmac.compare_digest(user.password.encode(), password.encode())
    if user.secret is not None:
        keys = derive(password, user.secret.salt, user.secret.iterations)
        if not hmac.compare_digest(keys.secret.stored_key, user.secret.stored_key):
            return False
        user.keys = keys  # they open a server that keeps the same secret
        return True
    return user.md5 is not None and hmac.compare_digest(md5_stored(name, password).encode(), user.md5.encode())


@attrs.frozen
class Users:
    """All users of a file. `key` seasons the mock secrets of users that don't exist; the same in every worker."""

    by_name: dict[str, User] = attrs.field(factory=dict)
    key: bytes = attrs.field(default=b"", repr=False)

    def find(self, name: str) -> User | None:
        return self.by_name.get(name)


def read(text: str) -> tuple[Users, list[str]]:
    """The users and what is wrong with the file: every problem, each with its line number. The first entry of a name
    counts."""
    found: dict[str, User] = {}
    problems: list[str] = []
    for number, outcome in _lines(text):
        if isinstance(outcome, str):
            problems.append(f"line {number}: {outcome}")
        else:
            found.setdefault(outcome.name, outcome)
    return Users(found, hashlib.blake2b(text.encode(), person=b"portway users").digest()), problems


def _lines(text: str) -> Iterator[tuple[int, User | str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip()[0] in ";#":
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            yield number, 'expected "user" "password"'
            continue
        name, stored = (word.replace('""', '"') for word in match.groups())
        if not name or len(name.encode()) > MAX_USER_SIZE or len(stored.encode()) > MAX_PASSWORD_SIZE:
            yield number, f"the name must have 1 to {MAX_USER_SIZE} bytes and the password at most {MAX_PASSWORD_SIZE}"
            continue
        try:
            yield number, user(name, stored)
        except ValueError as error:
            yield number, str(error)
