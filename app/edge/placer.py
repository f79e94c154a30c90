"""The placer: decides for each request whether it is answered here, and takes it elsewhere when it is not.

A replica may say yes; only the primary may say no. A refusal that rests on rows is not given on a replica: the
request goes to the primary, and a client never learns that a machine lags.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.edge import freshness, replay
from app.edge.follower import Follower
from app.edge.forward import Forwarder
from app.edge.freshness import Freshness
from app.edge.http import LANDED, MOVED, READING, method_of, read_body, target_of
from app.edge.job import waited_before
from app.edge.node import Node
from app.edge.peers import Unreachable
from app.edge.placement import Destination, Place, Placement
from app.errors import RESTING_ON_ROWS, AppError, Unauthenticated, Unavailable
from app.regions import FLY, OFF

# What a request may wait in all for freshness, replay and queue.
WAIT_SECONDS = 8.0
# What an endpoint has read of a body is kept up to this, in case the request has to go on.
KEPT_BYTES = 20 << 20

Respond = Callable[[Scope, Receive, Send], Awaitable[Response]]
# Where a thing lives; None when that is not known here.
HomeOf = Callable[[str], Awaitable[Destination | None]]


# Told that a machine could not be reached.
Suspect = Callable[[str], None]


async def nowhere(name: str) -> Destination | None:
    """While nothing has a home of its own, all of it lives at the primary."""
    return None


def nobody(machine: str) -> None:
    """While nothing has a home, none of them is lost with a machine."""


class Placer:
    """`home_of` knows where an instance lives, `home_of_stream` on which machine a stream was begun; `suspect` is
    told of a home that could not be reached, and then `home_of` may know of another."""

    def __init__(
        self,
        node: Node,
        follower: Follower,
        mode: str,
        home_of: HomeOf = nowhere,
        home_of_stream: HomeOf = nowhere,
        suspect: Suspect = nobody,
    ) -> None:
        self._node = node
        self._peers = follower.peers
        self._follower = follower
        self._mode = mode
        self._home_of = home_of
        self._home_of_stream = home_of_stream
        self._suspect = suspect
        self._freshness = Freshness()
        self._forwarder = Forwarder(follower.peers, self._freshness)

    async def place(self, placement: Placement, respond: Respond, scope: Scope, receive: Receive, send: Send) -> None:
        until = time.monotonic() + WAIT_SECONDS
        if self._mode == FLY:
            self._recognise(scope)
        if self._was_in_vain(scope):
            until -= replay.REPLAY_SECONDS
        if placement.place is Place.AT_HOME and placement.by == "body":
            receive = await _read_ahead(scope, receive, placement.limit)
        elsewhere = await self._find_elsewhere(placement, scope)
        if elsewhere is not None and placement.place is Place.AT_HOME:
            unread = await self._try_home(elsewhere, scope, receive, send, until)
            if unread is None:
                return
            receive, named = unread, elsewhere
            elsewhere = await self._find_elsewhere(placement, scope)
            if elsewhere is not None and self._was_in_vain(scope):
                await self._forward(elsewhere, scope, receive, send, until)
                return
            if elsewhere == named:
                raise Unavailable("Its home cannot be reached")
        if elsewhere is not None:
            await self._move(elsewhere, scope, receive, send, until)
        elif self._node.is_primary or placement.place is Place.HERE:
            send = freshness.handing_out(scope, send)
            await (await respond(scope, receive, send))(scope, receive, send)
        elif (kept := await self._try(respond, scope, receive, send)) is None:
            return
        elif placement.place is Place.ANYWHERE:
            await self._move(self._peers.primary, scope, kept.again(), send, until)
        else:
            await self._follower.catch_up(until - time.monotonic())
            again, elsewhere = kept.again(), await self._find_elsewhere(placement, scope)
            if elsewhere is not None:
                await self._move(elsewhere, scope, again, send, until)
            else:
                await (await respond(scope, again, send))(scope, again, send)

    # -- where ------------------------------------------------------------------------------------------

    async def _find_elsewhere(self, placement: Placement, scope: Scope) -> Destination | None:
        """Who has to answer; None when it is this machine."""
        if placement.place is Place.HERE:
            return None
        if placement.place is Place.AT_HOME:
            return await self._find_home(placement, scope)
        if self._node.is_primary or (placement.place is Place.ANYWHERE and await self._is_fresh(scope)):
            return None
        return self._peers.primary

    async def _find_home(self, placement: Placement, scope: Scope) -> Destination | None:
        if placement.by == "body":
            name = scope.get("litehouse.body", {}).get(placement.name)
        else:
            name = scope["path_params"][placement.name]
        find = self._home_of_stream if placement.by == "stream" else self._home_of
        home = await find(name) if isinstance(name, str) else None
        if home is None:
            return None if self._node.is_primary else self._peers.primary
        return None if self._is_here(home) else home

    def _is_here(self, home: Destination) -> bool:
        return home.machine == self._node.machine if home.machine else home.region == self._node.region

    async def _is_fresh(self, scope: Scope) -> bool:
        """Whether this replica may be asked, and holds what the caller must not miss."""
        if not self._node.reads_here:
            return False
        wish = self._freshness.wish_of(scope)
        if wish is None:
            return True
        here = self._node.position
        # Of another epoch the primary knows what it was worth.
        if wish.position is None or here is None or here.epoch != wish.position.epoch:
            return False
        return await self._node.wait_for(wish.position, freshness.WAIT_SECONDS)

    def _recognise(self, scope: Scope) -> None:
        """Take over what another machine said of a request that it had replayed here."""
        state = replay.state_of(scope["headers"])
        if state is not None:
            with suppress(Unauthenticated):
                passport = self._peers.seal.read_passport(state, method_of(scope), target_of(scope))
                scope["request_id"] = passport.request_id
                waited_before.set(passport.waited_seconds)
                scope[LANDED] = passport.region

    # -- here -------------------------------------------------------------------------------------------

    async def _try(self, respond: Respond, scope: Scope, receive: Receive, send: Send) -> "_Kept | None":
        """Answer with what the replica finds; where that is a refusal that rests on rows, what was read of the body."""
        kept, begun = _Kept(receive, KEPT_BYTES), _Begun(send)
        try:
            response = await respond(scope, kept, begun)
        except AppError as error:
            if error.certain or begun.begun:
                raise
        else:
            if response.status_code not in RESTING_ON_ROWS:
                await response(scope, kept, send)
                return None
        scope.pop("rate_headers", None)
        return kept

    # -- elsewhere --------------------------------------------------------------------------------------

    async def _try_home(
        self, home: Destination, scope: Scope, receive: Receive, send: Send, until: float
    ) -> Receive | None:
        """Take the request to its home; where nobody is there, what was read of it, to ask for the home once more.

        The same for a request that was brought here as to its home, or could not be brought there. A change that may
        have come to a home is not taken to the next one: that has it too, from the backup.
        """
        machine = home.machine or ""
        if self._was_moved(scope) or self._was_in_vain(scope):
            self._suspect(machine)
            return receive
        # Nothing of a body is kept on its way: it is read once somebody is there, and then it is not sent again.
        kept, begun = _Kept(receive, 0), _Begun(send)
        try:
            await self._move(home, scope, kept, begun, until)
        except Unreachable as error:
            self._suspect(machine)
            if begun.begun or (error.heard and method_of(scope) not in READING):
                raise
            return kept.again()
        return None

    async def _move(self, to: Destination, scope: Scope, receive: Receive, send: Send, until: float) -> None:
        """Take the request there, once. Unavailable when that cannot be."""
        if self._was_moved(scope) or self._was_in_vain(scope):
            raise Unavailable("This request was moved once already, and cannot be answered here now")
        if self._is_here(to):
            raise Unavailable("The primary is not ready yet")
        if self._mode == OFF:
            raise Unavailable("This request is for another machine, and REPLAY is off")
        if self._mode == FLY and replay.fits(scope):
            waited = WAIT_SECONDS - (until - time.monotonic())
            if scope["type"] == "http" and method_of(scope) not in READING:
                self._freshness.note(scope, None)
            passport = self._peers.passport(scope, waited)
            await replay.replay(to, WAIT_SECONDS - waited, passport)(scope, receive, send)
        else:
            await self._forward(to, scope, receive, send, until)

    async def _forward(self, to: Destination, scope: Scope, receive: Receive, send: Send, until: float) -> None:
        waited = WAIT_SECONDS - (until - time.monotonic())
        await self._forwarder.forward(self._peers.at(to), scope, receive, send, waited)

    def _was_moved(self, scope: Scope) -> bool:
        """Whether another machine has sent the request here."""
        replayed = self._mode == FLY and replay.was_replayed(scope["headers"])
        return MOVED in scope or (replayed and not self._was_in_vain(scope))

    def _was_in_vain(self, scope: Scope) -> bool:
        """Whether the proxy brings it back, because it found nobody where this machine wished it."""
        return self._mode == FLY and MOVED not in scope and replay.has_failed(scope["headers"])


class _Kept:
    """Hands on what arrives of a body and keeps it, up to `limit` bytes."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._messages: list[Message] = []
        self._size = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size <= self._limit:
            self._messages.append(message)
        return message

    def again(self) -> Receive:
        """The same body from its beginning. Unavailable when it was too large to be kept."""
        if self._size > self._limit:
            raise Unavailable(f"A body of more than {self._limit} bytes cannot be sent on once it was read")
        kept = iter(self._messages)

        async def receive() -> Message:
            return next(kept, None) or await self._receive()

        return receive


class _Begun:
    """Knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        await self._send(message)


async def _read_ahead(scope: Scope, receive: Receive, limit: int) -> Receive:
    """Read the body, to find in it whose home is meant; what it says is kept in the scope."""
    body = await read_body(Request(scope, receive), limit)
    said: Any = None
    # What cannot be read is for the endpoint to refuse.
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = msgspec.json.decode(body)
    scope["litehouse.body"] = said if isinstance(said, dict) else {}
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return whole.pop() if whole else await receive()

    return again
