"""The value types of a configuration: durations, sizes, rates, percentages, addresses, networks.

Each is written in a table simply as the field's type, and reads itself from the TOML value by `from_config`, which
raises ValueError with the message that the user will see. Nothing is coerced: a number is not a duration.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, ClassVar, Protocol, Self

import attrs

from .problems import show

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)\Z", re.ASCII)
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# Deadlines are added to monotonic nanoseconds in 64 bits, and nobody waits ten years.
MAX_DURATION = 10 * 365 * 86400.0  # seconds

_SIZE = re.compile(r"(\d{1,12})(B|KiB|MiB|GiB|KB|MB|GB)\Z", re.ASCII)
_SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}

_RATE = re.compile(r"(\d{1,9})/(s|m|h|d)\Z", re.ASCII)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)%\Z", re.ASCII)
_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?\Z", re.ASCII
)
_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([^\[\]:]+)):(\d{1,5})\Z", re.ASCII)


@attrs.frozen
class Place:
    """Where a value stands: what its relative paths and environment variables mean."""

    directory: FilePath
    environ: Mapping[str, str] = attrs.field(repr=False)


class Value(Protocol):
    """What a value type offers: its name in messages, the raw types it takes, its JSON Schema, and its reader."""

    DESCRIPTION: ClassVar[str]
    RAW: ClassVar[tuple[type, ...]]
    SCHEMA: ClassVar[dict[str, Any]]

    @classmethod
    def from_config(cls, raw: Any, place: Place) -> Self: ...


class Duration(float):
    """A time span in seconds, written "500ms", "3s", "5m", "1h" or "2d"."""

    __slots__ = ()
    DESCRIPTION: ClassVar[str] = 'a duration such as "3s"'
    RAW: ClassVar[tuple[type, ...]] = (str,)
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "pattern": r"^(0|\d{1,9}(\.\d{1,6})?(ms|s|m|h|d))$"}

    @classmethod
    def from_config(cls, raw: str, place: Place) -> Self:
        if raw == "0":
            return cls(0)
        match = _DURATION.match(raw)
        if match is None:
            raise ValueError(f'{show(raw)} is not a duration such as "500ms", "3s", "5m" or "1h"')
        seconds = float(match[1]) * _DURATION_UNITS[match[2]]
        if seconds > MAX_DURATION:
            raise ValueError(f"{show(raw)} is longer than ten years")
        return cls(seconds)

    def __str__(self) -> str:
        for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
            if self >= seconds and self % seconds == 0:
                return f"{int(self // seconds)}{unit}"
        return f"{float(self):g}s" if self >= 1 or not self else f"{self * 1000:g}ms"

    def __repr__(self) -> str:
        return f"Duration({float(self)!r})"


class Size(int):
    """A number of bytes, written "16KiB", "1MiB", "512B"."""

    __slots__ = ()
    DESCRIPTION: ClassVar[str] = 'a size such as "16KiB"'
    RAW: ClassVar[tuple[type, ...]] = (str,)
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "pattern": r"^\d{1,12}(B|KiB|MiB|GiB|KB|MB|GB)$"}

    @classmethod
    def from_config(cls, raw: str, place: Place) -> Self:
        match = _SIZE.match(raw)
        if match is None:
            raise ValueError(f'{show(raw)} is not a size such as "512B", "16KiB" or "1MiB"')
        size = int(match[1]) * _SIZE_UNITS[match[2]]
        if size >= 1 << 53:
            raise ValueError(f"{show(raw)} is too large")
        return cls(size)

    def __str__(self) -> str:
        for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
            if self and self % factor == 0:
                return f"{self // factor}{unit}"
        return f"{int(self)}B"

    def __repr__(self) -> str:
        return f"Size({int(self)})"


@attrs.frozen
class Rate:
    """So many per so many seconds, written "100/s" or "1000/m"."""

    DESCRIPTION: ClassVar[str] = 'a rate such as "100/s"'
    RAW: ClassVar[tuple[type, ...]] = (str,)
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "pattern": r"^\d{1,9}/(s|m|h|d)$"}

    count: int
    per: float  # seconds

    @classmethod
    def from_config(cls, raw: str, place: Place) -> Self:
        match = _RATE.match(raw)
        if match is None:
            raise ValueError(f'{show(raw)} is not a rate such as "100/s" or "1000/m"')
        if int(match[1]) == 0:
            raise ValueError("a rate of zero would admit nothing")
        return cls(int(match[1]), _DURATION_UNITS[match[2]])

    @property
    def interval_ns(self) -> int:
        """Nanoseconds between two admissions at this rate: the T of GCRA."""
        return max(1, round(self.per * 1e9 / self.count))

    def __str__(self) -> str:
        units = {seconds: unit for unit, seconds in _DURATION_UNITS.items()}
        return f"{self.count}/{units.get(self.per, f'{self.per:g}s')}"


class Percent(float):
    """A share between 0 and 1, written "50%"."""

    __slots__ = ()
    DESCRIPTION: ClassVar[str] = 'a percentage such as "50%"'
    RAW: ClassVar[tuple[type, ...]] = (str,)
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "pattern": r"^\d{1,3}(\.\d{1,3})?%$"}

    @classmethod
    def from_config(cls, raw: str, place: Place) -> Self:
        match = _PERCENT.match(raw)
        if match is None or float(match[1]) > 100:
            raise ValueError(f'{show(raw)} is not a percentage from "0%" to "100%"')
        return cls(float(match[1]) / 100)

    def __str__(self) -> str:
        return f"{self * 100:g}%"

    def __repr__(self) -> str:
        return f"Percent({float(self)!r})"


@attrs.frozen(order=True)
class Bind:
    """An IP address and a port, written "127.0.0.1:80" or "[::1]:80"; `localhost` is 127.0.0.1 (RFC 6761 §6.3)."""

    DESCRIPTION: ClassVar[str] = 'an address such as "127.0.0.1:8080"'
    RAW: ClassVar[tuple[type, ...]] = (str,)
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+):\d{1,5}$"}

    host: str
    port: int

    @classmethod
    def from_config(cls, raw: str, place: Place) -> Self:
        match = _HOST_PORT.match(raw)
        if match is None:
            raise ValueError(f'{show(raw)} is not an address such as "127.0.0.1:8080" or "[::1]:8080"')
        port = int(match[3])
        if port > 65535:
            raise ValueError(f"port {port} is above 65535")
        try:
            host = str(ipaddress.IPv6Address(match[1]) if match[1] else ipaddress.IPv4Address(_loopback(match[2])))
        except ValueError:
            raise ValueError(f"{show(match[1] or match[2])} is not an IP address") from None
        return cls(host, port)

    @property
    def is_name(self) -> bool:
        """Whether the host has to be looked up: never of a Bind."""
        return False

    @classmethod
    def at_path(cls, path: FilePath) -> Self:
        """A Unix socket: its path for a host, and no port."""
        return cls(str(path), 0)

    @property
    def is_local(self) -> bool:
        """Whether it is a Unix socket."""
        return self.host.startswith("/")

    @property
    def family(self) -> socket.AddressFamily:
        if self.is_local:
            return socket.AF_UNIX
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def sockaddr(self) -> tuple[str, int]:
        """What `socket.bind` and `socket.connect` take."""
        return (self.host, self.port)

    def __str__(self) -> str:
        if self.is_local:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _loopback(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host


@attrs.frozen(order=True)
class Address(Bind):
    """Where a server is: an address as a Bind's, or a name to be looked up, "app.internal:8080"; a name of a service
    (SRV, RFC 2782), "_http._tcp.app.internal", brings its port with it."""

    DESCRIPTION: ClassVar[str] = 'an address or name such as "127.0.0.1:8080" or "app.internal:8080"'
    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "string",
        "pattern": r"^((\[[0-9A-Fa-f:.]+\]|[^\[\]:]+):\d{1,5}|_[^:]+)$",
    }

    number: int = 0  # from 1 where a name stands for several servers

    @classmethod
    def from_config(cls, raw: str, place: Place) -> Self:
        if raw.startswith("_") and _NAME.match(raw) and ":" not in raw:
            return cls(raw.lower(), 0)
        host, _, port = raw.rpartition(":")
        # A last label of digits alone is no name, but an address that was written wrongly (RFC 3696 §2).
        if _NAME.match(host) and not host.rstrip(".").rpartition(".")[2].isdigit() and host != "localhost":
            if not port.isascii() or not port.isdigit() or int(port) > 65535:
                raise ValueError(f"{show(port)} is not a port")
            return cls(host.lower(), int(port))
        found = Bind.from_config(raw, place)
        return cls(found.host, found.port)

    @property
    def is_service(self) -> bool:
        return self.host.startswith("_") and not self.port

    @property
    def is_name(self) -> bool:
        return not (":" in self.host or self.host.rpartition(".")[2].isdigit())

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_UNSPEC if self.is_name else super().family

    def __str__(self) -> str:
        written = self.host if self.is_service else super().__str__()
        return f"{written}#{self.number}" if self.number else written


@attrs.frozen
class Network:
    """An IP network, written "10.0.0.0/8", "::1/128", or as a single address."""

    DESCRIPTION: ClassVar[str] = 'a network such as "10.0.0.0/8"'
    RAW: ClassVar[tuple[type, ...]] = (str,)
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "pattern": r"^[0-9A-Fa-f:.]+(/\d{1,3})?$"}

    value: ipaddress.IPv4Network | ipaddress.IPv6Network

    @classmethod
    def from_config(cls, raw: str, place: Place) -> Self:
        try:
            return cls(ipaddress.ip_network(raw))
        except ValueError:
            pass
        try:
            meant = ipaddress.ip_network(raw, strict=False)
        except ValueError:
            raise ValueError(f'{show(raw)} is not a network such as "10.0.0.0/8"') from None
        raise ValueError(f'{show(raw)} has bits set beyond its prefix; did you mean "{meant}"?')

    def __contains__(self, host: str) -> bool:
        """Whether an address in text lies inside; a v4 address mapped into v6 counts as the v4 one."""
        address = ipaddress.ip_address(host.partition("%")[0])
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address in self.value

    def __str__(self) -> str:
        return str(self.value)
