"""Balancing: which server of a list, given weights, loads or a key. Pure functions; pools keep the state.

Keyed picks (source_hash, maglev) depend on names and weights only, so that every worker and every restart agrees:
the built-in `hash` is salted per process and never used. What a pick costs matters here; what a table costs is paid
when the list of servers changes.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import zlib
from array import array
from collections.abc import Callable, Sequence

MAGLEV_SIZE = 65537  # prime, so that every skip visits every entry (Maglev, NSDI 2016, 5.3: over 100 per server)
SOURCE_SLOTS = 1 << 14  # keys share a slot's server: 10 servers are even to about 2.5 %
MAX_SCHEDULE = 4096  # turns of a weighted round; larger weights are scaled down to fit
_WORD = (1 << 64) - 1


def key_hash(key: int | bytes | str) -> int:
    """32 bits of a key. An IPv4 address mapped into IPv6 counts as the IPv4 address that it is."""
    if isinstance(key, str):
        return zlib.crc32(key.removeprefix("::ffff:").encode())
    return zlib.crc32(key if isinstance(key, bytes) else key.to_bytes(16, "little"))


def schedule(weights: Sequence[int]) -> list[int]:
    """One round of weighted round robin as indices, smooth: turns of a heavy server are spread over the round.

    Each turn goes to the server whose next share is due first.
    """
    if not weights:
        return []
    divisor = math.gcd(*weights)
    shares = [weight // divisor for weight in weights]
    if sum(shares) > MAX_SCHEDULE:
        scale = (MAX_SCHEDULE - len(shares)) / sum(shares)
        shares = [max(1, int(share * scale)) for share in shares]
    due = [(0.5 / share, index) for index, share in enumerate(shares)]
    heapq.heapify(due)
    turns = []
    for _ in range(sum(shares)):
        when, index = due[0]
        turns.append(index)
        heapq.heapreplace(due, (when + 1 / shares[index], index))
    return turns


def least(loads: Sequence[int], weights: Sequence[int], start: int = 0) -> int:
    """The index with the least load for its weight, counting the connection to come; ties go round from `start`."""
    count = len(loads)
    best, winner = math.inf, 0
    for step in range(count):
        index = (start + step) % count
        load = (loads[index] + 1) / weights[index]
        if load < best:
            best, winner = load, index
    return winner


def seed(name: str) -> int:
    """What a server's name contributes to keyed picks."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def rank(slot: int, seeds: Sequence[int], weights: Sequence[int]) -> list[int]:
    """All indices in the order in which a slot prefers them: weighted rendezvous (Schindelhauer, Schomaker 2005).

    The order of the others doesn't change when one goes, so a removed server moves only its own keys.
    """
    if len(seeds) == 1:
        return [0]
    scores = []
    for index, (name, weight) in enumerate(zip(seeds, weights, strict=True)):
        # The finisher of SplitMix64: every bit of slot and name moves every bit of the draw.
        mixed = (slot * 0x9E3779B97F4A7C15 ^ name) & _WORD
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _WORD
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _WORD
        draw = ((mixed ^ mixed >> 31) + 1) / (_WORD + 2)  # within (0, 1)
        scores.append((-math.log(draw) / weight, index))
    scores.sort()
    return [index for _, index in scores]


def maglev(names: Sequence[str], weights: Sequence[int], size: int = MAGLEV_SIZE) -> array[int]:
    """The lookup table of Maglev (NSDI 2016, 3.4), an index into `names` for each entry; 20 to 50 ms. `size` is prime.

    Servers take turns as their weights say, in the order of their names, each claiming the next free entry of its own
    permutation.
    """
    order = sorted(range(len(names)), key=names.__getitem__)
    table = array("H", [0xFFFF]) * size
    if not order:
        return table
    position, skip = [], []
    for index in order:
        word = hashlib.blake2b(names[index].encode(), digest_size=16, person=b"maglev").digest()
        position.append(int.from_bytes(word[:8], "little") % size)
        skip.append(int.from_bytes(word[8:], "little") % (size - 1) + 1)
    turns = schedule([weights[index] for index in order])
    left = size
    while True:
        for turn in turns:
            at, step = position[turn], skip[turn]
            while table[at] != 0xFFFF:
                at += step
                if at >= size:
                    at -= size
            table[at] = order[turn]
            position[turn] = at
            left -= 1
            if not left:
                return table


def probe(table: Sequence[int], key: int, usable: Callable[[int], bool], tries: int = 32) -> int:
    """The key's server in a Maglev table, or if it isn't usable, the next one that its own walk meets; -1 for none.

    So a server that is down moves only its own keys, and the table, costly to make, stays.
    """
    size = len(table)
    at = key % size
    step = key // size % (size - 1) + 1
    for _ in range(tries):
        index = table[at]
        if usable(index):
            return index
        at = (at + step) % size
    return -1
