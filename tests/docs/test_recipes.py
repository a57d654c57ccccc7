"""The recipes of docs/edge.md: each is a file of conf/edge as printed, and passes `portway check`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from supervisor.__main__ import main

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "edge.md").read_text()
RECIPES = sorted((ROOT / "conf" / "edge").glob("*.toml"))
PRINTED = dict(re.findall(r"`conf/edge/(\w+\.toml)`:\n\n```toml\n(.*?)```", DOCUMENT, re.DOTALL))


def test_every_recipe_is_printed() -> None:
    assert sorted(PRINTED) == [recipe.name for recipe in RECIPES]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_is_as_printed_and_passes_check(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert PRINTED[recipe.name] == recipe.read_text()
    assert main(["check", str(recipe)]) == 0
    assert "ok: " in capsys.readouterr().err
