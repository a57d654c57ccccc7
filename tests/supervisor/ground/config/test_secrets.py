"""Files and secrets."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from supervisor.ground.config import File, Place, Secret


def secret(raw: Any, directory: Path = Path("/"), **environ: str) -> Secret:
    return Secret.from_config(raw, Place(directory, environ))


def test_a_secret_is_a_string_a_variable_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from file\n")
    assert secret("plain").value == "plain"
    assert secret({"env": "NAME"}, NAME="from env").value == "from env"
    assert secret({"file": "token"}, tmp_path).value == "from file"


def test_a_secret_shows_itself_nowhere() -> None:
    assert "hidden" not in repr(secret("hidden"))
    assert "hidden" not in str(secret("hidden"))
    assert "hidden" not in repr(Place(Path("/"), {"a": "hidden"}))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"env": "MISSING"}, 'the environment variable "MISSING" is not set'),
        ({"envv": "A"}, 'unknown key "envv" in a secret; did you mean "env"?'),
        ({"env": 3}, "env must be a string"),
        ({}, 'must be a string, { env = "NAME" } or { file = "path" }'),
        ({"env": "A", "file": "b"}, 'must be a string, { env = "NAME" } or { file = "path" }'),
        ({"file": "absent"}, "/nowhere/absent cannot be read: No such file or directory"),
        ({"file": ""}, "is empty where a path is needed"),
    ],
)
def test_a_secret_that_cannot_be_had_is_said(raw: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        secret(raw, Path("/nowhere"))
    assert str(caught.value) == message


def test_a_secret_file_that_is_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="is not UTF-8"):
        secret({"file": "token"}, tmp_path)


def test_a_file_is_read_at_load_and_travels_with_its_contents(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(b"KEY")
    file = File.from_config("key.pem", Place(tmp_path, {}))
    assert (file.path, file.data) == (tmp_path / "key.pem", b"KEY")
    assert "KEY" not in repr(file)
    assert pickle.loads(pickle.dumps(file)) == file


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"A")
    assert File.from_config(str(tmp_path / "a"), Place(Path("/nowhere"), {})).data == b"A"


@pytest.mark.parametrize("name", ["folder", "pipe", "/dev/null", "/dev/zero"])
def test_only_regular_files_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"is not a regular file|Is a directory"):
        File.from_config(name, Place(tmp_path, {}))


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="null byte"):
        File.from_config("a\0b", Place(Path("/"), {}))
