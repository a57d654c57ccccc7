"""From pgbouncer.ini to a configuration of Portway: what means the same, and a list of what does not.

Pure: text in, text out. PgBouncer's defaults are written out where they are others than ours. Source: PgBouncer's
configuration page (1.24).
"""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Iterable, Iterator, Mapping

import attrs

PLAIN_KEYS = ("max_client_conn", "max_user_connections", "server_reset_query")
DURATIONS = (
    "client_idle_timeout", "client_login_timeout", "idle_transaction_timeout", "query_timeout", "query_wait_timeout",
    "reserve_pool_timeout", "server_connect_timeout", "server_idle_timeout", "server_lifetime", "server_login_retry",
)  # fmt: skip
LISTS = ("admin_users", "stats_users", "ignore_startup_parameters")
METHODS = {"trust": "trust", "md5": "md5", "scram-sha-256": "scram-sha-256", "plain": "password", "cert": "cert"}
# Others than ours, so they are written out where the file is silent.
DEFAULTS = {
    "pool_mode": "session", "max_client_conn": "100", "server_reset_query": "DISCARD ALL", "listen_port": "6432",
    "auth_type": "md5", "default_pool_size": "20",
    "auth_query": "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END "
    "FROM pg_authid WHERE rolname=$1 AND rolcanlogin",
}  # fmt: skip
# Of a process, a log, or a socket: [supervisor] and [log] have their own words, and the rest needs none.
NOT_NEEDED = re.compile(
    r"log_\w+|logfile|syslog\w*|verbose|pidfile|user|so_reuseport|tcp_\w+|listen_backlog|pkt_buf|sbuf_loopcnt|"
    r"max_packet_size|stats_period|dns_\w+|resolv_conf|service_name|job_name|conffile|peer_id|suspend_timeout|"
    r"disable_pqexec|application_name_add_host|server_check_\w+|server_fast_close|server_round_robin|"
    r"max_prepared_statements|cancel_wait_timeout|server_reset_query_always|query_wait_notify|"
    r"track_extra_parameters|unix_socket_(mode|group)"
)
_PAIR = re.compile(r"(\w+)\s*=\s*('(?:[^']|'')*'|[^\s']+)\s*")


@attrs.frozen
class Converted:
    """The configuration, and what it could not take along: a line each, naming the key."""

    toml: str
    lost: tuple[str, ...]


class NotIni(ValueError):
    """The text is no pgbouncer.ini."""


def convert(text: str) -> Converted:
    """Raises NotIni."""
    parser = configparser.ConfigParser(
        interpolation=None, strict=False, comment_prefixes=(";", "#"), delimiters=("=",), default_section="\0none"
    )
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names of databases keep their case
    includes = [line for line in text.splitlines() if line.lstrip().startswith("%include")]
    try:
        parser.read_string("\n".join(line for line in text.splitlines() if line not in includes))
    except configparser.Error as error:
        raise NotIni(str(error).replace("\n", " ")) from None
    sections = {name: dict(parser[name]) for name in parser.sections()}
    general = {key.lower(): value for key, value in sections.get("pgbouncer", {}).items()}
    made = _Conversion(general, sections.get("databases", {}), sections.get("users", {}))
    made.lost += [f"{line.strip()}: convert that file by itself" for line in includes]
    made.lost += [f"[{name}]: not known here" for name in sections.keys() - {"pgbouncer", "databases", "users"}]
    return made.run()


def pairs(text: str) -> dict[str, str]:
    """A connection string: `host=... dbname='...'`. Raises NotIni."""
    found: dict[str, str] = {}
    at = 0
    text = text.strip()
    while at < len(text):
        match = _PAIR.match(text, at)
        if match is None:
            raise NotIni(f"not a connection string: {text[:80]!r}")
        value = match[2]
        found[match[1].lower()] = value[1:-1].replace("''", "'") if value.startswith("'") else value
        at = match.end()
    return found


@attrs.define
class _Conversion:
    general: Mapping[str, str]
    databases: Mapping[str, str]
    users: Mapping[str, str]
    lost: list[str] = attrs.field(factory=list)
    pools: dict[str, list[str]] = attrs.field(factory=dict)

    def run(self) -> Converted:
        databases = [*self._databases()]
        blocks = [*self._pools(), *self._pooler(), *self._listeners(), *databases, *self._users(), *self._auth()]
        for key in self.general:
            if not _known(key):
                word = "not needed here" if NOT_NEEDED.fullmatch(key) else "not carried over"
                self.lost.append(f"{key}: {word}")
        return Converted("\n\n".join(blocks) + "\n", tuple(self.lost))

    def _get(self, key: str) -> str:
        return self.general.get(key, DEFAULTS.get(key, "")).strip()

    def _pools(self) -> Iterator[str]:
        for name, servers in self.pools.items():
            yield _block(f"pools.{name}", [("servers", _list(servers))])

    def _pooler(self) -> Iterator[str]:
        lines: list[tuple[str, str]] = []
        for key in (*PLAIN_KEYS, *DURATIONS):
            value = self._get(key)
            if not value:
                continue
            if key in DURATIONS:
                lines.append((key, json.dumps("0" if float(value) == 0 else f"{float(value):g}s")))
            else:
                lines.append((key, value if value.isdecimal() else json.dumps(value)))
        lines += [(key, _list(_words(self._get(key)))) for key in LISTS if self._get(key)]
        yield _block("pooler", lines)

    def _listeners(self) -> Iterator[str]:
        addresses = _words(self._get("listen_addr"))
        if not addresses and not self._get("unix_socket_dir"):
            self.lost.append("listen_addr: missing; 127.0.0.1 is written instead")
            addresses = ["127.0.0.1"]
        for number, address in enumerate(addresses, 1):
            host = {"*": "0.0.0.0", "localhost": "127.0.0.1"}.get(address, address)
            bind = f"[{host}]:{self._get('listen_port')}" if ":" in host else f"{host}:{self._get('listen_port')}"
            lines = [("bind", json.dumps(bind)), *self._listener_tls()]
            yield _block("pooler.listeners.main" if number == 1 else f"pooler.listeners.main{number}", lines)
        if self._get("unix_socket_dir"):
            path = f"{self._get('unix_socket_dir').rstrip('/')}/.s.PGSQL.{self._get('listen_port')}"
            yield _block("pooler.listeners.local", [("unix_socket", json.dumps(path))])

    def _listener_tls(self) -> Iterator[tuple[str, str]]:
        mode = self._get("client_tls_sslmode") or "disable"
        if mode == "disable":
            return
        pair = {"cert": self._get("client_tls_cert_file"), "key": self._get("client_tls_key_file")}
        parts = [f"certificates = [{_inline(pair)}]"]
        if mode not in ("allow", "prefer"):
            parts.append("required = true")
        if mode.startswith("verify") and self._get("client_tls_ca_file"):
            parts.append(f"client_ca = {json.dumps(self._get('client_tls_ca_file'))}")
        yield "tls", f"{{ {', '.join(parts)} }}"

    def _databases(self) -> Iterator[str]:
        for name, text in self.databases.items():
            if name == "*":
                self.lost.append("* (any other database): name each database that clients use")
                continue
            yield _block(f"pooler.databases.{_key(name)}", [*self._database(name, pairs(text))])

    def _database(self, name: str, words: dict[str, str]) -> Iterator[tuple[str, str]]:
        yield "primary", json.dumps(self._pool(name, words))
        if words.get("dbname", name) != name:
            yield "database", json.dumps(words["dbname"])
        yield "pool_mode", json.dumps(words.get("pool_mode", self._get("pool_mode")))
        yield "pool_size", words.get("pool_size", self._get("default_pool_size"))
        for key, theirs in (("min_pool_size", ""), ("reserve_pool_size", "reserve_pool"), ("max_db_connections", "")):
            value = words.get(key, words.get(theirs, self._get(key)))
            if key == "max_db_connections":
                value = words.get("max_db_connections", self._get(key))
            if value and int(value):
                yield key, value
        for key in ("user", "password"):
            if key in words:
                yield key, json.dumps(words[key])
        mode = self._get("server_tls_sslmode") or "prefer"
        if mode not in ("disable", "allow"):
            files = {"ca": "server_tls_ca_file", "cert": "server_tls_cert_file", "key": "server_tls_key_file"}
            tls = {"mode": mode, **{key: self._get(word) for key, word in files.items() if self._get(word)}}
            if mode in ("prefer", "require"):
                tls.pop("ca", None)
            yield "tls", _inline(tls)
        taken = {"host", "port", "dbname", "pool_mode", "pool_size", "min_pool_size", "reserve_pool", "user",
                 "reserve_pool_size", "max_db_connections", "password"}  # fmt: skip
        self.lost += [f"{name}: {key}: not carried over" for key in words if key not in taken]

    def _pool(self, name: str, words: Mapping[str, str]) -> str:
        """The pool of servers of a database; databases on the same servers share it."""
        host, port = words.get("host", ""), words.get("port", "5432")
        if not host or host.startswith(("/", "@")):
            self.lost.append(f"{name}: host: a Unix socket; 127.0.0.1 is written instead")
            host = "127.0.0.1"
        servers = [f"{one}:{port}" for one in _words(host)]
        for pool, known in self.pools.items():
            if known == servers:
                return pool
        pool = "pg" if not self.pools else f"pg{len(self.pools) + 1}"
        self.pools[pool] = servers
        return pool

    def _users(self) -> Iterator[str]:
        for name, text in self.users.items():
            words = pairs(text)
            kept = ("pool_mode", "pool_size", "max_user_connections")
            lines = [
                (key, value if value.isdecimal() else json.dumps(value)) for key, value in words.items() if key in kept
            ]
            self.lost += [f"user {name}: {key}: not carried over" for key in words if key not in kept]
            if lines:
                yield _block(f"pooler.users.{_key(name)}", lines)

    def _auth(self) -> Iterator[str]:
        lines: list[tuple[str, str]] = []
        if self._get("auth_file"):
            lines.append(("users", json.dumps(self._get("auth_file"))))
        else:
            self.lost.append("auth_file: missing; [pooler.auth] needs users")
        if self._get("auth_user"):
            lines += [
                ("query_user", json.dumps(self._get("auth_user"))),
                ("query", json.dumps(self._get("auth_query"))),
            ]
        method = self._get("auth_type")
        if method == "hba":
            lines.append(("hba", json.dumps(self._get("auth_hba_file"))))
        elif method in METHODS:
            lines.append(("type", json.dumps(METHODS[method])))
        else:
            self.lost.append(f"auth_type {method}: not known here")
        yield _block("pooler.auth", lines)


def _known(key: str) -> bool:
    return key in (*PLAIN_KEYS, *DURATIONS, *LISTS, *DEFAULTS) or key in (
        "listen_addr", "auth_file", "auth_user", "auth_hba_file", "unix_socket_dir", "min_pool_size",
        "reserve_pool_size",
        "max_db_connections", "client_tls_sslmode", "client_tls_cert_file", "client_tls_key_file",
        "client_tls_ca_file", "server_tls_sslmode", "server_tls_ca_file", "server_tls_cert_file", "server_tls_key_file",
    )  # fmt: skip


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _list(words: Iterable[str]) -> str:
    return f"[{', '.join(json.dumps(word) for word in words)}]"


def _inline(table: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) + " }"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _block(header: str, lines: Iterable[tuple[str, str]]) -> str:
    return "\n".join([f"[{header}]", *(f"{key} = {value}" for key, value in lines)])
