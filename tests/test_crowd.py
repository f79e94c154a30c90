"""The bench's crowd: what it counts was heard by everybody, whole and once."""

import asyncio
import itertools
import os
import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest

from bench import crowd
from bench.canned_hub import Client
from bench.crowd import Crowd, drive
from bench.dialects import WS
from cluster.ports import free_port

CLIENTS = 5
OFTEN = 7
END_SECONDS = 10.0
_times = itertools.count(1)


class Honest(Client):
    others: ClassVar[list[Client]] = []


class Forgetful(Client):
    """Tells its first client nothing every seventh time."""

    others: ClassVar[list[Client]] = []

    def tell(self, told: bytes) -> None:
        for client in self.others[next(_times) % OFTEN == 0 :]:
            client.transport.write(told)


class Stammering(Client):
    """Tells its first client the same again every seventh time."""

    others: ClassVar[list[Client]] = []

    def tell(self, told: bytes) -> None:
        super().tell(told)
        if next(_times) % OFTEN == 0:
            self.others[0].transport.write(told)


class Shortening(Client):
    """Leaves out the end of every value."""

    others: ClassVar[list[Client]] = []

    def tell(self, told: bytes) -> None:
        super().tell(told.replace(b'xxx"}', b'"}xxx'))


@pytest.fixture
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Where a hub of the class in the test's parameter listens."""
    request.param.others.clear()
    bound = free_port()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(request.param, "127.0.0.1", bound))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield bound
    asyncio.run_coroutine_threadsafe(_end(server, request.param.others), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def _end(server: asyncio.Server, clients: list[Client]) -> None:
    """What has lost its client is closed while the loop still runs: a transport that is not complains when it goes."""
    server.close()
    async with asyncio.timeout(END_SECONDS):
        while clients:
            await asyncio.sleep(0)


@pytest.mark.parametrize("port", [Honest], indirect=True)
@pytest.mark.parametrize("writers", [1, CLIENTS])
def test_a_crowd_counts_every_change_for_every_client(port: int, writers: int) -> None:
    heard = drive(_crowd(port, writers))
    assert heard.changes > 16 * writers
    assert heard.deliveries == heard.changes * CLIENTS


@pytest.mark.parametrize("port", [Forgetful, Stammering, Shortening], indirect=True)
def test_there_is_no_figure_of_a_hub_that_forgets_repeats_or_shortens(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "GRACE_SECONDS", 0.5)
    with pytest.raises((ConnectionError, TimeoutError)):
        drive(_crowd(port, 1))


def _crowd(port: int, writers: int) -> Crowd:
    return Crowd(port, os.getpid(), WS, CLIENTS, 0.2, 16, writers)
