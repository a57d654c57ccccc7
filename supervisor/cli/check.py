"""`portway check CONFIG`: 0 and a summary, or 2 and every error of the file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

from supervisor.cli.exits import DONE, USAGE
from supervisor.cli.tables import TABLES
from supervisor.ground.config import Config, ConfigError, Located, load, show_path
from supervisor.ground.status import listener_names


def run(options: argparse.Namespace) -> int:
    """Exit code 0 or 2."""
    try:
        config = load(options.config, TABLES)
    except ConfigError as error:
        print(error, file=sys.stderr)
        if options.json:
            print(json.dumps({"ok": False, "problems": _problems(error.problems)}))
        return USAGE
    warned = [
        Located(str(options.config), config.line(each.path), each.path, each.message) for each in config.warnings()
    ]
    for each in warned:
        print(f"{each} (a warning)", file=sys.stderr)
    print(f"{options.config}: {summary(config)}", file=sys.stderr)
    if options.json:
        print(json.dumps({"ok": True, "problems": [], "warnings": _problems(warned)}))
    return DONE


def summary(config: Config) -> str:
    """One line: what this configuration would run."""
    tiers = dict.fromkeys(name.partition("/")[0] for name in listener_names(config))
    parts = [
        _count(len([*listener_names(config)]), "listener"),
        _count(len(config.pools), "pool"),
        _count(sum(len(pool.servers) for pool in config.pools.values()), "server"),
        *(f"{tier} with {_count(config.workers(tier), 'worker')}" for tier in tiers),
    ]
    return "ok: " + ", ".join(parts)


def _problems(problems: Iterable[Located]) -> list[dict[str, Any]]:
    return [
        {"file": each.file, "line": each.line, "key": show_path(each.path), "message": each.message}
        for each in problems
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
