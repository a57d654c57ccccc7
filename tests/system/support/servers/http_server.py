"""An HTTP/1.1 backend that tells what reached it. Run as a program: `http_server.py NAME PORT`; prints its port.

Each answer is JSON: server, method, target, headers and trailers as [name, value] in order, body (text, when small),
length and sha256 of it, the number of the connection and of the request on it. The query changes the answer:
?status=N, ?size=N (a body of N bytes), ?chunked=1, ?slow=SECONDS (before the head), ?pause=SECONDS (in the body),
?close=1 (Connection: close), ?drop=1 (close without an answer), ?reset=1 (RST), ?garbage=1, ?truncate=1 (body cut
short), ?header=Name:value (any number), ?trailer=Name:value (any number, behind chunks), ?early=1 (answer before the
body is read), ?interim=1 (103 first).
/healthz answers 200, and 503 after SIGUSR1 (which turns it over each time). An `Expect: 100-continue` is obeyed.
"""

import asyncio
import hashlib
import json
import signal
import socket
import struct
import sys
from urllib.parse import parse_qs, urlsplit

SHOWN = 65536  # bytes of a body that stand in the answer
counts = {"connections": 0, "requests": 0}
healthy = True


def turn() -> None:
    global healthy
    healthy = not healthy


def abort(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def pairs_of(lines: list[str]) -> list[list[str]]:
    return [[part.strip() for part in line.split(":", 1)] for line in lines]


async def chunks(reader: asyncio.StreamReader, trailers: list[list[str]]):
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if not size:
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                trailers += pairs_of([line.decode("latin-1")])
            return
        yield await reader.readexactly(size)
        await reader.readexactly(2)


async def pieces(reader: asyncio.StreamReader, headers: dict[str, str], trailers: list[list[str]]):
    if "chunked" in headers.get("transfer-encoding", ""):
        async for piece in chunks(reader, trailers):
            yield piece
        return
    left = int(headers.get("content-length", "0"))
    while left:
        piece = await reader.read(min(left, 1 << 18))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


async def answer(name, number, turn_number, reader, writer) -> bool:
    """One request; whether the connection goes on."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    counts["requests"] += 1
    first, *lines = head[:-4].split("\r\n")
    method, target, _version = first.split(" ")
    pairs = pairs_of(lines)
    headers = {key.lower(): value for key, value in pairs}
    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)

    def option(key: str) -> str:
        return query.get(key, [""])[0]

    if headers.get("expect", "").lower() == "100-continue" and not option("early"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    digest, length, shown = hashlib.sha256(), 0, b""
    trailers: list[list[str]] = []
    if not option("early"):
        async for piece in pieces(reader, headers, trailers):
            digest.update(piece)
            length += len(piece)
            if length <= SHOWN:
                shown += piece
    if option("slow"):
        await asyncio.sleep(float(option("slow")))
    if option("drop"):
        return False
    if option("reset"):
        abort(writer)
        return False
    if option("garbage"):
        writer.write(b"\x00\xffthis is not HTTP\r\n\r\n")
        return False
    if option("interim"):
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
    status = int(option("status") or 200)
    content = "application/octet-stream"
    if url.path == "/healthz":
        status = 200 if healthy else 503
    if option("size"):
        body = (b"0123456789abcdef" * (int(option("size")) // 16 + 1))[: int(option("size"))]
    else:
        content = "application/json"
        told = {"server": name, "method": method, "target": target, "headers": pairs, "trailers": trailers,
                "connection": number, "request": turn_number, "requests": counts["requests"],
                "connections": counts["connections"],
                "length": length, "sha256": digest.hexdigest(), "body": shown.decode("latin-1")}  # fmt: skip
        body = json.dumps(told).encode()
    out = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {content}", f"X-Server: {name}"]
    out += [pair.replace(":", ": ", 1) for pair in query.get("header", ())]
    close = bool(option("close") or option("early") or headers.get("connection", "").lower() == "close")
    bare = method == "HEAD" or status in (204, 304)
    if close:
        out.append("Connection: close")
    if option("chunked"):
        out.append("Transfer-Encoding: chunked")
    elif status != 204:
        out.append(f"Content-Length: {len(body)}")
    writer.write("\r\n".join(out).encode() + b"\r\n\r\n")
    if bare:
        body = b""
    if option("truncate"):
        body = body[: len(body) // 2]
        close = True
    step = max(1, len(body) // 4) if option("pause") or option("chunked") else max(1, len(body))
    for start in range(0, len(body), step):
        piece = body[start : start + step]
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if option("chunked") else piece)
        await writer.drain()
        if option("pause"):
            await asyncio.sleep(float(option("pause")))
    if option("chunked") and not bare and not option("truncate"):
        writer.write("".join(["0\r\n", *(f"{line}\r\n" for line in query.get("trailer", ())), "\r\n"]).encode())
    await writer.drain()
    return not close


async def serve(name: str, port: int) -> None:
    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counts["connections"] += 1
        number, turn_number = counts["connections"], 0
        try:
            while True:
                turn_number += 1
                if not await answer(name, number, turn_number, reader, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", port, backlog=1024, limit=1 << 20)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, turn)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
