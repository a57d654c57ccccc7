"""What gateway workers and the keeper of their key sets say to each other over the wire."""

from __future__ import annotations

import attrs

from supervisor.ground.wire import message


@message("gateway.keys wanted")
@attrs.frozen
class KeysWanted:
    """By a worker: tell me the key set of this URL; with `again`, fetch it first, for a token names an unknown key."""

    column: int
    url: str
    again: bool = False


@message("gateway.keys")
@attrs.frozen
class Keys:
    """By the keeper: the key set of this URL, as text."""

    url: str
    data: str
