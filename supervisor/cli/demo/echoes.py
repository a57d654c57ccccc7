"""The demo's game servers (UDP), which answer with their name and a count, and ingest servers (TCP), which echo.

Run as `python -m supervisor.cli.demo.echoes game|ingest NAME PORT`.
"""

import socket
import socketserver
import sys

MAX_PLAYERS = 10_000  # client addresses that are remembered; then counting starts anew


def game(name: str, port: int) -> None:
    """Answer each datagram with the server's name and how many this client has sent."""
    counts: dict[str, int] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))
        while True:
            data, client = sock.recvfrom(2048)
            player = f"{client[0]}:{client[1]}"
            if len(counts) >= MAX_PLAYERS:
                counts.clear()
            counts[player] = counts.get(player, 0) + 1
            said = data.decode(errors="replace").strip()
            sock.sendto(f"{name} got {said!r}, packet {counts[player]} of this session\n".encode(), client)


class Ingest(socketserver.StreamRequestHandler):
    """Echo a stream; RTMP is carried as it is, so an echo shows all there is to see."""

    def handle(self) -> None:
        """Send everything back until the end of file."""
        while data := self.request.recv(65536):
            self.request.sendall(data)


def ingest(name: str, port: int) -> None:
    """Serve streams."""
    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", port), Ingest) as server:
        server.serve_forever()


if __name__ == "__main__":
    {"game": game, "ingest": ingest}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
