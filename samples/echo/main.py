"""A WebSocket server that sends back what it gets (RFC 6455), on the standard library alone."""

import asyncio
import base64
import hashlib
import os
import signal
import struct
from asyncio import StreamReader, StreamWriter

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


async def serve(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        if headers.get(b"upgrade", b"").lower() != b"websocket":
            body = b"This is a WebSocket echo: connect with ws://\n"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(body))
            writer.write(b"Content-Type: text/plain\r\nConnection: close\r\n\r\n" + body)
            return
        digest = hashlib.sha1(headers[b"sec-websocket-key"] + GUID).digest()
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n")
        writer.write(b"Connection: Upgrade\r\n")
        writer.write(b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n")
        await echo(reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError, KeyError):
        pass
    finally:
        writer.close()


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    while True:
        opcode, final, payload = await read_frame(reader)
        if opcode == CLOSE:
            write_frame(writer, CLOSE, payload)
            await writer.drain()
            return
        write_frame(writer, PONG if opcode == PING else opcode, payload, final)
        await writer.drain()


async def read_frame(reader: StreamReader) -> tuple[int, bool, bytes]:
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", await reader.readexactly(8))
    mask = await reader.readexactly(4) if second & 0x80 else b"\0\0\0\0"
    payload = await reader.readexactly(length)
    unmasked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return first & 0x0F, bool(first & 0x80), unmasked


def write_frame(writer: StreamWriter, opcode: int, payload: bytes, final: bool = True) -> None:
    first = opcode | (0x80 if final else 0)
    if len(payload) < 126:
        head = struct.pack("!BB", first, len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, 127, len(payload))
    writer.write(head + payload)


async def main() -> None:
    server = await asyncio.start_server(serve, "", int(os.environ.get("PORT", "8080")))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
    async with server:
        try:
            await server.serve_forever()
        except asyncio.CancelledError:
            pass


if __name__ == "__main__":
    asyncio.run(main())
