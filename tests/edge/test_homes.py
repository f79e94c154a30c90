"""Homes: who becomes the owner of what, when, and who may no longer be."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from app.edge import heart, homes, migrate
from app.edge.database import Connection, Database, Transaction
from app.edge.homes import Home, Machine
from app.edge.lease import LEASE_SECONDS, PAUSE_SECONDS, Fenced, Lease
from app.edge.liveness import PACE_SECONDS, REFUSED_SECONDS, Liveness
from app.edge.node import Node
from app.edge.ownership import TOLD_HOMES, Ownership
from app.edge.registry import SILENT_SECONDS, STEADY_SECONDS, Registry
from app.edge.transaction import Position, read_position
from app.errors import Conflict, NotFound, Unavailable
from tests.edge.conftest import held
from tests.waiting import comes

pytestmark = pytest.mark.anyio

FRA, AMS, NRT = Machine("m1", "fra"), Machine("m2", "ams"), Machine("m3", "nrt")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Desk(Registry):
    """The registry with a clock of the test's."""

    def __init__(self, db: Database) -> None:
        self.clock = Clock()
        self.liveness = Liveness({}, self.clock)
        super().__init__(db, self.liveness, self.region_of)

    def region_of(self, connection: Connection, name: str) -> str | None:
        """As their names say: `nrt-a` was made there."""
        return name.partition("-")[0] if "-" in name else None

    async def hear_all(self) -> None:
        for machine in (FRA, AMS, NRT):
            await self.begin(machine, f"session-of-{machine.machine}")


@pytest.fixture
async def desk(db: Database) -> Desk:
    made = Desk(db)
    await made.hear_all()
    return made


async def test_whoever_asks_first_becomes_the_home_and_stays_it(desk: Desk) -> None:
    first = await desk.claim("sin-a", AMS)
    assert (first.machine, first.number, first.source) == ("m2", 1, None)
    assert await desk.claim("sin-a", NRT) == first


async def test_a_machine_of_the_region_goes_before_the_one_that_asks(desk: Desk) -> None:
    assert (await desk.claim("nrt-a", AMS)).machine == "m3"
    desk.clock.now += 10
    assert await desk.beat(AMS, "session-of-m2")
    assert (await desk.claim("nrt-b", AMS)).machine == "m2"


async def test_of_twenty_that_ask_at_once_one_becomes_the_home(desk: Desk) -> None:
    given = await asyncio.gather(*(desk.claim("sin-a", machine) for machine in (FRA, AMS, NRT) * 7))
    assert len(set(given)) == 1


async def test_what_is_not_heard_keeps_its_own_for_one_lease_and_not_longer(desk: Desk) -> None:
    home = await desk.claim("nrt-a", NRT)
    desk.clock.now += LEASE_SECONDS + PACE_SECONDS - 0.01
    assert await desk.beat(AMS, "session-of-m2")
    assert await desk.claim("nrt-a", AMS) == home
    desk.clock.now += 0.02
    taken = await desk.claim("nrt-a", AMS)
    assert (taken.machine, taken.number, taken.source) == ("m2", 2, None)
    assert taken.epoch != home.epoch
    assert not await desk.beat(NRT, "session-of-m3"), "it has to begin anew"


async def test_a_port_that_refuses_for_two_seconds_is_enough(desk: Desk) -> None:
    home = await desk.claim("nrt-a", NRT)
    desk.liveness.refuses("m3", desk.liveness.now)
    desk.clock.now += REFUSED_SECONDS - 0.01
    desk.liveness.refuses("m3", desk.liveness.now)
    assert await desk.claim("nrt-a", AMS) == home
    desk.clock.now += 0.02
    assert (await desk.claim("nrt-a", AMS)).machine == "m2"


async def test_the_port_of_who_is_silent_is_tried_until_its_lease_is_over_without_it(desk: Desk) -> None:
    assert desk.silent() == []
    desk.clock.now += SILENT_SECONDS + 0.1
    assert desk.silent() == [FRA, AMS, NRT]
    assert await desk.beat(AMS, "session-of-m2")
    assert desk.silent() == [FRA, NRT]
    await desk.claim("ams-a", AMS)
    await desk.claim("ams-a", FRA)
    assert desk.silent() == [FRA, AMS, NRT], "somebody asks about it"
    desk.clock.now += LEASE_SECONDS + PACE_SECONDS - 1
    assert await desk.beat(FRA, "session-of-m1")
    assert desk.silent() == [AMS], "its lease began later"
    desk.clock.now += 1.1
    assert desk.silent() == []


async def test_a_machine_that_is_started_within_two_seconds_keeps_its_own(desk: Desk) -> None:
    home = await desk.claim("nrt-a", NRT)
    desk.liveness.refuses("m3", desk.liveness.now)
    desk.clock.now += REFUSED_SECONDS - 0.01
    await desk.begin(NRT, "second")
    desk.clock.now += 1
    assert await desk.claim("nrt-a", AMS) == home


async def test_a_refusal_that_was_on_its_way_while_a_machine_began_says_nothing_of_it(desk: Desk) -> None:
    home = await desk.claim("nrt-a", NRT)
    tried_at = desk.liveness.now
    desk.clock.now += 0.1
    await desk.begin(NRT, "second")
    desk.liveness.refuses("m3", tried_at)
    desk.clock.now += REFUSED_SECONDS
    assert await desk.claim("nrt-a", AMS) == home


async def test_heartbeats_are_remembered_and_never_written(desk: Desk, db: Database) -> None:
    before = await db.read(read_position)
    for _ in range(100):
        assert await desk.beat(NRT, "session-of-m3")
    assert await db.read(read_position) == before
    await desk.claim("nrt-a", NRT)
    claimed = await db.read(read_position)
    assert claimed.sequence == before.sequence + 1
    await desk.claim("nrt-a", AMS)
    assert await db.read(read_position) == claimed


async def test_a_primary_that_starts_gives_nothing_away_for_one_lease(desk: Desk, db: Database) -> None:
    home = await desk.claim("nrt-a", NRT)
    again = Desk(db)
    again.clock.now += LEASE_SECONDS
    await again.begin(AMS, "second")
    assert await again.claim("nrt-a", AMS) == home
    again.clock.now += PACE_SECONDS + 0.01
    assert (await again.claim("nrt-a", AMS)).machine == "m2"


async def test_a_session_from_which_something_was_taken_is_over_for_a_primary_that_starts_later_too(
    desk: Desk, db: Database
) -> None:
    """A machine that has slept through it would be heard, and go on with what another one has by now."""
    home, beside = await desk.claim("nrt-a", NRT), await desk.claim("nrt-b", NRT)
    desk.clock.now += LEASE_SECONDS + PACE_SECONDS + 1
    assert await desk.beat(AMS, "session-of-m2")
    assert (await desk.claim("nrt-a", AMS)).number == home.number + 1
    sessions = {machine.machine: session for machine, session in await db.read(homes.list_sessions)}
    again = Liveness(sessions, desk.clock)
    assert not again.heard("m3", "session-of-m3")
    assert again.heard("m2", "session-of-m2")
    with pytest.raises(Conflict):
        await desk.hand_over(beside, AMS, "session-of-m3")


async def test_what_an_operator_calls_lost_is_given_away_at_once(desk: Desk) -> None:
    await desk.claim("nrt-a", NRT)
    await desk.lose("m3")
    assert not await desk.beat(NRT, "session-of-m3")
    assert (await desk.claim("nrt-a", AMS)).machine == "m2"
    await desk.begin(NRT, "second")
    assert (await desk.claim("nrt-b", NRT)).machine == "m3"
    assert (await desk.claim("nrt-b", AMS)).machine == "m3"


async def test_what_a_machine_leaves_behind_is_given_away_at_once_and_what_it_keeps_when_it_is_missed(
    desk: Desk,
) -> None:
    kept, left = await desk.claim("nrt-kept", NRT), await desk.claim("nrt-left", NRT)
    await desk.leave(NRT, "session-of-m3", ["nrt-kept"])
    assert not await desk.beat(NRT, "session-of-m3")
    assert await desk.claim("nrt-kept", AMS) == kept
    taken = await desk.claim("nrt-left", AMS)
    assert (taken.machine, taken.number, taken.source) == ("m2", left.number + 1, None)
    desk.liveness.refuses("m3", desk.liveness.now)
    desk.clock.now += REFUSED_SECONDS
    assert (await desk.claim("nrt-kept", AMS)).machine == "m2"


async def test_who_has_left_is_the_home_of_nothing_new_until_it_is_back(desk: Desk) -> None:
    await desk.leave(NRT, "session-of-m3", [])
    assert NRT not in await desk.list_alive()
    assert (await desk.claim("nrt-a", AMS)).machine == "m2"
    await desk.begin(NRT, "second")
    home = await desk.claim("nrt-b", AMS)
    assert home.machine == "m3"
    assert await desk.claim("nrt-b", AMS) == home


async def test_a_goodbye_of_an_earlier_session_says_nothing_of_this_one(desk: Desk) -> None:
    """It was on its way while its machine was started anew, and may have open what the earlier process closed."""
    home = await desk.claim("nrt-a", NRT)
    await desk.begin(NRT, "second")
    with pytest.raises(Conflict):
        await desk.leave(NRT, "session-of-m3", [])
    assert await desk.beat(NRT, "second")
    assert await desk.claim("nrt-a", AMS) == home


async def test_nobody_else_there_is_unavailable_and_takes_nothing_away(desk: Desk, db: Database) -> None:
    home = await desk.claim("nrt-a", NRT)
    await desk.lose("m3")
    with pytest.raises(Unavailable):
        await desk.claim("nrt-a", NRT)
    assert await db.read(homes.find_home, "nrt-a") == home


async def test_a_machine_that_has_just_woken_is_given_nothing_before_it_begins_anew(desk: Desk) -> None:
    """It would lose at once what it never opened, and whoever has that next would wait for a file that is nowhere."""
    desk.clock.now += LEASE_SECONDS + PACE_SECONDS + 1
    for asked in ("nrt-a", "sin-a"):
        with pytest.raises(Unavailable):
            await desk.claim(asked, NRT)
    assert await desk.beat(AMS, "session-of-m2")
    assert (await desk.claim("sin-a", AMS)).machine == "m2"
    await desk.begin(NRT, "second")
    assert (await desk.claim("nrt-a", NRT)).number == 1


async def test_no_heartbeat_is_answered_while_something_is_taken_away(desk: Desk, db: Database) -> None:
    await desk.claim("nrt-a", NRT)
    desk.clock.now += LEASE_SECONDS + PACE_SECONDS + 1
    assert await desk.beat(AMS, "session-of-m2")
    async with held(db):
        taking = asyncio.ensure_future(desk.claim("nrt-a", AMS))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not await desk.beat(NRT, "session-of-m3")
    assert (await taking).machine == "m2"
    assert not await desk.beat(NRT, "session-of-m3")


async def test_a_machine_that_begins_first_loses_nothing_to_who_asked_meanwhile(desk: Desk, db: Database) -> None:
    home = await desk.claim("nrt-a", NRT)
    desk.clock.now += LEASE_SECONDS + PACE_SECONDS + 1
    assert await desk.beat(AMS, "session-of-m2")
    async with held(db):
        beginning = asyncio.ensure_future(desk.begin(NRT, "second"))
        await asyncio.sleep(0)
        asking = asyncio.ensure_future(desk.claim("nrt-a", AMS))
        await asyncio.sleep(0)
    await beginning
    assert await asking == home
    assert await desk.beat(NRT, "second")


async def test_a_hand_over_names_who_has_the_file_and_happens_once(desk: Desk) -> None:
    home = await desk.claim("nrt-a", NRT)
    given = await desk.hand_over(home, AMS, "session-of-m3")
    assert (given.machine, given.number, given.source) == ("m2", 2, "m3")
    with pytest.raises(Conflict):
        await desk.hand_over(home, FRA, "session-of-m3")
    with pytest.raises(NotFound):
        await desk.hand_over(home._replace(name="b"), FRA, "session-of-m3")
    assert await desk.beat(NRT, "session-of-m3"), "what it owns beside stays its own"


async def test_what_goes_home_depends_on_nobody(desk: Desk) -> None:
    home = await desk.claim("nrt-a", NRT)
    with pytest.raises(Conflict):
        await desk.send_home(home, AMS, "session-of-m2")
    given = await desk.send_home(home, AMS, "session-of-m3")
    assert (given.machine, given.number, given.source) == ("m2", 2, None)


async def test_a_machine_is_steady_once_it_has_not_begun_anew_for_a_lease(desk: Desk) -> None:
    async def wait(seconds: float) -> None:
        """As long as all are heard."""
        desk.clock.now += seconds
        for machine in (FRA, AMS):
            assert await desk.beat(machine, f"session-of-{machine.machine}")

    await wait(STEADY_SECONDS - 1)
    assert await desk.list_steady() == []
    await desk.begin(NRT, "second")
    await wait(1)
    assert await desk.list_steady() == [FRA, AMS]
    await desk.lose("m2")
    assert await desk.list_steady() == [FRA]
    await desk.begin(AMS, "session-of-m2")
    await wait(STEADY_SECONDS - 1)
    assert await desk.list_steady() == [FRA], "who is not heard, or has begun anew"
    await desk.begin(NRT, "third")
    await wait(1)
    assert await desk.list_steady() == [FRA, AMS]


async def test_a_hand_over_of_an_earlier_session_comes_to_nothing(desk: Desk) -> None:
    """Its process may have died and begun again, and have open what it once let go of."""
    home = await desk.claim("nrt-a", NRT)
    await desk.begin(NRT, "second")
    with pytest.raises(Conflict):
        await desk.hand_over(home, AMS, "session-of-m3")
    assert (await desk.hand_over(home, AMS, "second")).machine == "m2"


async def test_a_core_that_was_restored_goes_on_above_the_epochs_that_the_replica_knows(desk: Desk) -> None:
    home = await desk.claim("nrt-a", NRT)
    raised = await desk.raise_number(home, 7)
    assert (raised.machine, raised.number) == ("m3", 7)
    with pytest.raises(Conflict):
        await desk.raise_number(home, 9)


async def test_who_opened_it_last_is_known_to_every_later_home(desk: Desk) -> None:
    home = await desk.claim("nrt-a", NRT)
    assert home.opened is None
    assert (await desk.mark_opened(home)).opened == 1
    given = await desk.hand_over(home, AMS, "session-of-m3")
    assert (given.number, given.opened) == (2, 1)
    with pytest.raises(Conflict):
        await desk.mark_opened(home)
    desk.clock.now += LEASE_SECONDS + PACE_SECONDS + 1
    assert await desk.beat(FRA, "session-of-m1")
    taken = await desk.claim("nrt-a", FRA)
    assert (taken.machine, taken.number, taken.opened) == ("m1", 3, 1), "the second one acknowledged nothing"
    kept = await desk.raise_number(taken, 0)
    assert (kept.number, kept.opened) == (4, 1)
    raised = await desk.raise_number(kept, 7)
    assert (raised.number, raised.opened) == (7, 6), "the replica knows a sixth"


async def test_without_a_backup_only_what_nobody_has_opened_is_given_away(db: Database) -> None:
    clock = Clock()
    liveness = Liveness({}, clock)
    desk = Registry(db, liveness, lambda connection, name: "nrt", takes_away=False)
    for machine in (AMS, NRT):
        await desk.begin(machine, f"session-of-{machine.machine}")
    opened, unopened = await desk.claim("a", NRT), await desk.claim("b", NRT)
    await desk.mark_opened(opened)
    liveness.refuses("m3", liveness.now)
    clock.now += REFUSED_SECONDS
    assert (await desk.claim("a", AMS)).machine == "m3"
    taken = await desk.claim("b", AMS)
    assert (taken.machine, taken.number, taken.opened) == ("m2", unopened.number + 1, None)


async def test_adoption_goes_above_the_number_of_the_file_and_takes_nothing_from_anybody(
    db: Database, desk: Desk
) -> None:
    def insert(tx: Transaction) -> None:
        tx.execute("INSERT INTO users (id, created_at, updated_at) VALUES ('u', '', '')")
        tx.execute(
            """INSERT INTO projects (id, owner_id, name, updated_at_ms, created_at, updated_at)
               VALUES ('p', 'u', 'p', 0, '', '')"""
        )
        for name in ("sin-a", "sin-b"):
            tx.execute(
                """INSERT INTO instances (id, project_id, name, region, created_at, updated_at)
                   VALUES (?, 'p', 'a', 'sin', '', '')""",
                name,
            )

    await db.write(insert)
    owned = await desk.claim("sin-b", AMS)
    assert await db.read(homes.list_unowned, ["sin-a", "sin-b", "nowhere"]) == ["sin-a"]
    assert await desk.adopt([("sin-a", 5), ("sin-b", 5)], NRT) == 1
    adopted = await desk.claim("sin-a", AMS)
    assert (adopted.machine, adopted.number, adopted.opened) == ("m3", 6, 5)
    assert await desk.claim("sin-b", NRT) == owned


async def test_a_deleted_instance_leaves_who_has_to_delete_its_file(db: Database, desk: Desk) -> None:
    def insert(tx: Transaction) -> None:
        tx.execute("INSERT INTO users (id, created_at, updated_at) VALUES ('u', '', '')")
        tx.execute(
            """INSERT INTO projects (id, owner_id, name, updated_at_ms, created_at, updated_at)
               VALUES ('p', 'u', 'p', 0, '', '')"""
        )
        tx.execute(
            """INSERT INTO instances (id, project_id, name, region, created_at, updated_at)
               VALUES ('a', 'p', 'a', 'nrt', '', '')"""
        )

    await db.write(insert)
    assert await db.write(homes.adopt, [("a", 0), ("nowhere", 0)], NRT, "mark", 0) == 1
    assert await db.write(homes.adopt, [("a", 0)], AMS, "mark", 0) == 0
    await db.write(lambda tx: tx.execute("DELETE FROM instances WHERE id = 'a'"))
    row = await db.read(
        lambda connection: connection.fetch_one("SELECT instance_id, machine, number FROM instance_tombstones")
    )
    assert row == ("a", "m3", 1)
    assert await db.read(homes.find_home, "a") is None


async def test_the_position_of_a_session_is_that_of_its_commit(desk: Desk) -> None:
    first = await desk.begin(NRT, "second")
    assert await desk.begin(NRT, "third") == first._replace(sequence=first.sequence + 1)


# -- the machine's own side --------------------------------------------------------------------------------


def home_of(machine: Machine, number: int = 1, name: str = "a") -> Home:
    return Home(name, *machine, number, homes.epoch_of(number, "x"), None)


class Here:
    """A machine of the test's, with its clock and its replica."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.node = Node("nrt", "m3", is_primary=False)
        self.owning = Ownership(NRT, Lease(self.clock), self.node)

    def begin(self, sequence: int = 5) -> None:
        self.owning.begin("s", self.clock.now, Position("e", sequence))


async def test_a_lease_is_counted_from_the_sending_of_what_was_answered() -> None:
    clock = Clock()
    lease = Lease(clock)
    with pytest.raises(Fenced):
        lease.check()
    lease.begin("s", clock.now)
    clock.now += 80
    sent_at = lease.sending()
    clock.now += 9
    lease.renew("s", sent_at)
    clock.now = sent_at + LEASE_SECONDS - 0.01
    lease.check()
    clock.now += 0.02
    with pytest.raises(Fenced):
        lease.check()


async def test_an_answer_to_an_earlier_session_or_to_an_earlier_heartbeat_changes_nothing() -> None:
    clock = Clock()
    lease = Lease(clock)
    lease.begin("s", clock.now)
    lease.renew("s", clock.now + 5)
    lease.renew("s", clock.now + 1)
    lease.renew("t", clock.now + 50)
    clock.now += LEASE_SECONDS + 4.9
    assert lease.held
    clock.now += 0.2
    assert not lease.held
    lease.begin("s", clock.now)
    lease.end()
    lease.renew("s", clock.now)
    assert not lease.held


async def test_after_a_pause_a_lease_is_held_once_a_later_heartbeat_is_answered() -> None:
    """An operator may have called the machine lost, while its lease had not ended yet."""
    clock = Clock()
    lease = Lease(clock)
    lease.begin("s", clock.now)
    lease.tick()
    sent_at = lease.sending()
    clock.now += PAUSE_SECONDS
    lease.check()
    clock.now += 0.01
    lease.renew("s", sent_at)
    with pytest.raises(Fenced):
        lease.check()
    lease.tick()
    with pytest.raises(Fenced):
        lease.check()
    lease.renew("s", lease.sending())
    lease.check()


async def test_a_heart_beats_on_whatever_became_of_a_beat(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heart, "HEARTBEAT_SECONDS", 0.001)
    begun: list[str] = []

    class Stumbling(Desk):
        async def begin(self, machine: Machine, session: str) -> Position:
            begun.append(session)
            if len(begun) == 1:
                raise LookupError("what nobody thought of")
            return await super().begin(machine, session)

    here = Here()
    beating = asyncio.create_task(heart.Heart(here.owning, Stumbling(desk._db), lambda: None).run())
    await comes(lambda: here.owning.lease.held)
    beating.cancel()
    await asyncio.wait([beating])
    assert len(begun) == 2


class Beating:
    """A heart that beats a thousand times a second, and how often it has closed what was open."""

    def __init__(self, owning: Ownership, desk: Desk) -> None:
        self.fenced = 0
        self.lease = owning.lease
        self._task = asyncio.create_task(heart.Heart(owning, desk, self._fence).run())

    def _fence(self) -> None:
        self.fenced += 1

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


Begin = Callable[[Here, Desk], Awaitable[Beating]]


@pytest.fixture
async def beating(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Begin]:
    monkeypatch.setattr(heart, "HEARTBEAT_SECONDS", 0.001)
    begun: list[Beating] = []

    async def begin(here: Here, desk: Desk) -> Beating:
        begun.append(Beating(here.owning, desk))
        await begun[-1].until(lambda: here.owning.lease.held)
        return begun[-1]

    yield begin
    for one in begun:
        await one.stop()


async def test_a_heart_whose_session_was_ended_closes_what_is_open_once_and_begins_anew(
    desk: Desk, beating: Begin
) -> None:
    """What is open was opened in the session that is over, and may be another machine's by now."""
    here = Here()
    mine = await beating(here, desk)
    ended = here.owning.lease.session
    await desk.lose("m3")
    await mine.until(lambda: here.owning.lease.session not in (None, ended))
    assert mine.fenced == 1
    assert here.owning.lease.held


async def test_a_heart_that_nobody_answers_closes_what_is_open_when_its_lease_is_over(
    db: Database, beating: Begin
) -> None:
    class Leaving(Desk):
        away = False
        asked = 0

        async def beat(self, machine: Machine, session: str) -> bool:
            self.asked += self.away
            if self.away:
                raise Unavailable("The primary is away")
            return await super().beat(machine, session)

    here, primary = Here(), Leaving(db)
    mine = await beating(here, primary)
    primary.away = True
    here.clock.now += PAUSE_SECONDS - 0.1
    await mine.until(lambda: primary.asked > 2)
    assert mine.fenced == 0
    here.clock.now += LEASE_SECONDS
    await mine.until(lambda: mine.fenced > 0)
    asked = primary.asked
    await mine.until(lambda: primary.asked > asked + 2)
    assert mine.fenced == 1


async def test_rows_are_believed_once_the_replica_has_come_to_where_the_session_began() -> None:
    here = Here()
    assert not here.owning.owns(home_of(NRT))
    here.begin(sequence=5)
    here.node.advance(Position("e", 4))
    assert not here.owning.owns(home_of(NRT))
    here.node.advance(Position("e", 5))
    assert here.owning.owns(home_of(NRT))
    assert not here.owning.owns(home_of(AMS))
    assert not here.owning.owns(None)
    here.clock.now += LEASE_SECONDS + 1
    assert not here.owning.owns(home_of(NRT))


async def test_what_the_primary_said_goes_before_an_older_row_and_not_before_a_newer() -> None:
    here = Here()
    here.begin()
    here.owning.tell(home_of(NRT, 3))
    assert here.owning.newest("a", home_of(AMS, 2)) == home_of(NRT, 3)
    here.owning.tell(home_of(AMS, 1))
    assert here.owning.newest("a", None) == home_of(NRT, 3)
    assert here.owning.newest("a", home_of(AMS, 4)) == home_of(AMS, 4)
    assert here.owning.newest("a", None) is None


async def test_what_is_being_handed_over_is_owned_no_more_under_that_number() -> None:
    here = Here()
    here.begin()
    here.node.advance(Position("e", 5))
    here.owning.leave(home_of(NRT, 2))
    assert not here.owning.owns(home_of(NRT, 1))
    assert not here.owning.owns(home_of(NRT, 2))
    assert here.owning.owns(home_of(NRT, name="b"))
    assert here.owning.owns(home_of(NRT, 3))


async def test_what_was_told_is_bounded() -> None:
    here = Here()
    for number in range(TOLD_HOMES + 1):
        here.owning.tell(home_of(NRT, name=str(number)))
    assert here.owning.newest("0", None) is None
    assert here.owning.newest("1", None) is not None


async def test_a_slow_clock_is_within_what_the_primary_waits_for() -> None:
    """A machine whose clock loses half a hundredth believes in its lease for 90.45 s of the primary's time."""
    clock = Clock()
    slow = Lease(lambda: clock.now * 0.995)
    slow.begin("s", slow.sending())
    liveness = Liveness({"m3": "s"}, clock)
    liveness.heard("m3", "s")
    while not liveness.is_gone("m3", "a"):
        clock.now += 0.01
    assert not slow.held


def test_the_model_of_the_instances_table_is_the_real_one(tmp_path: Path) -> None:
    """The trigger of the migration replaces the one before: a deletion writes one tombstone and one change."""
    migrate.migrate(tmp_path / "core.db", "core")
    raw = sqlite3.connect(tmp_path / "core.db")
    triggers = raw.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'instances'")
    assert triggers.fetchone() == (1,)
    raw.close()
