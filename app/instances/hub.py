"""The hub: the one actor that owns an instance. Its mailbox is the order of everything.

What has gathered is computed beside the state and committed at once; state, seq and broadcast move only after
that. A commit that fails changes nothing that anybody can see.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import structlog

from app.edge import sqlite
from app.edge.clock import now_ms
from app.edge.lease import Fenced
from app.errors import AppError, Unavailable
from app.instances import entry, expiry, queries
from app.instances.answer import answer
from app.instances.audience import Audience
from app.instances.backlog import Backlog
from app.instances.doubts import Doubts, Look
from app.instances.draft import Change, Draft, Refusal, State, Told
from app.instances.entry import Entry
from app.instances.greeting import greet
from app.instances.mailbox import Ask, Mailbox, Result, Visit, Work, size_of
from app.instances.member import Member
from app.instances.queries import Operation
from app.instances.resume import Missed, Since, read_missed
from app.instances.snapshot import Snapshots
from app.instances.store import OPERATION_MS, Commit, Store
from app.instances.turn import Outcome, apply_all, named_in

T = TypeVar("T")

NOT_STORED = "The change was not stored: try again"

log = structlog.get_logger("hub")


class Hub:
    """Open from `start` to `stop`; every reader and writer goes through its mailbox."""

    def __init__(
        self,
        instance_id: str,
        store: Store,
        thread: ThreadPoolExecutor,
        *,
        read_only: bool,
        backlog: Backlog | None = None,
        look: Look | None = None,
    ) -> None:
        self.id = instance_id
        self.backlog = backlog or Backlog()
        self.audience = Audience()
        self.read_only = read_only
        # Whether webhooks listen, and who is told when the file owes them something.
        self.tells = False
        self.owing: Callable[[Hub], None] = lambda hub: None
        # Told when its state may not be the file's any more: it has to be opened anew.
        self.broken: Callable[[Hub], None] = lambda hub: None
        # What a commit waits for before anybody hears of it, and what is done before the file is closed.
        self.shipped: Callable[[], Awaitable[None]] = _nothing
        self.let_go: Callable[[], Awaitable[None]] = _nothing
        # Fenced where this machine may acknowledge nothing of the instance any more.
        self.check: Callable[[], None] = lambda: None
        self.epoch, self.told_from = "", 1
        self.users = 0
        self._state = State({}, 0, 0)
        self._expiry = expiry.Expiry()
        self._store, self._thread = store, thread
        self._mailbox = Mailbox()
        self._doubts = Doubts(look, self._decide_anew, self.backlog)
        self._snapshots = Snapshots(instance_id)
        self._task: asyncio.Task[None] | None = None

    @property
    def seq(self) -> int:
        return self._state.seq

    @property
    def idle(self) -> bool:
        """Whether it may be closed: nobody is connected, nobody is being served."""
        return not self.audience.members and not self.users and not self._mailbox

    async def start(self, epoch: str | None = None) -> None:
        """Open the file, under the epoch of a new owner where one is given."""
        loaded = await self.on_thread(self._store.open, now_ms(), epoch)
        self._state = State(loaded.entries, loaded.seq, loaded.bytes)
        self.epoch, self.told_from = loaded.epoch, loaded.told_from
        self._expiry.begin(loaded.entries.values())
        self._task = asyncio.create_task(self._run())

    async def stop(self, why: Callable[[], AppError]) -> None:
        """Finish what is in the mailbox, then close the file. Who still asks is told `why`."""
        if self._task is not None:
            last: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._mailbox.close(why, Visit(_nothing, last))
            await last
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._doubts.close()
        await self.let_go()
        await self.on_thread(self._store.close)

    async def on_thread(self, fn: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, fn, *args)

    async def read_file(self, fn: Callable[..., T], *args: Any) -> T:
        """Ask the file, off the loop. Unavailable when it cannot be read."""
        return await self._read(self._store.read, fn, *args)

    async def _read(self, fn: Callable[..., T], *args: Any) -> T:
        # Read later, a file that was deleted would be made anew.
        self._mailbox.check_open()
        try:
            found = await self.on_thread(fn, *args)
        except sqlite.Error as error:
            raise sqlite.as_app_error(error) from error
        self.check()
        return found

    async def copy(self, path: Path) -> None:
        """Write what is committed into another instance's file. Unavailable when that cannot be done now."""
        await self._put_visit(_nothing)
        await self._read(self._store.copy, path, now_ms())

    # -- asked from outside ----------------------------------------------------------------------------

    def post(self, member: Member, changes: Sequence[Change], op_id: str | None, size: int = 0) -> None:
        """What a member's frame of `size` asks for; it hears of it in frames. Unavailable."""
        self._put(Ask(changes, member.caller, member, op_id, size=size))

    def refuse(self, member: Member, code: str, message: str, key: str | None, op_id: str | None) -> None:
        """Say why a frame was not understood, behind all that came before it."""
        refusal = Refusal(code, message, key)
        self._put(Ask((), member.caller, member, op_id, refusal=refusal))

    async def change(self, ask: Ask) -> Result:
        """All of the changes or none. Refusal, Invalid, TooLarge, Unavailable."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._put(ask._replace(future=future, size=size_of(ask.changes)))
        return await future

    async def alone(self, work: Work[T]) -> T:
        """Run `work` on all that is committed; nothing but what it makes is changed meanwhile."""

        async def run() -> T:
            await self._turn([])
            self.check()
            return await work(self._state.entries, self._change_alone)

        return await self._put_visit(run)

    async def _change_alone(self, ask: Ask) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        await self._turn([ask._replace(future=future)])
        return await future

    def _put(self, ask: Ask) -> None:
        self._mailbox.put(ask)
        self.backlog.take(ask.size)

    async def visit(self, visit: Callable[[], T]) -> T:
        """Run `visit` when everything before it is committed."""

        async def run() -> T:
            self.check()
            return visit()

        return await self._put_visit(run)

    def _put_visit(self, visit: Callable[[], Awaitable[T]], *, counted: bool = True) -> "asyncio.Future[T]":
        """The same for one that waits; nothing is changed meanwhile."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._mailbox.put(Visit(visit, future), counted=counted)
        return future

    async def entries(self) -> tuple[list[Entry], int]:
        """Everything as it is committed, in order, and the seq."""
        return await self.visit(lambda: (entry.sort(self._state.entries.values()), self._state.seq))

    async def find(self, key: str) -> Entry | None:
        return await self.visit(lambda: self._state.entries.get(key))

    # -- members ---------------------------------------------------------------------------------------

    async def join(self, member: Member, since: Since | None) -> None:
        """Greet a member, give it what it missed or everything, and let it hear what comes."""
        missed = Missed(None)
        if since is not None:
            missed = await self._find_missed(since)
        await self._put_visit(lambda: self._greet(member, missed))

    async def _greet(self, member: Member, missed: Missed) -> None:
        self.check()
        state = self._state
        if missed.lines is not None and missed.until < state.seq:
            # Committed while the file was read; nothing more is until the member hears of it by itself.
            missed = missed.with_rest(await self._find_missed(Since(missed.until, None)))
        greet(member, missed, self.id, self.epoch, state, self._snapshots)
        self.audience.enter(member)

    async def _find_missed(self, since: Since) -> Missed:
        return await self._read(read_missed, self._store, since, self._state.seq, self.epoch, self.told_from)

    # -- the actor -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._expiry.seconds_from(now_ms())):
                    await self._mailbox.wait()
            except TimeoutError:
                await self._turn([])
            while self._mailbox:
                asks = self._mailbox.take_asks()
                if asks:
                    await self._turn(asks)
                else:
                    await self._receive(self._mailbox.take_visit())

    async def _receive(self, visit: Visit) -> None:
        try:
            value = await visit.visit()
        except Exception as error:  # noqa: BLE001 - one visitor's failure is that visitor's answer
            if not visit.future.done():
                visit.future.set_exception(error)
            return
        if not visit.future.done():
            visit.future.set_result(value)

    async def _turn(self, asks: list[Ask]) -> None:
        """What has expired goes first, so that nobody's change is computed over it."""
        now = now_ms()
        due = self._expiry.is_due(now)
        asks = [expiry.deletion_of_expired(self._state.entries.values(), now), *asks] if due else asks
        retry_at = 0
        try:
            told, outcomes = await self._change(asks, now)
        except Exception as error:
            known = isinstance(error, (sqlite.Error, OSError, AppError))
            log.warning("commit_failed", instance=self.id, error=str(error), exc_info=not known)
            retry_at = now + expiry.RETRY_MS
            failure = error if isinstance(error, Unavailable) else Unavailable(NOT_STORED)
            told, outcomes = [], [ask.refusal or failure for ask in asks]
            if isinstance(error, Fenced):
                self._store.abandon()
            if self._store.abandoned:
                self.broken(self)
        if due:
            self._expiry.begin(self._state.entries.values(), retry_at)
        self.audience.hear(told)
        for ask, outcome in zip(asks, outcomes, strict=True):
            if outcome is None:
                self._doubts.hold(ask)
            else:
                answer(ask, outcome, None if self._store.abandoned else self._state, now)
        self.backlog.give_back(sum(ask.size for ask, outcome in zip(asks, outcomes, strict=True) if outcome))

    async def _decide_anew(self, member_id: str, seen: int) -> None:
        await self._put_visit(lambda: self._turn(self._doubts.take(member_id, seen)), counted=False)

    async def _change(self, asks: list[Ask], now: int) -> tuple[list[Told], list[Outcome]]:
        """All that is asked in one commit: what is to be told of it, and what became of each."""
        self._store.require()
        named, before = named_in(asks), dict[tuple[str, str], int]()
        if named:
            since = now - OPERATION_MS
            before = await self.on_thread(self._store.read, queries.find_operations, named, since)
        draft = Draft(self._state, now, read_only=self.read_only, tells=self.tells)
        outcomes, operations = apply_all(draft, asks, before, self._doubts.members)
        self.check()
        if draft.told or operations:
            await self._commit(draft, operations, now)
        return draft.told, outcomes

    async def _commit(self, draft: Draft, operations: list[Operation], now: int) -> None:
        commit = Commit([told.record for told in draft.told], operations, draft.events, draft.seq, now)
        self.told_from = await self.on_thread(self._store.write, commit)
        try:
            await self.shipped()
            self.check()
        except Unavailable:
            # The file is ahead of the state, over which nothing may be computed any more.
            self._store.abandon()
            raise
        self._state = draft.state()
        self._expiry.add(told.record.entry for told in draft.told)
        if draft.events:
            self.owing(self)


async def _nothing() -> None:
    return
