"""Which worker polls which slot: a pure decision over worker numbers.

A listener's slots (its SO_REUSEPORT sockets) are fixed in number and owned by the supervisor; a death, a back-off, a
drain or another worker count changes only who polls them. Every slot has a *home*, the worker that polls it when all
live; while the home is away another looks after it, and gives it back when the home's successor is ready. So a crash
moves the dead worker's slots and no others, twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

NOBODY = 0  # worker numbers begin at 1


def assign(owners: Sequence[int], homes: Sequence[int], live: Collection[int]) -> list[int]:
    """The new owner of each slot: its home if live, else who has it now if live, else the least loaded; spread evenly
    to within one slot with as few moves as that takes. With nobody live, nobody owns."""
    if not live:
        return [NOBODY] * len(owners)
    load = dict.fromkeys(sorted(live), 0)
    new = []
    for owner, home in zip(owners, homes, strict=True):
        keeper = home if home in load else owner if owner in load else NOBODY
        new.append(keeper)
        if keeper:
            load[keeper] += 1
    for slot, keeper in enumerate(new):
        if not keeper:
            new[slot] = least = min(load, key=load.__getitem__)
            load[least] += 1
    while True:
        most, least = max(load, key=load.__getitem__), min(load, key=load.__getitem__)
        if load[most] - load[least] <= 1:
            return new
        # A slot that is not at home anyway moves first: its home's owner will ask for it back sooner or later.
        slot = max((slot for slot, keeper in enumerate(new) if keeper == most), key=lambda slot: homes[slot] != most)
        new[slot] = least
        load[most] -= 1
        load[least] += 1


def settle(homes: Sequence[int], numbers: Collection[int]) -> list[int]:
    """The homes for another set of worker numbers, moved as little as an even spread allows."""
    return assign(homes, homes, numbers)
