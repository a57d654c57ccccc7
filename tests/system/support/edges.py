"""Real servers for the edge's real clients: each a context manager around a process, on the port that it is given.

A test that needs a program which this machine lacks is skipped, and says which.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.arbiter.holder import held
from supervisor.cli.demo.processes import Child
from tests.system.support.poll import until
from tests.system.support.programs import needed

NGINX_MODULES = Path("/usr/lib/nginx/modules")  # Debian's


def said(*command: str, given: bytes = b"", timeout: float = 60.0) -> str:
    """What a client said, on whichever of its outputs; it must end by itself."""
    done = subprocess.run(
        command, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False
    )
    return done.stdout.decode(errors="replace")


@contextmanager
def server(port: int, *command: str | Path) -> Iterator[None]:
    """A server that needs no more than its command line, listening. Nobody connects to see it: some take one client."""
    name = str(command[0])
    child = Child.start(name, command, output=subprocess.DEVNULL, errors=subprocess.DEVNULL)
    try:
        until(lambda: held(port, socket.SOCK_STREAM), f"{name} to listen")
        yield
    finally:
        child.process.kill()  # nothing of it is to be kept
        child.stop()


@contextmanager
def redis(port: int) -> Iterator[None]:
    """A Redis that keeps nothing."""
    needed("redis-server", "redis-cli")
    with server(port, "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""):
        yield


@contextmanager
def ssh(port: int, folder: Path) -> Iterator[None]:
    """An SSH server with a key of its own."""
    needed("sshd", "ssh-keygen", "ssh")
    key = folder / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # without it sshd does not start as root
    program = shutil.which("sshd") or ""  # it insists on its full path
    with server(port, program, "-D", "-f", "/dev/null", "-h", key, "-o", f"ListenAddress=127.0.0.1:{port}",
                "-o", "PidFile=none"):  # fmt: skip
        yield


@contextmanager
def mariadb(port: int, folder: Path) -> Iterator[None]:
    """A MariaDB into which everybody may log in."""
    needed("mariadbd", "mariadb-install-db", "mariadb")
    data = folder / "mariadb"
    data.mkdir()
    own = ["--no-defaults", f"--datadir={data}", "--user=root"]
    subprocess.run(
        ["mariadb-install-db", *own, "--skip-test-db"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with server(port, "mariadbd", *own, f"--port={port}", "--bind-address=127.0.0.1", f"--socket={data}/socket",
                "--skip-grant-tables", "--skip-networking=0", "--innodb-buffer-pool-size=8M"):  # fmt: skip
        yield


@contextmanager
def nginx(port: int, folder: Path, configuration: str, *modules: str) -> Iterator[None]:
    """An nginx whose configuration says to listen on this port, among others."""
    needed("nginx")
    for module in modules:
        if not (NGINX_MODULES / module).exists():
            pytest.skip(f"not installed: {module}")
    load = "".join(f"load_module {NGINX_MODULES / module};\n" for module in modules)
    config = folder / f"nginx-{port}.conf"
    config.write_text(
        f"{load}daemon off; master_process off; pid {folder}/nginx-{port}.pid; error_log stderr crit;\n"
        f"events {{}}\n{configuration}\n"
    )
    with server(port, "nginx", "-p", folder, "-e", "stderr", "-c", config):
        yield
