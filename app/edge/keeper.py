"""The keeper: which machine something lives on, and whether this one may open it.

What the replica says is asked first. The primary is asked where nothing is known, and where the machine that is named
did not answer a moment ago: it then says the same again, or has given it to another.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from app.edge import homes
from app.edge.database import Database
from app.edge.desk import Desk
from app.edge.flights import Flights
from app.edge.homes import Home, Machine
from app.edge.lease import Fenced
from app.edge.ownership import Ownership
from app.edge.peers import ASK_SECONDS
from app.edge.placement import Destination
from app.errors import Conflict, NotFound, Unavailable

# A machine that could not be reached is asked after for so long.
SUSPECT_SECONDS = 5.0
SUSPECTS = 1_000
LOOK_SECONDS = 0.1


class Keeper:
    """One for a machine that is one of several."""

    def __init__(self, db: Database, owning: Ownership, desk: Desk) -> None:
        self._db = db
        self._owning = owning
        self._desk = desk
        self._suspects: dict[str, float] = {}
        self._questions = Flights[str, Home]()

    async def home_of(self, name: str) -> Destination | None:
        """Where something lives; None where nothing has that name. Unavailable."""
        home = await self._find(name)
        if home is None or self._is_suspect(home.machine):
            try:
                home = await self._claim(name)
            except NotFound:
                return None
        return Destination(home.region, home.machine)

    @property
    def me(self) -> Machine:
        """This machine."""
        return self._owning.me

    async def find_elsewhere(self, name: str) -> Home | None:
        """The home of something where that is another machine, as far as this one knows."""
        home = await self._find(name)
        return home if home is not None and home.machine != self.me.machine else None

    async def require(self, name: str) -> Home:
        """The home of what this machine owns. Unavailable when it does not, or does not know yet."""
        home = await self._find(name)
        if not self._owning.owns(home):
            await self._claim(name)
            # Not what was answered: a session may have ended while that was on its way, and the row knows.
            home = await self._find(name)
            if home is not None and home.machine == self._owning.me.machine and self._owning.has_left(home):
                await self._keep(home)
                home = await self._find(name)
        if not self._owning.owns(home):
            raise Unavailable("This machine is not its home", certain=False)
        assert home is not None
        return home

    async def wait(self) -> None:
        """Until this machine knows what is its own."""
        while not self._owning.ready:  # noqa: ASYNC110 - by what arrives on the replica, too
            await asyncio.sleep(LOOK_SECONDS)

    async def may_open(self, name: str) -> bool:
        """Whether something is this machine's, as far as it knows."""
        return self._owning.owns(await self._find(name))

    def guard(self, home: Home) -> Callable[[], None]:
        """What says whether that home, which is this machine's now, is so still: Fenced once it is not.

        A session that begins later says nothing of what was opened in this one.
        """
        owning, session = self._owning, self._owning.lease.session

        def check() -> None:
            if owning.lease.session != session or owning.has_left(home):
                raise Fenced
            owning.lease.check()

        return check

    async def raise_number(self, home: Home, least: int) -> Home:
        """The same home under a higher number, at least `least`. Unavailable when it is another's by now."""
        try:
            raised = await self._desk.raise_number(home, least)
        except Conflict as error:
            raise Unavailable("This machine is not its home any more") from error
        self._owning.tell(raised)
        return raised

    async def mark_opened(self, home: Home) -> Home:
        """Have it known that this machine opens what it owns. Unavailable when it is another's by now."""
        try:
            return await self._desk.mark_opened(home)
        except Conflict as error:
            raise Unavailable("This machine is not its home any more") from error

    async def list_others(self) -> list[Machine]:
        """The other machines that are alive. Unavailable."""
        return [machine for machine in await self._desk.list_alive() if machine != self._owning.me]

    async def list_steady(self) -> list[Machine]:
        """The machines to which something may go home. Unavailable."""
        return await self._desk.list_steady()

    def forget(self, name: str) -> None:
        """It is deleted: what was said of it is said no longer."""
        self._owning.forget(name)

    def suspect(self, machine: str) -> None:
        """It could not be reached: ask the primary whether it still is the home of anything."""
        while len(self._suspects) >= SUSPECTS:
            del self._suspects[next(iter(self._suspects))]
        self._suspects[machine] = time.monotonic() + SUSPECT_SECONDS

    async def hand_over(self, home: Home, to: Machine) -> Home:
        """Give away what is closed here already, and fetched from here. Nothing more of it is acknowledged, whatever
        becomes of this."""
        return await self._give(self._desk.hand_over, home, to)

    async def send_home(self, home: Home, to: Machine) -> Home:
        """The same for what is in the replica as it was closed."""
        return await self._give(self._desk.send_home, home, to)

    async def close(self) -> None:
        """Who still asks is cancelled."""
        await self._questions.close()

    async def _give(self, ask: Callable[[Home, Machine, str], Awaitable[Home]], home: Home, to: Machine) -> Home:
        session = self._owning.lease.session
        if session is None:
            raise Unavailable("This machine has no session")
        self._owning.leave(home)
        given = await ask(home, to, session)
        self._owning.tell(given)
        return given

    async def _keep(self, home: Home) -> None:
        """A hand-over came to nothing, as far as we know. Under a new number it cannot come to anything later."""
        await self.raise_number(home, 0)

    async def _find(self, name: str) -> Home | None:
        return self._owning.newest(name, await self._db.read_one(homes.find_home, name))

    async def _claim(self, name: str) -> Home:
        """Who comes back when a home is lost comes with all the others, and they ask together. Each waits no longer
        than for a question of its own, however long the one before has gone unanswered."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                home = await self._questions.join_next(name, partial(self._desk.claim, name, self._owning.me))
        except TimeoutError as error:
            raise Unavailable("The primary does not say where it lives") from error
        self._owning.tell(home)
        return home

    def _is_suspect(self, machine: str) -> bool:
        return self._suspects.get(machine, 0.0) > time.monotonic()
