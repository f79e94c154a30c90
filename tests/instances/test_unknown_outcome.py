"""A commit that fails may have come to be: the file is asked, and where it cannot say nobody goes on from a guess."""

import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.edge.lease import Fenced
from app.errors import Unavailable
from app.instances.hub import Hub
from app.instances.mailbox import Ask
from app.instances.protocol import Set
from app.instances.store import OutcomeUnknown, Retention, Store
from tests.instances.live import CLOCKWORK

pytestmark = pytest.mark.anyio


class Faulty:
    """A connection whose next COMMIT fails, before or after it was done; then, where `blind`, nothing can be read."""

    def __init__(self, raw: Any, faults: "Faults") -> None:
        self._raw = raw
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def execute(self, sql: str, *values: Any) -> Any:
        faults = self._faults
        if sql == "COMMIT" and faults.due:
            faults.due = False
            faults.failed = True
            if faults.after:
                self._raw.execute(sql)
            raise sqlite3.OperationalError("disk I/O error")
        if faults.failed and faults.blind and sql.startswith("SELECT"):
            raise sqlite3.OperationalError("disk I/O error")
        return self._raw.execute(sql, *values)


class Faults(Store):
    """A file on a disk that fails when it is told to."""

    due = after = blind = failed = False

    def _connected(self) -> Any:
        fresh = self._raw is None
        raw = super()._connected()
        if fresh:
            raw = self._raw = Faulty(raw, self)
        return raw


@pytest.fixture
def thread() -> Any:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Faults:
    return Faults(tmp_path / "room.db", Retention())


@pytest.fixture
async def hub(store: Faults, thread: ThreadPoolExecutor) -> AsyncIterator[Hub]:
    made = Hub("room", store, thread, read_only=False)
    await made.start()
    await put(made, "first")
    yield made
    await made.stop(lambda: Unavailable("Closed"))


async def put(hub: Hub, key: str, op_id: str | None = None, value: bytes = b"1") -> int:
    return (await hub.change(Ask([Set(key, msgspec.Raw(value))], CLOCKWORK, op_id=op_id))).seq


async def held(hub: Hub) -> tuple[list[str], int]:
    entries, seq = await hub.entries()
    return [one.key for one in entries], seq


async def test_a_commit_that_came_to_be_is_acknowledged(hub: Hub, store: Faults) -> None:
    store.due = store.after = True
    assert await put(hub, "second") == 2
    assert store.failed
    assert await put(hub, "third") == 3
    assert await held(hub) == (["first", "second", "third"], 3)


async def test_a_commit_that_did_not_leaves_no_gap(hub: Hub, store: Faults) -> None:
    store.due = True
    with pytest.raises(Unavailable, match="not stored"):
        await put(hub, "second")
    assert await put(hub, "third") == 2
    assert await held(hub) == (["first", "third"], 2)


@pytest.mark.parametrize("after", [True, False])
async def test_of_a_named_operation_that_changed_nothing_it_is_known_too(hub: Hub, store: Faults, after: bool) -> None:
    store.due, store.after = True, after
    if after:
        assert await put(hub, "first", "named") == 1
    else:
        with pytest.raises(Unavailable, match="not stored"):
            await put(hub, "first", "named")
    # Where it was remembered it is not applied again.
    assert await put(hub, "first", "named", b"2") == (1 if after else 2)


async def test_where_nobody_can_tell_nothing_more_is_changed_until_it_is_opened_anew(
    hub: Hub, store: Faults, thread: ThreadPoolExecutor, tmp_path: Path
) -> None:
    told: list[Hub] = []
    hub.broken = told.append
    store.due = store.after = store.blind = True
    with pytest.raises(Unavailable, match="unknown"):
        await put(hub, "second")
    assert told == [hub]
    store.blind = False
    with pytest.raises(Unavailable):
        await put(hub, "third")
    assert await held(hub) == (["first"], 1)
    again = Hub("room", Store(tmp_path / "room.db", Retention()), thread, read_only=False)
    await again.start()
    assert await held(again) == (["first", "second"], 2)
    assert await put(again, "third") == 3
    await again.stop(lambda: Unavailable("Closed"))


def test_it_is_an_answer_that_may_be_tried_again() -> None:
    assert OutcomeUnknown().status == 503


async def test_what_was_committed_and_not_acknowledged_is_never_computed_over(hub: Hub) -> None:
    """The lease was in doubt for a moment, just then; it is held again before the hub is closed."""
    told: list[Hub] = []
    answers = iter([None, Fenced()])

    def check() -> None:
        if (answer := next(answers, None)) is not None:
            raise answer

    hub.broken, hub.check = told.append, check
    with pytest.raises(Fenced):
        await put(hub, "second")
    assert hub in told
    # It changes nothing, so only its name would be written, with a seq that the file has passed.
    with pytest.raises(Unavailable, match="being closed"):
        await put(hub, "first", "named")
