"""Reviews: access that ends by itself, reviews that are few, and a revocation under load."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from app.edge.changes import announce
from app.edge.clock import now_ms
from app.edge.database import Database, Transaction
from app.edge.limiter import Rate
from app.identity import api_keys, queries, users
from app.identity.ids import new_id
from app.identity.principal import Account, Kind, Principal
from app.instances.reviews import MEMBERS_IN_A_ROW
from app.projects import access, access_queries, group_queries, instances, share_queries
from app.projects.share_queries import Place, Target
from tests.instances.conftest import in_background, joined, turned_away
from tests.instances.live import OPERATOR, Live, LivePeer, held, live
from tests.projects.conftest import Cast, Person, add_person, delegate
from tests.waiting import comes

ENDS_MS = 1_200
WITHIN_SECONDS = 1.0
REVOKED = (4403, "Access revoked")
ANNOUNCED = 500
MEMBERS = 3 * MEMBERS_IN_A_ROW


def closes_at(strict: Cast, room: str, headers: dict[str, str], ends_ms: int) -> None:
    with joined(strict.server, room, headers) as peer:
        peer.say("ping")
        assert peer.hear() == {"type": "pong"}
        assert now_ms() < ends_ms
        assert peer.closed() == REVOKED
        assert 0 <= now_ms() - ends_ms < WITHIN_SECONDS * 1000
    assert turned_away(strict.server, room, headers)[0] in (401, 403)


def test_a_grant_that_expires_closes_its_sockets(strict: Cast, alice: Person, room: str) -> None:
    machine, ends_ms = delegate(strict, alice, can_read=True, can_write=True), now_ms() + ENDS_MS
    text = datetime.fromtimestamp(ends_ms / 1000, UTC).isoformat()
    wanted = {"instanceId": room, "permission": "write", "expiresAt": text}
    strict.make(alice, f"/api/delegates/{machine.id}/grants", wanted)
    closes_at(strict, room, machine.headers, ends_ms)


def test_a_key_that_expires_closes_its_sockets(strict: Cast, alice: Person, room: str) -> None:
    key, ends_ms = strict.key(alice, "read", "write"), now_ms() + ENDS_MS
    strict.beside(queries.update_key_expiry, key.id, ends_ms, now_ms())
    closes_at(strict, room, {"Authorization": f"Bearer {key.headers['X-API-Key']}"}, ends_ms)


def test_an_end_that_is_set_while_a_socket_is_open_holds_for_it(strict: Cast, alice: Person, room: str) -> None:
    key = strict.key(alice, "read", "write")

    def expire(tx: Transaction, at: int) -> None:
        announce(tx, api_keys.TOPIC, key.id)
        queries.update_key_expiry(tx, key.id, at, now_ms())

    with joined(strict.server, room, {"Authorization": f"Bearer {key.headers['X-API-Key']}"}) as peer:
        ends_ms = now_ms() + ENDS_MS
        strict.beside(expire, ends_ms)
        assert peer.closed() == REVOKED
        assert 0 <= now_ms() - ends_ms < WITHIN_SECONDS * 1000


def test_the_later_of_two_ends_comes_too(strict: Cast, alice: Person, room: str) -> None:
    keys = [strict.key(alice, "read") for _ in range(2)]
    ends = [now_ms() + ENDS_MS, now_ms() + 2 * ENDS_MS]
    for key, at in zip(keys, ends, strict=True):
        strict.beside(queries.update_key_expiry, key.id, at, now_ms())
    first, later = ({"Authorization": f"Bearer {key.headers['X-API-Key']}"} for key in keys)
    with joined(strict.server, room, later) as peer:
        closes_at(strict, room, first, ends[0])
        peer.say("ping")
        assert peer.hear() == {"type": "pong"}
        assert peer.closed() == REVOKED
        assert 0 <= now_ms() - ends[1] < WITHIN_SECONDS * 1000


def test_a_revocation_is_felt_within_a_second_under_load(strict: Cast, alice: Person, bob: Person, room: str) -> None:
    share, done = strict.share(alice, f"instances/{room}", "write", bob)["id"], threading.Event()
    carol = strict.person()

    def write(headers: dict[str, str]) -> None:
        with suppress(ConnectionClosed), joined(strict.server, room, headers, echo=0) as peer:
            for number in range(1_000_000):
                peer.say("set", key=f"k{number % 50}", value=number)
                if number % 100 == 0:
                    peer.settle()
                if done.is_set():
                    return

    def announce_others() -> None:
        while not done.is_set():
            other = strict.share(alice, f"instances/{room}", "read", carol)["id"]
            strict.call(alice, "DELETE", f"/api/shares/{other}").raise_for_status()

    threads = [in_background(write, alice.headers) for _ in range(2)] + [in_background(announce_others)]
    try:
        with joined(strict.server, room, bob.headers, prefix="none") as peer:
            for _ in range(3):
                peer.settle()
            strict.client.request("DELETE", f"/api/shares/{share}", headers=alice.headers).raise_for_status()
            began = time.monotonic()
            assert peer.closed() == REVOKED
            assert time.monotonic() - began < WITHIN_SECONDS
    finally:
        done.set()
        for thread in threads:
            thread.join(20)


class Counting(Database):
    """Counts what is read of access."""

    reads = 0

    async def read(self, fn: Callable[..., Any], *args: Any) -> Any:
        self.reads += fn is access.level_of
        return await super().read(fn, *args)


def user(number: int) -> Principal:
    return Principal(Kind.USER, Account(f"usr_{number}", f"user_{number}", False, Rate(0, 0)))


async def shared(served: Live, room: str, people: int) -> dict[str, str]:
    """People with a share each; the ids of these by the person's."""
    made = {}
    for number in range(people):
        person = Person(f"usr_{number}", f"user_{number}", f"{number}@example.com", {})
        await served.db.write(add_person, person)
        made[person.id] = new_id("shr")
        place, target = Place(None, room), Target("user", person.id)
        await served.db.write(share_queries.insert_share, made[person.id], place, target, "write", now_ms())
    return made


async def ends(peer: LivePeer) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed):
        while True:
            await peer.hear()
    return peer.socket.close_code or 0, peer.socket.close_reason or ""


def announce_all(tx: Transaction, causes: list[tuple[str, str]]) -> None:
    for topic, key in causes:
        announce(tx, topic, key)


@pytest.mark.anyio
async def test_only_those_whom_a_change_concerns_are_reviewed(tmp_path: Path) -> None:
    async with live(tmp_path, Counting) as served, AsyncExitStack() as stack:
        room, other_room = await served.make("room"), await served.make("other")
        await shared(served, room, MEMBERS)
        for number in range(MEMBERS):
            await stack.enter_async_context(served.joined(room, user(number)))
        await stack.enter_async_context(served.joined(other_room))
        instance = await served.db.read(access_queries.find_instance, room)
        assert instance is not None
        for cause, reviewed in (
            ((users.TOPIC, "usr_1"), 1),
            ((access.TOPIC, "user:usr_2"), 1),
            ((access.TOPIC, "instance:room"), MEMBERS),
            ((access.TOPIC, "instance:other"), 1),
            ((access.TOPIC, f"project:{instance.project_id}"), MEMBERS + 1),
            ((api_keys.TOPIC, "key_of_nobody"), 0),
            ((access.TOPIC, "delegate:of_nobody"), 0),
            ((access.TOPIC, "of a kind that is new"), MEMBERS + 1),
            ((users.TOPIC, "usr_who_is_gone"), MEMBERS + 1),
        ):
            before = served.db.reads
            await served.db.write(announce_all, [cause])
            await reviewed_all(served)
            assert (cause, served.db.reads - before) == (cause, reviewed)


@pytest.mark.anyio
async def test_what_is_made_read_only_while_it_is_opened_is_read_only(tmp_path: Path) -> None:
    """A file that comes from afar takes a while, and who may write would go on writing for as long as it is open."""
    async with live(tmp_path) as served:
        room = await served.make("room")
        thread = served.hubs._stores.thread_of(room)
        async with held(thread):
            opening = asyncio.create_task(served.hubs.open(room))
            await comes(lambda: thread._work_queue.qsize() == 1)
            form = instances.InstanceChange(is_readonly=True)
            await served.db.write(instances.change, OPERATOR, room, form, now_ms())
            await reviewed_all(served)
        assert (await opening).read_only


async def reviewed_all(served: Live) -> None:
    reviews = served.hubs.reviews
    await comes(lambda: reviews._running is None or reviews._running.done())


@pytest.mark.anyio
async def test_changes_that_come_while_a_review_runs_lead_to_one_more(tmp_path: Path) -> None:
    async with live(tmp_path, Counting) as served, AsyncExitStack() as stack:
        room = await served.make("room")
        shares = await shared(served, room, MEMBERS)
        peers = [await stack.enter_async_context(served.joined(room, user(number))) for number in range(MEMBERS)]
        before, cause = served.db.reads, (access.TOPIC, f"instance:{room}")
        await served.db.write(announce_all, [cause] * ANNOUNCED)
        await reviewed_all(served)
        assert MEMBERS <= served.db.reads - before <= 2 * MEMBERS
        before = served.db.reads
        served.hubs.reviews._ask(*cause)
        await asyncio.sleep(0)
        assert 0 < served.db.reads - before < MEMBERS
        await served.db.write(end_share, shares["usr_0"], cause)
        assert await ends(peers[0]) == REVOKED


def end_share(tx: Transaction, share_id: str, cause: tuple[str, str]) -> None:
    share_queries.delete_share(tx, share_id)
    announce(tx, *cause)


@pytest.mark.anyio
async def test_a_deleted_users_groups_take_their_shares_along(tmp_path: Path) -> None:
    async with live(tmp_path) as served:
        room, now = await served.make("room"), now_ms()
        for number in range(2):
            await served.db.write(add_person, Person(f"usr_{number}", f"user_{number}", f"{number}@example.com", {}))
        await served.db.write(group_queries.insert_group, "grp", "usr_0", "friends", now)
        await served.db.write(group_queries.insert_member, "grp", "usr_1", now)
        await served.db.write(share_queries.insert_share, "shr", Place(None, room), Target("group", "grp"), "read", now)
        async with served.joined(room, user(1)) as peer:
            await served.db.write(users.delete, "usr_0", now)
            assert await ends(peer) == REVOKED
