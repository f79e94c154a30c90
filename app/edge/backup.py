"""Backup: what our Litestream holds: the core while we serve, instances' files while they are open.

What was committed is safe once the replica has it; `ship` waits for that, and a probe asks for it now and then.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import structlog

from app.edge import litestream
from app.edge.clock import now_ms
from app.edge.control import Control, NotReady
from app.edge.daemon import POLL_SECONDS, Daemon
from app.edge.database import Database
from app.edge.litestream import Source
from app.edge.shipping import Shipping
from app.errors import Unavailable
from app.regions import DURABLE_ALL, DURABLE_OFF
from app.settings import Settings

NOTES_FOLDER = "litestream"
PROBE_SECONDS = 3.0
# A question costs a millisecond: of many files, those come first that were asked for longest ago.
PROBE_FILES = 50
START_SECONDS = 10.0

CORE, LEDGER, INSTANCES = "core", "ledger", "instances"
KINDS = (CORE, LEDGER, INSTANCES)

log = structlog.get_logger("backup")


class Kept(NamedTuple):
    """How the files of one kind stand. Those that are `shipped` were wholly in the replica when last asked about."""

    files: int
    age_ms: int
    shipped: bool


class Held:
    """A file that Litestream is to hold. Everything that was committed at `safe_ms` is in the replica; `is_safe` is
    whether the last question about it was answered so."""

    def __init__(self, url: str, users: int = 0) -> None:
        self.url = url
        self.users = users
        self.lock = asyncio.Lock()
        self.safe_ms = now_ms()
        self.is_safe = True
        self.asked_ms = 0


class Backup:
    """Runs Litestream from `start` to `close`; what it holds meanwhile is said with `hold` and `release`."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.url = url
        self.durable_core = settings.durable_ack != DURABLE_OFF
        self.durable_all = settings.durable_ack == DURABLE_ALL
        self._settings = settings
        self._sources = list_sources(settings, url)
        self._control = Control(settings.backup_socket)
        self._daemon = Daemon(settings, self._sources, self._control, self._keep)
        self._shipping = Shipping(self._sync, self._is_safe)
        self._kinds = {_key(settings.database_path): CORE, _key(settings.ledger_path): LEDGER}
        self._held = {_key(source.path): Held(source.url, users=1) for source in self._sources}
        self._checked = False
        self._in_reach = True

    def start(self) -> None:
        """Begin to run it. Serving does not wait for it: who must know that something is safe waits in `ship`."""
        self._daemon.start()

    async def close(self) -> None:
        """Ship the rest and end it."""
        if self.running:
            for path in list(self._held):
                await self._ship_rest(path)
        await self._shipping.close()
        await self._daemon.close()
        await self._control.close()

    @property
    def pid(self) -> int | None:
        """Litestream's, while it runs."""
        return self._daemon.pid

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def up(self) -> bool:
        """Whether it runs, and what it was asked for last came to the replica."""
        return self._checked and self.running and self._in_reach

    @property
    def files(self) -> int:
        return len(self._held)

    @property
    def age_ms(self) -> int | None:
        """How old the backup is: since when it is not known of some file that all of it is in the replica."""
        if not self._checked:
            return None
        return now_ms() - min((held.safe_ms for held in self._held.values()), default=now_ms())

    def look(self) -> dict[str, Kept] | None:
        """Each kind of file that is held here; None until all have been asked about once."""
        if not self._checked:
            return None
        kinds: dict[str, list[Held]] = {}
        for path, held in self._held.items():
            kinds.setdefault(self._kinds.get(path, INSTANCES), []).append(held)
        return {kind: self._describe(kinds[kind]) for kind in KINDS if kind in kinds}

    def _describe(self, files: list[Held]) -> Kept:
        age_ms = now_ms() - min(held.safe_ms for held in files)
        return Kept(len(files), age_ms, self.up and all(held.is_safe for held in files))

    @property
    def owed(self) -> list[Path]:
        """The files of instances that it still holds."""
        return [path for path in self._held if path not in self._kinds]

    def holds(self, path: Path) -> bool:
        """Whether a file is shipped, or something of it is owed still: not all of it may be in the replica."""
        return _key(path) in self._held

    async def hold(self, path: Path, url: str) -> None:
        """Ship a file from now on, also when Litestream is away now: then as soon as it is back."""
        path = _key(path)
        held = self._held.setdefault(path, Held(url))
        held.users += 1
        async with held.lock:
            if held.url != url:
                # The rest of an earlier owner is owed still: this one's replica has a path of its own.
                with suppress(Unavailable):
                    await self._control.unregister(path)
                held.url = url
            elif held.users > 1:
                return
            if self.running:
                await self._register(path, url)

    async def release(self, path: Path) -> None:
        """Ship the rest of a file and let go of it; while the replica is out of reach, as soon as it is back."""
        path = _key(path)
        shipped = await self._ship_rest(path)
        self._held[path].users -= 1
        if shipped:
            await self._let_go(path)

    async def ship(self, path: Path) -> None:
        """Wait until what is committed in a file is in the replica. Unavailable."""
        try:
            await self._shipping.ship(_key(path))
        except Unavailable:
            self._in_reach = False
            if (held := self._held.get(_key(path))) is not None:
                held.is_safe = False
            raise

    def guard(self, db: Database) -> None:
        """Before the core is opened: Litestream checkpoints it, and writes wait for the replica where they shall."""
        if self._sources and db.writer is not None:
            db.writer.checkpoint_pages = 0
            if self.durable_core:
                db.shipped = lambda: self.ship(db.path)

    async def _ship_rest(self, path: Path) -> bool:
        """Whether it is shipped: nobody waits for a replica that was out of reach just now."""
        with suppress(Unavailable):
            if self._in_reach:
                # Of a file that it has not looked at yet, unregister would ship nothing.
                await self.ship(path)
                return True
        log.warning("rest_not_shipped", file=path.name)
        return False

    async def _let_go(self, path: Path) -> None:
        """Unless somebody has taken it again meanwhile."""
        held = self._held.get(path)
        if held is None:
            return
        async with held.lock:
            if held.users or self._held.get(path) is not held:
                return
            with suppress(Unavailable):
                await self._control.unregister(path)
            if not held.users:
                del self._held[path]

    async def _register(self, path: Path, url: str) -> None:
        try:
            if all(path != _key(source.path) for source in self._sources):
                await asyncio.to_thread(litestream.claim_notes, litestream.notes_of(path), url)
            await self._control.register(path, url)
        except Unavailable as error:
            log.warning("not_registered", file=path.name, error=error.message)

    async def _sync(self, path: Path) -> None:
        # One that was left behind would answer too, and may ship somewhere else.
        if not self.running:
            raise NotReady("Litestream is not running")
        await self._control.sync(path)

    def _is_safe(self, path: Path, at_ms: int) -> None:
        self._in_reach = True
        held = self._held.get(path)
        if held is not None:
            held.safe_ms, held.is_safe = at_ms, True

    async def _keep(self) -> None:
        """Have it hold what it is to hold, and ask now and then whether all of that is safe."""
        async with asyncio.timeout(START_SECONDS):
            await self._until_it_answers()
        for path, held in list(self._held.items()):
            await self._register(path, held.url)
        while True:
            await self._take_new_sources()
            await self._probe()
            await asyncio.sleep(PROBE_SECONDS)

    async def _take_new_sources(self) -> None:
        """The ledger begins while we serve."""
        for source in list_sources(self._settings, self.url):
            path = _key(source.path)
            if path not in self._held:
                self._held[path] = Held(source.url, users=1)
                await self._register(path, source.url)

    async def _until_it_answers(self) -> None:
        while True:
            try:
                await self._control.info()
                return
            except NotReady:
                await asyncio.sleep(POLL_SECONDS)

    async def _probe(self) -> None:
        longest = sorted(self._held.items(), key=lambda item: item[1].asked_ms)[:PROBE_FILES]
        for path, held in longest:
            held.asked_ms = now_ms()
            try:
                await self._ship_if_there(path)
            except Unavailable as error:
                log.warning("not_shipped", file=path.name, error=repr(error.__cause__))
                await self._register(path, held.url)
                return
            if not held.users:
                await self._let_go(path)
        self._checked = True

    async def _ship_if_there(self, path: Path) -> None:
        """What was deleted while its rest was owed has none."""
        if path in self._held and (self._held[path].users or await asyncio.to_thread(path.exists)):
            await self.ship(path)


def begin(settings: Settings) -> Backup | None:
    """The backup that the settings name, with its Litestream on its way; None where they name none."""
    if settings.backup_url is None:
        return None
    backup = Backup(settings, settings.backup_url)
    backup.start()
    return backup


def list_sources(settings: Settings, url: str) -> list[Source]:
    """What is held from the start: at the primary the core, and the ledger where there is one; nothing elsewhere."""
    if settings.regions.replicated and not settings.regions.in_primary_region:
        return []
    notes = settings.data_dir / NOTES_FOLDER
    core = Source(settings.database_path, litestream.replica_of(url, CORE), notes / CORE)
    ledger = Source(settings.ledger_path, litestream.replica_of(url, LEDGER), notes / LEDGER)
    return [core, ledger] if settings.ledger_path.exists() else [core]


def _key(path: Path) -> Path:
    """As Litestream names it."""
    return path.absolute()
