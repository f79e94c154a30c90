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
from app.errors import AppError, Unavailable
from app.identity.principal import Kind, Principal
from app.instances import entry, protocol, queries
from app.instances.answer import answer
from app.instances.audience import Audience
from app.instances.draft import SYSTEM, Caller, Change, Draft, Refusal, State, Told
from app.instances.entry import Entry
from app.instances.mailbox import Ask, Mailbox, Result, Visit
from app.instances.member import Member
from app.instances.protocol import Delete
from app.instances.queries import Actor
from app.instances.resume import Missed, Since, read_missed, retell
from app.instances.store import OPERATION_MS, Commit, Store
from app.projects.access import Level

T = TypeVar("T")

# How soon an expiry is tried again whose commit failed.
EXPIRY_RETRY_MS = 1_000
GOING_AWAY, GOING_AWAY_REASON = 1012, "Going away"
DELETED, DELETED_REASON = 1000, "Instance deleted"
NOT_STORED = "The change was not stored: try again"
CLOCK = Caller(Actor(SYSTEM, "expiry"), SYSTEM, Principal(Kind.OPERATOR, None), Level.OWNER)

log = structlog.get_logger("hub")


class Hub:
    """Open from `start` to `stop`; every reader and writer goes through its mailbox."""

    def __init__(self, instance_id: str, store: Store, thread: ThreadPoolExecutor, *, read_only: bool) -> None:
        self.id = instance_id
        self.audience = Audience()
        self.read_only = read_only
        # Whether webhooks listen, and who is told when the file owes them something.
        self.tells = False
        self.owing: Callable[[Hub], None] = lambda hub: None
        # What a commit waits for before anybody hears of it, and what is done before the file is closed.
        self.shipped: Callable[[], Awaitable[None]] = _nothing
        self.let_go: Callable[[], Awaitable[None]] = _nothing
        self.epoch = ""
        self.told_from = 1
        self.users = 0
        self._state = State({}, 0, 0)
        # No entry expires before this; None while none does.
        self._expires_at_ms: int | None = None
        self._store = store
        self._thread = thread
        self._mailbox = Mailbox()
        self._task: asyncio.Task[None] | None = None

    @property
    def seq(self) -> int:
        return self._state.seq

    @property
    def idle(self) -> bool:
        """Whether it may be closed: nobody is connected, nobody is being served."""
        return not self.audience.members and not self.users and not self._mailbox

    async def start(self) -> None:
        loaded = await self.on_thread(self._store.open, now_ms())
        size = sum(map(entry.size, loaded.entries.values()))
        self._state = State(loaded.entries, loaded.seq, size)
        self.epoch, self.told_from = loaded.epoch, loaded.told_from
        self._expires_at_ms = self._next_expiry()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finish what is in the mailbox, then close the file."""
        if self._task is not None:
            last = self._put_visit(_nothing)
            self._mailbox.close()
            await last
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.let_go()
        await self.on_thread(self._store.close)

    async def on_thread(self, fn: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, fn, *args)

    async def read_file(self, fn: Callable[..., T], *args: Any) -> T:
        """Ask the file, off the loop. Unavailable when it cannot be read."""
        return await self._read(self._store.read, fn, *args)

    async def _read(self, fn: Callable[..., T], *args: Any) -> T:
        try:
            return await self.on_thread(fn, *args)
        except sqlite.Error as error:
            raise sqlite.as_app_error(error) from error

    async def copy(self, path: Path) -> None:
        """Write what is committed into another instance's file. Unavailable when that cannot be done now."""
        await self._put_visit(_nothing)
        await self._read(self._store.copy, path, now_ms())

    # -- asked from outside ----------------------------------------------------------------------------

    def post(self, member: Member, changes: Sequence[Change], op_id: str | None) -> None:
        """What a member's frame asks for; it hears of it in frames. Unavailable."""
        self._mailbox.put(Ask(changes, member.caller, member, op_id))

    def refuse(self, member: Member, code: str, message: str, key: str | None, op_id: str | None) -> None:
        """Say why a frame was not understood, behind all that came before it."""
        refusal = Refusal(code, message, key)
        self._mailbox.put(Ask((), member.caller, member, op_id, refusal=refusal))

    async def change(
        self, changes: Sequence[Change], caller: Caller, *, turn_id: str | None = None, op_id: str | None = None
    ) -> Result:
        """All of the changes or none. Refusal, Invalid, TooLarge, Unavailable."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._mailbox.put(Ask(changes, caller, None, op_id, turn_id, future))
        return await future

    async def visit(self, visit: Callable[[], T]) -> T:
        """Run `visit` when everything before it is committed."""

        async def run() -> T:
            return visit()

        return await self._put_visit(run)

    def _put_visit(self, visit: Callable[[], Awaitable[T]]) -> "asyncio.Future[T]":
        """The same for one that waits; nothing is changed meanwhile."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._mailbox.put(Visit(visit, future))
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
            missed = await self._read(read_missed, self._store, since, self._state.seq, self.epoch, self.told_from)
        await self._put_visit(lambda: self._greet(member, missed))

    async def _greet(self, member: Member, missed: Missed) -> None:
        state, caller, lines = self._state, member.caller, missed.lines
        if lines is not None and missed.until < state.seq:
            # Committed while the file was read; nothing more is until the member hears of it by itself.
            lines = lines + await self.read_file(queries.list_told_since, missed.until, state.seq - missed.until)
        member.send(protocol.auth_success(self.id, caller.public_id, caller.level.permission, state.seq, self.epoch))
        if lines is not None:
            member.socket.write_joined([payload for line in lines if (payload := retell(line, member))])
        else:
            member.send(protocol.sync(filter(member.wants, state.entries.values()), self.id, state.seq, missed.reason))
        self.audience.enter(member)

    # -- the actor -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._until_expiry()):
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
        due = self._expires_at_ms is not None and self._expires_at_ms <= now
        asks = [self._expiry(now), *asks] if due else asks
        retry_at = 0
        try:
            told, outcomes = await self._change(asks, now)
        except Exception as error:
            known = isinstance(error, (sqlite.Error, OSError, Unavailable))
            log.warning("commit_failed", instance=self.id, error=str(error), exc_info=not known)
            retry_at = now + EXPIRY_RETRY_MS
            failure = error if isinstance(error, Unavailable) else Unavailable(NOT_STORED)
            told, outcomes = [], [ask.refusal or failure for ask in asks]
        if due:
            self._expires_at_ms = self._next_expiry(retry_at)
        self.audience.hear(told)
        for ask, outcome in zip(asks, outcomes, strict=True):
            self._answer(ask, outcome, now)

    async def _change(self, asks: list[Ask], now: int) -> tuple[list[Told], list[Result | AppError]]:
        """All that is asked in one commit: what is to be told of it, and what became of each."""
        applied = await self._applied(asks, now)
        draft = Draft(self._state, now, read_only=self.read_only, tells=self.tells)
        operations: dict[tuple[str, str], int] = {}
        outcomes: list[Result | AppError] = []
        for ask in asks:
            outcome = self._apply(draft, ask, applied)
            outcomes.append(outcome)
            name = ask.caller.principal, ask.op_id or ""
            if ask.op_id is not None and isinstance(outcome, Result) and name not in applied:
                operations[name] = applied[name] = outcome.seq
        if draft.told or operations:
            await self._commit(draft, operations, now)
        return draft.told, outcomes

    async def _applied(self, asks: list[Ask], now: int) -> dict[tuple[str, str], int]:
        """Which of the named operations were applied before, and the seq of each."""
        named = {(ask.caller.principal, ask.op_id) for ask in asks if ask.op_id is not None}
        if not named:
            return {}
        return await self.on_thread(self._store.read, queries.find_operations, sorted(named), now - OPERATION_MS)

    def _apply(self, draft: Draft, ask: Ask, applied: dict[tuple[str, str], int]) -> Result | AppError:
        if ask.op_id is not None and ask.refusal is None:
            before = applied.get((ask.caller.principal, ask.op_id))
            if before is not None:
                return Result(before, 0)
        if ask.refusal is not None:
            return ask.refusal
        sender = ask.member.id if ask.member is not None else None
        try:
            changed = draft.apply(ask.changes, ask.caller, sender=sender, op_id=ask.op_id, turn_id=ask.turn_id)
        except AppError as error:
            return error
        return Result(draft.seq, changed)

    async def _commit(self, draft: Draft, operations: dict[tuple[str, str], int], now: int) -> None:
        commit = Commit(
            [told.record for told in draft.told],
            [(principal, op_id, seq) for (principal, op_id), seq in operations.items()],
            draft.events,
            draft.seq,
            now,
        )
        self.told_from = await self.on_thread(self._store.write, commit)
        await self.shipped()
        self._state = draft.state()
        expiries = [one.record.entry.expires_at_ms for one in draft.told if one.record.entry is not None]
        self._expires_at_ms = min((at for at in (*expiries, self._expires_at_ms) if at is not None), default=None)
        if draft.events:
            self.owing(self)

    def _answer(self, ask: Ask, outcome: Result | AppError, now: int) -> None:
        if ask.member is not None:
            answer(ask.member, ask, outcome, self._state, now)
        elif ask.future is not None and not ask.future.done():
            if isinstance(outcome, AppError):
                ask.future.set_exception(outcome)
            else:
                ask.future.set_result(outcome)

    # -- expiry ----------------------------------------------------------------------------------------

    def _until_expiry(self) -> float | None:
        """Seconds until the next entry may expire; None while none does."""
        return None if self._expires_at_ms is None else max(0.0, (self._expires_at_ms - now_ms()) / 1000)

    def _next_expiry(self, least: int = 0) -> int | None:
        """When the next entry expires, and not before `least`."""
        held = self._state.entries.values()
        soonest = min((one.expires_at_ms for one in held if one.expires_at_ms is not None), default=None)
        return None if soonest is None else max(soonest, least)

    def _expiry(self, now: int) -> Ask:
        return Ask([Delete(held.key) for held in self._state.entries.values() if entry.is_expired(held, now)], CLOCK)


async def _nothing() -> None:
    return
