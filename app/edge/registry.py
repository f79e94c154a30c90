"""The registry: the primary's desk where machines begin sessions, send heartbeats, and where owners change.

It gives away only what is gone (`Liveness.is_gone`), what its owner hands over or has left behind, or what an operator
calls lost. A machine's session cannot begin or be renewed while something of it is given away: the answer would outlive
that.
"""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from app.edge import homes
from app.edge.clock import now_ms
from app.edge.database import Connection, Database, Position, written_position
from app.edge.homes import Home, Machine
from app.edge.lease import LEASE_SECONDS
from app.edge.liveness import Liveness
from app.errors import Conflict, NotFound, Unavailable

MARK_BYTES = 4
# A machine that was heard within this time is one that something may be given to.
ALIVE_SECONDS = 5.0
# One that has not begun anew for so long is one that something may go home to: less often than this nothing comes back.
STEADY_SECONDS = LEASE_SECONDS
SILENT_SECONDS = 1.5
DOUBT_SECONDS = 5.0


# The region in which something was made; None where nothing has that name.
RegionOf = Callable[[Connection, str], str | None]


def new_mark() -> str:
    return secrets.token_hex(MARK_BYTES)


class Registry:
    """One, on the primary."""

    def __init__(
        self,
        db: Database,
        liveness: Liveness,
        region_of: RegionOf,
        regions: Mapping[str, str] | None = None,
        mark: Callable[[], str] = new_mark,
        takes_away: bool = True,
    ) -> None:
        """`region_of` knows where a thing was made; `regions` are those of the machines known from before.

        Where nobody could restore what a machine had, as without a backup, it `takes_away` nothing.
        """
        self._db = db
        self._liveness = liveness
        self._region_of = region_of
        self._mark = mark
        self._takes_away = takes_away
        self._regions = dict(regions or {})
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        # Whose things were asked for lately: somebody may have been turned away there.
        self._doubted: dict[str, float] = {}

    async def begin(self, machine: Machine, session: str) -> Position:
        """A machine has started or lost its lease. What it finds at the position of this commit is its own."""
        async with self._locks[machine.machine]:
            await self._db.write(homes.begin_session, machine, session, now_ms())
            position = written_position.get()
            if position is None:
                raise Unavailable("The core has no position yet")
            self._regions[machine.machine] = machine.region
            self._liveness.began(machine.machine, session)
            return position

    async def beat(self, machine: Machine, session: str) -> bool:
        """A heartbeat. False: begin anew."""
        self._regions[machine.machine] = machine.region
        return self._liveness.heard(machine.machine, session)

    async def claim(self, name: str, asker: Machine) -> Home:
        """The home of `name`. Where it has none, or its machine is gone: one of its region, or else the asker.

        NotFound when there is nothing of that name.
        """
        home, region = await self._db.read(self._find, name)
        if region is None:
            raise NotFound("Nothing has this name")
        if home is None:
            to = self._pick(name, asker, region, None)
            return await self._db.write(homes.claim, name, to, None, self._mark(), now_ms())
        # What nobody has opened has no file that somebody could miss.
        if not (self._takes_away or home.opened is None) or not self._liveness.is_gone(home.machine, name):
            self._doubted[home.machine] = time.monotonic()
            return home
        async with self._locks[home.machine]:
            # It may have begun a session while this waited.
            if not self._liveness.is_gone(home.machine, name):
                return home
            return await self._take_away(home.machine, name, self._pick(name, asker, region, home.machine))

    async def hand_over(self, home: Home, to: Machine, session: str) -> Home:
        """What its owner has closed becomes somebody else's. Conflict when it was that owner's no longer."""
        return await self._db.write(homes.hand_over, home, to, session, home.machine, self._mark(), now_ms())

    async def send_home(self, home: Home, to: Machine, session: str) -> Home:
        """The same for what is in the replica as its owner has closed it: nobody depends on that owner any more."""
        return await self._db.write(homes.hand_over, home, to, session, None, self._mark(), now_ms())

    async def raise_number(self, home: Home, least: int) -> Home:
        return await self._db.write(homes.raise_number, home, least, self._mark(), now_ms())

    async def mark_opened(self, home: Home) -> Home:
        """Before its owner opens it under a new number. Conflict when it is another's by now."""
        return await self._db.write(homes.mark_opened, home)

    async def adopt(self, held: Sequence[tuple[str, int]], machine: Machine) -> int:
        """Make a machine the home of what it has files of, by name and number, and nobody owns."""
        return await self._db.write(homes.adopt, held, machine, self._mark(), now_ms())

    async def list_alive(self) -> list[Machine]:
        """Who was heard a moment ago, for a machine that looks for something."""
        return self.alive()

    async def list_steady(self) -> list[Machine]:
        """Of those that are alive, who has been so for long enough that what goes there will stay there."""
        return [one for one in self.alive() if self._liveness.seconds_of_session(one.machine) >= STEADY_SECONDS]

    async def lose(self, machine: str) -> None:
        """An operator knows that a machine is gone: everything of it may be given away at once."""
        async with self._locks[machine]:
            await self._end(machine, ())

    async def leave(self, machine: Machine, session: str, kept: Collection[str]) -> None:
        """A machine has closed everything and ends: all but what is `kept` may be given away at once.

        Conflict when it has begun anew since: this was on its way for long, and says nothing of what is open now.
        """
        async with self._locks[machine.machine]:
            if await self._db.read(homes.find_session, machine.machine) != session:
                raise Conflict("This session is over")
            await self._end(machine.machine, kept)

    def seconds_since(self, machine: str) -> float | None:
        """How long ago a machine was heard; None when it was not since this primary began."""
        return self._liveness.seconds_since(machine)

    def silent(self) -> list[Machine]:
        """The machines that should have been heard by now, and those that somebody asks about; none that is gone for
        good, or the ports of all that ever were would be tried for ever."""
        return [Machine(name, region) for name, region in sorted(self._regions.items()) if self._is_silent(name)]

    def alive(self) -> list[Machine]:
        """The machines that were heard a moment ago."""
        return [Machine(name, region) for name, region in sorted(self._regions.items()) if self._is_alive(name)]

    async def _end(self, machine: str, kept: Collection[str]) -> None:
        with self._liveness.leaving(machine):
            try:
                await self._db.write(homes.end_session, machine)
            finally:
                self._liveness.ended(machine)
            self._liveness.lost(machine, kept)

    def _find(self, connection: Connection, name: str) -> tuple[Home | None, str | None]:
        return homes.find_home(connection, name), self._region_of(connection, name)

    async def _take_away(self, gone: str, name: str, to: Machine) -> Home:
        with self._liveness.leaving(gone):
            try:
                return await self._db.write(homes.claim, name, to, gone, self._mark(), now_ms())
            finally:
                # Also where the outcome is not known: a session too few only has to begin anew.
                self._liveness.ended(gone)

    def _pick(self, name: str, asker: Machine, region: str, gone: str | None) -> Machine:
        """Who is to own something. Unavailable where only one could that would lose it at once: it has just woken up,
        and would never have had the file that the next owner waits for."""
        able = [machine for machine in (asker, *self.alive()) if not self._liveness.is_gone(machine.machine, name)]
        there = (machine for machine in able if machine.region == region and machine.machine != gone)
        picked = next(there, asker)
        if picked.machine == gone or self._liveness.is_gone(picked.machine, name):
            raise Unavailable("No machine can own this now")
        return picked

    def _is_silent(self, machine: str) -> bool:
        if self._liveness.is_over(machine):
            return False
        if time.monotonic() - self._doubted.get(machine, float("-inf")) < DOUBT_SECONDS:
            return True
        since = self._liveness.seconds_since(machine)
        return since is None or since > SILENT_SECONDS

    def _is_alive(self, machine: str) -> bool:
        since = self._liveness.seconds_since(machine)
        return since is not None and since < ALIVE_SECONDS and not self._liveness.is_lost(machine)
