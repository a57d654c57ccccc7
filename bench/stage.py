"""What the workloads share: a folder, cheap backends in C, a PostgreSQL, keys and certificates; all ended at the end.

Everything is made when it is first asked for, so that a run of one workload starts only what that needs.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType

from bench import proxies
from bench.namespaces import Network, missing, network
from bench.proxies import Proxy, nginx, nginx_http
from supervisor.arbiter.holder import held
from supervisor.cli.demo.credentials import Certificate, Issuer, write_certificate
from supervisor.cli.demo.ports import free_tcp_port, free_udp_port
from supervisor.cli.demo.postgres import Cluster, Installation, Unavailable, find
from supervisor.cli.demo.processes import Child
from supervisor.cli.demo.waiting import until

BULK = 16 << 20  # bytes of the large answer: long enough that its head doesn't count

HELLO = "a small answer, as most answers of an API are: sixty-four bytes\n"

BACKEND = """
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ default_type text/plain; return 200 "{hello}"; }}
    location = /bulk {{ root {folder}; sendfile on; }}
  }}
"""


INSIDE = """
  server {{ listen 80 backlog=4096; default_type text/plain; location / {{ return 200 "{hello}"; }} }}
"""


class Stage:
    """The shared parts of one run; a context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="portway-bench-"))
        self.folder.chmod(0o755)  # PgBouncer runs as somebody else
        self.stack = ExitStack()
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)

    def __enter__(self) -> "Stage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def room(self, name: str) -> Path:
        """A folder for one proxy in one workload."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        folder.chmod(0o755)
        return folder

    @cached_property
    def backend(self) -> Proxy:
        """nginx, answering 64 bytes to everything and 16 MiB at /bulk."""
        folder = self.room("backend")
        with (folder / "bulk").open("wb") as file:
            file.truncate(BULK)
        port = free_tcp_port()
        proxy = nginx(folder, nginx_http(folder, BACKEND.format(port=port, folder=folder, hello=HELLO)), port)
        self.stack.callback(proxy.child.stop)
        return proxy

    @cached_property
    def network(self) -> Network:
        """A client, a balancer and one server, a network namespace each; nginx serves port 80 in the server's."""
        if reason := missing():
            raise proxies.Missing(f"the kernel datapath needs network namespaces: {reason}")
        made = self.stack.enter_context(network(1))
        folder = self.room("backend-inside")
        config = nginx_http(folder, INSIDE.format(hello=HELLO))
        server = made.servers[0]
        proxy = nginx(folder, config, 80, ready=lambda: server.call(lambda: proxies.accepts(80)), prefix=server.prefix)
        self.stack.callback(proxy.child.stop)
        return made

    @cached_property
    def echo(self) -> int:
        """The port of a UDP echo."""
        port = free_udp_port()
        child = Child.start("echo", [sys.executable, Path(__file__).parent / "datagrams.py", "echo", str(port)])
        self.stack.callback(child.stop)
        until(lambda: held(port, socket.SOCK_DGRAM), "the UDP echo")
        return port

    @cached_property
    def certificate(self) -> Certificate:
        """A certificate for localhost (ECDSA, P-256)."""
        return write_certificate(self.folder)

    @cached_property
    def issuer(self) -> Issuer:
        """Who signs with RS256."""
        issuer = Issuer()
        issuer.add_key("bench", "RS256")
        return issuer

    @cached_property
    def installation(self) -> Installation:
        """PostgreSQL with pgbench."""
        try:
            found = find(prefer_system=True)
        except Unavailable as error:
            raise proxies.Missing(str(error)) from None
        return found

    @cached_property
    def database(self) -> Cluster:
        """A PostgreSQL with role, password and database `bench`, its tables filled."""
        cluster = Cluster.create(self.installation)
        self.stack.callback(cluster.stop)
        cluster.start()
        cluster.add_role("bench", "bench")
        cluster.add_database("bench", "bench")
        fill = f"pgbench -i -q -n -h 127.0.0.1 -p {cluster.port} -U bench bench".split()
        fill[0] = str(self.installation.program("pgbench"))
        done = subprocess.run(
            fill, env={**os.environ, "PGPASSWORD": "bench"}, timeout=60, capture_output=True, check=False
        )
        if done.returncode:
            raise RuntimeError("pgbench -i failed")
        return cluster

    def writable(self, path: Path) -> Path:
        """A file that any user may write."""
        path.touch()
        path.chmod(0o666)
        return path

    def readable(self, path: Path, text: str) -> Path:
        """A file that any user may read."""
        path.write_text(text)
        path.chmod(0o644)
        return path
