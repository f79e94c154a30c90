"""Frames as a client writes and reads them: RFC 6455, no more of it than hubs and a crowd say to each other."""

import base64
import struct
from collections.abc import Iterator

TEXT, PING, PONG = 0x1, 0x9, 0xA
FINAL, OPCODE, MASKED, LENGTH = 0x80, 0x0F, 0x80, 0x7F
LENGTH_16, LENGTH_64 = 126, 127
# A mask of zeros is a mask, and leaves the payload as it is.
MASK = bytes(4)
KEY = base64.b64encode(bytes(16)).decode()

_HEAD_16 = struct.Struct("!BBH")


def upgrade(target: str) -> bytes:
    """The request that asks for a WebSocket."""
    return (
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    ).encode()


def masked(payload: bytes, opcode: int = TEXT) -> bytes:
    """A message of less than 64 KiB as a client sends it."""
    length = len(payload)
    if length < LENGTH_16:
        return bytes((FINAL | opcode, MASKED | length)) + MASK + payload
    return _HEAD_16.pack(FINAL | opcode, MASKED | LENGTH_16, length) + MASK + payload


def read(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """`(opcode, payload, where it ends)` of each frame of a server that is here whole."""
    at, held = 0, len(data)
    while held - at >= 2:
        length, begin = data[at + 1] & LENGTH, at + 2
        if length == LENGTH_16:
            begin += 2
            length = int.from_bytes(data[at + 2 : begin], "big")
        elif length == LENGTH_64:
            begin += 8
            length = int.from_bytes(data[at + 2 : begin], "big")
        end = begin + length
        if end > held or begin > held:
            return
        yield data[at] & OPCODE, data[begin:end], end
        at = end
