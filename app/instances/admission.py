"""Admission: who is let into an instance, by its handshake or by a frame."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

from app.edge.clock import now_ms
from app.edge.database import Database
from app.edge.follower import Follower
from app.errors import AppError, Forbidden, NotFound, Unavailable
from app.identity.principal import Account, Kind, Principal
from app.instances.hubs import Hubs
from app.projects import access
from app.projects.access import NO_INSTANCE, Level
from app.projects.door import Entrance
from app.projects.first_use import FirstUse

T = TypeVar("T")

NO_ACCESS_TEXT = "Instance not found or access denied"
# What a frame waits for the primary before it is refused by what is known here.
CATCH_UP_SECONDS = 2.0


class Rooms(NamedTuple):
    """What a connection needs of the process. `dev_user` answers for unknown credentials where it is set; `follower`
    is there where the core here may lag."""

    db: Database
    hubs: Hubs
    entrance: Entrance
    dev_user: Account | None
    first_use: FirstUse
    follower: Follower | None = None

    def is_dev_user(self, principal: Principal) -> bool:
        """Whether somebody is `dev-user` for want of a credential that is known."""
        return principal.kind is Kind.USER and self.dev_user is not None and principal.account == self.dev_user

    async def surely(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` gives. A refusal that rests on rows is given once the rows are the primary's, or it is away."""
        try:
            return await ask()
        except AppError as error:
            if error.certain or self.follower is None:
                raise
        with suppress(Unavailable):
            await self.follower.catch_up(CATCH_UP_SECONDS)
        return await ask()


class Admitted(NamedTuple):
    """Who was let in, and what it may do at most."""

    principal: Principal
    level: Level
    cap: Level


async def identify(rooms: Rooms, credential: str) -> Principal:
    """Whose credential a frame brings. Unauthenticated, Forbidden; in development it is `dev-user` then."""
    try:
        return await rooms.surely(partial(rooms.entrance.identify, credential))
    except AppError:
        if rooms.dev_user is None:
            raise
        return Principal(Kind.USER, rooms.dev_user)


async def admit(rooms: Rooms, principal: Principal, instance_id: str) -> Admitted:
    """NotFound, or Forbidden for who may not even read; `dev-user` is let in anywhere."""
    if rooms.is_dev_user(principal):
        return await admit_dev_user(rooms, instance_id)
    return await admit_up_to(rooms, principal, instance_id, Level.OWNER)


async def admit_up_to(rooms: Rooms, principal: Principal, instance_id: str, cap: Level) -> Admitted:
    """The same for who brings a ticket, whoever it is."""
    found = await rooms.db.read(access.level_of, principal, instance_id, now_ms())
    if found.instance is None:
        raise NotFound(NO_INSTANCE)
    if found.level < Level.READ:
        raise Forbidden(NO_ACCESS_TEXT)
    return Admitted(principal, found.level, cap)


async def admit_dev_user(rooms: Rooms, instance_id: str) -> Admitted:
    """In development whoever comes without a good credential is `dev-user` with `write`; a new id is made."""
    assert rooms.dev_user is not None
    await rooms.first_use.ensure(instance_id)
    return Admitted(Principal(Kind.USER, rooms.dev_user), Level.OWNER, Level.WRITE)
