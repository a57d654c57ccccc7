"""Request heads, valid and invalid, with what the guard must say of them; used by several tests.

Each valid case gives method, target, framing ("none", "chunked" or a number of bytes) and whether the connection may go
on; each invalid one the reason code. Heads are written with LF here where that makes them readable, see `wire`.
"""

from __future__ import annotations

import attrs


def wire(text: str) -> bytes:
    """The text with CRLF line ends and the empty line at its end."""
    return text.strip("\n").replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n"


@attrs.frozen
class Valid:
    name: str
    head: bytes
    method: str
    target: bytes
    framing: int | str = "none"
    keep_alive: bool = True


@attrs.frozen
class Invalid:
    name: str
    head: bytes
    code: str


VALID = [
    Valid("a plain GET", wire("GET / HTTP/1.1\nHost: a"), "GET", b"/"),
    Valid("blanks around a value", wire("GET / HTTP/1.1\nHost:  \t a \t"), "GET", b"/"),
    Valid("an empty value", wire("GET / HTTP/1.1\nHost: a\nX-Empty:"), "GET", b"/"),
    Valid("obs-text in a value", wire("GET / HTTP/1.1\nHost: a\nX-Name: J\xfcrgen"), "GET", b"/"),
    Valid("a quoted value with colons", wire('GET / HTTP/1.1\nHost: a\nETag: "a:b:c"'), "GET", b"/"),
    Valid("every token character", wire("GET / HTTP/1.1\nHost: a\n!#$%&'*+-.^_`|~09azAZ: 1"), "GET", b"/"),
    Valid("an unknown method", wire("PROPFIND /dav HTTP/1.1\nHost: a"), "PROPFIND", b"/dav"),
    Valid("a query", wire("GET /a?b=c&d=%20 HTTP/1.1\nHost: a"), "GET", b"/a?b=c&d=%20"),
    Valid("an absolute target", wire("GET http://a/b HTTP/1.1\nHost: a"), "GET", b"http://a/b"),
    Valid("a length", wire("POST / HTTP/1.1\nHost: a\nContent-Length: 5"), "POST", b"/", 5),
    Valid("a length of zero", wire("POST / HTTP/1.1\nHost: a\nContent-Length: 0"), "POST", b"/", 0),
    Valid("a length with leading zeros", wire("POST / HTTP/1.1\nHost: a\nContent-Length: 007"), "POST", b"/", 7),
    Valid("chunks", wire("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked"), "POST", b"/", "chunked"),
    Valid("chunks in capitals", wire("POST / HTTP/1.1\nHost: a\nTRANSFER-ENCODING: Chunked"), "POST", b"/", "chunked"),
    Valid("a close", wire("GET / HTTP/1.1\nHost: a\nConnection: close"), "GET", b"/", "none", False),
    Valid("a close in a list", wire("GET / HTTP/1.1\nHost: a\nConnection: foo, CLOSE"), "GET", b"/", "none", False),
    Valid("HTTP/1.0", wire("GET / HTTP/1.0"), "GET", b"/", "none", False),
    Valid("HTTP/1.0 with a body", wire("POST / HTTP/1.0\nHost: a\nContent-Length: 3"), "POST", b"/", 3, False),
    Valid("an expectation", wire("PUT / HTTP/1.1\nHost: a\nContent-Length: 3\nExpect: 100-continue"), "PUT", b"/", 3),
    Valid("an IPv6 host", wire("GET / HTTP/1.1\nHost: [::1]:8080"), "GET", b"/"),
    Valid("a host with port", wire("GET / HTTP/1.1\nHost: example.com:443"), "GET", b"/"),
    Valid("an upgrade", wire("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket"), "GET", b"/"),
    Valid("underscored lengths are nobody's", wire("GET / HTTP/1.1\nHost: a\nContent_Length: 5"), "GET", b"/"),
    Valid("a hundred fields", wire("GET / HTTP/1.1\nHost: a" + "\nX: y" * 99), "GET", b"/"),
    Valid("the longest target", wire(f"GET /{'a' * 8191} HTTP/1.1\nHost: a"), "GET", b"/" + b"a" * 8191),
    Valid("the longest head", wire("GET / HTTP/1.1\nHost: a\nX: ").removesuffix(b"\r\n\r\n")
          + b" " * (32 * 1024 - 29) + b"y\r\n\r\n", "GET", b"/"),
]  # fmt: skip

INVALID = [
    Invalid("no Host", wire("GET / HTTP/1.1"), "bad_host"),
    Invalid("two Hosts", wire("GET / HTTP/1.1\nHost: a\nHost: a"), "bad_host"),
    Invalid("an empty Host", wire("GET / HTTP/1.1\nHost:"), "bad_host"),
    Invalid("two hosts in one", wire("GET / HTTP/1.1\nHost: a, b"), "bad_host"),
    Invalid("a Host with a path", wire("GET / HTTP/1.1\nHost: a/b"), "bad_host"),
    Invalid("a Host with user", wire("GET / HTTP/1.1\nHost: u@a"), "bad_host"),
    Invalid("a Host with a wild port", wire("GET / HTTP/1.1\nHost: a:b"), "bad_host"),
    Invalid("length beside chunks", wire("POST / HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: chunked"),
            "bad_length"),
    Invalid("chunks beside length", wire("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nContent-Length: 5"),
            "bad_length"),
    Invalid("two lengths", wire("POST / HTTP/1.1\nHost: a\nContent-Length: 5\nContent-Length: 6"), "bad_length"),
    Invalid("equal lengths", wire("POST / HTTP/1.1\nHost: a\nContent-Length: 5\nContent-Length: 5"), "bad_length"),
    Invalid("a list of lengths", wire("POST / HTTP/1.1\nHost: a\nContent-Length: 5, 5"), "bad_length"),
    Invalid("a signed length", wire("POST / HTTP/1.1\nHost: a\nContent-Length: +5"), "bad_length"),
    Invalid("a negative length", wire("POST / HTTP/1.1\nHost: a\nContent-Length: -5"), "bad_length"),
    Invalid("a hexadecimal length", wire("POST / HTTP/1.1\nHost: a\nContent-Length: 0x5"), "bad_length"),
    Invalid("an underscored number", wire("POST / HTTP/1.1\nHost: a\nContent-Length: 1_0"), "bad_length"),
    Invalid("an empty length", wire("POST / HTTP/1.1\nHost: a\nContent-Length:"), "bad_length"),
    Invalid("a length of 16 digits", wire("POST / HTTP/1.1\nHost: a\nContent-Length: 1000000000000000"), "bad_length"),
    Invalid("Arabic digits", wire("POST / HTTP/1.1\nHost: a\nContent-Length: \xb2"), "bad_length"),
    Invalid("chunks on HTTP/1.0", wire("POST / HTTP/1.0\nHost: a\nTransfer-Encoding: chunked"), "bad_coding"),
    Invalid("chunks twice", wire("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked"),
            "bad_coding"),
    Invalid("chunks in a list", wire("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked"), "coding_unknown"),
    Invalid("identity", wire("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: identity"), "coding_unknown"),
    Invalid("chunks with a tail", wire("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked;q=1"), "coding_unknown"),
    Invalid("chunks behind vertical tab", wire("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: \x0bchunked"),
            "bad_field"),
    Invalid("an unknown expectation", wire("POST / HTTP/1.1\nHost: a\nExpect: more"), "expectation_unknown"),
    Invalid("a space before the colon", wire("GET / HTTP/1.1\nHost : a"), "bad_field"),
    Invalid("a tab before the colon", wire("GET / HTTP/1.1\nHost: a\nContent-Length\t: 5"), "bad_field"),
    Invalid("a space in a name", wire("GET / HTTP/1.1\nHost: a\nX Y: 1"), "bad_field"),
    Invalid("no colon", wire("GET / HTTP/1.1\nHost: a\nHost"), "bad_field"),
    Invalid("no name", wire("GET / HTTP/1.1\nHost: a\n: 1"), "bad_field"),
    Invalid("a folded line", wire("GET / HTTP/1.1\nHost: a\nX: 1\n 2"), "bad_field"),
    Invalid("a folded first line", wire("GET / HTTP/1.1\n Host: a"), "bad_field"),
    Invalid("a line of blanks", wire("GET / HTTP/1.1\nHost: a\n \nX: 1"), "bad_field"),
    Invalid("a NUL in a value", wire("GET / HTTP/1.1\nHost: a\nX: 1\x002"), "bad_field"),
    Invalid("a NUL in a name", wire("GET / HTTP/1.1\nHost: a\nX\x00: 1"), "bad_field"),
    Invalid("a control character in a value", wire("GET / HTTP/1.1\nHost: a\nX: 1\x012"), "bad_field"),
    Invalid("DEL in a value", wire("GET / HTTP/1.1\nHost: a\nX: 1\x7f"), "bad_field"),
    Invalid("obs-text in a name", wire("GET / HTTP/1.1\nHost: a\nX\xfc: 1"), "bad_field"),
    Invalid("bare LF between fields", b"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", "bad_field"),
    Invalid("bare LF after the line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", "bad_request_line"),
    Invalid("bare LF all over", b"GET / HTTP/1.1\nHost: a\n\n", "bad_request_line"),
    Invalid("bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n", "bad_field"),
    Invalid("bare CR in the line", b"GET / HTTP/1.1\rHost: a\r\n\r\n", "bad_request_line"),
    Invalid("bare CRs before the end", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", "bad_field"),
    Invalid("two spaces", wire("GET  / HTTP/1.1\nHost: a"), "bad_request_line"),
    Invalid("a tab for a space", wire("GET\t/ HTTP/1.1\nHost: a"), "bad_request_line"),
    Invalid("a space in the target", wire("GET /a b HTTP/1.1\nHost: a"), "bad_request_line"),
    Invalid("a space at the end", wire("GET / HTTP/1.1 \nHost: a"), "bad_request_line"),
    Invalid("a space at the start", wire(" GET / HTTP/1.1\nHost: a"), "bad_request_line"),
    Invalid("an empty line first", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_request_line"),
    Invalid("no version", wire("GET /\nHost: a"), "bad_request_line"),
    Invalid("a version in lower case", wire("GET / http/1.1\nHost: a"), "bad_request_line"),
    Invalid("HTTP/1.10", wire("GET / HTTP/1.10\nHost: a"), "bad_request_line"),
    Invalid("HTTP/1.2", wire("GET / HTTP/1.2\nHost: a"), "bad_version"),
    Invalid("HTTP/0.9", wire("GET / HTTP/0.9\nHost: a"), "bad_version"),
    Invalid("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad_version"),
    Invalid("obs-text in the target", wire("GET /\xfc HTTP/1.1\nHost: a"), "bad_request_line"),
    Invalid("a NUL in the target", wire("GET /\x00 HTTP/1.1\nHost: a"), "bad_request_line"),
    Invalid("a comma in the method", wire("GE,T / HTTP/1.1\nHost: a"), "bad_request_line"),
    Invalid("a method of 25 characters", wire(f"{'A' * 25} / HTTP/1.1\nHost: a"), "bad_request_line"),
    Invalid("a ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "bad_request_line"),
    Invalid("a target of 8 KiB and one", wire(f"GET /{'a' * 8192} HTTP/1.1\nHost: a"), "target_too_long"),
    Invalid("a hundred and one fields", wire("GET / HTTP/1.1\nHost: a" + "\nX: y" * 100), "too_many_fields"),
    Invalid("a head of 32 KiB and one", wire("GET / HTTP/1.1\nHost: a\nX: ").removesuffix(b"\r\n\r\n")
            + b" " * (32 * 1024 - 28) + b"y\r\n\r\n", "head_too_large"),
    Invalid("two Authorizations", wire("GET / HTTP/1.1\nHost: a\nAuthorization: a\nAuthorization: b"),
            "bad_authorization"),
    Invalid("garbage in Connection", wire("GET / HTTP/1.1\nHost: a\nConnection: a b"), "bad_field"),
]  # fmt: skip
