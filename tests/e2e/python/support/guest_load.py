"""A server inside a sandbox that holds many WebSockets and streams at once."""

import asyncio
import base64
import hashlib
import sys

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def websocket(reader, writer, headers):
    """Sends every frame back; clients' frames are short."""
    accept = base64.b64encode(hashlib.sha1(headers[b"sec-websocket-key"] + GUID).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    while True:
        head = await reader.readexactly(2)
        length = head[1] & 127
        mask = await reader.readexactly(4)
        data = await reader.readexactly(length)
        writer.write(head[:1] + bytes([length]) + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
        if head[0] & 15 == 8:
            return


async def stream(writer, count, pause):
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for number in range(count):
        line = b"data: %d\n\n" % number
        writer.write(b"%x\r\n%s\r\n" % (len(line), line))
        await writer.drain()
        await asyncio.sleep(pause)
    writer.write(b"0\r\n\r\n")


async def serve(reader, writer):
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        target = lines[0].split(b" ")[1]
        headers = {}
        for line in filter(None, lines[1:]):
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        if target == b"/ws":
            await websocket(reader, writer, headers)
        elif target.startswith(b"/stream/"):
            count, pause = target.removeprefix(b"/stream/").split(b"/")
            await stream(writer, int(count), float(pause))
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    async with server:
        await server.serve_forever()


asyncio.run(main())
