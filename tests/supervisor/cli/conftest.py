"""A control socket that answers what the test wants, where `config` says that it is."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

# A daemon that never answers must not hold up a test run.
PATIENCE = 10.0  # seconds


@attrs.define(eq=False)
class FakeDaemon:
    """Takes one question and gives one answer: an object as JSON, or the bytes themselves."""

    path: Path
    answer: Any
    asked: list[dict[str, Any]] = attrs.field(factory=list)

    def serve(self) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(PATIENCE)
            listener.bind(str(self.path))
            listener.listen()
            self.ready.set()
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as stream:
                self.asked.append(json.loads(stream.readline()))
                data = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode() + b"\n"
                stream.write(data)

    ready: threading.Event = attrs.field(factory=threading.Event)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "portway.toml"
    path.write_text('[supervisor]\ncontrol = "c.sock"\n')
    return path


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[[Any], FakeDaemon]]:
    threads: list[threading.Thread] = []

    def start(answer: Any) -> FakeDaemon:
        fake = FakeDaemon(tmp_path / "c.sock", answer)
        thread = threading.Thread(target=fake.serve)
        thread.start()
        threads.append(thread)
        assert fake.ready.wait(PATIENCE)
        return fake

    yield start
    for thread in threads:
        thread.join(PATIENCE)
