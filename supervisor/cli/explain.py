"""`portway explain CONFIG METHOD URL`: what would happen to a request, and which line of the configuration says so."""

from __future__ import annotations

import argparse
import ipaddress
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from gateway.explanation import Asked, Explanation, Step, explain
from supervisor.cli.control import Unreachable, ask, socket_path
from supervisor.cli.exits import DONE, USAGE
from supervisor.cli.tables import TABLES
from supervisor.ground.config import Config, ConfigError, load, show_path

PATIENCE = 2.0  # seconds for the daemon to say how servers are


def run(options: argparse.Namespace) -> int:
    """Exit code 0, whatever would happen to the request; 2 if the configuration or the request can't be."""
    try:
        config = load(options.config, TABLES)
        asked, edge = through_edge(config, _asked(options))
        explanation = explain(config, asked, states_now(options.config))
    except (ConfigError, ValueError) as error:
        print(error, file=sys.stderr)
        return USAGE
    explanation = attrs.evolve(explanation, steps=(*edge, *explanation.steps))
    if options.json:
        print(json.dumps(_document(config, explanation)))
    else:
        print("\n".join(_lines(str(options.config), config, explanation)))
    return DONE


def _asked(options: argparse.Namespace) -> Asked:
    fields = []
    for text in options.fields:
        name, colon, value = text.partition(":")
        if not colon:
            raise ValueError(f"a header is written 'Name: value', not {text!r}")
        fields.append((name.strip(), value.strip()))
    return Asked(
        method=options.method,
        url=options.url,
        fields=fields,
        peer=options.certificate,
        client=str(ipaddress.ip_address(options.client)),
        listener=options.listener,
    )


def states_now(config: Path) -> dict[str, str] | None:
    """The states of servers by name, as the running daemon sees them; None where none runs, or none can be asked."""
    try:
        status = ask(socket_path(config), {"command": "status"}, PATIENCE).get("status")
    except Unreachable:
        return None
    found = status["pools"] if isinstance(status, dict) else []
    return {f"{pool['name']}/{server['address']}": server["state"] for pool in found for server in pool["servers"]}


def through_edge(config: Config, asked: Asked) -> tuple[Asked, list[Step]]:
    """The request as it comes out of the edge, where a listener there takes its port: at which of the gateway's."""
    port = asked.port
    for name, table in config.tier("edge").listeners.items():
        if asked.listener is not None or table.bind.port != port or table.protocol != "tcp" or table.pool is None:
            continue
        servers = {str(server.address) for server in config.pools[table.pool].servers}
        for inner, listener in config.tier("gateway").listeners.items():
            if str(listener.bind) in servers:
                step = Step("edge", name, f"{table.bind}, to the pool {table.pool}", ("edge", "listeners", name))
                return attrs.evolve(asked, listener=inner, arrived=f"a server of {table.pool}"), [step]
    return asked, []


def _lines(file: str, config: Config, explanation: Explanation) -> list[str]:
    """For people: a step a line, with its place; then what the server would get."""
    steps: list[Step] = []
    for step in explanation.steps:
        steps.append(step)
        if step.about == "route":
            steps += explanation.lost
    if not any(step.about == "route" for step in explanation.steps):
        steps[-1:-1] = explanation.lost
    rows = [(step.about, step.chosen, f"{file}:{config.line(step.path)}", step.why) for step in steps]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    ]
    if explanation.head:
        lines += ["", "The server gets:", *(f"  {line}" for line in explanation.head)]
    return [line.rstrip() for line in lines]


def _document(config: Config, explanation: Explanation) -> dict[str, Any]:
    """For programs."""
    return {
        "status": explanation.status,
        "reason": explanation.reason,
        "detail": explanation.detail,
        "steps": _steps(config, explanation.steps),
        "lost": _steps(config, explanation.lost),
        "head": [*explanation.head],
    }


def _steps(config: Config, steps: Sequence[Step]) -> list[dict[str, Any]]:
    return [
        {"about": step.about, "chosen": step.chosen, "why": step.why, "key": show_path(step.path),
         "line": config.line(step.path)}
        for step in steps
    ]  # fmt: skip
