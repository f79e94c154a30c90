"""Reviews: what members may do is asked again whenever it may have changed, also by the mere passing of time."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

import structlog

from app.edge.changes import Changes
from app.edge.clock import now_ms
from app.edge.database import Database
from app.errors import AppError
from app.identity import api_keys, queries, users
from app.identity.principal import Principal
from app.instances.endings import DELETED, DELETED_REASON
from app.instances.hub import Hub
from app.instances.member import Member
from app.projects import access, access_queries
from app.projects.access import Access, Level
from app.projects.access_queries import Instance

REVOKED, REVOKED_REASON = 4403, "Access revoked"
RETRY_SECONDS = 0.2
SETTLE_SECONDS = 1.0
# So many in a row; then others get the loop.
MEMBERS_IN_A_ROW = 20
# Ends that are closer together than this are one.
END_MS = 100
# The longest wait for an end: by then the clock may have been set.
LOOK_AGAIN_SECONDS = 60.0

log = structlog.get_logger("reviews")

# What has changed, as the feed says it: topic and key.
Cause = tuple[str, str]


class Reviews:
    """One review runs at a time; whatever is announced meanwhile leads to one more."""

    def __init__(self, db: Database, hubs: Callable[[], Iterable[Hub]]) -> None:
        self._db = db
        self._hubs = hubs
        self._causes: set[Cause] = set()
        self._running: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        # Of two reads the one that began first may end last: what is held to must be what was read last.
        self._asking = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None

    def listen(self, changes: Changes) -> None:
        for topic in (access.TOPIC, users.TOPIC, api_keys.TOPIC):
            changes.listen(topic, partial(self._ask, topic))

    async def review(self, hub: Hub, member: Member) -> None:
        """Ask again what a member may do: it is held to that in place, or closed. Unavailable."""
        async with self._asking:
            found = await self._db.read(access.level_of, member.caller.asked, hub.id, now_ms())
            self._hold_to(member, found)

    async def review_hub(self, hub: Hub) -> Instance | None:
        """Ask again whether an instance is read-only; its row, None where it is deleted. Unavailable."""
        async with self._asking:
            row = await self._db.read(access_queries.find_instance, hub.id)
            hub.read_only = row is None or row.is_readonly
        return row

    async def settle(self) -> None:
        """Until what was announced has reached the members, for at most SETTLE_SECONDS."""
        if self._running is not None:
            await asyncio.wait([self._running], timeout=SETTLE_SECONDS)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._running, self._ending):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    def _ask(self, topic: str, key: str) -> None:
        self._causes.add((topic, key))
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._causes:
            causes, self._causes = self._causes, set()
            try:
                await self._review_all(causes)
            except AppError as error:
                log.warning("access_not_reviewed", error=error.message)
                self._causes |= causes
                await asyncio.sleep(RETRY_SECONDS)

    async def _review_all(self, causes: set[Cause]) -> None:
        everybody = any([await self._concerns_everybody(cause) for cause in causes])
        for hub in list(self._hubs()):
            row = await self.review_hub(hub)
            places = set() if row is None else {_cause("instance", hub.id), _cause("project", row.project_id)}
            whole = everybody or row is None or not causes.isdisjoint(places)
            for number, member in enumerate(list(hub.audience.members.values()), 1):
                if whole or not causes.isdisjoint(_causes_of(member.caller.asked)):
                    await self.review(hub, member)
                if number % MEMBERS_IN_A_ROW == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def _concerns_everybody(self, cause: Cause) -> bool:
        """Whether others than its own principals may depend on it: a user who is gone took groups and shares along."""
        topic, key = cause
        if topic == users.TOPIC:
            return await self._db.read(queries.find_account, key) is None
        return topic == access.TOPIC and key.partition(":")[0] not in ("instance", "project", "user", "delegate")

    def _hold_to(self, member: Member, found: Access) -> None:
        level = min(found.level, member.cap)
        member.until_ms = found.until_ms
        if found.instance is None:
            # It joined while its instance was deleted, too late to be told with the others.
            member.socket.close(DELETED, DELETED_REASON)
            return
        if level < Level.READ:
            member.socket.close(REVOKED, REVOKED_REASON)
            return
        if level != member.caller.level:
            member.caller = member.caller._replace(level=level)
        if found.until_ms is not None:
            self._wake_at(found.until_ms)

    # -- what ends by itself ---------------------------------------------------------------------------

    def _wake_at(self, until_ms: int) -> None:
        """One timer for all: the soonest end."""
        loop = asyncio.get_running_loop()
        wait = min(max(0.0, (until_ms - now_ms()) / 1000), LOOK_AGAIN_SECONDS)
        if self._timer is not None:
            if self._timer.when() <= loop.time() + wait:
                return
            self._timer.cancel()
        self._timer = loop.call_later(wait, self._end)

    def _end(self) -> None:
        self._timer = None
        self._ending = asyncio.get_running_loop().create_task(self._review_ended())

    async def _review_ended(self) -> None:
        """Review whose time is over, and wait for the next."""
        now = now_ms()
        try:
            for hub, member in self._list_ending():
                if member.until_ms is not None and member.until_ms <= now:
                    await self.review(hub, member)
        except AppError as error:
            log.warning("access_not_reviewed", error=error.message)
        ends = [member.until_ms for _, member in self._list_ending() if member.until_ms is not None]
        if ends:
            self._wake_at(max(min(ends), now + END_MS))

    def _list_ending(self) -> list[tuple[Hub, Member]]:
        """Members whose access ends by itself, and who are not being closed."""
        return [
            (hub, member)
            for hub in self._hubs()
            for member in hub.audience.members.values()
            if member.until_ms is not None and member.socket.is_open
        ]


def _cause(kind: str, key: str) -> Cause:
    """A cause under the topic of access."""
    return access.TOPIC, f"{kind}:{key}"


def _causes_of(principal: Principal) -> list[Cause]:
    """What the feed says when something changes on which this principal's access rests."""
    account, key, delegate = principal.account, principal.key, principal.delegate
    causes = [(api_keys.TOPIC, key.id)] if key is not None else []
    if delegate is not None:
        causes.append(_cause("delegate", delegate.id))
    for holder in (account, key, delegate):
        if holder is not None:
            causes += [(users.TOPIC, holder.user_id), _cause("user", holder.user_id)]
    return causes
