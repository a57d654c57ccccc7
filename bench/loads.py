"""Load generators: what each completes, and whether it saw only good answers.

wrk for HTTP and for everything that can carry it, pgbench for SQL, a small program of our own for datagrams. A run
lasts a given time and is bounded: a generator that doesn't end is ended, and the run is an error.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from bench.proxies import Missing, program
from supervisor.cli.demo.postgres import Installation

SLACK = 30.0  # s beyond the run's own time, before a generator counts as hung

# Each request is unique by one header, so that no cache of whole heads answers for the work. wrk.format would cost
# more than the whole proxy: the request is three pieces put together.
LUA = """
local heads = {%(heads)s}
local count, number = #heads, 0
request = function()
  number = number + 1
  return heads[number %% count + 1] .. number .. "\\r\\n\\r\\n"
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT {\\"operations\\": %%d, \\"bytes\\": %%d, \\"bad\\": %%d, \\"seconds\\": %%f}\\n",
    summary.requests, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout, summary.duration / 1e6))
end
"""


class BadRun(Exception):
    """The load saw errors: its figures mean nothing."""


@attrs.frozen
class Load:
    """What a generator completed."""

    operations: int
    seconds: float
    volume: int = 0  # bytes received


def _run(command: list[str], seconds: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds + SLACK, check=False)
    except subprocess.TimeoutExpired:
        raise BadRun(f"{Path(command[0]).name} did not end") from None
    text = done.stdout.decode(errors="replace")
    if done.returncode:
        raise BadRun(f"{Path(command[0]).name} failed: {(text + done.stderr.decode(errors='replace'))[-1500:]}")
    return text


def wrk(
    folder: Path, url: str, heads: list[str], seconds: float, connections: int = 32, prefix: Sequence[str] = ()
) -> Load:
    """HTTP/1.1 on keep-alive connections. `heads` are request heads without their last header and the empty line;
    `prefix` goes in front of the command."""
    command = program("wrk", "wrk")
    script = folder / "wrk.lua"
    quoted = ",".join(json.dumps(head + "X-Unique: ") for head in heads)
    script.write_text(LUA % {"heads": quoted})
    whole = max(1, round(seconds))  # wrk takes whole seconds only
    options = ["-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "10s", "-s", str(script)]
    out = _run([*prefix, command, *options, url], whole)
    found = re.search(r"RESULT (\{.*\})", out)
    if found is None:
        raise BadRun(out)
    result = json.loads(found[1])
    if result["bad"] or not result["operations"]:
        raise BadRun(f"wrk saw {result['bad']} errors in {result['operations']} requests: {out[-800:]}")
    return Load(result["operations"], result["seconds"], result["bytes"])


def head(method: str, target: str, **headers: str) -> str:
    """A request head for `wrk`, open at its end."""
    fields = {"Host": "bench.example", "User-Agent": "bench/1", "Accept": "*/*", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, ""])


def h2load(folder: Path, url: str, paths: list[str], seconds: float, connections: int = 8, streams: int = 10) -> Load:
    """HTTP/2 over TLS, `streams` at once on each connection, over `paths` in turn."""
    command = program("h2load", "nghttp2-client")
    listed = folder / "h2load.txt"
    listed.write_text("".join(f"{url}{path}\n" for path in paths))
    whole = max(1, round(seconds))
    out = _run([command, f"-c{connections}", f"-m{streams}", f"-D{whole}", "-i", str(listed)], whole)
    done = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed", out)
    took = re.search(r"finished in ([\d.]+)(ms|s)", out)
    if done is None or took is None or int(done[3]) or not int(done[2]):
        raise BadRun(out[-800:])
    return Load(int(done[2]), float(took[1]) / (1000 if took[2] == "ms" else 1))


def pgbench(
    installation: Installation, port: int, seconds: float, protocol: str, clients: int = 32, database: str = "bench"
) -> Load:
    """`pgbench -S` with user and password `bench`."""
    command = [str(installation.program("pgbench")), "-S", "-n", "-h", "127.0.0.1", "-p", str(port), "-U", "bench"]
    command += ["-c", str(clients), "-j", "1", "-M", protocol, "-T", f"{max(1, round(seconds))}", database]
    out = _run(["env", "PGPASSWORD=bench", "PGSSLMODE=disable", *command], seconds)
    done = re.search(r"number of transactions actually processed: (\d+)", out)
    failed = re.search(r"number of failed transactions: (\d+)", out)
    if done is None or int(done[1]) == 0 or (failed is not None and int(failed[1])):
        raise BadRun(out[-1500:])
    return Load(int(done[1]), float(max(1, round(seconds))))


def udp(port: int, seconds: float, clients: int = 32) -> Load:
    """Datagrams of 64 bytes from `clients` sockets, one on its way from each."""
    program_path = Path(__file__).parent / "datagrams.py"
    out = _run([sys.executable, str(program_path), "load", str(port), f"{seconds:g}", str(clients)], seconds)
    result = json.loads(out)
    if result["lost"] * 1000 > result["operations"]:
        raise BadRun(f"lost {result['lost']} of {result['operations']} datagrams")
    return Load(result["operations"], result["seconds"])


def handshakes(url: str, seconds: float, connections: int = 64) -> Load:
    """TLS connections of one small request over HTTP/1.1, all of them new, `connections` at once."""
    command = [program("h2load", "nghttp2-client"), "--h1", f"-c{connections}", f"-n{connections}", "-m1", url]
    done, began = 0, time.monotonic()
    while (spent := time.monotonic() - began) < seconds:
        found = re.search(r"(\d+) succeeded", out := _run(command, seconds))
        if found is None or int(found[1]) != connections:
            raise BadRun(out[-800:])
        done += connections
    return Load(done, spent)


__all__ = ["BadRun", "Load", "Missing", "h2load", "handshakes", "head", "pgbench", "udp", "wrk"]
