"""Framing: RFC 6455's frames, taken out of a stream of bytes and put into one.

Masks and close codes are the `websockets` library's. Its whole layer without I/O costs 1.5 KiB an idle socket and
four times the time a message; tests compare the two, frame by frame.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from websockets.exceptions import ProtocolError
from websockets.frames import Close, CloseCode

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
FINAL, RESERVED, OPCODE, CONTROL = 0x80, 0x70, 0x0F, 0x08
MASKED, LENGTH = 0x80, 0x7F
MASK_BYTES = 4
CONTROL_BYTES = 125
LENGTH_16, LENGTH_64 = 126, 127
REASON_BYTES = CONTROL_BYTES - 2

_HEAD_16 = struct.Struct("!BBH")
_HEAD_64 = struct.Struct("!BBQ")

Payload = bytes | bytearray


class Violation(Exception):
    """The peer broke the protocol, or a limit: the connection ends with this close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Control(NamedTuple):
    """A ping, a pong or a close, which may stand between the fragments of a message."""

    opcode: int
    payload: bytes


def frame(opcode: int, payload: Payload, head: int = FINAL) -> bytes:
    """A frame as a server sends it, not masked: a whole message, unless `head` says that more follows."""
    length = len(payload)
    if length <= CONTROL_BYTES:
        return bytes((head | opcode, length)) + payload
    if length <= 0xFFFF:
        return _HEAD_16.pack(head | opcode, LENGTH_16, length) + payload
    return _HEAD_64.pack(head | opcode, LENGTH_64, length) + payload


def frame_text(payload: Payload) -> bytes:
    """The frame of a text that is encoded already. The same bytes may go to any number of sockets."""
    return frame(TEXT, payload)


def frame_texts(payloads: Iterable[Payload]) -> bytes:
    """The frames of several texts, joined."""
    return b"".join([frame(TEXT, payload) for payload in payloads])


def fragments(slices: Iterable[Payload]) -> Iterator[bytes]:
    """The frames of one text that comes in slices. Only control frames may go between them."""
    opcode, before = TEXT, None
    for payload in slices:
        if before is not None:
            yield frame(opcode, before, 0)
            opcode = CONTINUATION
        before = payload
    yield frame(opcode, before or b"")


def frame_close(code: int, reason: str = "") -> bytes:
    """The Close frame. A reason that does not fit into a control frame is cut."""
    cut = reason.encode()[:REASON_BYTES].decode(errors="ignore")
    return frame(CLOSE, Close(code, cut).serialize())


def read_close(payload: bytes) -> int:
    """The code in a Close frame's payload, 1005 where it holds none. Violation where it is ill-formed."""
    try:
        return int(Close.parse(payload).code)
    except ProtocolError as error:
        raise Violation(CloseCode.PROTOCOL_ERROR, str(error)) from error
    except UnicodeDecodeError as error:
        raise Violation(CloseCode.INVALID_DATA, "the reason is not UTF-8") from error


class Parser:
    """Takes messages out of what a client sends. Idle, it holds nothing.

    `message_bytes` bounds a message, whole or in fragments.
    """

    __slots__ = ("_at", "_data", "_limit", "_message", "_opcode")

    def __init__(self, message_bytes: int) -> None:
        self._limit = message_bytes
        self._data: Payload = b""
        self._at = 0
        self._message: bytearray | None = None
        self._opcode = TEXT

    @property
    def held(self) -> int:
        """Bytes that have arrived and have not been taken."""
        return len(self._data) - self._at + (0 if self._message is None else len(self._message))

    def feed(self, data: bytes) -> None:
        rest = self._data
        if self._at == len(rest):
            self._data = data
        elif isinstance(rest, bytearray):
            del rest[: self._at]
            rest += data
        else:
            self._data = bytearray(rest[self._at :]) + data
        self._at = 0

    def take(self) -> str | bytes | Control | None:
        """The next message (text or binary) or control frame; None until more has arrived. Violation ends it."""
        while (found := self._take_frame()) is not None:
            head, payload = found
            opcode = head & OPCODE
            if opcode & CONTROL:
                return Control(opcode, payload)
            if head & FINAL and self._message is None:
                return _read_text(payload) if opcode == TEXT else payload
            whole = self._gather(head, opcode, payload)
            if whole is not None:
                return _read_text(whole) if self._opcode == TEXT else bytes(whole)
        return None

    def _take_frame(self) -> tuple[int, bytes] | None:
        """`(first byte, payload)` of the next frame; None until it is here whole."""
        data, at = self._data, self._at
        held = len(data) - at
        if held < 2:
            return None
        head, second = data[at], data[at + 1]
        self._check_head(head, second)
        length, start = second & LENGTH, at + 2
        if length >= LENGTH_16:
            start += 2 if length == LENGTH_16 else 8
            if len(data) < start:
                return None
            length = int.from_bytes(data[at + 2 : start], "big")
        self._check_size(length, head)
        begin = start + MASK_BYTES
        end = begin + length
        if end > len(data):
            return None
        payload = apply_mask(data[begin:end], data[start:begin])
        # Emptied as soon as it is used up: what is idle holds nothing.
        self._data, self._at = (data, end) if end < len(data) else (b"", 0)
        return head, payload

    def _check_head(self, head: int, second: int) -> None:
        opcode = head & OPCODE
        if head & RESERVED:
            raise Violation(CloseCode.PROTOCOL_ERROR, "reserved bits are set")
        if opcode not in OPCODES:
            raise Violation(CloseCode.PROTOCOL_ERROR, "unknown opcode")
        if not second & MASKED:
            raise Violation(CloseCode.PROTOCOL_ERROR, "frame is not masked")
        if opcode & CONTROL:
            if not head & FINAL or second & LENGTH > CONTROL_BYTES:
                raise Violation(CloseCode.PROTOCOL_ERROR, "control frame is fragmented or too long")
        elif (opcode == CONTINUATION) is (self._message is None):
            expected = "nothing to continue" if self._message is None else "expected a continuation"
            raise Violation(CloseCode.PROTOCOL_ERROR, expected)

    def _check_size(self, length: int, head: int) -> None:
        gathered = 0 if self._message is None or head & CONTROL else len(self._message)
        if gathered + length > self._limit:
            reason = f"message of at least {gathered + length} bytes (max: {self._limit})"
            raise Violation(CloseCode.MESSAGE_TOO_BIG, reason)

    def _gather(self, head: int, opcode: int, payload: bytes) -> bytearray | None:
        """Add a fragment; the message, when this was its last."""
        if self._message is None:
            self._message, self._opcode = bytearray(), opcode
        # One array, not a list: a million fragments of a byte each must not cost forty megabytes.
        self._message += payload
        if not head & FINAL:
            return None
        whole, self._message = self._message, None
        return whole


class Frames:
    """Where the frames of a server begin and end in a stream of bytes, and whether one of them was a Close."""

    __slots__ = ("_head", "_left", "closed")

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = 0
        self.closed = False

    @property
    def between(self) -> bool:
        """Whether a frame of ours may stand here."""
        return not self._head and not self._left

    def feed(self, data: bytes) -> None:
        at, size = 0, len(data)
        while at < size:
            if self._left:
                taken = min(self._left, size - at)
                self._left -= taken
                at += taken
            else:
                self._head.append(data[at])
                at += 1
                self._read_head()

    def _read_head(self) -> None:
        head = self._head
        if len(head) < 2:
            return
        length = head[1] & LENGTH
        more = {LENGTH_16: 2, LENGTH_64: 8}.get(length, 0)
        if len(head) == 2 + more:
            self._left = int.from_bytes(head[2:], "big") if more else length
            self.closed = self.closed or head[0] & (FINAL | OPCODE) == FINAL | CLOSE
            head.clear()


def _read_text(payload: Payload) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise Violation(CloseCode.INVALID_DATA, f"text is not UTF-8 at byte {error.start}") from error
