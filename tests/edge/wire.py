"""The wire: a WebSocket client that writes and reads bytes, and so can say what no client would."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from app.edge.framing import CLOSE, FINAL

WAIT_SECONDS = 20.0
# The key and its answer are those of RFC 6455, 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
UPGRADE = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def head(path: str, method: str = "GET", **changed: str | None) -> bytes:
    """The request of a handshake; a header changed to None is left out."""
    fields = UPGRADE | {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


def masked(first: int, payload: bytes, mask: bytes | None = None) -> bytes:
    """A frame of a client: `first` is its first byte, FINAL and opcode."""
    mask = os.urandom(4) if mask is None else mask
    length = len(payload)
    if length < 126:
        size = bytes([0x80 | length])
    elif length < 1 << 16:
        size = bytes([0x80 | 126]) + length.to_bytes(2, "big")
    else:
        size = bytes([0x80 | 127]) + length.to_bytes(8, "big")
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    hidden = (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")
    return bytes([first]) + size + mask + hidden


class Wire:
    """One connection. `status` and `headers` are the answer to its handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}

    async def read_head(self) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}

    def send(self, opcode: int, payload: bytes = b"", *, final: bool = True) -> None:
        self.writer.write(masked((FINAL if final else 0) | opcode, payload))

    async def receive(self) -> tuple[int, bytes]:
        """`(opcode, payload)` of the next frame, which is final and not masked."""
        first, payload = await self.receive_part()
        assert first & 0xF0 == FINAL
        return first & 0x0F, payload

    async def receive_part(self) -> tuple[int, bytes]:
        """`(first byte, payload)` of the next frame, which may be a fragment."""
        async with asyncio.timeout(WAIT_SECONDS):
            first, length = await self.reader.readexactly(2)
            if length >= 126:
                length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
            return first, await self.reader.readexactly(length)

    async def receive_close(self) -> tuple[int, str]:
        """Code and reason of the Close frame that comes next, and the end that follows an answer to it."""
        opcode, payload = await self.receive()
        assert opcode == CLOSE
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    async def read_to_end(self) -> bytes:
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.reader.read()

    def vanish(self) -> None:
        """End without a word: no Close frame."""
        self.writer.transport.abort()


@asynccontextmanager
async def asking(port: int, request: bytes = head("/echo")) -> AsyncIterator[Wire]:
    """A connection that has sent `request`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def connected(port: int, request: bytes = head("/echo")) -> AsyncIterator[Wire]:
    """A connection that has had the answer to `request`."""
    async with asking(port, request) as wire:
        await wire.read_head()
        yield wire
