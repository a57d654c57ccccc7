"""`portway schema`."""

from __future__ import annotations

import json

import pytest

from supervisor.__main__ import main
from supervisor.cli.tables import TABLES


def test_it_is_json_on_stdout_and_knows_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    captured = capsys.readouterr()
    schema = json.loads(captured.out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["properties"].keys() == {"supervisor", "log", "pools", *TABLES}
    assert captured.err == ""
