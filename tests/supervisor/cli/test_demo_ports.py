import socket
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.cli.demo import ports

ROOT = Path(__file__).resolve().parents[3]
MANY = 3 * ports.BLOCK
ASK = """\
import sys
from supervisor.cli.demo import ports
ports._range = lambda: (int(sys.argv[1]), int(sys.argv[2]))
print(ports.free_tcp_port())
"""


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> range:
    """All the ports that there are: one, of a block that this process has. It begins where no other block does."""
    port = ports._claim()[1]
    only = range(port, port + 1)
    monkeypatch.setattr(ports, "_range", lambda: (only.start, only.stop))
    monkeypatch.setattr(ports, "_unused", [])
    return only


def ask_another_process(among: range) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ASK, str(among.start), str(among.stop)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_no_port_is_given_twice() -> None:
    given = [ports.free_tcp_port() for _ in range(MANY)] + [ports.free_udp_port() for _ in range(MANY)]
    assert len(set(given)) == 2 * MANY


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert ports.free_tcp_port() < client.getsockname()[1]


def test_a_port_that_somebody_has_is_passed_over(narrow: range) -> None:
    with socket.create_server(("127.0.0.1", narrow[0])), pytest.raises(OSError, match="every block of ports"):
        ports.free_tcp_port()


def test_another_process_does_not_get_a_port_that_was_given(narrow: range) -> None:
    assert ports.free_tcp_port() == narrow[0]
    asked = ask_another_process(narrow)
    assert asked.returncode == 1
    assert "every block of ports is claimed" in asked.stderr


def test_a_port_is_given_again_once_its_process_is_gone(narrow: range) -> None:
    assert int(ask_another_process(narrow).stdout) == narrow[0]
    assert ports.free_tcp_port() == narrow[0]
