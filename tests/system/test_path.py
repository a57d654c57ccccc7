"""The whole path on real input: datagrams, requests with tokens and transactions through all tiers of one daemon."""

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.system.support.bursts import statuses
from tests.system.support.clients import Response, connect
from tests.system.support.poll import until
from tests.system.support.processes import open_files
from tests.system.support.programs import needed
from tests.system.support.site import BURST, PASSWORD, POOL_SIZE, WORKERS, Site

CLIENTS = 48  # on POOL_SIZE server connections
ADDRESSES = [f"127.0.0.{number}" for number in range(11, 27)]
TRANSACTIONS = 40  # of each client of pgbench


def run(*command: str, bound: float = 60.0, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program as a user runs it."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=bound, check=False, env={**os.environ, **environment}
    )


def program(site: Site, name: str) -> str:
    """The path of one of PostgreSQL's programs."""
    found = shutil.which(name) or str(site.postgres.installation.program(name))
    if not os.path.exists(found):
        pytest.skip(f"{name} is not installed")
    return found


def test_every_kind_of_traffic_travels_its_whole_path(site: Site) -> None:
    site.check()


# -- layer 4


def test_udp_keeps_an_address_on_its_server_through_two_workers(site: Site) -> None:
    workers = site.daemon.pids("edge")
    before = [open_files(pid) for pid in workers]
    seen: dict[str, set[str]] = {address: set() for address in ADDRESSES}
    with ExitStack() as stack:
        for address in ADDRESSES:
            for _ in range(3):  # ports of one address: the kernel gives them to either worker
                player = stack.enter_context(site.player(address))
                for word in (b"one", b"two"):
                    answer = player.ask(word)
                    assert answer["data"] == word.decode()
                    seen[address].add(answer["server"])
        grown = [open_files(pid) - count for pid, count in zip(workers, before, strict=True)]
    assert all(len(servers) == 1 for servers in seen.values()), seen
    assert set.union(*seen.values()) == {"game-1", "game-2"}
    assert len(grown) == WORKERS
    assert all(count > 0 for count in grown), f"sessions by worker: {grown}"


def test_streams_are_echoed_through_the_rtmp_port(site: Site) -> None:
    payload = os.urandom(1 << 20)
    with connect(site.address("rtmp")) as stream:
        sender = threading.Thread(target=stream.sendall, args=(payload,))
        sender.start()
        echoed = b""
        while len(echoed) < len(payload) and (data := stream.recv(1 << 16)):
            echoed += data
        sender.join()
    assert echoed == payload


# -- layer 7


FORGED = {
    "X-User-Id": "mallory", "X_User_Id": "mallory", "x-user_id": "mallory", "X.User.Id": "mallory",
    "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher",
    "Forwarded": "for=6.6.6.6", "X-Request-Id": "forged", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
    "Connection": "keep-alive, X-Secret", "X-Secret": "for the next hop only", "Keep-Alive": "timeout=5",
    "X-Ordinary": "as it is",
}  # fmt: skip


def identities(answer: Response) -> list[tuple[str, str]]:
    """Every spelling of X-User-Id that reached the backend."""
    return [
        (name, value) for name, value in answer.json()["headers"] if re.sub("[-_.]", "-", name.lower()) == "x-user-id"
    ]


def test_the_backend_gets_verified_headers_and_none_of_the_forged(site: Site) -> None:
    source = "127.0.0.77"
    with site.browser(source) as browser:
        answer = browser.get("/api/user/me?a=b", site.bearer("bob", **FORGED))
        again = browser.get("/api/user/me", site.bearer("carol"))
    assert answer.status == 200
    assert answer.json()["target"] == "/api/user/me?a=b"
    assert identities(answer) == [("X-User-Id", "bob")]
    assert answer.seen("authorization") == []
    assert answer.seen("x-forwarded-for") == [source]
    assert answer.seen("x-forwarded-proto") == ["https"]
    assert answer.seen("x-forwarded-host") == ["127.0.0.1:" + site.address("https").split(":")[1]]
    (forwarded,) = answer.seen("forwarded")
    assert forwarded.startswith(f"for={source};proto=https;host=")
    (request_id,) = answer.seen("x-request-id")
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    assert answer.headers["x-request-id"] == request_id
    assert answer.headers["x-served-by"].startswith("test1")
    (trace,) = answer.seen("traceparent")
    assert re.fullmatch(f"00-{request_id}-[0-9a-f]{{16}}-01", trace)
    for gone in ("x-secret", "keep-alive"):
        assert answer.seen(gone) == []
    assert answer.seen("x-ordinary") == ["as it is"]
    assert identities(again) == [("X-User-Id", "carol")], "on the same connection, another user"
    assert again.seen("x-request-id") != [request_id]


def test_each_refusal_has_its_status_its_reason_and_an_access_line(site: Site) -> None:
    wrong = {
        "a broken signature": site.token("bob")[:-4] + "AAAA",
        "an expired one": site.issuer.token("bob", kid="rsa", lifetime=-3600),
        "another audience": site.issuer.token("bob", kid="rsa", aud="other"),
        "another issuer": site.issuer.token("bob", kid="rsa", iss="https://other.example"),
        "an algorithm that is not listed": site.issuer.token("bob", kid="hmac"),
    }
    with site.browser("127.0.0.78") as browser:
        missing = browser.get("/api/user/me")
        assert (missing.status, missing.json()["code"]) == (401, "token_missing")
        assert missing.headers["www-authenticate"] == 'Bearer realm="main"'
        for what, token in wrong.items():
            answer = browser.get("/api/user/me", {"Authorization": f"Bearer {token}"})
            assert (answer.status, 'error="invalid_token"' in answer.headers["www-authenticate"]) == (401, True), what
        nowhere = browser.get("/nowhere", site.bearer())
        assert (nowhere.status, nowhere.json()["code"]) == (404, "no_route")
        assert nowhere.headers["content-type"] == "application/problem+json"
        assert browser.get("/api/user/me", site.bearer()).status == 200, "and the connection goes on"

    def line() -> dict[str, object] | None:
        text = (site.folder / "access.log").read_text()
        found = [json.loads(each) for each in text.splitlines() if nowhere.headers["x-request-id"] in each]
        return found[0] if found else None

    logged = until(line, "the line in the access log")
    assert (logged["status"], logged["reason"], logged["client"]) == (404, "no_route", "127.0.0.78")


def test_curl_sees_the_same(site: Site) -> None:
    needed("curl")
    base = ("curl", "-sS", "--cacert", str(site.folder / "cert-authority.pem"), "--interface", "127.0.0.79")
    url = f"https://localhost:{site.ports['https']}"
    done = run(*base, "-H", f"Authorization: Bearer {site.token('bob')}", "-H", "X-User-Id: root", url + "/api/user/me")
    told = json.loads(done.stdout)
    headers = {name.lower(): value for name, value in told["headers"]}
    assert (headers["x-user-id"], headers["x-forwarded-for"]) == ("bob", "127.0.0.79")
    codes = [
        run(*base, "-o", "/dev/null", "-w", "%{http_code}", url + path).stdout
        for path in ("/api/user/me", "/nowhere", "/open/x")
    ]
    assert codes == ["401", "404", "200"]
    posted = run(*base, "--data-binary", f"@{__file__}", url + "/open/x")
    assert json.loads(posted.stdout)["length"] == os.path.getsize(__file__)
    chunked = run(*base, "-H", "Transfer-Encoding: chunked", "-d", "x" * 5000, url + "/open/x?chunked=1")
    assert json.loads(chunked.stdout)["length"] == 5000


def test_a_service_behind_the_gateway_asks_the_database_through_the_pooler(site: Site) -> None:
    def transactions() -> float:
        return site.daemon.metric("portway_leasepool_transactions_total", database="app", user="app")

    before = transactions()
    with site.browser() as browser:
        answer = browser.get("/api/account/me", site.bearer("alice"))
    assert answer.status == 200
    told = answer.json()
    assert told["user"] == "alice"
    assert told["answer"] == {"login": "alice", "name": "Alice Liddell", "email": "alice@example.com"}
    assert told["request_id"] == answer.headers["x-request-id"]
    until(lambda: transactions() > before, "the transaction to be counted")


# -- SQL


def test_psql_works_as_ever(site: Site) -> None:
    dsn = f"postgresql://app:{PASSWORD}@127.0.0.1:{site.ports['sql']}/app"
    script = "BEGIN; CREATE TEMP TABLE t ON COMMIT DROP AS SELECT generate_series(1, 9) n; SELECT sum(n) FROM t; COMMIT"
    done = run(program(site, "psql"), dsn, "-X", "-At", "-v", "ON_ERROR_STOP=1", "-c", script)
    assert done.returncode == 0, done.stderr
    assert "45" in done.stdout.split()
    failed = run(program(site, "psql"), dsn, "-X", "-c", "SELECT 1/0")
    assert "division by zero" in failed.stderr
    for user, reason in (("app", "password authentication failed"), ("nobody", "password authentication failed")):
        wrong = run(program(site, "psql"), dsn.replace(f"app:{PASSWORD}", f"{user}:wrong"), "-X", "-c", "SELECT 1")
        assert wrong.returncode == 2
        assert reason in wrong.stderr


@contextmanager
def watched(site: Site) -> Iterator[tuple[list[int], list[int]]]:
    """Asked again and again meanwhile: how many server connections there are, and the most files of each worker."""
    counts: list[int] = []
    workers = site.daemon.pids("pooler")
    files = [0] * len(workers)
    over = threading.Event()

    def watch() -> None:
        query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND backend_type = 'client backend'"
        with site.postgres.connect() as connection:
            while not over.is_set():
                counts.append(connection.execute(query).fetchall()[0][0])
                files[:] = [max(most, open_files(pid)) for most, pid in zip(files, workers, strict=True)]

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield counts, files
    finally:
        over.set()
        watcher.join()


@pytest.mark.parametrize("protocol", ["simple", "extended"])
def test_48_clients_of_pgbench_never_take_more_than_4_server_connections(site: Site, protocol: str) -> None:
    pgbench = program(site, "pgbench")
    dsn = f"postgresql://app:{PASSWORD}@127.0.0.1:{site.ports['sql']}/app"
    made = run(pgbench, "-i", "-q", "-s", "1", dsn)
    assert made.returncode == 0, made.stderr
    before = [open_files(pid) for pid in site.daemon.pids("pooler")]
    with watched(site) as (counts, files):
        clients = ("-c", str(CLIENTS), "-j", "2", "-t", str(TRANSACTIONS), "-n", "-M", protocol)
        done = run(pgbench, *clients, "-b", "simple-update", dsn)
    assert done.returncode == 0, done.stderr
    total = CLIENTS * TRANSACTIONS
    assert f"number of transactions actually processed: {total}/{total}" in done.stdout
    assert "number of failed transactions: 0 " in done.stdout
    assert len(counts) > 20
    assert max(counts) == POOL_SIZE
    assert all(most > count for most, count in zip(files, before, strict=True)), "clients in both workers"
    history = site.postgres.execute("SELECT count(*), sum(delta) FROM pgbench_history", database="app")[0]
    accounts = site.postgres.execute("SELECT sum(abalance) FROM pgbench_accounts", database="app")[0]
    assert history == (total, accounts[0])
    assert site.daemon.metric("portway_leasepool_limit", database="app", user="app") == POOL_SIZE


# -- limits


def test_a_burst_of_20_admits_exactly_20_of_60_parallel_requests_over_two_workers(site: Site) -> None:
    workers = site.daemon.pids("gateway")
    before = [open_files(pid) for pid in workers]
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(site.browser())
        grown = [open_files(pid) - count for pid, count in zip(workers, before, strict=True)]
    assert all(count > 5 for count in grown), f"connections by worker: {grown}"
    for user in ("dave", "erin", "frank", "grace"):
        assert statuses(site, user, 3 * BURST) == {200: BURST, 429: 2 * BURST}
    assert site.daemon.metric("portway_limit_lock_timeouts_total", limit="few") == 0


# -- and afterwards


def test_nothing_is_left_once_everybody_has_gone(site: Site) -> None:
    # Players' sessions and idle server connections stay for their time, the service's connection for ever.
    kept = re.compile("game|open$|idle$|pg_primary|app/app clients|pooler/main active")
    left: dict[str, int] = {}

    def gone() -> bool:
        left.clear()
        left.update({name: count for name, count in site.busy().items() if not kept.search(name)})
        return not left

    until(gone, "the counts to come back to zero", 10)
    assert not [line for line in site.daemon.lines() if line.get("level") in ("error", "critical")]
