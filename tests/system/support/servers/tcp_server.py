"""A TCP backend. Run as a program: `tcp_server.py NAME PORT [MODE...]`; prints its port.

It echoes, and keeps half-closed connections open until all is echoed. Modes: `proxy` reads a PROXY v1 or v2 header
first; `upgrade` takes an HTTP request first, and upgrades; `report` sends one line of JSON first: server, peer, and the
PROXY header as hexadecimal; `sink` reads and says the number of bytes and their sha256 at the end of file; `reset`
resets each connection at its first byte.
"""

import asyncio
import hashlib
import json
import socket
import struct
import sys

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


async def proxy_header(reader: asyncio.StreamReader) -> bytes:
    start = await reader.readexactly(5)
    if start == b"PROXY":
        return start + await reader.readuntil(b"\r\n")
    head = start + await reader.readexactly(11)
    if not head.startswith(SIGNATURE):
        raise ValueError("no PROXY header")
    return head + await reader.readexactly(struct.unpack(">H", head[14:16])[0])


async def serve(name: str, port: int, modes: set[str]) -> None:
    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            header = await proxy_header(reader) if "proxy" in modes else b""
            if "upgrade" in modes:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            if "report" in modes:
                told = {"server": name, "peer": writer.get_extra_info("peername"), "proxy": header.hex()}
                writer.write(json.dumps(told).encode() + b"\n")
            digest, length = hashlib.sha256(), 0
            while data := await reader.read(1 << 18):
                if "reset" in modes:
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                    return
                if "sink" in modes:
                    digest.update(data)
                    length += len(data)
                else:
                    writer.write(data)
                    await writer.drain()
            if "sink" in modes:
                writer.write(json.dumps({"length": length, "sha256": digest.hexdigest()}).encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(serve(sys.argv[1], int(sys.argv[2]), set(sys.argv[3:])))
