"""One site: a daemon with all three tiers, configured like conf/reference.toml, and everything that stands behind it.

Players come to `game` by UDP, browsers to `https` by TCP and TLS, streamers to `rtmp`, services and psql to `sql`. The
echoing backends tell what reached them; the service `account` asks the database through the pooler. `plain` is a second
listener of the gateway without PROXY header and TLS, for bytes that are to reach the parser as they are.
"""

import json
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import psycopg

from supervisor.cli.control import ask
from supervisor.cli.demo.credentials import Issuer, write_certificate
from supervisor.cli.demo.ports import free_tcp_port, free_udp_port
from supervisor.cli.demo.postgres import Cluster
from supervisor.cli.demo.processes import Child
from supervisor.cli.demo.waiting import until
from tests.system.support.backends import Backend
from tests.system.support.clients import Client, UdpClient, connect, fetch, trusting
from tests.system.support.daemon import ROOT, Daemon

TIERS = ("edge", "gateway", "pooler")
WORKERS = 2  # of each tier
POOL_SIZE = 4  # server connections of app/app, over both workers
BURST = 20  # of the limit `few`
PASSWORD = "secret"

USERS = """
CREATE TABLE IF NOT EXISTS users (login text PRIMARY KEY, name text NOT NULL, email text NOT NULL);
INSERT INTO users VALUES ('alice', 'Alice Liddell', 'alice@example.com') ON CONFLICT DO NOTHING;
GRANT ALL ON users TO app;
"""

TEMPLATE = """\
[supervisor]
workers = 2
admin = "127.0.0.1:{admin}"
drain_timeout = "{drain_timeout}"
pop = "test1"

[log]
access = "access.log"

[pools.game]
balance = "source_hash"
servers = {game_servers}
outlier = {{ eject = "1s" }}

[pools.ingest]
balance = "least_connections"
servers = {ingest_servers}
health = {{ type = "tcp", interval = "1s" }}

[pools.gateway]
servers = ["127.0.0.1:{gateway}"]

[pools.user]
balance = "{user_balance}"
servers = {user_servers}
health = {{ type = "http", path = "/healthz", interval = "1s", timeout = "1s", fall = 3, rise = 1 }}
outlier = {{ consecutive_failures = 5, eject = "1s", max_ejected = "50%" }}

[pools.account]
servers = ["127.0.0.1:{account}"]
health = {{ type = "http", path = "/healthz", interval = "1s", timeout = "1s", fall = 3, rise = 1 }}

[pools.pg_primary]
servers = ["{primary}"]
health = {{ type = "postgres", user = "legacy", password = "secret", database = "app", interval = "1s" }}

[edge.listeners.https]
bind = "127.0.0.1:{https}"
protocol = "tcp"
pool = "gateway"
send_proxy_protocol = "v2"

[edge.listeners.game]
bind = "127.0.0.1:{game}"
protocol = "udp"
pool = "game"
session_timeout = "{session_timeout}"

[edge.listeners.rtmp]
bind = "127.0.0.1:{rtmp}"
protocol = "tcp"
pool = "ingest"

[gateway.listeners.api]
bind = "127.0.0.1:{gateway}"
accept_proxy_protocol = ["127.0.0.0/8"]
tls = {{ certificates = [{{ cert = "cert.pem", key = "cert-key.pem" }}] }}

[gateway.listeners.plain]
bind = "127.0.0.1:{plain}"

[gateway.auth.main]
type = "jwt"
issuer = "https://issuer.example"
audience = ["api"]
algorithms = ["RS256", "ES256", "EdDSA"]
jwks = "jwks.json"
claims_to_headers = {{ sub = "X-User-Id" }}

[gateway.limits.per_user]
key = "user"
rate = "{user_rate}"
burst = 100000

[gateway.limits.few]
key = "user"
rate = "1/m"
burst = 20

[gateway.routes.user]
path = "/api/user/*"
pool = "user"
auth = "main"
limits = ["per_user"]
timeout = "15s"

[gateway.routes.few]
path = "/api/few/*"
pool = "user"
auth = "main"
limits = ["few"]

[gateway.routes.account]
path = "/api/account/*"
pool = "account"
auth = "main"
limits = ["per_user"]

[gateway.routes.open]
path = "/open/*"
pool = "user"
timeout = "15s"

[pooler]
server_idle_timeout = "{server_idle_timeout}"
client_login_timeout = "{client_login_timeout}"
server_connect_timeout = "{server_connect_timeout}"

[pooler.listeners.main]
bind = "127.0.0.1:{sql}"

[pooler.databases.app]
primary = "pg_primary"
pool_mode = "transaction"
pool_size = {pool_size}

[pooler.databases.sessions]
primary = "pg_primary"
database = "app"
pool_mode = "session"
pool_size = 2

[pooler.auth]
users = "users.txt"
"""
DEFAULTS: Mapping[str, Any] = {
    "drain_timeout": "1s",
    "user_balance": "least_connections",
    "user_rate": "100000/s",
    "session_timeout": "60s",
    "server_idle_timeout": "10m",
    "client_login_timeout": "1m",
    "server_connect_timeout": "15s",
    "pool_size": POOL_SIZE,
}


@attrs.define(eq=False)
class Site:
    """A running site. `extra` is laid behind the configuration, `settings` over what DEFAULTS has."""

    folder: Path
    postgres: Cluster
    issuer: Issuer
    extra: str
    settings: dict[str, Any]
    backends: dict[str, Backend]
    ports: dict[str, int]
    tls: ssl.SSLContext
    daemon: Daemon = attrs.field(init=False)
    tokens: dict[str, str] = attrs.Factory(dict)
    service: Child | None = None

    # -- addresses

    def address(self, name: str) -> str:
        """host:port of a listener (https, plain, game, rtmp, sql) or of another part."""
        return f"127.0.0.1:{self.ports[name]}"

    def text(self, **changes: Any) -> str:
        """The configuration's text, with other settings than those that the site began with."""
        kinds = {"game_servers": "game", "ingest_servers": "ingest", "user_servers": "user"}
        servers = {
            key: json.dumps([one.address for name, one in sorted(self.backends.items()) if name.startswith(kind)])
            for key, kind in kinds.items()
        }
        values = {**DEFAULTS, **self.ports, **servers, **self.settings, **changes}
        return TEMPLATE.format(primary=self.postgres.address, **values) + self.extra

    # -- clients

    def token(self, user: str = "alice") -> str:
        """A token of this user, signed once."""
        if user not in self.tokens:
            self.tokens[user] = self.issuer.token(user, kid="ed")
        return self.tokens[user]

    def bearer(self, user: str = "alice", **more: str) -> dict[str, str]:
        """Headers with the token of this user."""
        return {"Authorization": f"Bearer {self.token(user)}", **more}

    def browser(self, source: str = "127.0.0.1") -> Client:
        """A TLS connection from this address through the edge to the gateway."""
        return Client(self.address("https"), self.tls, source=source)

    def player(self, source: str = "127.0.0.1", timeout: float = 20.0) -> UdpClient:
        """A UDP client."""
        return UdpClient(self.address("game"), timeout, source)

    def sql(self, user: str = "app", database: str = "app", **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection through the pooler, committing each statement."""
        options = {"password": PASSWORD, "connect_timeout": 20, **options}
        return psycopg.connect(
            host="127.0.0.1", port=self.ports["sql"], user=user, dbname=database, autocommit=True,
            prepare_threshold=None, **options,
        )  # fmt: skip

    def ask(self, command: str, **more: str) -> dict[str, Any]:
        """Ask the daemon over its control socket."""
        return ask(self.folder / "portway.sock", {"command": command, **more})

    # -- what is going on

    def workers(self) -> dict[str, list[int]]:
        """The process ids of each tier's workers."""
        return {tier: self.daemon.pids(tier) for tier in TIERS}

    def settled(self) -> bool:
        """Whether both workers of each tier are ready, and all slots polled."""
        status = self.daemon.status()
        ready = [process["tier"] for process in status["processes"] if process["state"] == "ready"]
        full = all(len(listener["slots"]) == WORKERS for listener in status["listeners"])
        return full and all(ready.count(tier) == WORKERS == len(self.daemon.pids(tier)) for tier in TIERS)

    def down(self) -> list[str]:
        """Servers that are not up, in whatever way."""
        pools = self.daemon.status()["pools"]
        return [
            f"{pool['name']}/{server['address']} {server['state']}"
            for pool in pools
            for server in pool["servers"]
            if server["state"] != "up"
        ]

    def counts(self) -> dict[str, int]:
        """Everything that must be zero when nobody is there: connections, in flight, leases."""
        status = self.daemon.status()
        found = {}
        for listener in status["listeners"]:
            name = f"{listener['tier']}/{listener['name']}"
            found[f"{name} active"] = listener["active"]
            found[f"{name} sessions"] = listener["sessions"]
        for pool in status["pools"]:
            for server in pool["servers"]:
                found[f"{pool['name']}/{server['address']} in flight"] = server["in_flight"]
        for route in status["routes"]:
            found[f"{route['name']} in flight"] = route["in_flight"]
        for leases in status["lease_pools"]:
            for field in ("open", "idle", "busy", "waiting", "clients"):
                found[f"{leases['database']}/{leases['user']} {field}"] = leases[field]
        return found

    def busy(self) -> dict[str, int]:
        """The counts that are not zero."""
        return {name: count for name, count in self.counts().items() if count}

    def wait_quiet(self, seconds: float = 20.0) -> None:
        """Wait until everything has come back to zero."""
        left: dict[str, int] = {}

        def quiet() -> bool:
            left.clear()
            left.update(self.busy())
            return not left

        try:
            until(quiet, "all counts to come back to zero", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {left}") from None

    # -- what is done to it

    def start_service(self) -> None:
        """The service `account`, which finds its users through the pooler, by one connection that it keeps."""
        dsn = f"postgresql://app:{PASSWORD}@{self.address('sql')}/app"
        command = [sys.executable, "-m", "supervisor.cli.demo.services", "user", "account", str(self.ports["account"])]
        with (self.folder / "account.log").open("ab") as log:
            self.service = Child.start(
                "account", command, environment={"PORTWAY_DEMO_DATABASE": dsn}, output=log, errors=log, directory=ROOT
            )
        until(lambda: fetch(self.address("account"), "/healthz").status == 200, "the account service")

    def stop_service(self) -> None:
        """End the service, and with it its connection to the pooler."""
        if self.service is not None:
            self.service.stop()
            self.service = None

    # -- whether all of it works

    def check(self, user: str = "alice") -> None:
        """A request, a transaction, a datagram and a stream travel their whole path, each in one try."""
        with self.browser() as browser:
            answer = browser.get("/api/user/check", self.bearer(user))
            assert (answer.status, answer.seen("x-user-id")) == (200, [user])
            account = browser.get("/api/account/me", self.bearer("alice"))
            assert (account.status, account.json()["answer"]["name"]) == (200, "Alice Liddell")
        with self.sql() as connection, connection.transaction():
            assert connection.execute("SELECT 6 * 7").fetchone() == (42,)
        with self.player() as player:
            assert player.ask(b"check")["data"] == "check"
        with connect(self.address("rtmp")) as stream:
            stream.sendall(b"check")
            assert stream.recv(5) == b"check"


@contextmanager
def open_site(
    folder: Path, postgres: Cluster, issuer: Issuer, extra: str = "", ports: Mapping[str, int] | None = None,
    **settings: Any,
) -> Iterator[Site]:  # fmt: skip
    """Start a site; it is ended, and the daemon's end judged, with the block."""
    with ExitStack() as stack:
        backends = {}
        for program, names in (("http", ("user-1", "user-2")), ("tcp", ("ingest-1", "ingest-2")),
                               ("udp", ("game-1", "game-2"))):  # fmt: skip
            for name in names:
                backends[name] = Backend(program, name).start()
                stack.callback(backends[name].stop)
        tcp = ("admin", "https", "gateway", "plain", "rtmp", "sql", "account")
        site = Site(
            folder=folder,
            postgres=postgres,
            issuer=issuer,
            extra=extra,
            settings=settings,
            backends=backends,
            ports={**{name: free_tcp_port() for name in tcp}, "game": free_udp_port(), **(ports or {})},
            tls=trusting(write_certificate(folder).authority),
        )
        postgres.script(USERS, "app")
        issuer.write_jwks(folder / "jwks.json")
        (folder / "users.txt").write_text(f'"app" "{PASSWORD}"\n"legacy" "{PASSWORD}"\n')
        site.start_service()
        stack.callback(site.stop_service)
        site.daemon = Daemon.start(folder, site.text())
        stack.callback(site.daemon.stop)
        until(site.settled, "every slot to be polled")
        yield site
