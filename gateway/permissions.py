"""What a token must say beyond who holds it: the scopes and claims that a route requires.

A token without them is good, but not for this: 403, with the challenge of RFC 6750 §3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from gateway.errors import PeerError

SCOPES = ("scope", "scp")  # RFC 8693 §4.2: a list with spaces; some issuers have an array under the other name


@attrs.frozen
class Permissions:
    """`scopes` must all be there; of each of `claims` the value, or one member of a list, is this text."""

    realm: str
    scopes: frozenset[str]
    claims: tuple[tuple[str, str], ...]

    def check(self, said: Mapping[str, Any]) -> None:
        """Raises PeerError("forbidden") unless these claims of a verified token permit it."""
        missing = self.scopes - {scope for name in SCOPES for scope in _members(said.get(name))}
        if missing:
            wanted = " ".join(sorted(self.scopes))
            challenge = f'Bearer realm="{quotable(self.realm)}", error="insufficient_scope", scope="{wanted}"'
            raise PeerError(
                "forbidden", f"the token lacks the scope {', '.join(sorted(missing))}", close=False,
                fields=(f"WWW-Authenticate: {challenge}".encode("ascii"),),
            )  # fmt: skip
        for name, value in self.claims:
            found = said.get(name)
            if value not in ([_text(one) for one in found] if isinstance(found, list) else [_text(found)]):
                raise PeerError("forbidden", f"the token's {name} is not what the route requires", close=False)


def claims_of_interest(claims: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """As much of a token as is kept for later looks: not its megabytes."""
    return {name: claims[name] for name in names if name in claims}


def _members(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.split(" ")
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    """A claim as the configuration writes it; None for what it can't write."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def quotable(text: str) -> str:
    """What may stand in the quotes of RFC 6750 §3: visible ASCII but quote and backslash."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)
