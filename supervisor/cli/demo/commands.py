"""The five commands that the demo prints, and what each must show: they are run by `--check` exactly as printed.

Where curl or psql isn't on PATH, the command says the same with what is there: Python, and the wheel's psql.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import attrs

from supervisor.cli.demo.configuration import Places
from supervisor.cli.demo.postgres import Installation

PYTHON = shlex.quote(sys.executable)  # what PATH calls python3 may be old, a shim, or not there
BOUND = 30.0  # s for one command


@attrs.frozen
class Command:
    """A line to paste into a shell."""

    title: str
    text: str
    shows: str  # a regular expression that its output must match


@attrs.frozen
class Outcome:
    """What became of a command."""

    good: bool
    output: str


def _portway() -> str:
    """The program that started us, by a path that works in any folder."""
    beside = Path(sys.executable).parent / "portway"
    return shlex.quote(str(beside)) if beside.exists() else f"{shlex.quote(sys.executable)} -m supervisor"


def _fetch(url: str) -> str:
    """A command that prints what a plain URL answers."""
    if shutil.which("curl"):
        return f"curl -s {url}"
    return f"""{PYTHON} -c 'import urllib.request as u; print(u.urlopen("{url}").read().decode())'"""


def _request(places: Places) -> str:
    url = f"https://127.0.0.1:{places.https}/api/user/me"
    authority, token = places.folder / "cert-authority.pem", places.token
    if shutil.which("curl"):
        return f'curl --cacert {authority} -H "Authorization: Bearer $(cat {token})" {url}'
    code = (
        "import ssl,urllib.request as u; "
        f'q=u.Request("{url}",headers={{"Authorization":"Bearer "+open("{token}").read()}}); '
        f'print(u.urlopen(q,context=ssl.create_default_context(cafile="{authority}")).read().decode())'
    )
    return f"{PYTHON} -c '{code}'"


def _datagram(port: int) -> str:
    code = (
        f's=__import__("socket").socket(2,2); s.settimeout(5); s.sendto(b"hello",("127.0.0.1",{port})); '
        "print(s.recv(999).decode())"
    )
    return f"{PYTHON} -c '{code}'"


def commands(places: Places, installation: Installation, password: str) -> list[Command]:
    """A request, a query, a datagram, the status and the metrics."""
    psql = "psql" if shutil.which("psql") else shlex.quote(str(installation.program("psql")))
    query = "SELECT login, name FROM users ORDER BY login"
    dsn = f"postgresql://app:{password}@127.0.0.1:{places.sql}/app"
    return [
        Command("a request: edge, TLS, JWT, limit, service, pooler, primary", _request(places), r'"login": "alice"'),
        Command("a query through the pooler", f"{psql} '{dsn}' -c '{query}'", r"alice\s*\|"),
        Command("a UDP packet to a game server, always the same one", _datagram(places.game), r"game-\d got 'hello'"),
        Command("the whole path's state", f"{_portway()} status {places.config}", r"user"),
        Command(
            "the metrics of all tiers",
            f"{_fetch(f'http://127.0.0.1:{places.admin}/metrics')} | grep ^portway_",
            r"portway_\w+(\{[^}]*\})? \d",
        ),
    ]


def run(command: Command) -> Outcome:
    """Run a command as a shell would."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command.text], stdin=subprocess.DEVNULL, capture_output=True, timeout=BOUND, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(False, f"no end within {BOUND:g}s")
    output = (done.stdout + done.stderr).decode(errors="replace")
    return Outcome(done.returncode == 0 and re.search(command.shows, output) is not None, output)
