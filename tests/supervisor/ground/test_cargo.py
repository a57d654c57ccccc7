"""Cargo: packed once, read by many, changed by nobody."""

from __future__ import annotations

import os

import pytest

from supervisor.ground import cargo
from tests.leftovers import open_files


def test_every_reader_gets_the_value_from_the_same_descriptor() -> None:
    value = {"keys": [b"x" * 1_000_000, "é", 1.5]}
    fd = cargo.pack(value, "test")
    try:
        assert cargo.unpack(fd) == value
        assert cargo.unpack(fd) == value
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"y", 0)
    finally:
        os.close(fd)


def test_what_is_not_sealed_is_not_read() -> None:
    fd = os.memfd_create("open", os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, b"cos\nsystem\n(S'true'\ntR.")
        with pytest.raises(ValueError, match="not sealed"):
            cargo.unpack(fd)
    finally:
        os.close(fd)


def test_what_cannot_be_pickled_leaves_no_descriptor() -> None:
    before = open_files()
    with pytest.raises((AttributeError, TypeError)):
        cargo.pack(lambda: None, "test")
    assert open_files() <= before
