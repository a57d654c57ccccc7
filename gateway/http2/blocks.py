"""Header blocks: HPACK (RFC 7541), as the two sides of a gateway need it.

`BlockDecoder` is a client's compression state. It walks the representations itself, over hpack's static table and
Huffman code, because its tables hold fields that are judged already: a field that a client has sent before costs one
look. Huffman-coded strings are remembered by their bytes for all connections of a worker.

Answers are encoded by `encode_line` without a table of our own: what a line becomes is then the same on every
connection and at every time, so it is remembered, and a block is a join of remembered bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman

from gateway.http2.errors import COMPRESSION_ERROR, ConnectionFault
from gateway.http2.fields import OVERHEAD, STATIC, STATIC_NAMES, Entry, entry
from gateway.memo import MAX_BYTES, MAX_LINE, MAX_LINES

TABLE_SIZE: Final = 4096  # bytes; what SETTINGS_HEADER_TABLE_SIZE says where nobody changes it
MAX_INTEGER: Final = 1 << 24  # no length or index in a block of 64 KiB comes near

_DYNAMIC: Final = len(STATIC)  # index of the newest entry of the dynamic table
# RFC 7541 §7.1.3: no proxy may table them.
_NEVER_INDEXED: Final = frozenset({b"set-cookie", b"www-authenticate", b"authorization", b"cookie"})


class Memo(dict[bytes, bytes]):
    """`memo[data]` is `work(data)`, remembered; emptied when it is full. Only for what is a function of its bytes."""

    __slots__ = ("_size", "_work")

    def __init__(self, work: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._work = work
        self._size = 0

    def __missing__(self, data: bytes) -> bytes:
        outcome = self._work(data)
        if len(data) <= MAX_LINE:
            if len(self) >= MAX_LINES or self._size + len(data) > MAX_BYTES:
                self.clear()
                self._size = 0
            self[data] = outcome
            self._size += len(data)
        return outcome


def _unhuffman(data: bytes) -> bytes:
    try:
        return bytes(decode_huffman(data))
    except HPACKDecodingError:
        raise ConnectionFault(COMPRESSION_ERROR, "a malformed Huffman string") from None


_huffman: Final = Memo(_unhuffman)


class BlockDecoder:
    """The decoding side of one connection. `changed` counts what altered the table."""

    __slots__ = ("_entries", "_limit", "_size", "changed")

    def __init__(self) -> None:
        self._entries: list[Entry] = []  # the newest last
        self._size = 0
        self._limit = TABLE_SIZE
        self.changed = 0

    def decode(self, block: bytes) -> list[Entry]:
        """The fields of a whole block. Raises ConnectionFault: after that nothing on the connection can be read."""
        entries = self._entries
        out: list[Entry] = []
        take = out.append
        at, end = 0, len(block)
        try:
            while at < end:
                first = block[at]
                at += 1
                if first & 0x80:  # an indexed field
                    index = first & 0x7F
                    if index == 0x7F:
                        index, at = _integer(block, at, 0x7F)
                    if index < _DYNAMIC:
                        if not index:
                            raise ConnectionFault(COMPRESSION_ERROR, "index 0")
                        take(STATIC[index])
                    else:
                        take(entries[_DYNAMIC - 1 - index])
                    continue
                if first & 0x60 == 0x20:
                    # RFC 7541 §4.2: changes of the size stand at the beginning of a block.
                    if out:
                        raise ConnectionFault(COMPRESSION_ERROR, "a change of the table's size amid fields")
                    size = first & 0x1F
                    if size == 0x1F:
                        size, at = _integer(block, at, 0x1F)
                    self._resize(size)
                    continue
                mask = 0x3F if first & 0x40 else 0x0F
                index = first & mask
                if index == mask:
                    index, at = _integer(block, at, mask)
                if not index:
                    name, at = read_string(block, at, end)
                elif index < _DYNAMIC:
                    name = STATIC[index][2]
                else:
                    name = entries[_DYNAMIC - 1 - index][2]
                # The same as `read_string`, inlined: nearly every literal ends here.
                length = block[at]
                at += 1
                huffman = length & 0x80
                length &= 0x7F
                if length == 0x7F:
                    length, at = _integer(block, at, 0x7F)
                value = block[at : at + length]
                at += length
                if at > end:
                    raise ConnectionFault(COMPRESSION_ERROR, "a string that ends beyond its block")
                one = entry(name, _huffman[value] if huffman else value)
                if first & 0x40:
                    self._add(one)
                take(one)
        except IndexError:
            raise ConnectionFault(COMPRESSION_ERROR, "an index beyond the table, or a block cut short") from None
        return out

    def _add(self, one: Entry) -> None:
        self.changed += 1
        self._size += len(one[0]) + OVERHEAD
        if self._size > self._limit:
            self._evict(self._size - self._limit)
            if self._size > self._limit:
                # RFC 7541 §4.4: what does not fit at all leaves the table empty.
                self._size = 0
                return
        self._entries.append(one)

    def _resize(self, limit: int) -> None:
        if limit > TABLE_SIZE:
            raise ConnectionFault(COMPRESSION_ERROR, "a table larger than was offered")
        self.changed += 1
        self._limit = limit
        if self._size > limit:
            self._evict(self._size - limit)

    def _evict(self, surplus: int) -> None:
        """Take out the oldest entries until `surplus` bytes are gone, or none is left."""
        gone = 0
        freed = 0
        for line, _, _ in self._entries:
            if freed >= surplus:
                break
            freed += len(line) + OVERHEAD
            gone += 1
        del self._entries[:gone]
        self._size -= freed


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """RFC 7541 §5.1, after a prefix of all ones: the number, and where it ends."""
    value, shift = prefix, 0
    while True:
        octet = block[at]
        at += 1
        value += (octet & 0x7F) << shift
        if value > MAX_INTEGER or shift > 28:
            raise ConnectionFault(COMPRESSION_ERROR, "an integer out of range")
        if octet < 0x80:
            return value, at
        shift += 7


def read_string(block: bytes, at: int, end: int) -> tuple[bytes, int]:
    """RFC 7541 §5.2: the string at `at`, and where it ends. Raises ConnectionFault, IndexError."""
    length = block[at]
    at += 1
    huffman = length & 0x80
    length &= 0x7F
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    text = block[at : at + length]
    at += length
    if at > end:
        raise ConnectionFault(COMPRESSION_ERROR, "a string that ends beyond its block")
    return (_huffman[text] if huffman else text), at


# -- encoding

_STATUSES: Final = {
    value.rpartition(b" ")[2]: bytes([0x80 | at]) for at, (value, _, name) in enumerate(STATIC) if name == b":status"
}


def encode_line(line: bytes) -> bytes:
    """An answer's header line, or its status line, as part of a block."""
    if line.startswith(b"HTTP/1.1 "):  # no field's name has a slash
        status = line[9:12]
        return _STATUSES.get(status) or b"\x08\x03" + status
    name, _, value = line.partition(b":")
    return encode_field(name.lower(), value.strip(b" \t"))


def encode_field(name: bytes, value: bytes) -> bytes:
    """A field, not put into the peer's table; `name` in lower case."""
    first = 0x10 if name in _NEVER_INDEXED else 0x00
    index = STATIC_NAMES.get(name)
    if index is None:
        return bytes([first]) + encode_integer(len(name), 7) + name + encode_integer(len(value), 7) + value
    return encode_integer(index, 4, first) + encode_integer(len(value), 7) + value


def encode_integer(value: int, bits: int, first: int = 0) -> bytes:
    """RFC 7541 §5.1; `first` are the bits before the prefix."""
    mask = (1 << bits) - 1
    if value < mask:
        return bytes([first | value])
    out = [first | mask]
    value -= mask
    while value >= 0x80:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)


class BlockEncoder:
    """Encodes the heads of answers for every connection of a worker."""

    __slots__ = ("_look", "heads", "lines")

    def __init__(self) -> None:
        self.lines = Memo(encode_line)
        self._look = self.lines.__getitem__
        # Whole heads as the answers' memory has them (AnswerReader.recall): within a second they repeat.
        self.heads = Memo(lambda head: self.encode(head.split(b"\r\n")))

    def encode(self, lines: Iterable[bytes]) -> bytes:
        """The block for a status line and header lines, or for trailers."""
        return b"".join(map(self._look, lines))
