"""The messages between the supervisor and its children. What tiers say among themselves stands with the tiers.

Children obey an order only when the kernel says that the supervisor's process sent it; the supervisor knows by the same
word which child answers.
"""

from __future__ import annotations

import attrs

from supervisor.ground.wire import message

# From the supervisor


@message("slots")
@attrs.frozen
class Slots:
    """Owner cells have changed: look at them, let go of what is another's, poll what is yours, and say `Released`."""

    step: int
    title: str  # "gateway 1/2": the count may have changed too


@message("sockets")
@attrs.frozen
class Sockets:
    """Descriptors of a listener that generation `generation` adds, for the slots from `first` on."""

    generation: int
    listener: str
    first: int


@message("prepare")
@attrs.frozen
class Prepare:
    """Make ready to run the configuration in the attached cargo; answer `Prepared` or `Refused`."""

    generation: int
    removed: tuple[str, ...] = ()  # listeners whose sockets go when the generation is committed


@message("commit")
@attrs.frozen
class Commit:
    """The generation cell has been flipped. The cell is what counts; this only says it at once."""

    generation: int


@message("abort")
@attrs.frozen
class Abort:
    """Forget what was prepared."""

    generation: int


@message("renew")
@attrs.frozen
class Renew:
    """Work with other contents of some files, in the attached cargo: certificates and keys by path. Valid, and not a
    new generation: nothing else changes."""


@message("reopen")
@attrs.frozen
class Reopen:
    """Open the log files anew."""


@message("what-holds")
@attrs.frozen
class WhatHolds:
    """Say what still holds your drain up: `Holding`."""

    question: int


@message("held")
@attrs.frozen
class Held:
    """For the admin: what holds up the drain of another process, told each second for as long as it drains."""

    process: str  # its title
    pid: int
    left: int
    lines: tuple[str, ...]  # the first `MAX_HELD_LINES`


# To the supervisor


@message("ready")
@attrs.frozen
class Ready:
    """The process works."""


@message("released")
@attrs.frozen
class Released:
    """The owner cells have been looked at for `step`: nothing is polled that is another's."""

    step: int


@message("prepared")
@attrs.frozen
class Prepared:
    """Everything for the generation stands beside what runs."""

    generation: int


@message("swapped")
@attrs.frozen
class Swapped:
    """The generation runs here; what it removed is closed here."""

    generation: int


@message("refused")
@attrs.frozen
class Refused:
    """The generation can't be run, and nothing has changed."""

    generation: int
    reasons: tuple[str, ...]


@message("holding")
@attrs.frozen
class Holding:
    """What holds this process's drain up."""

    question: int
    count: int
    lines: tuple[str, ...]  # the first `MAX_HELD_LINES`


@message("reload-wanted")
@attrs.frozen
class ReloadWanted:
    """An operator has asked a tier for a reload. The answer is `Reloaded`."""

    number: int


@message("reloaded")
@attrs.frozen
class Reloaded:
    """From the supervisor, to whoever asked by `ReloadWanted`: how it ended."""

    number: int
    errors: tuple[str, ...]  # none: the file was taken


@message("row-wanted")
@attrs.frozen
class RowWanted:
    """A tier needs a row that the configuration does not name. The answer is `RowAnswer`."""

    number: int
    kind: str
    name: str


@message("row-answer")
@attrs.frozen
class RowAnswer:
    """From the supervisor, to whoever asked by `RowWanted`."""

    number: int
    errors: tuple[str, ...]  # none: the row is there


FROM_SUPERVISOR = (Slots, Sockets, Prepare, Commit, Abort, Renew, Reopen, WhatHolds, Held)
MAX_HELD_LINES, MAX_HELD_LINE = 40, 200  # lines, characters; JSON may take six bytes for one, a message has 60 KiB
MAX_REASON = 2000  # characters of a reason; a message is bounded, and a person reads it
