"""The diff by key that a reload reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from supervisor.arbiter.changes import changes
from supervisor.ground.config import Bind, Config, File, Secret, load_bytes


@attrs.frozen(kw_only=True)
class Route:
    path: str
    bind: Bind | None = None
    key: File | None = None
    password: Secret | None = None


@attrs.frozen(kw_only=True)
class Table:
    routes: Mapping[str, Route] = attrs.Factory(dict)


BASE = """
[pools.user]
servers = ["127.0.0.1:1"]
[web.routes.a]
path = "/a"
bind = "127.0.0.1:80"
"""


def config(text: str, folder: Path) -> Config:
    return load_bytes(text.encode(), "portway.toml", folder, {"web": Table})


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (BASE, []),
        (BASE.replace("127.0.0.1:1", "127.0.0.1:2"), ["pools.user.servers"]),
        (BASE.replace('"127.0.0.1:80"', '"127.0.0.1:81"'), ["web.routes.a.bind"]),
        (BASE + '[web.routes."b c"]\npath = "/b"\n', ['web.routes."b c"']),
        (BASE.replace("web.routes.a", "web.routes.b"), ["web.routes.a", "web.routes.b"]),
        (BASE + 'password = "hidden"\n', ["web.routes.a.password"]),
        (BASE + '[log]\nlevel = "debug"\n', ["log.level"]),
        (BASE + '[supervisor]\npop = "x"\n', ["supervisor.pop"]),
        ('[pools.user]\nhealth = { type = "tcp" }\nservers = ["127.0.0.1:1"]\n', ["pools.user.health", "web.routes.a"]),
    ],
)
def test_the_smallest_key_that_differs_is_named(new: str, expected: list[str], tmp_path: Path) -> None:
    assert changes(config(BASE, tmp_path), config(new, tmp_path)) == expected


def test_a_file_that_changed_on_disk_is_a_change_of_its_key(tmp_path: Path) -> None:
    text = BASE + 'key = "key.pem"\n'
    (tmp_path / "key.pem").write_text("one")
    old = config(text, tmp_path)
    (tmp_path / "key.pem").write_text("two")
    assert changes(old, config(text, tmp_path)) == ["web.routes.a.key"]
