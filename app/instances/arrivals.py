"""Arrivals: how the file of an instance comes to its home, and under whose epoch it is there.

An owner has it written down at the primary before it opens anything, with its epoch in the file already. So a file of
the newest home that was opened, or of a later one, is the instance: a home that was never opened acknowledged nothing.
Anything older is a leftover of this machine's, which is set aside: the instance then comes from the machine that handed
it over, from the replica, or from the machine with the newest file. Only what nobody has opened begins with nothing.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import structlog

from app.edge import desk, restoration, sqlite
from app.edge.backup import Backup
from app.edge.clock import now_ms
from app.edge.homes import Home, number_of
from app.edge.keeper import Keeper
from app.edge.litestream import NoCopy
from app.edge.peers import Peers
from app.edge.placement import Destination
from app.errors import AppError, Internal, Unavailable
from app.instances.parcels import Parcels
from app.instances.restoration import covers, fetch, list_copies, read_epochs, read_extent, read_position
from app.instances.store import Store, Stores

T = TypeVar("T")

# Stands for the epoch that is about to begin.
HERE = ""
LEFT, HELD = "/peer/left", "/peer/held"
FOLDER = ".arriving"

log = structlog.get_logger("arrivals")


class Arrived(NamedTuple):
    """A file that may be opened, under the epoch of its home; `check` raises Fenced once it may not be any more."""

    epoch: str
    check: Callable[[], None]


class Arrivals:
    """One for a machine that is one of several."""

    def __init__(self, keeper: Keeper, peers: Peers, stores: Stores, backup: Backup | None) -> None:
        self._keeper = keeper
        self._peers = peers
        self._stores = stores
        self._url = backup.url if backup is not None else None
        self.parcels = Parcels(stores.folder, peers)
        self._folder = stores.folder / FOLDER
        # Nothing that was on its way outlives the process.
        shutil.rmtree(self._folder, ignore_errors=True)
        peers.answers[LEFT] = self._give
        peers.answers[HELD] = desk.answer_of(self._find_held, tuple[str])

    async def bring(self, instance_id: str) -> Arrived:
        """Have the file of an instance here that may be opened. NotFound; Unavailable where it is not this machine's,
        or cannot be had now."""
        home = await self._keeper.require(instance_id)
        check = self._keeper.guard(home)
        store = self._stores.store(instance_id)
        found = await self._find_held(instance_id)
        held = found[0] if found is not None else None
        if held != home.epoch:
            home = await self._pass_known_epochs(home, held)
            # A guard made now is of the session that there is now, and the home was found in this one.
            check()
            check = self._keeper.guard(home)
            if held is None or number_of(held) < (home.opened or 0):
                await self._replace(home, store, held)
            check()
        if held != home.epoch or home.opened != home.number:
            await self._begin(home, store)
        check()
        return Arrived(home.epoch, check)

    async def receive(self, instance_id: str) -> None:
        """A file that was just made here is its home's. NotFound, Unavailable."""
        await self._begin(await self._keeper.require(instance_id), self._stores.store(instance_id))

    async def _begin(self, home: Home, store: Store) -> None:
        """The file has the epoch before the primary hears of it, and that before anything is acknowledged."""
        await self._on_thread(store, _begin, store, home.epoch)
        await self._keeper.mark_opened(home)

    async def _pass_known_epochs(self, home: Home, held: str | None) -> Home:
        """A core that was restored may give a number once more that a file or the replica knows already, and not know
        that anybody has opened it."""
        known = {held} if held else set()
        if self._url is not None:
            known |= set(await asyncio.to_thread(list_copies, self._url, home.name))
        newest = max((number_of(epoch) for epoch in known if epoch != home.epoch), default=-1)
        if newest < home.number and newest <= (-1 if home.opened is None else home.opened):
            return home
        return await self._keeper.raise_number(home, newest + 1)

    async def _replace(self, home: Home, store: Store, held: str | None) -> None:
        """Put the newest state that is to be had in the place of what is here."""
        fresh = self._folder / home.name
        try:
            found = await self._fetch(home, fresh)
        except (AppError, OSError):
            await asyncio.to_thread(restoration.remove, fresh)
            raise
        if found:
            kept = await self._on_thread(store, restoration.put, fresh, store.path, now_ms())
        else:
            kept = await self._on_thread(store, restoration.set_aside, store.path, now_ms())
        if kept is not None and await self._on_thread(store, _is_in, store.path, kept):
            await asyncio.to_thread(restoration.remove, kept)
        elif kept is not None:
            log.warning("set_aside", instance=home.name, epoch=held, file=kept.name)

    async def _fetch(self, home: Home, fresh: Path) -> bool:
        """Whether there is a state of before; False for what nobody has opened."""
        if home.source and home.source != home.machine and await self._fetch_handed_over(home.source, home.name, fresh):
            return True
        if home.opened is None:
            return False
        try:
            if self._url is None:
                raise NoCopy("There is no backup")
            await asyncio.to_thread(fetch, self._url, home.name, fresh)
        except NoCopy:
            await self._find_left(home, home.opened, fresh)
        except Internal as error:
            raise Unavailable(error.message) from error
        return True

    async def _fetch_handed_over(self, source: str, name: str, fresh: Path) -> bool:
        """From the machine that let it go. False where that is gone: all that is let go is in the replica, if any."""
        try:
            await self.parcels.fetch(self._peers.at(Destination("", source)), LEFT, name, fresh)
        except Unavailable:
            if self._url is None or source in {one.machine for one in await self._keeper.list_others()}:
                raise
            return False
        return True

    async def _find_left(self, home: Home, opened: int, fresh: Path) -> None:
        """Fetch what a machine that is alive has of what was never shipped. Unavailable while none has all of it."""
        others = [Destination(one.region, one.machine) for one in await self._keeper.list_others()]
        known = [held for held in await asyncio.gather(*(self._ask_held(other, home.name) for other in others)) if held]
        newest = max(known, key=lambda held: held[:2], default=None)
        if newest is None or newest[0] < opened:
            raise Unavailable("The newest state of this instance is on a machine that is away")
        await self.parcels.fetch(self._peers.at(newest[2]), LEFT, home.name, fresh)

    async def _ask_held(self, whom: Destination, name: str) -> tuple[int, int, Destination] | None:
        """`(number, seq, machine)` of the file that another machine has."""
        try:
            held = await desk.ask(self._peers, whom, HELD, tuple[str, int] | None, name)  # type: ignore[arg-type]
        except Unavailable:
            return None
        return (number_of(held[0]), held[1], whom) if held is not None else None

    async def _find_held(self, name: str) -> tuple[str, int] | None:
        """`(epoch, seq)` of the file here; None where there is none."""
        store = self._stores.store(name)
        if not store.path.exists():
            return None
        epoch, seq = await self._on_thread(store, read_position, store.path)
        return epoch or "", seq

    async def _give(self, question: bytes, machine: str) -> bytes:
        """What this machine has handed over and closed, for the machine that has it now."""
        store = self._stores.store(question.decode())
        if await self._keeper.may_open(question.decode()) or not store.path.exists():
            raise Unavailable("It was not handed over here")

        async def write(path: Path) -> None:
            await self._on_thread(store, store.write_copy, path)
            await self._on_thread(store, store.close)

        return await self.parcels.pack(write)

    async def _on_thread(self, store: Store, fn: Callable[..., T], *args: object) -> T:
        thread = self._stores.thread_of(store.path.stem)
        return await asyncio.get_running_loop().run_in_executor(thread, fn, *args)


def _is_in(path: Path, kept: Path) -> bool:
    """Whether a file has all of the one that it has taken the place of."""
    try:
        return path.exists() and covers([*read_epochs(path), (HERE, read_position(path)[1] + 1)], read_extent(kept))
    except sqlite.Error:
        return False


def _begin(store: Store, epoch: str) -> None:
    store.begin(now_ms(), epoch)
    store.close()
