"""A socket: one open WebSocket, without a task and without a queue of its own.

What arrives is told to its listener as it arrives; what is written leaves as soon as the kernel takes it. How much
may wait to be taken is the writer's decision: `buffered`, `congested` and `unfinished` say what does. A long text is
written in slices, so that of it only one waits.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import structlog
from websockets.frames import CloseCode

from app.edge import framing
from app.edge.framing import CLOSE, PING, PONG, Control, Parser, Payload, Violation
from app.edge.listener import Heir, Listener
from app.edge.sockets import Sockets

CLOSE_SECONDS = 5.0
MISSED_PONGS = 2
# Above the one a socket is congested; once below the other its listener hears `on_drain`.
HIGH_WATER_BYTES = 64 << 10
LOW_WATER_BYTES = 16 << 10
# Of a long text so many slices leave in a row, however fast they are taken: others wait for the loop.
SLICES_IN_A_ROW = 16

PING_FRAME = framing.frame(PING, b"")

# OPEN: messages go both ways. CLOSING: our Close frame is out, the peer's is awaited. ENDED: nothing that still
# comes is looked at.
OPEN, CLOSING, ENDED = range(3)

log = structlog.get_logger("socket")


class Socket(asyncio.Protocol):
    """One open WebSocket, made when the handshake was accepted. It reads once it has a listener."""

    __slots__ = (
        "_all",
        "_code",
        "_connections",
        "_held",
        "_listener",
        "_parser",
        "_paused",
        "_rest",
        "_state",
        "_timer",
        "_transport",
        "_unanswered",
        "congested",
        "congested_at",
        "slot",
    )

    def __init__(self, transport: asyncio.Transport, connections: set[Any], sockets: Sockets) -> None:
        """`connections` are the server's, `transport` one whose reading is paused."""
        self._transport = transport
        self._connections = connections
        self._all = sockets
        self._parser = Parser(sockets.limits.message_bytes)
        self._listener: Listener | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._code: int = CloseCode.ABNORMAL_CLOSURE
        self._state = OPEN
        self._paused = True
        self._held = 0
        self._unanswered = 0
        # What waits for a long text to be finished, that text first; None while there is none.
        self._rest: deque[Iterator[bytes]] | None = None
        self.congested = False
        # When the kernel last took something of what waited, by the monotonic clock.
        self.congested_at = 0.0
        transport.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)
        transport.set_protocol(self)
        connections.add(self)
        self.slot = sockets.add(self)

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of what comes, and begin to read. A socket that is gone already tells `on_close` soon."""
        self._listener = listener
        if self._state == ENDED:
            asyncio.get_running_loop().call_soon(self._tell_closed)
        self.resume_reading()

    def hand_over(self, heir: Heir) -> None:
        """Give the connection itself to another protocol, before anything was read of it."""
        self._leave()
        heir.take(self._transport, self._connections)

    @property
    def has_listener(self) -> bool:
        return self._listener is not None

    @property
    def is_open(self) -> bool:
        return self._state == OPEN

    @property
    def buffered(self) -> int:
        """Bytes written that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    @property
    def unfinished(self) -> bool:
        """Whether a long text is being written: what is written now waits behind it."""
        return self._rest is not None

    def write(self, payload: Payload) -> None:
        """Send one text that is encoded already. What is written to a socket that is not open is dropped."""
        self.write_framed(framing.frame_text(payload))

    def write_joined(self, payloads: Iterable[Payload]) -> None:
        """Send several texts in one write."""
        self.write_framed(framing.frame_texts(payloads))

    def write_framed(self, frames: bytes) -> None:
        """Send what `frame_text` or `frame_texts` made, once, for many sockets."""
        if self._rest is not None:
            self._rest.append(iter((frames,)))
        elif self._state == OPEN:
            self._transport.write(frames)

    def write_sliced(self, slices: Iterable[Payload]) -> None:
        """Send one text in fragments, each once the kernel has taken those before. A close does not wait for it."""
        if self._state == OPEN:
            self._rest = self._rest or deque()
            self._rest.append(framing.fragments(slices))
            self._write_rest()

    def pause_reading(self) -> None:
        """Hear of no message more, also of none that has arrived already, until `resume_reading`."""
        if not self._paused and self._state == OPEN:
            self._paused = True
            if not self._transport.is_closing():
                self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._paused:
            return
        self._paused = False
        if not self._transport.is_closing():
            self._transport.resume_reading()
        if self._parser.held:
            asyncio.get_running_loop().call_soon(self._deliver)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Send what was written, but for the rest of a long text, then a Close frame. A peer that does not answer
        within CLOSE_SECONDS is cut off."""
        if self._state == OPEN:
            self._say_close(code, reason)
            self.resume_reading()

    def abort(self) -> None:
        """End the connection now; what was written and has not left is lost."""
        self._state, self._rest = ENDED, None
        self._transport.abort()

    def shutdown(self) -> None:
        """What uvicorn calls when the server stops."""
        if self._state == OPEN and self._listener is not None:
            self._listener.on_shutdown()

    def ping(self) -> None:
        """Called in every round of keep-alive. Who has left MISSED_PONGS unanswered is gone."""
        if self._state != OPEN:
            return
        if self._unanswered == MISSED_PONGS:
            self.abort()
            return
        # While nothing is read, an answer cannot be missed.
        self._unanswered += not self._paused
        self._transport.write(PING_FRAME)

    def data_received(self, data: bytes) -> None:
        self._unanswered = 0
        if self._state != ENDED:
            self._parser.feed(data)
            self._deliver()

    def eof_received(self) -> None:
        """Nothing to say after the peer's end: the transport closes itself."""

    def pause_writing(self) -> None:
        self.congested, self.congested_at = True, time.monotonic()

    def resume_writing(self) -> None:
        self.congested = False
        self._write_on()

    def _write_on(self) -> None:
        self._write_rest()
        drained = self._rest is None and not self.congested
        if drained and self._state == OPEN and self._listener is not None:
            self._listener.on_drain()

    def _write_rest(self) -> None:
        """Write what waits, until the kernel lags behind."""
        rest, written = self._rest, 0
        while rest and not self.congested:
            if written == SLICES_IN_A_ROW:
                asyncio.get_running_loop().call_soon(self._write_on)
                return
            frames = next(rest[0], None)
            if frames is None:
                rest.popleft()
            else:
                self._transport.write(frames)
                written += 1
        if not rest:
            self._rest = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest = None
        self._leave()
        self._forget()
        if self._timer is not None:
            self._timer.cancel()
        self._tell_closed()

    def _deliver(self) -> None:
        try:
            while not self._paused and self._state != ENDED and (taken := self._parser.take()) is not None:
                if isinstance(taken, Control):
                    self._obey(taken)
                elif self._state == OPEN and self._listener is not None:
                    self._listener.on_message(taken)
            self._account()
        except Violation as violation:
            self._fail(violation.code, violation.reason)
        except Exception:
            log.exception("listener_failed")
            self._fail(CloseCode.INTERNAL_ERROR, "")

    def _account(self) -> None:
        """Tell how much of unfinished messages is held here. Violation when all sockets hold too much."""
        held = self._parser.held
        if held != self._held:
            before, self._held = self._held, held
            self._all.hold(held - before)

    def _obey(self, control: Control) -> None:
        if control.opcode == PING:
            # Who sends pings and reads no pongs is owed none: they would only heap up.
            if self._state == OPEN and not self.congested:
                self._transport.write(framing.frame(PONG, control.payload))
        elif control.opcode == CLOSE:
            self._end(framing.read_close(control.payload), control.payload)

    def _end(self, code: int, payload: bytes) -> None:
        """The peer's Close frame: its answer to ours, or the first, which is echoed. Then the server hangs up."""
        if self._state == OPEN:
            self._code = code
            self._transport.write(framing.frame(CLOSE, payload[:2]))
            self._cut_off_later()
        self._state, self._rest = ENDED, None
        self._transport.close()
        self._tell_closed()

    def _fail(self, code: int, reason: str) -> None:
        """Say why, then only wait for the peer to hang up: hanging up first would take the Close frame with it."""
        if self._state == OPEN:
            self._say_close(code, reason)
        self._state = ENDED
        self._forget()
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        self.resume_reading()
        self._tell_closed()

    def _say_close(self, code: int, reason: str) -> None:
        self._state, self._rest = CLOSING, None
        self._code = code
        self._transport.write(framing.frame_close(code, reason))
        self._cut_off_later()

    def _cut_off_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    def _leave(self) -> None:
        self._state = ENDED
        self._connections.discard(self)
        self._all.discard(self)

    def _forget(self) -> None:
        """Let go of what has arrived in part."""
        self._all.release(self._held)
        self._held = 0
        self._parser = Parser(0)

    def _tell_closed(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.on_close(self._code)
