"""The follower: a replica comes as far as the primary is, with as few questions as that takes."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.edge.follower import APART_SECONDS
from app.edge.peers import POSITION
from app.edge.transaction import Position
from app.errors import Unavailable
from tests.cluster.pair import EPOCH, Pair, pair
from tests.waiting import comes

pytestmark = pytest.mark.anyio

SECONDS = 5.0


class Asked:
    """What the primary says of its position: `sequence`, once it is let."""

    def __init__(self, both: Pair) -> None:
        self.questions = 0
        self.sequence = 1
        self.let = asyncio.Event()
        self.let.set()
        both.primary.peers.answers[POSITION] = self.answer

    async def answer(self, question: bytes, machine: str) -> bytes:
        self.questions += 1
        found = self.sequence
        await self.let.wait()
        return b"%s-%d" % (EPOCH.encode(), found)


async def test_however_many_wait_one_question_is_asked_and_one_more_for_who_came_meanwhile() -> None:
    async with pair([]) as both:
        asked, follower = Asked(both), both.replica.follower
        asked.let.clear()
        first = asyncio.create_task(follower.catch_up(SECONDS))
        await comes(lambda: asked.questions == 1)
        # It may have looked already, and cannot know of this.
        asked.sequence = 2
        others = [asyncio.create_task(follower.catch_up(SECONDS)) for _ in range(200)]
        asked.let.set()
        await first
        await comes(lambda: len(both.replica.node._waiters) == len(others))
        assert not any(other.done() for other in others)
        both.replica.node.advance(Position(EPOCH, 2))
        await asyncio.gather(*others)
        assert asked.questions == 2


async def test_a_storm_costs_a_question_in_so_long_and_no_more() -> None:
    async with pair([]) as both:
        asked, follower = Asked(both), both.replica.follower
        begun = asyncio.get_running_loop().time()

        async def storm() -> None:
            for _ in range(5):
                await follower.catch_up(SECONDS)

        await asyncio.gather(*(storm() for _ in range(50)))
        took = asyncio.get_running_loop().time() - begun
        assert 5 <= asked.questions <= 1 + took / APART_SECONDS


async def test_who_leaves_takes_nobodys_answer_along() -> None:
    async with pair([]) as both:
        asked, follower = Asked(both), both.replica.follower
        asked.let.clear()
        leaving, staying = (asyncio.create_task(follower.catch_up(SECONDS)) for _ in range(2))
        await comes(lambda: asked.questions == 1)
        leaving.cancel()
        await asyncio.wait([leaving])
        asked.let.set()
        await staying
        assert asked.questions == 1


async def test_a_question_does_not_wait_for_threads_that_a_hanging_mount_holds() -> None:
    """So are heartbeats asked: a machine would lose its lease for a file system."""
    async with pair([]) as both:
        asked, follower = Asked(both), both.replica.follower
        await both.replica.peers.session()
        hanging = threading.Event()
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        held = asyncio.ensure_future(asyncio.to_thread(hanging.wait, 30))
        try:
            await follower.catch_up(SECONDS)
        finally:
            hanging.set()
            await held
        assert asked.questions == 1


async def test_a_primary_that_says_nothing_is_waited_for_only_so_long() -> None:
    async with pair([]) as both:
        asked, follower = Asked(both), both.replica.follower
        asked.let.clear()
        with pytest.raises(Unavailable):
            await follower.catch_up(0.1)
        asked.let.set()
        await follower.catch_up(SECONDS)
        await both.primary.close()
        with pytest.raises(Unavailable):
            await follower.catch_up(SECONDS)


async def test_what_follows_from_what_has_arrived_is_waited_for_too_and_the_primary_asks_nobody() -> None:
    async with pair([]) as both:
        asked = Asked(both)
        for machine, questions in ((both.primary, 0), (both.replica, 1)):
            settled = asyncio.Event()

            async def settle(settled: asyncio.Event = settled) -> None:
                settled.set()

            machine.follower.settle = settle
            await machine.follower.catch_up(SECONDS)
            assert settled.is_set()
            assert asked.questions == questions
