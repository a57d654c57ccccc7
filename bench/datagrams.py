"""The UDP side of the benchmark, as programs: `datagrams.py echo PORT`, `datagrams.py load PORT SECONDS CLIENTS`.

The load keeps one datagram on its way from each of its sockets and counts the answers; one that doesn't come back
within a fifth of a second counts as lost and is replaced. It prints JSON.
"""

import json
import select
import socket
import sys
import time

LOST_AFTER = 0.2  # s: on loopback an answer takes well under a millisecond
SIZE = 64  # bytes: a position update of a game


def echo(port: int) -> None:
    """Send every datagram back, until ended."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.bind(("127.0.0.1", port))
    receive, send = sock.recvfrom, sock.sendto
    while True:
        send(*receive(2048))


def load(port: int, seconds: float, clients: int) -> dict[str, float]:
    """Ask and count for `seconds`."""
    poller = select.epoll()
    socks = {}
    for _ in range(clients):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        poller.register(sock.fileno(), select.EPOLLIN)
        socks[sock.fileno()] = sock
    data = b"x" * SIZE
    done = lost = 0
    last = dict.fromkeys(socks, time.monotonic())
    for sock in socks.values():
        sock.send(data)
    start = now = time.monotonic()
    checked = start
    while now - start < seconds:
        for fd, _ in poller.poll(0.05, 64):
            sock = socks[fd]
            try:
                sock.recv(2048)
            except BlockingIOError:
                continue
            done += 1
            last[fd] = now
            sock.send(data)
        now = time.monotonic()
        if now - checked > LOST_AFTER:
            checked = now
            for fd, when in last.items():
                if now - when > LOST_AFTER:
                    lost += 1
                    last[fd] = now
                    socks[fd].send(data)
    return {"operations": done, "lost": lost, "seconds": now - start}


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        echo(int(sys.argv[2]))
    else:
        print(json.dumps(load(int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))))
