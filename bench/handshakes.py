"""The TLS side of the benchmark, as a program: `handshakes.py PORT SECONDS full|resumed`.

Connects, shakes hands (TLS 1.3), asks for one small answer and closes, one connection after the other. With `resumed`
each presents the ticket of the one before. Prints JSON.
"""

import json
import socket
import ssl
import sys
import time

REQUEST = b"GET /hello HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n"


def load(port: int, seconds: float, resumed: bool) -> dict[str, float]:
    """Shake hands for `seconds`. `bad` counts answers that were not 200, and sessions that were not resumed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    session: ssl.SSLSession | None = None
    done = bad = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(sock, server_hostname="localhost", session=session) as tls:
                tls.sendall(REQUEST)
                answer = b""
                while more := tls.recv(4096):
                    answer += more
                bad += not answer.startswith(b"HTTP/1.1 200 ") or (session is not None) != tls.session_reused
                if resumed:
                    session = tls.session
        done += 1
    return {"operations": done, "bad": bad, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    print(json.dumps(load(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "resumed")))
