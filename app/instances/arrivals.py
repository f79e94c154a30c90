"""Arrivals: how the file of an instance comes to its home, and under whose epoch it is there.

What lies here and is of this home's epoch, or of the one before it, is the instance. Anything older is a leftover of
this machine's, which is set aside: the instance then comes from the machine that handed it over, or from the replica.
Where it is nowhere, only the first home of all may begin with nothing.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import structlog

from app.edge import restoration
from app.edge.backup import Backup
from app.edge.clock import now_ms
from app.edge.homes import Home, number_of
from app.edge.keeper import Keeper
from app.edge.litestream import NoCopy
from app.edge.peers import Peers
from app.edge.placement import Destination
from app.errors import AppError, Internal, Unavailable
from app.instances.parcels import Parcels
from app.instances.restoration import continues, fetch, list_copies, read_position
from app.instances.store import Store, Stores

T = TypeVar("T")

LEFT = "/peer/left"

log = structlog.get_logger("arrivals")


class Arrived(NamedTuple):
    """A home whose file is here; `check` raises Fenced once it is this machine's no longer."""

    home: Home
    check: Callable[[], None]


class Arrivals:
    """One for a machine that is one of several."""

    def __init__(self, keeper: Keeper, peers: Peers, stores: Stores, backup: Backup | None) -> None:
        self._keeper = keeper
        self._peers = peers
        self._stores = stores
        self._url = backup.url if backup is not None else None
        self.parcels = Parcels(stores.folder, peers)
        peers.answers[LEFT] = self._give

    async def bring(self, instance_id: str) -> Arrived:
        """Have the file of an instance here that may be opened. NotFound; Unavailable where it is not this machine's,
        or cannot be had now."""
        home = await self._keeper.require(instance_id)
        check = self._keeper.guard(home)
        store = self._stores.store(instance_id)
        held = await self._epoch_here(store)
        if held != home.epoch:
            home = await self._pass_known_epochs(home, held)
            # A guard made now is of the session that there is now, and the home was found in this one.
            check()
            check = self._keeper.guard(home)
            if held is None or number_of(held) != home.number - 1:
                await self._replace(home, store, held)
        check()
        return Arrived(home, check)

    async def _epoch_here(self, store: Store) -> str | None:
        """The newest epoch of the file here; None where there is no file."""
        if not store.path.exists():
            return None
        epoch, _ = await self._on_thread(store, read_position, store.path)
        return epoch or ""

    async def _pass_known_epochs(self, home: Home, held: str | None) -> Home:
        """A core that was restored may give a number once more that a file or the replica knows already."""
        known = {held} if held else set()
        if self._url is not None:
            known |= set(await asyncio.to_thread(list_copies, self._url, home.name))
        newest = max((number_of(epoch) for epoch in known if epoch != home.epoch), default=0)
        return home if newest < home.number else await self._keeper.raise_number(home, newest + 1)

    async def _replace(self, home: Home, store: Store, held: str | None) -> None:
        """Put the newest state that is to be had in the place of what is here."""
        fresh = store.path.with_name(f"{store.path.name}.arriving")
        try:
            found = await self._fetch(home, fresh)
        except (AppError, OSError):
            await asyncio.to_thread(restoration.remove, fresh)
            raise
        if found:
            kept = await self._on_thread(store, _put, fresh, store.path)
        else:
            kept = await self._on_thread(store, restoration.set_aside, store.path, now_ms())
        if kept is not None:
            log.warning("set_aside", instance=home.name, epoch=held, file=kept.name)

    async def _fetch(self, home: Home, fresh: Path) -> bool:
        """Whether there is a state of before; False for what is new."""
        if home.source is not None and home.source != home.machine:
            peer = self._peers.at(Destination("", home.source))
            await self.parcels.fetch(peer, LEFT, home.name, fresh)
            return True
        try:
            if self._url is None:
                raise NoCopy("There is no backup")
            await asyncio.to_thread(fetch, self._url, home.name, fresh)
        except NoCopy as error:
            if home.number > 1 and not await self._find_left(home, fresh):
                raise Unavailable("The newest state of this instance is on a machine that is away") from error
            return home.number > 1
        except Internal as error:
            raise Unavailable(error.message) from error
        return True

    async def _find_left(self, home: Home, fresh: Path) -> bool:
        """Whether a machine that is alive has what the home before this left, of which nothing was shipped."""
        for machine in await self._keeper.list_others():
            with suppress(Unavailable):
                await self.parcels.fetch(
                    self._peers.at(Destination(machine.region, machine.machine)), LEFT, home.name, fresh
                )
                epoch, _ = await asyncio.to_thread(read_position, fresh)
                if number_of(epoch or "") == home.number - 1:
                    return True
        return False

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


def _put(fresh: Path, path: Path) -> Path | None:
    """Move a file into its place. What was there is kept, and named, when it has something that the new one has not."""
    needless = path.exists() and continues(fresh, path)
    kept = restoration.put(fresh, path, now_ms())
    if kept is not None and needless:
        restoration.remove(kept)
        return None
    return kept
