"""A home that is lost while it is asked: what may have been done there is not done a second time elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.edge.placement import Destination, at_home
from app.edge.replay import REPLAY_SECONDS
from app.edge.router import Route
from app.regions import FLY
from tests.cluster.pair import client, pair
from tests.cluster.test_forward import waited, where

pytestmark = pytest.mark.anyio

ROUTES = [Route(method, "/home/{id}", at_home(by="path"), where) for method in ("GET", "POST")]


@asynccontextmanager
async def deaf() -> AsyncIterator[int]:
    """A port where whatever is asked is heard, and the connection ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("heard", [True, False], ids=["heard there", "nobody there"])
async def test_a_write_is_repeated_only_where_nobody_has_heard_it(heard: bool) -> None:
    asked = 0

    async def home_of(name: str) -> Destination:
        nonlocal asked
        asked += 1
        return Destination("ams", "m2") if asked == 1 else Destination("fra", "m1")

    async with (
        deaf() as port,
        pair(ROUTES, home_of=home_of, between=lambda _: port if heard else 1) as both,
        client(both.primary) as asking,
    ):
        answer = await asking.post("/home/a", content=b"x")
        assert answer.status_code == (503 if heard else 200), answer.text
        asked = 0
        assert (await asking.get("/home/a")).json() == {"machine": "m1"}


async def test_the_seconds_that_the_proxy_looked_for_a_home_count_among_those_that_its_request_may_wait() -> None:
    async def home_of(name: str) -> Destination:
        return Destination("fra", "m1")

    route = Route("GET", "/waited/{id}", at_home(by="path"), waited)
    async with pair([route], FLY, home_of) as both, client(both.replica) as asking:
        answer = await asking.get("/waited/a", headers={"fly-replay-failed": "instance=m1;reason=timeout"})
        assert answer.json()["waited"] >= REPLAY_SECONDS
