"""The command line: which commands there are, what they take, and who does them.

Each command stands in its own module and is imported only when it is asked for: `portway check` does not load TLS.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from supervisor.cli.exits import DONE, FAILED, USAGE, Stopped

Command = Callable[[argparse.Namespace], int]

_ON_SERVERS = ("drain", "maintenance", "up")

# "pool/host:port"; a configuration's path ends otherwise.
_SERVER = re.compile(r"[^/]+/.+:\d{1,5}\Z")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="portway",
        description="One daemon for the whole traffic path: L4 edge, L7 gateway, PostgreSQL pooler.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, text: str, *, config: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if config:
            added.add_argument("config", metavar="CONFIG", type=Path, help="the configuration file")
        return added

    def on_server(name: str, text: str) -> argparse.ArgumentParser:
        added = command(name, text, config=False)
        added.add_argument("server", metavar="POOL/SERVER", help="such as user/127.0.0.1:8101")
        added.add_argument("config", metavar="CONFIG", help="the configuration file")
        return added

    command("run", "the daemon, in the foreground")
    check = command("check", "read the configuration: 0 and a summary, or 2 and every error")
    check.add_argument("--json", action="store_true", help="the summary or the errors as JSON on stdout")
    explain = command("explain", "what would happen to a request, step by step, and which line says so")
    explain.add_argument("method", metavar="METHOD", help="such as GET")
    explain.add_argument("url", metavar="URL", help="such as https://api.example.com/api/user/me")
    explain.add_argument("-H", dest="fields", metavar="'Name: value'", action="append", default=[], help="a header")
    explain.add_argument("--client", metavar="ADDRESS", default="127.0.0.1", help="where it comes from")
    explain.add_argument("--certificate", metavar="NAME", default="", help="the name in the client's certificate")
    explain.add_argument("--listener", metavar="NAME", help="where it arrives, if its port does not tell")
    explain.add_argument("--json", action="store_true", help="the steps as JSON on stdout")
    status = command("status", "what the running daemon does", config=False)
    status.add_argument("tier", nargs="?", metavar="TIER", help="only this tier, with the connections it carries: edge")
    status.add_argument("config", metavar="CONFIG", type=Path, help="the configuration file")
    status.add_argument("--json", action="store_true", help="the whole status as JSON on stdout")
    reload = command("reload", "let the running daemon take its changed configuration, all of it or nothing")
    reload.add_argument("--json", action="store_true", help="the daemon's answer as JSON on stdout")
    upgrade = command("upgrade", "let the running daemon become the code that is installed now, in the same process")
    upgrade.add_argument("--json", action="store_true", help="the daemon's answer as JSON on stdout")
    drain = on_server("drain", "send new work past a server; what it holds has drain_timeout to end")
    state = drain.add_mutually_exclusive_group()
    state.add_argument("--undo", action="store_true", help="give it work again")
    state.add_argument("--maintenance", action="store_true", help="as `portway maintenance`")
    on_server("maintenance", "as drain, but UDP sessions and kernel flows go elsewhere at once")
    on_server("up", "give a server work again that was drained or in maintenance")
    convert = command(
        "convert", "a pgbouncer.ini as a configuration on stdout, what can't be carried on stderr", config=False
    )
    convert.add_argument("config", metavar="PGBOUNCER.INI", type=Path, help="PgBouncer's configuration file")
    command("schema", "JSON Schema of the configuration, for editors", config=False)
    demo = command("demo", "the whole picture on this machine, backends and PostgreSQL included", config=False)
    demo.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def dispatch(arguments: Sequence[str]) -> int:
    """Parse and run; returns the exit code."""
    parser = _parser()
    try:
        # The demo has options of its own, which are not ours to parse.
        if arguments[:1] == ["demo"]:
            return _function("demo", "main")(arguments[1:])
        options = parser.parse_args(arguments)
    except SystemExit as end:  # argparse ends the process itself: 0 after --help, 2 after an error
        return end.code if isinstance(end.code, int) else USAGE
    if options.version:
        from supervisor.ground.status import version

        print(f"portway {version()}")
        return DONE
    if options.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    if options.command in _ON_SERVERS and _SERVER.match(options.config) and not _SERVER.match(options.server):
        # `portway drain CONFIG POOL/SERVER`, in the order of the other commands.
        options.server, options.config = options.config, options.server
    module = "drain" if options.command in _ON_SERVERS else options.command
    return run(_function(module, "run"), options)


def run(command: Command, options: argparse.Namespace) -> int:
    """One command, with the ends that every one of them may come to."""
    try:
        code = command(options)
        sys.stdout.flush()
        return code
    except Stopped as end:
        print(end, file=sys.stderr)
        return end.code
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        # `portway status | head`: the reader has seen enough, and Python's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return DONE


def _function(module: str, name: str) -> Callable[..., int]:
    function: Callable[..., int] = getattr(import_module(f"supervisor.cli.{module}"), name)
    return function
