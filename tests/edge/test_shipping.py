"""Shipping: who waits for the replica hears of a look that began after the commit, never of an earlier one."""

import asyncio
from pathlib import Path

import pytest

from app.edge import shipping
from app.edge.control import NotReady
from app.edge.shipping import Shipping
from app.errors import Unavailable
from tests.waiting import comes

pytestmark = pytest.mark.anyio
PATH, OTHER = Path("/core.db"), Path("/other.db")


class Replica:
    """Answers when it is let; `asked` is how often it was."""

    def __init__(self) -> None:
        self.asked: list[Path] = []
        self.told: list[Path] = []
        self.gate = asyncio.Event()
        self.shipping = Shipping(self.sync, lambda path, began: self.told.append(path))

    async def sync(self, path: Path) -> None:
        self.asked.append(path)
        await self.gate.wait()

    async def until_asked(self, times: int) -> None:
        await comes(lambda: len(self.asked) >= times)


async def test_callers_of_one_moment_share_one_question() -> None:
    replica = Replica()
    replica.gate.set()
    await asyncio.gather(*(replica.shipping.ship(PATH) for _ in range(100)))
    assert replica.asked == [PATH]
    assert replica.told == [PATH]


async def test_who_comes_while_a_question_is_under_way_waits_for_the_next_and_shares_it() -> None:
    replica = Replica()
    first = asyncio.create_task(replica.shipping.ship(PATH))
    await replica.until_asked(1)
    later = [asyncio.create_task(replica.shipping.ship(PATH)) for _ in range(10)]
    await asyncio.sleep(0)
    assert replica.asked == [PATH]
    replica.gate.set()
    await asyncio.gather(first, *later)
    assert replica.asked == [PATH, PATH]


async def test_one_file_does_not_wait_for_another() -> None:
    replica = Replica()
    both = [asyncio.create_task(replica.shipping.ship(path)) for path in (PATH, OTHER)]
    await replica.until_asked(2)
    replica.gate.set()
    await asyncio.gather(*both)


async def test_a_replica_that_does_not_answer_is_unavailable_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "SHIP_SECONDS", 0.05)
    replica = Replica()
    with pytest.raises(Unavailable, match="not yet safe"):
        await replica.shipping.ship(PATH)
    await replica.shipping.close()


async def test_a_litestream_that_is_away_for_a_moment_is_asked_again() -> None:
    answers = [NotReady("away"), NotReady("away"), None]

    async def sync(path: Path) -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    await Shipping(sync, lambda path, began: None).ship(PATH)
    assert answers == []


async def test_a_caller_that_leaves_does_not_end_the_question_of_the_others() -> None:
    replica = Replica()
    leaver = asyncio.create_task(replica.shipping.ship(PATH))
    stayer = asyncio.create_task(replica.shipping.ship(PATH))
    await replica.until_asked(1)
    leaver.cancel()
    replica.gate.set()
    await stayer
    assert replica.asked == [PATH]
