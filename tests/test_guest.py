"""The bench's guest: what it calls acknowledged is there, each change once; and its ticker, which misses no stall."""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.sync.server import Server, ServerConnection, serve

from bench.guest import Guest
from bench.process import Refused
from bench.ticker import Ticker

WRITES = 20
OFTEN = 7
STALL_SECONDS = 0.05


class Hub:
    """Keeps what it is told, and hangs up at every seventh change: it has committed that, and told nobody."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, Any]] = []
        self.marks: dict[str, int] = {}

    def __call__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        since = parse_qs(urlsplit(socket.request.path).query).get("since")
        self.say(socket, type="auth_success", seq=len(self.changes), epoch="1")
        if since is None:
            data = {key: {"value": value} for key, value in self.changes}
            self.say(socket, type="sync", data=data, seq=len(self.changes))
        else:
            self.tell(socket, int(since[0]))
        for message in socket:
            self.hear(socket, json.loads(message))

    def hear(self, socket: ServerConnection, said: dict[str, Any]) -> None:
        before = len(self.changes)
        if said["opId"] not in self.marks:
            self.changes.append((said["key"], said["value"]))
            self.marks[said["opId"]] = len(self.changes)
            if len(self.changes) % OFTEN == 0:
                socket.close()
                return
        self.tell(socket, before)
        self.say(socket, type="ack", opId=said["opId"])

    def tell(self, socket: ServerConnection, since: int) -> None:
        for number, (key, value) in enumerate(self.changes[since:], since + 1):
            self.say(socket, type="key_updated", key=key, value=value, seq=number)

    def say(self, socket: ServerConnection, **frame: Any) -> None:
        socket.send(json.dumps(frame))


class Forgetful(Hub):
    """Has lost the last change that it acknowledged when somebody comes."""

    def __call__(self, socket: ServerConnection) -> None:
        if self.changes:
            self.changes.pop()
        super().__call__(socket)


class Repeating(Hub):
    """Does not know what it has done already."""

    def hear(self, socket: ServerConnection, said: dict[str, Any]) -> None:
        self.marks.pop(said["opId"], None)
        super().hear(socket, said)


class Skipping(Hub):
    """Leaves a number out."""

    def say(self, socket: ServerConnection, **frame: Any) -> None:
        if frame.get("seq", 0) >= OFTEN:
            frame["seq"] += 1
        super().say(socket, **frame)


@pytest.fixture
def hub(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A hub of the class in the test's parameter."""
    with serve(request.param(), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def visit(hub: Server) -> int:
    guest = Guest("room", "token", [hub.socket.getsockname()[1]])
    guest.start()
    guest.wait_for(WRITES)
    return guest.finish()


@pytest.mark.parametrize("hub", [Hub], indirect=True)
def test_a_guest_that_is_sent_away_writes_each_change_once(hub: Server) -> None:
    assert visit(hub) >= WRITES


@pytest.mark.parametrize(
    ("hub", "said"),
    [(Forgetful, "changes were acknowledged"), (Repeating, "changes were acknowledged"), (Skipping, "after seq")],
    indirect=["hub"],
)
def test_a_guest_that_misses_something_is_no_figure(hub: Server, said: str) -> None:
    with pytest.raises(Refused, match=said):
        visit(hub)


@pytest.mark.anyio
async def test_the_ticker_counts_all_that_a_stall_kept_waiting(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)]
    ticker = Ticker(tmp_path / "late.json")
    ticker.install()
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(0)
        time.sleep(STALL_SECONDS)
        await asyncio.sleep(STALL_SECONDS)
        os.kill(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGUSR2, before[1])
    late = json.loads((tmp_path / "late.json").read_text())
    assert max(late) >= 0.9 * 1000 * STALL_SECONDS
    assert sum(1 for one in late if one >= 0.5 * 1000 * STALL_SECONDS) >= 20
