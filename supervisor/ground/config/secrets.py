"""Values that stand outside the configuration file: files and secrets.

Both are read once, when the configuration is loaded, so that a worker without privileges never opens a key. What they
hold is hidden from repr, and with it from logs and status.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, ClassVar, Self

import attrs

from .problems import show, suggestion
from .values import Place

# Certificates, keys, user lists, key sets; 100,000 users of PgBouncer's format are about 20 MiB.
MAX_FILE = 64 * 1024 * 1024  # bytes


def _table(key: str) -> dict[str, Any]:
    """JSON Schema of a table with this one key."""
    return {"type": "object", "properties": {key: {"type": "string"}}, "required": [key], "additionalProperties": False}


@attrs.frozen
class File:
    """A file named by its path, relative to the configuration; `data` is what it held at load."""

    DESCRIPTION: ClassVar[str] = "the path of a file"
    RAW: ClassVar[tuple[type, ...]] = (str,)
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string"}

    path: FilePath
    data: bytes = attrs.field(repr=False)

    @classmethod
    def from_config(cls, raw: str, place: Place) -> Self:
        path = resolve(raw, place)
        return cls(path, read_file(path))

    def __str__(self) -> str:
        return str(self.path)


@attrs.frozen
class Secret:
    """A string nobody should see, written in the file, as `{ env = "NAME" }` or as `{ file = "path" }`."""

    DESCRIPTION: ClassVar[str] = 'a string, { env = "NAME" } or { file = "path" }'
    RAW: ClassVar[tuple[type, ...]] = (str, dict)
    SCHEMA: ClassVar[dict[str, Any]] = {"anyOf": [{"type": "string"}, _table("env"), _table("file")]}

    value: str = attrs.field(repr=False)

    @classmethod
    def from_config(cls, raw: str | Mapping[str, Any], place: Place) -> Self:
        if isinstance(raw, str):
            return cls(raw)
        for key in raw:
            if key not in ("env", "file"):
                raise ValueError(f"unknown key {show(key)} in a secret{suggestion(key, ('env', 'file'))}")
        if len(raw) != 1:
            raise ValueError('must be a string, { env = "NAME" } or { file = "path" }')
        ((key, name),) = raw.items()
        if not isinstance(name, str):
            raise ValueError(f"{key} must be a string")
        return cls(_from_environment(name, place) if key == "env" else _from_file(name, place))

    def __str__(self) -> str:
        return "***"


def _from_environment(name: str, place: Place) -> str:
    try:
        return place.environ[name]
    except KeyError:
        raise ValueError(f"the environment variable {show(name)} is not set") from None


def _from_file(name: str, place: Place) -> str:
    path = resolve(name, place)
    try:
        # The newline that every editor adds is no part of a secret.
        return read_file(path).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None


def resolve(raw: str, place: Place) -> FilePath:
    """The path a string names, relative to the file that it stands in."""
    if not raw:
        raise ValueError("is empty where a path is needed")
    return place.directory / raw


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a user without a name, as in containers
        return f"user {os.geteuid()}"


def read_file(path: FilePath) -> bytes:
    """All of a regular file. Raises ValueError with the reason: the message names the path, never the contents."""
    try:
        # Without O_NONBLOCK, opening a pipe waits for its writer, and a reload would hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError(f"{path} is not a regular file")
            data = file.read(MAX_FILE + 1)
    except PermissionError as error:
        who = f"it is read by the user who starts the daemon, now {_user()}"
        raise ValueError(f"{path} cannot be read: {error.strerror}; {who}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE:
        raise ValueError(f"{path} is larger than {MAX_FILE // 1024 // 1024} MiB")
    return data
