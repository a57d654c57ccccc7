"""A UDP backend. Run as a program: `udp_server.py NAME PORT`; prints its port.

It answers each datagram with JSON: server, source (the address that it saw) and data. Data that begin with `size N`
are answered with a datagram of N bytes, `times N` with N datagrams, `later N` after N milliseconds, `silent` with none.
"""

import json
import select
import socket
import sys
import time
from collections import deque

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    # Many clients may send at once while this process waits for its turn; the usual 208 KiB hold 270 datagrams.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.bind(("127.0.0.1", int(sys.argv[2])))
    print(sock.getsockname()[1], flush=True)
    later: deque[tuple[float, bytes, tuple[str, int]]] = deque()  # asked for with one and the same delay
    while True:
        while later and later[0][0] <= time.monotonic():
            _, told, source = later.popleft()
            sock.sendto(told, source)
        wait = max(0.0, later[0][0] - time.monotonic()) if later else None
        if not select.select([sock], [], [], wait)[0]:
            continue
        data, source = sock.recvfrom(65535)
        words = data.split()
        told = json.dumps({"server": sys.argv[1], "source": source, "data": data.decode("latin-1")}).encode()
        times = 1
        if words and words[0] == b"silent":
            continue
        if words and words[0] == b"later":
            later.append((time.monotonic() + int(words[1]) / 1000, told, source))
            continue
        if len(words) > 1 and words[0] == b"size":
            told = b"x" * int(words[1])
        elif len(words) > 1 and words[0] == b"times":
            times = int(words[1])
        for _ in range(times):
            sock.sendto(told, source)
