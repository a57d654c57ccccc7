"""`portway status [TIER] CONFIG [--json]`: what the running daemon does, as tables for people or as JSON for programs.

The tables lose their lines and colours when stdout is no terminal: then every row is one line of aligned columns.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from supervisor.cli.control import ask_daemon, complain, errors_of
from supervisor.cli.exits import DONE, FAILED

WIDE = 500  # columns where nobody's terminal sets a width: a cut address helps nobody

_COLOURS = {"ready": "green", "up": "green", "down": "red", "ejected": "red", "gone": "red"}
_OTHER_COLOUR = "yellow"  # starting, draining, maintenance

_OWNERS = {"routes": "gateway", "limits": "gateway", "lease_pools": "pooler"}  # parts that are one tier's alone

Row = Sequence[object]


def run(options: argparse.Namespace) -> int:
    """Exit code 0, 1 without a daemon, 2 for a file that can't be read."""
    request = {"command": "status"} if options.tier is None else {"command": "status", "tier": options.tier}
    answer = ask_daemon(options.config, request)
    status = answer.get("status")
    if not answer.get("ok") or not isinstance(status, dict):
        for reason in errors_of(answer):
            complain(reason)
        return FAILED
    if options.tier is not None:
        status = part_of(status, options.tier)
    if options.json:
        print(json.dumps(status, indent=2))
    else:
        terminal = sys.stdout.isatty()
        show(status, Console(file=sys.stdout, width=None if terminal else WIDE, soft_wrap=not terminal))
    return DONE


def part_of(status: dict[str, Any], tier: str) -> dict[str, Any]:
    """What concerns one tier. Pools stay whole: every tier may use them."""
    own = {
        "processes": [process for process in status["processes"] if process["tier"] == tier],
        "tiers": [one for one in status["tiers"] if one["name"] == tier],
        "listeners": [listener for listener in status["listeners"] if listener["tier"] == tier],
    }
    elsewhere: dict[str, Any] = {key: [] for key, owner in _OWNERS.items() if owner != tier}
    return {**status, **own, **elsewhere}


def show(status: dict[str, Any], console: Console) -> None:
    """Print the status document."""
    daemon = status["portway"]
    console.print(
        Text.assemble(
            f"portway {daemon['version']} ",
            _word(daemon["state"]),
            f"  pid {daemon['pid']}  generation {daemon['generation']}  up {_span(daemon['uptime'])}",
            f"  {daemon['pop']}" if daemon["pop"] else "",
            f"  {Path(daemon['config'])}",
        )
    )
    for title, header, rows in _sections(status):
        table = Table(
            title=title,
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD if console.is_terminal else None,
            pad_edge=False,
        )
        kept = [*rows]
        for index, name in enumerate(header):
            numeric = bool(kept) and all(isinstance(row[index], (int, float)) for row in kept)
            table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
        for row in kept:
            table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
        if kept:
            console.print()
            console.print(table)


def _sections(status: dict[str, Any]) -> Iterator[tuple[str, Sequence[str], Iterable[Row]]]:
    yield "processes", ("process", "pid", "state", "generation", "heartbeat"), map(_process, status["processes"])
    yield (
        "holding up a drain",
        ("process", "what"),
        ((answer["process"], line) for answer in status.get("holding", ()) for line in _held(answer)),
    )
    yield (
        "at work",
        ("process", "what"),
        ((answer["process"], line) for answer in status.get("flows", ()) for line in _held(answer)),
    )
    yield (
        "listeners",
        ("listener", "bind", "protocol", "polled by", "active", "accepted", "refused", "errors", "in", "out"),
        map(_listener, status["listeners"]),
    )
    yield (
        "pools",
        (
            "pool",
            "balance",
            "server",
            "state",
            "since",
            "cause",
            "in flight",
            "requests",
            "failures",
            "ejections",
            "in",
            "out",
        ),
        (_server(pool, server) for pool in status["pools"] for server in pool["servers"]),
    )
    yield (
        "routes",
        ("route", "requests", "2xx", "3xx", "4xx", "5xx", "in flight", "mean", "p50", "p99"),
        map(_route, status["routes"]),
    )
    yield (
        "limits",
        ("limit", "admitted", "refused"),
        ((limit["name"], limit["admitted"], limit["refused"]) for limit in status["limits"]),
    )
    yield (
        "database pools",
        ("database", "user", "servers", "limit", "busy", "idle", "clients", "waiting", "longest", "transactions"),
        map(_lease_pool, status["lease_pools"]),
    )


def _process(process: dict[str, Any]) -> Row:
    name = f"{process['tier']} {process['number']}" if process["number"] else process["tier"]
    return name, process["pid"], _word(process["state"]), process["generation"], f"{process['heartbeat_age']:.1f}s"


def _held(answer: dict[str, Any]) -> Iterator[str]:
    yield from answer["holding"]
    if (more := answer["left"] - len(answer["holding"])) > 0:
        yield f"… and {more} more"


def _listener(listener: dict[str, Any]) -> Row:
    return (
        f"{listener['tier']}/{listener['name']}",
        listener["bind"],
        listener["protocol"] + (" by the kernel" if listener["datapath"] == "kernel" else ""),
        ", ".join(f"{title} ({count})" for title, count in listener["slots"].items()) or "nobody",
        listener["active"] + listener["sessions"],
        listener["accepted"],
        listener["refused"] + listener["limited"],
        listener["errors"],
        _bytes(listener["bytes_in"]),
        _bytes(listener["bytes_out"]),
    )


def _server(pool: dict[str, Any], server: dict[str, Any]) -> Row:
    return (
        pool["name"],
        pool["balance"],
        server["address"] + (f" ({server['resolved']})" if server["resolved"] else "") + _role(server),
        _word(server["state"]),
        server["since"],
        server["cause"],
        server["in_flight"],
        server["requests"],
        server["failures"],
        server["ejections"],
        _bytes(server["bytes_in"]),
        _bytes(server["bytes_out"]),
    )


def _role(server: dict[str, Any]) -> str:
    return " (backup)" if server["backup"] else ""


def _route(route: dict[str, Any]) -> Row:
    classes = [route[f"responses_{number}xx"] for number in range(2, 6)]
    latencies = [f"{route['latency'][name] * 1000:.1f}ms" for name in ("mean", "p50", "p99")]
    return route["name"], route["requests"], *classes, route["in_flight"], *latencies


def _lease_pool(pool: dict[str, Any]) -> Row:
    numbers = [pool[name] for name in ("open", "limit", "busy", "idle", "clients", "waiting")]
    return pool["database"], pool["user"], *numbers, f"{pool['oldest_wait']:.1f}s", pool["transactions"]


def _word(state: str) -> Text:
    return Text(state, style=_COLOURS.get(state, _OTHER_COLOUR))


def _span(seconds: float) -> str:
    whole = int(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def _bytes(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
