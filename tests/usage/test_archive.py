"""The archive: what has left the core is as much a part of the ledger as before."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.accounts import consistency
from app.edge import migrate
from app.edge.clock import now_ms
from app.usage import archive_queries
from app.usage.mover import HOLD_SECONDS, KEPT_DAYS
from app.usage.period import DAY_MS
from app.usage.rows import Line
from tests.conftest import rows_of
from tests.usage.books import Books, fill, line, old

pytestmark = pytest.mark.anyio


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    made = Books(tmp_path)
    yield made
    await made.close()


async def test_old_rows_leave_and_nothing_that_anybody_can_read_changes(books: Books) -> None:
    ann, bo = await books.user("user_ann"), await books.user("user_bo")
    for number in range(30):
        await books.record(
            line(ann if number % 3 else bo, f"e{number}", number, days_old=60.5 - 2 * number, model=f"m{number % 2}")
        )
    before = await books.told([ann, bo])
    moved = await books.move()
    assert moved == books.archived() == 11
    assert books.kept() == 19
    assert min(row[0] for row in books.rows("SELECT received_at_ms FROM usage_logs")) > now_ms() - KEPT_DAYS * DAY_MS
    assert await books.told([ann, bo]) == before
    assert before["verified"].clean


async def test_an_event_that_left_is_a_duplicate_and_its_id_with_other_contents_a_conflict(books: Books) -> None:
    ann = await books.user("user_ann")
    sent = old(ann, "first", 7)
    await books.record(sent, line(ann, "last"))
    await books.move()
    assert books.archived() == 1
    assert await books.record(sent) == [("duplicate", None)]
    assert await books.record(old(ann, "first", 8)) == [("rejected", "conflict")]
    assert books.kept() + books.archived() == 2


async def test_an_event_that_left_can_be_corrected_again_and_again(books: Books) -> None:
    ann = await books.user("user_ann")
    first = old(ann, "first", 100)
    await books.record(first, line(ann, "last", 1))
    await books.move()
    assert await books.record(line(ann, "a1", 70, amends="first", occurred_at_ms=None)) == [("accepted", None)]
    assert await books.record(old(ann, "a2", 40, amends="first")) == [("accepted", None)]
    assert await books.record(line(ann, "last2", 1)) == [("accepted", None)]
    # The second correction is received long ago: it leaves before the first one does, which the next one must know.
    await books.mover.move_imported(0, now_ms())
    assert books.archived() == 2
    assert await books.record(line(ann, "a3", 50, amends="first", occurred_at_ms=None)) == [("accepted", None)]
    sums = rows_of(books.path, "SELECT sum(total_tokens) FROM usage_periods")
    assert sums == [(52,)]
    assert (await books.told([ann]))["verified"].clean


async def test_a_correction_that_is_in_both_files_counts_once(books: Books) -> None:
    ann = await books.user("user_ann")
    await books.record(old(ann, "first", 100), old(ann, "a1", 30, amends="first"), line(ann, "last", 1))
    await books.mover._prepare()
    copied = books.rows(f"SELECT {', '.join(archive_queries.COLUMNS)} FROM usage_logs WHERE event_id <> 'last'")
    await books.archive.add(archive_queries.insert_moved, copied)
    assert (books.kept(), books.archived()) == (3, 2)
    await books.record(line(ann, "a2", 20, amends="first", occurred_at_ms=None))
    assert rows_of(books.path, "SELECT sum(total_tokens) FROM usage_periods") == [(21,)]


async def test_the_newest_row_stays_because_the_next_number_follows_from_it(books: Books) -> None:
    ann = await books.user("user_ann")
    await books.record(old(ann, "one"), old(ann, "two"), old(ann, "three"))
    assert await books.move() == 2
    await books.record(line(ann, "four"))
    assert books.rows("SELECT id FROM usage_logs ORDER BY id") == [(3,), (4,)]
    assert await books.move() == 1


async def test_one_row_from_a_clock_that_ran_ahead_does_not_keep_the_others(books: Books) -> None:
    ann = await books.user("user_ann")
    await books.record(line(ann, "ahead", days_old=-3_650), old(ann, "old"), line(ann, "new"))
    assert await books.move() == 1


async def test_both_files_have_the_same_columns_in_the_same_order(books: Books) -> None:
    migrate.migrate(books.ledger_path, "ledger")
    columns = "SELECT name, type, \"notnull\", pk FROM pragma_table_info('usage_logs')"
    assert rows_of(books.ledger_path, columns) == books.rows(columns)
    assert tuple(row[0] for row in books.rows(columns)) == archive_queries.COLUMNS


async def test_the_writer_is_never_held_for_long_and_writes_go_on(books: Books) -> None:
    ann = await books.user("user_ann")
    await books.db.write(fill, ann, 12_000, now_ms() - 100 * DAY_MS)
    await books.record(line(ann, "newest"))
    held: list[float] = []
    books.db.writer._committed = lambda group: held.append(group.seconds)
    moving = asyncio.create_task(books.move())
    made = 0
    while not moving.done():
        await books.record(line(ann, f"beside-{made}"))
        made += 1
    assert await moving == 12_000
    assert made > 20
    # The slowest commits are the disk's, which others use too.
    assert median(held) < HOLD_SECONDS
    assert (await books.told([ann]))["verified"].clean


async def test_an_event_that_is_sent_again_while_its_row_is_leaving_is_a_duplicate(books: Books) -> None:
    ann = await books.user("user_ann")
    sent = [old(ann, f"e{number}", number) for number in range(3_000)]
    await books.record(*sent, line(ann, "newest"))
    moving = asyncio.create_task(books.move())
    answers = set()
    while not moving.done():
        for answer in await books.record(*random.sample(sent, 50)):
            answers.add(answer)
    assert await moving == 3_000
    assert answers == {("duplicate", None)}
    assert set(await books.record(*sent)) == {("duplicate", None)}
    assert (books.kept(), books.archived()) == (1, 3_000)


async def test_a_statement_over_both_files_reads_a_page_and_not_all_of_it(books: Books) -> None:
    from app.usage import queries

    ann = await books.user("user_ann")
    await books.record(old(ann, "one"), line(ann, "two"))
    await books.move()
    raw = books.archive.open_both()
    try:
        for sql, values in ((queries.SCAN_LOGS, (0, 9, 9)), (queries.PAGE_CHAIN, (1, 9))):
            plan = [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
            scanned = [
                step for step in plan if step.startswith("SCAN") and "chain" not in step and "CONSTANT" not in step
            ]
            assert scanned == [], plan
    finally:
        raw.close()


async def test_the_look_at_recent_counters_skips_a_period_whose_rows_have_partly_left(books: Books) -> None:
    ann, bo = await books.user("user_ann"), await books.user("user_bo")
    first = old(ann, "first")
    await books.record(first, line(ann, "late", occurred_at_ms=first.event.occurred_at_ms), line(bo, "recent"))
    before = (await consistency.check(books.db, now_ms())).counters
    assert (before.checked, before.skipped, before.differences) == (2, 0, [])
    assert await books.move() == 1
    after = (await consistency.check(books.db, now_ms())).counters
    assert (after.checked, after.skipped, after.differences) == (1, 1, [])


# -- a property: a ledger that moves its rows is told apart from one that never does by nobody -----------------

EVENTS = st.tuples(
    st.integers(0, 11),  # id
    st.integers(0, 3),  # tokens: the same id with others is a conflict
    st.integers(0, 1),  # user
    st.integers(0, 100),  # days since the receipt
    st.integers(0, 70),  # days between that and the occurrence
    st.one_of(st.none(), st.integers(0, 11)),  # amends
)
STEPS = st.lists(st.one_of(st.lists(EVENTS, min_size=1, max_size=6), st.integers(0, 120)), min_size=1, max_size=12)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    made = tmp_path / "moving", tmp_path / "still"
    for folder in made:
        folder.mkdir()
    return made


def test_no_answer_tells_whether_rows_have_left(folders: tuple[Path, Path]) -> None:
    examples = itertools.count()
    with asyncio.Runner() as runner:
        moving, still = runner.run(_open(folders[0])), runner.run(_open(folders[1]))

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(steps=STEPS)
        def compare(steps: list[list[tuple[int, ...]] | int]) -> None:
            runner.run(_compare(moving, still, steps, next(examples)))

        try:
            compare()
            assert moving.archived() > 10
        finally:
            runner.run(moving.close())
            runner.run(still.close())


async def _open(folder: Path) -> Books:
    return Books(folder)


async def _compare(moving: Books, still: Books, steps: list[list[tuple[int, ...]] | int], example: int) -> None:
    now = now_ms()
    everybody = moving, still
    people = {books: [await books.user(f"user_{name}_{example}") for name in ("ann", "bo")] for books in everybody}
    counted: list[tuple[int, ...]] = []
    for step in steps:
        if isinstance(step, int):
            # Every row of a chosen age leaves, wherever it lies, as an import has its own rows leave.
            await moving.mover.move_imported(0, now + (step - 60) * DAY_MS)
            continue
        answers = [
            await books.record(*(_line(event, people[books], now, example) for event in step)) for books in everybody
        ]
        assert answers[0] == answers[1]
        counted += [event for event, answer in zip(step, answers[0], strict=True) if answer[0] != "rejected"]
    told = [await _told(books, people[books]) for books in everybody]
    assert told[0] == told[1]
    for books in everybody:
        again = [await books.record(_line(event, people[books], now, example)) for event in counted]
        assert again == [[("duplicate", None)]] * len(counted)


async def _told(books: Books, people: list[str]) -> dict[str, object]:
    """What can be read of two people and of everybody, without the names that are each books' own."""
    told = await books.told(people)
    assert told["verified"].clean
    names = {row[0]: f"person {row[1]}" for row in books.rows("SELECT id, rowid FROM users")}

    def plain(value: object) -> object:
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return "hash" if isinstance(value, bytes) else names.get(value, value) if isinstance(value, str) else value

    made = {name: plain(value) for name, value in told.items()}
    # These come in the order of users' ids.
    return made | {name: sorted(made[name], key=repr) for name in ("counters", "roll-ups", "alerts")}  # type: ignore[call-overload]


def _line(event: tuple[int, ...], people: list[str], now: int, example: int) -> Line:
    number, tokens, person, age, late, amends = event
    received = now - age * DAY_MS
    made = line(
        people[person],
        f"{example}-{number}",
        tokens,
        model=f"m{tokens % 2}",
        session_id=f"s{number % 3}",
        occurred_at_ms=received - late * DAY_MS,
        amends=None if amends is None else f"{example}-{amends}",
    )
    return Line(made.event, received)
