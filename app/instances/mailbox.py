"""The mailbox of a hub: what is asked of it, in the order in which it was asked."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from app.errors import AppError, Unavailable
from app.instances.draft import Caller, Change, Draft, Refusal
from app.instances.entry import Entry
from app.instances.member import Member
from app.instances.protocol import Set

T = TypeVar("T")

MAILBOX = 100_000
TURN_CHANGES = 1_000
TURN_BYTES = 16 << 20


class Result(NamedTuple):
    """What became of changes: the seq then, and how many changed something.

    `left` is what `around` says of them, `kept` what is stored with the operation.
    """

    seq: int
    changed: int
    left: Any = None
    kept: bytes | None = None


# Makes the changes of an ask by calling what it is given, once it has seen that what they rest on is true, and
# says what they left.
Around = Callable[[Draft, Callable[[], Result]], Result]
# Something that is done alone: it is given the committed entries and what makes changes meanwhile.
Make = Callable[["Ask"], Awaitable[Result]]
Work = Callable[[Mapping[str, Entry], Make], Awaitable[T]]


class Ask(NamedTuple):
    """Changes on their way in: from a member's frame, or from a call that waits for its future.

    `size` is in bytes, of the frame or of the values, which stay in memory until this is answered. It is `sure` once
    the caller's level is what the primary says.
    """

    changes: Sequence[Change]
    caller: Caller
    member: Member | None = None
    op_id: str | None = None
    turn_id: str | None = None
    future: "asyncio.Future[Result] | None" = None
    refusal: Refusal | None = None
    around: Around | None = None
    size: int = 0
    sure: bool = False


class Visit(NamedTuple):
    """Something that needs the committed state, in its place in the order."""

    visit: Callable[[], Awaitable[Any]]
    future: "asyncio.Future[Any]"


def size_of(changes: Sequence[Change]) -> int:
    """Bytes of the values in changes."""
    return sum(memoryview(change.value).nbytes for change in changes if isinstance(change, Set))


class Mailbox:
    """At most MAILBOX items; whoever brings one more is told that there is too much to do."""

    def __init__(self) -> None:
        self._items: deque[Ask | Visit] = deque()
        self._woken = asyncio.Event()
        self._closed: Callable[[], AppError] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Ask | Visit, *, counted: bool = True) -> None:
        """Unavailable when it is closed, or full. What was in it once is not `counted` again."""
        self.check_open()
        if counted and len(self._items) >= MAILBOX:
            raise Unavailable(f"The instance has too much to do: {len(self._items)} of {MAILBOX}")
        self._items.append(item)
        self._woken.set()

    def close(self, why: Callable[[], AppError], last: Visit) -> None:
        """Take nothing more but a last visit, however full it is, and say why; what is in it stays to be done."""
        self._closed = why
        self._items.append(last)
        self._woken.set()

    def check_open(self) -> None:
        if self._closed is not None:
            raise self._closed()

    async def wait(self) -> None:
        """Until there is something."""
        await self._woken.wait()
        self._woken.clear()

    def take_asks(self) -> list[Ask]:
        """The changes at the front, up to a visit, TURN_CHANGES or TURN_BYTES."""
        asks: list[Ask] = []
        changes = size = 0
        while self._items and changes < TURN_CHANGES and size < TURN_BYTES:
            first = self._items[0]
            if isinstance(first, Visit):
                break
            changes += max(1, len(first.changes))
            size += first.size
            asks.append(first)
            self._items.popleft()
        return asks

    def take_visit(self) -> Visit:
        visit = self._items.popleft()
        assert isinstance(visit, Visit)
        return visit
