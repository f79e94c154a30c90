"""A connection of `/sync`: from its first frame to its last, what a client says and when it is let in."""

import asyncio
import sys
from collections.abc import Coroutine
from functools import partial
from typing import NamedTuple

import msgspec
import structlog
from websockets.frames import CloseCode

from app.edge.socket import Socket
from app.errors import AppError, Forbidden, NotFound, Unauthenticated, Unavailable
from app.instances import endings, protocol
from app.instances.admission import Admitted, Rooms, admit, identify
from app.instances.allowance import Allowance
from app.instances.draft import caller_of
from app.instances.hub import Hub
from app.instances.member import Member
from app.instances.protocol import (
    EXPIRED,
    INSTANCE_NOT_FOUND,
    INVALID_KEY,
    NO_ACCESS,
    PRESENCE_BYTES,
    TOO_LARGE,
    UNAVAILABLE,
    Auth,
    Batch,
    ParseError,
    Ping,
    Presence,
)
from app.instances.resume import Since

AUTH_SECONDS = 5.0
UNAUTHENTICATED, UNAUTHENTICATED_REASON = 4401, "Authentication required"
INTERNAL = CloseCode.INTERNAL_ERROR
# Why a connection is not read; several may hold at once.
JOINING, CONGESTED, HASTY, CROWDED = 1, 2, 4, 8

log = structlog.get_logger("connection")


class Wish(NamedTuple):
    """What a client asked for with its URL."""

    instance_id: str
    since: Since | None = None
    echo: bool = True
    prefix: str | None = None
    tag: str | None = None


class Connection:
    """The listener of one socket. It is read once it has joined; what was read already waits here."""

    def __init__(self, socket: Socket, rooms: Rooms, wish: Wish, admitted: Admitted | None) -> None:
        self._socket = socket
        self._rooms = rooms
        self._wish = wish
        self._hub: Hub | None = None
        self._member: Member | None = None
        self._early: list[tuple[str | bytes, int]] = []
        self._held = 0
        self._ended = False
        self._refused = False
        self._allowance = Allowance()
        self._task: asyncio.Task[None] | None = None
        self._limit: asyncio.TimerHandle | None = None
        loop = asyncio.get_running_loop()
        if admitted is not None:
            self._begin(self._join(admitted))
        else:
            self._limit = loop.call_later(AUTH_SECONDS, self._refuse_silence)

    # -- the listener ----------------------------------------------------------------------------------

    def on_message(self, message: str | bytes) -> None:
        size, backlog = sys.getsizeof(message), self._rooms.hubs.backlog
        if self._held & JOINING:
            backlog.take(size)
            self._early.append((message, size))
            self._socket.pause_reading()
        else:
            self._take(message, size)
        if self._socket.congested:
            # Who does not read is not read: its answers would only heap up.
            self._hold(CONGESTED)
        if backlog.is_full:
            self._hold(CROWDED)
            backlog.wait(self._on_room)

    def on_drain(self) -> None:
        if self._member is not None:
            self._member.outbox.write_on()
        if not self._socket.congested:
            self._release(CONGESTED)

    def _on_room(self) -> None:
        self._release(CROWDED)

    def _hold(self, why: int) -> None:
        self._held |= why
        self._socket.pause_reading()

    def _release(self, why: int) -> None:
        self._held &= ~why
        self._read_on()

    def _read_on(self) -> None:
        if not self._held:
            self._socket.resume_reading()

    def on_shutdown(self) -> None:
        if self._member is not None:
            self._socket.write(endings.going_away())
        self._socket.close(endings.GOING_AWAY, endings.GOING_AWAY_REASON)

    def on_close(self, code: int) -> None:
        self._ended = True
        self._rooms.hubs.backlog.forget(self._on_room)
        if self._limit is not None:
            self._limit.cancel()
        if self._member is not None and self._hub is not None:
            self._hub.audience.leave(self._member)

    # -- what a client says ----------------------------------------------------------------------------

    def _take(self, message: str | bytes, size: int) -> None:
        try:
            frame = protocol.parse(message, binary=isinstance(message, bytes))
        except ParseError as error:
            self._count(1)
            self._refuse_frame(error)
            return
        self._count(max(1, len(frame.ops)) if isinstance(frame, Batch) else 1)
        if frame is None:
            return
        if isinstance(frame, Auth):
            self._begin(self._authenticate(frame.api_key))
        elif self._member is None or self._hub is None:
            self._end("Authentication required", INVALID_KEY)
        elif isinstance(frame, Ping):
            self._member.send(protocol.pong())
        elif isinstance(frame, Presence):
            self._be_present(self._member, self._hub, frame.state)
        else:
            changes = frame.ops if isinstance(frame, Batch) else (frame,)
            try:
                self._hub.post(self._member, changes, frame.op_id, size)
            except AppError as error:
                self._member.error(error.message, UNAVAILABLE, frame.op_id)

    def _refuse_frame(self, error: ParseError) -> None:
        if self._member is None or self._hub is None:
            self._end("Authentication required", INVALID_KEY)
            return
        try:
            self._hub.refuse(self._member, error.code, error.message, error.key, error.op_id)
        except AppError as closed:
            self._member.error(closed.message, UNAVAILABLE, error.op_id)

    def _be_present(self, member: Member, hub: Hub, state: msgspec.Raw) -> None:
        size = memoryview(state).nbytes
        if size > PRESENCE_BYTES:
            member.error(f"Presence too large: {size} bytes (max: {PRESENCE_BYTES})", TOO_LARGE)
        else:
            hub.audience.presence.say(member, state.copy())

    def _count(self, changes: int) -> None:
        """Above the rate the connection is not read, until it is below it again."""
        wait = self._allowance.take(changes)
        if wait:
            self._hold(HASTY)
            asyncio.get_running_loop().call_later(wait, self._release, HASTY)

    # -- being let in ----------------------------------------------------------------------------------

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._held |= JOINING
        if self._limit is not None:
            self._limit.cancel()
        self._task = asyncio.get_running_loop().create_task(self._finish(work))

    async def _finish(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except NotFound as error:
            self._end(error.message, INSTANCE_NOT_FOUND)
        except Unavailable:
            # Not `auth_error`, which a client could take for the last word on its credential.
            self._refused = True
            self._socket.close(endings.TRY_AGAIN, endings.TRY_AGAIN_REASON)
        except AppError as error:
            self._end(error.message, NO_ACCESS)
        except Exception:
            log.exception("not_let_in", instance=self._wish.instance_id)
            self._refused = True
            self._socket.close(INTERNAL)
        self._held &= ~JOINING
        # A finished task and its context are a fifth of what an idle connection holds.
        self._task = None
        early, self._early = self._early, []
        for message, size in early:
            self._rooms.hubs.backlog.give_back(size)
            # What came behind a credential that was refused is not said by whoever was let in before.
            if not self._refused:
                self.on_message(message)
        self._read_on()

    async def _authenticate(self, credential: str) -> None:
        rooms = self._rooms
        try:
            principal = await identify(rooms, credential)
        except (Unauthenticated, Forbidden) as error:
            self._end(error.message, EXPIRED if "expired" in error.message.lower() else INVALID_KEY)
            return
        try:
            admitted = await rooms.surely(partial(admit, rooms, principal, self._wish.instance_id))
        except Forbidden as error:
            self._end(error.message, NO_ACCESS)
            return
        await self._join(admitted)

    async def _join(self, admitted: Admitted) -> None:
        wish, caller = self._wish, caller_of(admitted.principal, min(admitted.level, admitted.cap))
        member = Member(
            self._socket, caller, admitted.cap, self._allowance, echo=wish.echo, prefix=wish.prefix, tag=wish.tag
        )
        async with self._rooms.hubs.use(wish.instance_id) as hub:
            # Who only says anew who it is has heard all that was to be heard since then.
            since = wish.since if self._member is None else None
            if self._member is not None:
                hub.audience.leave(self._member)
            self._hub, self._member = hub, member
            await hub.join(member, since)
            # What was taken away before the hub knew of this member, nobody has told it.
            await self._rooms.hubs.reviews.review(hub, member)
            if self._ended:
                hub.audience.leave(member)

    def _refuse_silence(self) -> None:
        self._socket.close(UNAUTHENTICATED, UNAUTHENTICATED_REASON)

    def _end(self, message: str, code: str) -> None:
        self._refused = True
        self._socket.write(protocol.auth_error(message, code))
        self._socket.close(UNAUTHENTICATED, UNAUTHENTICATED_REASON)
