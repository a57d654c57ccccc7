"""The demo's course: start everything in order, print it, wait, end everything in the opposite order.

What is started is owned by one ExitStack, so that an end at any moment, a signal during the start too, leaves no
process and no file behind.
"""

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from urllib.error import URLError
from urllib.request import urlopen

from supervisor.cli.demo.commands import Command, commands, run
from supervisor.cli.demo.configuration import Places, write_configuration
from supervisor.cli.demo.credentials import Issuer, write_certificate, write_private
from supervisor.cli.demo.picture import picture, to_paste
from supervisor.cli.demo.postgres import Cluster, Installation, Unavailable, find
from supervisor.cli.demo.processes import ENDINGS, Child
from supervisor.cli.demo.waiting import Late, until

READY_BOUND = 60.0  # s: a machine with one slow core starts a dozen Python processes
GRACE = 5.0  # s for a child to end: nobody wants to wait for a demo

SCHEMA = """
CREATE TABLE users (login text PRIMARY KEY, name text NOT NULL, email text NOT NULL);
INSERT INTO users VALUES ('alice', 'Alice Liddell', 'alice@example.com'), ('bob', 'Bob Crane', 'bob@example.com');
CREATE TABLE payments (id serial PRIMARY KEY, login text NOT NULL REFERENCES users, amount integer NOT NULL);
ALTER TABLE users OWNER TO app;
ALTER TABLE payments OWNER TO app;
"""
FEED_SCHEMA = """
CREATE TABLE posts (id serial PRIMARY KEY, author text NOT NULL, text text NOT NULL);
INSERT INTO posts (author, text) VALUES ('bob', 'first'), ('alice', 'one path, one file'), ('bob', 'ship it');
ALTER TABLE posts OWNER TO app;
"""


class Ended(BaseException):
    """A signal asked the demo to end."""


class Broken(Exception):
    """A part of the demo did not come up."""


def say(text: str) -> None:
    """Progress goes to stderr; what is to be read and pasted goes to stdout."""
    print(text, file=sys.stderr, flush=True)


class Demo:
    """Everything that runs; a context manager."""

    def __init__(self, usual_ports: bool = True) -> None:
        self.usual_ports = usual_ports
        self.stack = ExitStack()
        self.password = secrets.token_urlsafe(12)
        self.folder: Path
        self.places: Places
        self.installation: Installation
        self.primary: Cluster
        self.replica: Cluster
        self.portway: Child

    def __enter__(self) -> "Demo":
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything, the last started first."""
        self.stack.close()

    def _start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="portway-demo-"))
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.places = Places.choose(self.folder, self.usual_ports)
        self._start_databases()
        self._start_backends()
        self._write_files()
        say("starting Portway: edge, gateway, pooler, prober and admin")
        self.portway = self._child("portway", "supervisor", "run", str(self.places.config), last=signal.SIGINT)
        self._wait("Portway", f"http://127.0.0.1:{self.places.admin}/healthz", self.portway)

    def _start_databases(self) -> None:
        self.installation = find()
        say(f"starting PostgreSQL from {self.installation.bin}: a primary and a streaming replica")
        self.primary = Cluster.create(self.installation)
        self.stack.callback(self.primary.stop)
        self.primary.start()
        self.primary.add_role("app", self.password)
        for database, schema in (("app", SCHEMA), ("feed", FEED_SCHEMA)):
            self.primary.add_database(database, "app")
            self.primary.script(schema, database)
        self.replica = self.primary.replica()
        self.stack.callback(self.replica.stop)
        self.replica.start()

    def _start_backends(self) -> None:
        say("starting the services, game servers and ingest servers")
        package = "supervisor.cli.demo"
        waiting = []
        for kind, instances in self.places.services.items():
            database = "feed" if kind == "feed" else "app"
            dsn = f"postgresql://app:{self.password}@127.0.0.1:{self.places.sql}/{database}"
            for name, port in instances.items():
                child = self._child(
                    name, f"{package}.services", kind, name, str(port), environment={"PORTWAY_DEMO_DATABASE": dsn}
                )
                waiting.append((name, f"http://127.0.0.1:{port}/healthz", child))
        for name, port in self.places.games.items():
            self._child(name, f"{package}.echoes", "game", name, str(port))
        for name, port in self.places.ingests.items():
            self._child(name, f"{package}.echoes", "ingest", name, str(port))
        for name, url, child in waiting:
            self._wait(name, url, child)

    def _write_files(self) -> None:
        issuer = Issuer()
        issuer.add_key("demo-1", "RS256")
        issuer.write_jwks(self.places.jwks)
        write_private(self.places.token, issuer.token("alice").encode())
        write_private(self.places.users, f'"app" "{self.password}"\n'.encode())
        write_private(self.folder / "password", self.password.encode())
        write_certificate(self.folder)
        write_configuration(self.places, self.primary.address, self.replica.address, issuer.name, issuer.audience)

    def _child(
        self,
        name: str,
        module: str,
        *arguments: str,
        environment: dict[str, str] | None = None,
        last: signal.Signals = signal.SIGTERM,
    ) -> Child:
        command = [sys.executable, "-m", module, *arguments]
        with (self.folder / f"{name}.log").open("ab") as log:
            child = Child.start(name, command, environment=environment, output=log, errors=log, last=last)
        self.stack.callback(child.stop, GRACE)
        return child

    def _wait(self, name: str, url: str, child: Child) -> None:
        def ready() -> bool:
            if not child.alive:
                raise Broken(f"{name} ended with {child.process.returncode}:\n{self.words(name.lower())}")
            try:
                with urlopen(url, timeout=2) as answer:
                    return bool(answer.status == 200)
            except URLError:
                return False

        try:
            until(ready, name, READY_BOUND)
        except Late as error:
            raise Broken(f"{error}\n{self.words(name.lower())}") from None

    def words(self, name: str) -> str:
        """The last words of a child's log."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def commands(self) -> list[Command]:
        """The five commands for this demo."""
        return commands(self.places, self.installation, self.password)

    def show(self) -> None:
        """Print the picture and the commands."""
        print(picture(self.places, self.primary.port, self.replica.port))
        print(to_paste(self.commands()))
        print(f"# Configuration, token, certificates and logs are in {self.folder}; Ctrl-C ends it all.", flush=True)

    def check(self) -> bool:
        """Run the five commands as printed; say what each did."""
        good = True
        for number, command in enumerate(self.commands(), 1):
            outcome = run(command)
            good = good and outcome.good
            print(f"{'ok    ' if outcome.good else 'FAILED'} {number}. {command.title}", flush=True)
            if not outcome.good:
                print(f"{command.text}\n{outcome.output[-3000:]}", flush=True)
        if not good:
            print(self.words("portway"), flush=True)
        return good


def _end(number: int, frame: FrameType | None) -> None:
    # From now on nothing interrupts the clearing away.
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    raise Ended


def main(argv: list[str]) -> int:
    """Run the demo; 0 after an orderly end, 1 when something did not work, 2 for a wrong option."""
    parser = argparse.ArgumentParser(prog="portway demo", description="The whole picture on this machine.")
    parser.add_argument("--check", action="store_true", help="run the five commands once, then end")
    parser.add_argument("--free-ports", action="store_true", help="free ports instead of 8443, 6432, 7777, 1935, 9900")
    options = parser.parse_args(argv)
    for ending in ENDINGS:
        signal.signal(ending, _end)
    try:
        with Demo(usual_ports=not (options.check or options.free_ports)) as demo:
            if options.check:
                return 0 if demo.check() else 1
            demo.show()
            status = demo.portway.process.wait()
            say(f"Portway ended with {status}:\n{demo.words('portway')}")
            return 1
    except (Broken, Unavailable, OSError) as error:
        say(f"the demo could not start: {error}")
        return 1
    except Ended:
        say("ended; nothing is left behind")
        return 0
