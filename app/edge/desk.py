"""The desk: how a machine speaks with the primary's registry, at hand on the primary, over the peer port elsewhere."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from app.edge.homes import Home, Machine
from app.edge.peers import ASK_SECONDS, Answer, Peers
from app.edge.placement import Destination
from app.edge.registry import Registry
from app.edge.transaction import Position
from app.errors import AppError, Conflict, NotFound, Unauthenticated, Unavailable

T = TypeVar("T")

BEGIN, BEAT, CLAIM = "/peer/begin", "/peer/beat", "/peer/claim"
HAND_OVER, RAISE, ALIVE, LEAVE = "/peer/hand-over", "/peer/raise", "/peer/alive", "/peer/leave"
STEADY, SEND_HOME = "/peer/steady", "/peer/send-home"
OPENED, ADOPT = "/peer/opened", "/peer/adopt"

# Who ends waits no longer to have it known: without it the others find out by the port that refuses.
LEAVE_SECONDS = 3.0

# The refusals that the asker acts on; every other failure is one of the machine that was asked.
_REFUSALS: dict[str, type[AppError]] = {kind.code: kind for kind in (Conflict, NotFound, Unauthenticated, Unavailable)}


class Desk(Protocol):
    """What a machine asks of the registry. Unavailable when the primary cannot be reached."""

    async def begin(self, machine: Machine, session: str) -> Position: ...

    async def beat(self, machine: Machine, session: str) -> bool: ...

    async def claim(self, name: str, asker: Machine) -> Home: ...

    async def hand_over(self, home: Home, to: Machine, session: str) -> Home: ...

    async def raise_number(self, home: Home, least: int) -> Home: ...

    async def send_home(self, home: Home, to: Machine, session: str) -> Home: ...

    async def mark_opened(self, home: Home) -> Home: ...

    async def adopt(self, held: Sequence[tuple[str, int]], machine: Machine) -> int: ...

    async def list_alive(self) -> list[Machine]: ...

    async def list_steady(self) -> list[Machine]: ...

    async def leave(self, machine: Machine, session: str, kept: Collection[str]) -> None: ...


class Refused(msgspec.Struct, frozen=True):
    """A refusal on its way between machines."""

    code: str
    message: str


class Distant:
    """The desk of a machine that is not the primary."""

    def __init__(self, peers: Peers, primary: Callable[[], Destination]) -> None:
        self._peers = peers
        self._primary = primary

    async def begin(self, machine: Machine, session: str) -> Position:
        return await self._ask(BEGIN, Position, machine, session)

    async def beat(self, machine: Machine, session: str) -> bool:
        return await self._ask(BEAT, bool, machine, session)

    async def claim(self, name: str, asker: Machine) -> Home:
        return await self._ask(CLAIM, Home, name, asker)

    async def hand_over(self, home: Home, to: Machine, session: str) -> Home:
        return await self._ask(HAND_OVER, Home, home, to, session)

    async def raise_number(self, home: Home, least: int) -> Home:
        return await self._ask(RAISE, Home, home, least)

    async def mark_opened(self, home: Home) -> Home:
        return await self._ask(OPENED, Home, home)

    async def adopt(self, held: Sequence[tuple[str, int]], machine: Machine) -> int:
        return await self._ask(ADOPT, int, held, machine)

    async def list_alive(self) -> list[Machine]:
        return await self._ask(ALIVE, list[Machine])

    async def send_home(self, home: Home, to: Machine, session: str) -> Home:
        return await self._ask(SEND_HOME, Home, home, to, session)

    async def list_steady(self) -> list[Machine]:
        return await self._ask(STEADY, list[Machine])

    async def leave(self, machine: Machine, session: str, kept: Collection[str]) -> None:
        await self._ask(LEAVE, type(None), machine, session, kept, seconds=LEAVE_SECONDS)

    async def _ask(self, path: str, kind: type[T], *said: Any, seconds: float = ASK_SECONDS) -> T:
        return await ask(self._peers, self._primary(), path, kind, *said, seconds=seconds)


async def ask(peers: Peers, whom: Destination, path: str, kind: type[T], *said: Any, seconds: float = ASK_SECONDS) -> T:
    """What another machine answers, or what it refused, which is certain. Unavailable, NotFound, Conflict,
    Unauthenticated."""
    answer = await peers.ask(peers.at(whom), path, msgspec.msgpack.encode(said), seconds=seconds)
    try:
        return _read(answer, kind)
    except msgspec.MsgspecError as error:
        raise Unavailable("Another machine says what this release does not understand") from error


def _read(answer: bytes, kind: type[T]) -> T:
    value, refused = msgspec.msgpack.decode(answer, type=tuple[msgspec.Raw, Refused | None])
    if refused is not None:
        raise _REFUSALS.get(refused.code, Unavailable)(refused.message, certain=True)
    given: T = msgspec.msgpack.decode(value, type=kind)
    return given


def answers(registry: Registry) -> dict[str, Answer]:
    """What the primary answers at its peer port."""
    return {
        BEGIN: answer_of(registry.begin, tuple[Machine, str]),
        BEAT: answer_of(registry.beat, tuple[Machine, str]),
        CLAIM: answer_of(registry.claim, tuple[str, Machine]),
        HAND_OVER: answer_of(registry.hand_over, tuple[Home, Machine, str]),
        ALIVE: answer_of(registry.list_alive, tuple[()]),
        RAISE: answer_of(registry.raise_number, tuple[Home, int]),
        SEND_HOME: answer_of(registry.send_home, tuple[Home, Machine, str]),
        STEADY: answer_of(registry.list_steady, tuple[()]),
        LEAVE: answer_of(registry.leave, tuple[Machine, str, list[str]]),
        OPENED: answer_of(registry.mark_opened, tuple[Home]),
        ADOPT: answer_of(registry.adopt, tuple[list[tuple[str, int]], Machine]),
    }


def answer_of(fn: Callable[..., Awaitable[Any]], shape: Any) -> Answer:
    """A question is a list of arguments; the answer a value, or why there is none."""
    decoder = msgspec.msgpack.Decoder(shape)

    async def answer(question: bytes, machine: str) -> bytes:
        try:
            return msgspec.msgpack.encode((await fn(*decoder.decode(question)), None))
        except AppError as error:
            return msgspec.msgpack.encode((None, Refused(error.code, error.message)))

    return answer
