"""The demo's places (ports and files) and the configuration that joins them: conf/reference.toml, on this machine.

Every program gets a port that is free; what a user types keeps the port he expects, where nobody else has it.
"""

import contextlib
import socket
from pathlib import Path

import attrs

from supervisor.cli.demo.ports import free_tcp_port, free_udp_port

WELL_KNOWN = {"https": 8443, "rtmp": 1935, "sql": 6432, "admin": 9900, "game": 7777}


def _port(name: str, kind: socket.SocketKind, usual: bool) -> int:
    if usual:
        with socket.socket(socket.AF_INET, kind) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", WELL_KNOWN[name]))
            return WELL_KNOWN[name]
    return free_tcp_port() if kind == socket.SOCK_STREAM else free_udp_port()


@attrs.frozen(kw_only=True)
class Places:
    """Where everything of one demo stands."""

    folder: Path
    https: int
    gateway: int
    rtmp: int
    sql: int
    admin: int
    game: int  # UDP
    services: dict[str, dict[str, int]]  # kind -> instance -> port
    games: dict[str, int]  # UDP
    ingests: dict[str, int]

    @classmethod
    def choose(cls, folder: Path, usual: bool = True) -> "Places":
        """Find ports for everything; the usual ones first, unless not wanted."""
        tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
        instances = {"user": 2, "feed": 2, "payment": 1}
        return cls(
            folder=folder,
            https=_port("https", tcp, usual),
            gateway=free_tcp_port(),
            rtmp=_port("rtmp", tcp, usual),
            sql=_port("sql", tcp, usual),
            admin=_port("admin", tcp, usual),
            game=_port("game", udp, usual),
            services={
                kind: {f"{kind}-{number}": free_tcp_port() for number in range(1, count + 1)}
                for kind, count in instances.items()
            },
            games={f"game-{number}": free_udp_port() for number in (1, 2)},
            ingests={f"ingest-{number}": free_tcp_port() for number in (1, 2)},
        )

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "portway.toml"

    @property
    def users(self) -> Path:
        """The pooler's users."""
        return self.folder / "users.txt"

    @property
    def jwks(self) -> Path:
        """The issuer's public keys."""
        return self.folder / "jwks.json"

    @property
    def token(self) -> Path:
        """A token of the user alice."""
        return self.folder / "token"

    @property
    def access_log(self) -> Path:
        """The gateway's access log."""
        return self.folder / "access.log"


TEMPLATE = """\
# The demo's configuration. Edit it, then: portway reload {config}

[supervisor]
workers = 2
admin = "127.0.0.1:{admin}"
drain_timeout = "5s"
pop = "demo1"

[log]
access = "{access_log}"

[pools.game]
balance = "source_hash"
servers = {games}

[pools.ingest]
balance = "least_connections"
servers = {ingests}
health = {{ type = "tcp", interval = "1s" }}

[pools.gateway]
servers = ["127.0.0.1:{gateway}"]

[pools.user]
balance = "least_connections"
servers = {user}
health = {{ type = "http", path = "/healthz", interval = "1s", timeout = "1s", fall = 2, rise = 1 }}
outlier = {{ consecutive_failures = 3, eject = "10s", max_ejected = "50%" }}

[pools.feed]
servers = {feed}
health = {{ type = "http", path = "/healthz", interval = "1s", timeout = "1s", fall = 2, rise = 1 }}

[pools.payment]
servers = {payment}
health = {{ type = "http", path = "/healthz", interval = "1s", timeout = "1s", fall = 2, rise = 1 }}

[pools.pg_primary]
servers = ["{primary}"]
health = {{ type = "postgres", user = "app", password = {{ file = "password" }}, database = "app" }}

[pools.pg_replicas]
servers = ["{replica}"]
health = {{ type = "postgres", user = "app", password = {{ file = "password" }}, database = "feed" }}

[edge.listeners.https]
bind = "127.0.0.1:{https}"
protocol = "tcp"
pool = "gateway"
send_proxy_protocol = "v2"

[edge.listeners.game]
bind = "127.0.0.1:{game}"
protocol = "udp"
pool = "game"
session_timeout = "60s"

[edge.listeners.rtmp]
bind = "127.0.0.1:{rtmp}"
protocol = "tcp"
pool = "ingest"

[gateway.listeners.api]
bind = "127.0.0.1:{gateway}"
accept_proxy_protocol = ["127.0.0.0/8"]
tls = {{ certificates = [{{ cert = "cert.pem", key = "cert-key.pem" }}] }}

[gateway.auth.main]
type = "jwt"
issuer = "{issuer}"
audience = ["{audience}"]
algorithms = ["RS256"]
jwks = "jwks.json"
claims_to_headers = {{ sub = "X-User-Id" }}

[gateway.limits.per_user]
key = "user"
rate = "100/s"
burst = 200

[gateway.routes.user]
path = "/api/user/*"
pool = "user"
auth = "main"
limits = ["per_user"]

[gateway.routes.feed]
path = "/api/feed/*"
pool = "feed"
auth = "main"
limits = ["per_user"]

[gateway.routes.checkout]
path = "/api/checkout/*"
methods = ["GET", "POST"]
pool = "payment"
auth = "main"
limits = ["per_user"]

[pooler.listeners.main]
bind = "127.0.0.1:{sql}"

[pooler.databases.app]
primary = "pg_primary"
pool_mode = "transaction"
pool_size = 20

[pooler.databases.feed]           # read only: it stands on the replica
primary = "pg_replicas"
pool_mode = "transaction"
pool_size = 20

[pooler.auth]
users = "users.txt"
"""


def _servers(ports: dict[str, int]) -> str:
    return "[" + ", ".join(f'"127.0.0.1:{port}"' for port in ports.values()) + "]"


def write_configuration(places: Places, primary: str, replica: str, issuer: str, audience: str) -> Path:
    """Write the configuration; `primary` and `replica` are host:port."""
    text = TEMPLATE.format(
        config=places.config,
        admin=places.admin,
        access_log=places.access_log,
        https=places.https,
        gateway=places.gateway,
        rtmp=places.rtmp,
        sql=places.sql,
        game=places.game,
        games=_servers(places.games),
        ingests=_servers(places.ingests),
        primary=primary,
        replica=replica,
        issuer=issuer,
        audience=audience,
        **{kind: _servers(ports) for kind, ports in places.services.items()},
    )
    places.config.write_text(text)
    return places.config
