"""Presence: however often somebody moves, others hear where they are now, and always that they have left."""

import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from app.edge.framing import TEXT
from app.instances.presence import PRESENCE_SECONDS
from tests.conftest import Server
from tests.instances.conftest import Peer, fresh, joined
from tests.instances.live import live
from tests.waiting import comes

MOVES = 500


def test_of_many_states_in_a_row_few_are_passed_on_and_the_newest_is_the_last(two: tuple[Peer, Peer]) -> None:
    one, other = two
    other.say("presence", state=None)
    other.settle()
    began = time.monotonic()
    for number in range(MOVES):
        one.say("presence", state=number)
    heard = [other.hear()["state"]]
    while heard[-1] != MOVES - 1:
        heard.append(other.hear()["state"])
    assert heard == sorted(heard)
    assert heard[0] == 0
    assert len(heard) <= 2 + (time.monotonic() - began) / PRESENCE_SECONDS
    assert [frame["type"] for frame in other.settle()] == []


@pytest.mark.anyio
async def test_a_state_that_was_not_passed_on_yet_does_not_come_after_the_leaving(tmp_path: Path) -> None:
    async with live(tmp_path) as served:
        name = await served.make("room")
        async with served.joined(name) as stays, served.joined(name), served.joined(name):
            audience = (await served.hubs.open(name)).audience
            first, leaves, third = audience.members.values()
            audience.presence.say(first, msgspec.Raw(b"0"))
            audience.presence.say(leaves, msgspec.Raw(b"1"))
            audience.presence.say(leaves, msgspec.Raw(b"2"))
            audience.leave(leaves)
            await comes(lambda: not audience.presence._recent)
            for state in (b"3", b"4"):
                audience.presence.say(third, msgspec.Raw(state))
            assert [(await stays.hear())["state"] for _ in range(4)] == [1, None, 3, 4]


def test_each_ones_first_state_does_not_wait_for_the_others(open_server: Server) -> None:
    with ExitStack() as stack:
        name = fresh()
        peers = [stack.enter_context(joined(open_server, name)) for _ in range(5)]
        for number, peer in enumerate(peers):
            peer.say("presence", state=number)
            heard = [frame["state"] for frame in peer.settle()]
            assert heard[: number + 1] == list(range(number))


@pytest.mark.anyio
async def test_who_lags_behind_is_told_where_everybody_is_and_who_has_left(tmp_path: Path) -> None:
    async with live(tmp_path) as served:
        name = await served.make("room")
        async with served.joined(name), served.joined(name) as leaves, served.wire(name) as slow:
            hub = await served.hubs.open(name)
            first, second, lagging = hub.audience.members.values()
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            presence = hub.audience.presence
            for member in (first, second, lagging):
                presence.say(member, msgspec.Raw(b"0"))
            while not lagging.outbox.lags:
                lagging.socket.write(b'"' + b"x" * (1 << 20) + b'"')
            await leaves.socket.close()
            await comes(lambda: second.id not in hub.audience.members)
            for number in range(1_000):
                presence.say(first, msgspec.Raw(b"%d" % number))
            await comes(lambda: not presence._stale)
            slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
            told: dict[str, object] = {}
            while told.get(first.id) != 999:
                opcode, payload = await slow.receive()
                frame = msgspec.json.decode(payload) if opcode == TEXT else None
                if isinstance(frame, dict) and frame["type"] == "presence":
                    told[frame["connectionId"]] = frame["state"]
            assert told == {first.id: 999, second.id: None}
