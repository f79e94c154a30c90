"""Writer: jobs in groups, each in a savepoint, answered after COMMIT."""

import asyncio
import itertools
import threading
from collections.abc import Callable

import pytest

from app.edge import writer
from app.edge.changes import announce
from app.edge.database import Database, Group, Position, Transaction
from app.edge.job import waited_before
from app.errors import Unavailable
from tests.edge.conftest import Gate, Refused, add, add_then_refuse, held, names, opened, together

pytestmark = pytest.mark.anyio


async def test_jobs_that_have_gathered_share_one_commit(things: Database, groups: list[Group]) -> None:
    answers = await together(things, [(add, f"thing {number}") for number in range(20)])
    assert answers == [f"thing {number}" for number in range(20)]
    assert [group.jobs for group in groups] == [1, 20]
    assert names(things.path) == set(answers)


async def test_a_failed_job_takes_only_its_own_rows_with_it(things: Database, groups: list[Group]) -> None:
    first, refused, second = await together(things, [(add, "before"), (add_then_refuse, "never"), (add, "after")])
    assert (first, second) == ("before", "after")
    assert isinstance(refused, Refused)
    assert names(things.path) == {"before", "after"}
    assert groups[-1].jobs == 3


async def test_a_constraint_that_fails_is_that_jobs_answer_alone(things: Database) -> None:
    first, twice, last = await together(things, [(add, "one"), (add, "one"), (add, "two")])
    assert (first, last) == ("one", "two")
    assert type(twice).__name__ == "IntegrityError"
    assert names(things.path) == {"one", "two"}


async def test_a_future_resolves_after_its_commit(things: Database) -> None:
    seen: list[set[str]] = []

    async def watch(name: str) -> None:
        future = things.writer.submit(add, (name,))
        future.add_done_callback(lambda _: seen.append(names(things.path)))
        await future

    async with asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(watch(f"thing {number}"))
    assert len(seen) == 5
    for number, present in enumerate(seen):
        assert f"thing {number}" in present


async def test_concurrent_writers_lose_no_count(things: Database, groups: list[Group]) -> None:
    await things.write(lambda tx: tx.execute("CREATE TABLE counter (value INTEGER NOT NULL) STRICT"))
    await things.write(lambda tx: tx.execute("INSERT INTO counter VALUES (0)"))

    def bump(tx: Transaction) -> None:
        (value,) = tx.fetch_one("SELECT value FROM counter") or (0,)
        tx.execute("UPDATE counter SET value = ?", value + 1)

    async def write_often() -> None:
        for _ in range(20):
            await things.write(bump)

    groups.clear()
    await asyncio.gather(*(write_often() for _ in range(50)))
    assert await things.read(lambda connection: connection.fetch("SELECT value FROM counter")) == [(1000,)]
    assert sum(group.jobs for group in groups) == 1000
    assert max(group.jobs for group in groups) > 1
    assert len(groups) < 1000


async def test_jobs_run_in_the_order_in_which_they_came(things: Database) -> None:
    ran: list[int] = []
    await together(things, [(lambda tx, number=number: ran.append(number),) for number in range(100)])
    assert ran == list(range(100))


async def test_each_commit_moves_the_position_by_one(things: Database) -> None:
    positions = []
    for number in range(3):
        _, position = await things.writer.submit(add, (f"thing {number}",))
        positions.append(position)
    first = positions[0]
    assert first is not None
    assert positions == [Position(first.epoch, first.sequence + step) for step in range(3)]
    assert str(first) == f"{first.epoch}-{first.sequence}"


async def test_a_group_ends_when_its_time_is_up(
    things: Database, groups: list[Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "GROUP_SECONDS", -1.0)
    await together(things, [(add, f"thing {number}") for number in range(4)])
    assert [group.jobs for group in groups] == [1, 1, 1, 1, 1]
    assert len(names(things.path)) == 4


async def test_a_job_that_raises_stop_iteration_leaves_nobody_waiting(things: Database) -> None:
    def exhausted(tx: Transaction) -> None:
        add(tx, "never")
        next(iter(()))

    first, broken, last = await asyncio.wait_for(together(things, [(add, "a"), (exhausted,), (add, "b")]), 5)
    assert (first, last) == ("a", "b")
    assert isinstance(broken, RuntimeError)
    assert names(things.path) == {"a", "b"}


async def test_a_job_that_exits_does_not_end_the_writer(things: Database) -> None:
    def leave(tx: Transaction) -> None:
        add(tx, "never")
        raise SystemExit(1)

    with pytest.raises(RuntimeError, match="SystemExit"):
        await things.write(leave)
    assert await things.write(add, "later") == "later"
    assert names(things.path) == {"later"}


async def test_a_listener_that_fails_does_not_keep_the_answers_back(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = itertools.count()

    def fail(group: Group) -> None:
        next(calls)
        raise LookupError("a cache is broken")

    async with opened(tmp_path_factory.mktemp("data") / "core.db", fail) as db:
        assert await asyncio.wait_for(db.write(add, "kept"), 5) == "kept"
    assert next(calls) == 2
    assert "a cache is broken" in capsys.readouterr().out


async def test_what_a_commit_made_stale_is_told_before_its_answer(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    events: list[object] = []
    path = tmp_path_factory.mktemp("data") / "core.db"
    async with opened(path, lambda group: events.extend(group.announced)) as db:
        future = db.writer.submit(announce, ("key", "k1"))
        future.add_done_callback(lambda _: events.append("answered"))
        await future
        await asyncio.sleep(0)
    assert events == [("key", "k1"), "answered"]


async def test_a_failed_job_announces_nothing(things: Database, groups: list[Group]) -> None:
    def announce_then_refuse(tx: Transaction) -> None:
        announce(tx, "key", "refused")
        raise Refused("No")

    await together(things, [(announce, "key", "a"), (announce_then_refuse,), (announce, "key", "b")])
    assert groups[-1].announced == [("key", "a"), ("key", "b")]


async def test_closing_commits_and_answers_all_that_was_accepted(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("data") / "core.db"
    async with opened(path) as db:
        async with held(db):
            accepted = [asyncio.ensure_future(db.write(add, f"thing {number}")) for number in range(700)]
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(db.close())
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="shutting down"):
                await db.write(add, "too late")
        await closing
        assert all(task.done() for task in accepted)
        assert {await task for task in accepted} == names(path)
        assert len(names(path)) == 700


async def test_closing_ends_the_thread(things: Database) -> None:
    await things.close()
    assert not any(thread.name == "writer" and thread.is_alive() for thread in threading.enumerate())


async def test_a_full_queue_answers_503_at_once(things: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "QUEUE_JOBS", 5)
    async with held(things):
        accepted = [asyncio.ensure_future(things.write(add, f"thing {number}")) for number in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="5 of 5 jobs") as refusal:
            await things.write(add, "one too many")
        assert refusal.value.headers["Retry-After"] == "1"
    assert len(await asyncio.gather(*accepted)) == 4
    assert await things.write(add, "later") == "later"
    assert "one too many" not in names(things.path)


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """The watch looks often. Called with seconds: how long a job may wait from now on."""
    monkeypatch.setattr(writer, "WATCH_SECONDS", 0.01)
    return lambda seconds: monkeypatch.setattr(writer, "QUEUE_SECONDS", seconds)


async def test_overdue_jobs_answer_503_and_do_not_run_later(
    watchful: Callable[[float], None], things: Database
) -> None:
    async with held(things):
        watchful(0.0)
        with pytest.raises(Unavailable, match="too slow"):
            await asyncio.wait_for(things.write(add, "overdue"), 5)
        watchful(60.0)
    assert await things.write(add, "later") == "later"
    assert names(things.path) == {"later"}


async def test_what_was_waited_elsewhere_counts(watchful: Callable[[float], None], things: Database) -> None:
    async with held(things):
        watchful(10.0)
        first = asyncio.ensure_future(things.write(add, "first"))
        await asyncio.sleep(0)
        waited_before.set(10.0)
        with pytest.raises(Unavailable, match="too slow"):
            await asyncio.wait_for(things.write(add, "overdue"), 5)
        assert not first.done()
    await first
    assert names(things.path) == {"first"}


async def test_a_job_that_is_overdue_within_its_group_does_not_run(
    watchful: Callable[[float], None], things: Database
) -> None:
    slow = Gate()
    async with held(things):
        first = asyncio.ensure_future(things.write(slow.hold))
        overdue = asyncio.ensure_future(things.write(add, "overdue"))
        await asyncio.sleep(0)
    assert await asyncio.to_thread(slow.entered.wait, 10)
    watchful(0.0)
    with pytest.raises(Unavailable, match="too slow"):
        await asyncio.wait_for(overdue, 5)
    watchful(60.0)
    slow.open()
    await asyncio.gather(first, return_exceptions=True)
    await things.write(add, "later")
    assert names(things.path) == {"later"}


async def test_a_hung_writer_holds_no_more_jobs_than_the_queue(
    watchful: Callable[[float], None], things: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "QUEUE_JOBS", 5)
    async with held(things):
        watchful(0.0)
        answers = []
        for turn in range(4):
            jobs = [things.write(add, f"thing {turn}.{number}") for number in range(5)]
            answers += await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 5)
    texts = [str(answer) for answer in answers]
    assert sum("too slow" in text for text in texts) <= 5
    assert all("queue is full" in text for text in texts[-5:])


async def test_a_caller_who_leaves_before_the_job_begins_leaves_no_row(things: Database) -> None:
    async with held(things):
        leaving = asyncio.ensure_future(things.write(add, "left"))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
    await things.write(add, "stayed")
    assert names(things.path) == {"stayed"}


async def test_the_writer_is_durable_and_keeps_its_cache_in_memory(things: Database) -> None:
    def pragmas(tx: Transaction) -> dict[str, object]:
        asked = ("journal_mode", "synchronous", "cache_spill", "foreign_keys", "wal_autocheckpoint")
        return {name: (tx.fetch_one(f"PRAGMA {name}") or (None,))[0] for name in asked}

    assert await things.write(pragmas) == {
        "journal_mode": "wal",
        "synchronous": 2,
        "cache_spill": 0,
        "foreign_keys": 1,
        "wal_autocheckpoint": 8000,
    }
