"""Flights: of all who ask for the same at once one has it done, and nobody's leaving ends it for the others."""

import asyncio
import gc
from typing import Any

import pytest

from app.edge.flights import Flights

pytestmark = pytest.mark.anyio


class Work:
    """Counts how often it is begun, and ends when it is let."""

    def __init__(self, error: type[Exception] | None = None) -> None:
        self.begun = 0
        self.let = asyncio.Event()
        self._error = error

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.let.wait()
        if self._error is not None:
            raise self._error("no")
        return number

    async def until_begun(self, times: int) -> None:
        async with asyncio.timeout(5):
            while self.begun < times:
                await asyncio.sleep(0)


async def landed(flights: Flights[Any, Any]) -> None:
    async with asyncio.timeout(5):
        while flights.tasks():
            await asyncio.sleep(0)


async def test_who_joins_shares_what_is_under_way_and_who_comes_later_begins_anew() -> None:
    flights, work = Flights[str, int](), Work()
    leaving, *staying = (asyncio.create_task(flights.join("a", work)) for _ in range(10))
    other = asyncio.create_task(flights.join("b", work))
    await work.until_begun(2)
    leaving.cancel()
    work.let.set()
    assert await asyncio.gather(*staying) == [1] * 9
    assert await other == 2
    assert await flights.join("a", work) == 3
    await landed(flights)


async def test_who_has_to_know_of_now_shares_what_begins_after_what_is_under_way() -> None:
    flights, work = Flights[str, int](), Work()
    first = asyncio.create_task(flights.join_next("a", work))
    await work.until_begun(1)
    later = [asyncio.create_task(flights.join_next("a", work)) for _ in range(10)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert work.begun == 1
    work.let.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 10
    await landed(flights)


async def test_what_comes_not_before_a_moment_is_shared_until_then() -> None:
    flights, work = Flights[str, int](), Work()
    work.let.set()
    loop = asyncio.get_running_loop()
    at = loop.time() + 0.05
    early = asyncio.create_task(flights.join_next("a", work, not_before=at))
    await asyncio.sleep(0.01)
    assert await asyncio.gather(early, flights.join_next("a", work)) == [1, 1]
    assert loop.time() >= at


async def test_all_who_wait_hear_of_a_failure() -> None:
    flights, work = Flights[str, int](), Work(LookupError)
    waiting = [asyncio.create_task(flights.join_next("a", work)) for _ in range(3)]
    work.let.set()
    assert [type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)] == [LookupError] * 3
    await landed(flights)


async def test_a_failure_that_nobody_waits_for_any_more_is_no_error_of_the_loop() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    flights, work = Flights[str, int](), Work(LookupError)
    leaving = asyncio.create_task(flights.join("a", work))
    await work.until_begun(1)
    leaving.cancel()
    await asyncio.wait([leaving])
    work.let.set()
    await landed(flights)
    # Its traceback holds the task that failed.
    del leaving
    gc.collect()
    assert told == []


async def test_the_end_ends_what_is_under_way_and_what_waits_for_it() -> None:
    flights, work = Flights[str, int](), Work()
    waiting = [asyncio.create_task(flights.join_next("a", work))]
    await work.until_begun(1)
    waiting.append(asyncio.create_task(flights.join_next("a", work)))
    await asyncio.sleep(0)
    await flights.close()
    assert all(
        isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*waiting, return_exceptions=True)
    )
    assert work.begun == 1
