"""A WebSocket whose other end is on another machine: bytes pass as they are, and nobody runs ahead of the slower."""

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.edge.framing import Frames, frame, frame_close, frame_text
from app.edge.placement import Destination, anywhere, at_home, at_primary
from app.edge.router import Route
from app.edge.socket import Socket
from app.edge.upgrade import WEBSOCKET, Upgrade
from app.errors import Forbidden
from cluster.delay_proxy import DelayProxy
from tests.cluster.pair import Machine, at_rest, client, pair
from tests.edge.echoing import Echo, echo
from tests.waiting import comes

pytestmark = pytest.mark.anyio

LARGE = 300_000


async def refuse(request: Request) -> Response:
    """Let nobody in."""
    raise Forbidden("Not for you", details="x")


async def refuse_on_replica(request: Request) -> Response:
    """Let in whom the primary knows."""
    if not request.scope["state"]["node"].is_primary:
        raise Forbidden("Unknown here")
    return await echo(request)


async def choose(request: Request) -> Response:
    """Speak the second of the dialects that are offered."""
    return Upgrade(lambda socket: Echo(socket, set()), subprotocol=request.subprotocols[1])  # type: ignore[attr-defined]


class Flood:
    """Sends as fast as the socket takes it."""

    def __init__(self, socket: Socket, state: dict[str, int]) -> None:
        self.socket, self.state = socket, state
        self.on_drain()

    def on_drain(self) -> None:
        while not self.socket.congested and self.state["sent"] < 4_000:
            self.state["sent"] += 1
            self.socket.write(b"x" * 65_536)

    def on_message(self, message: str | bytes) -> None: ...

    def on_shutdown(self) -> None: ...

    def on_close(self, code: int) -> None:
        self.state["closed"] = code


class Deaf:
    """Reads one message, and no more until it is told to."""

    def __init__(self, socket: Socket, state: dict[str, Any]) -> None:
        self.socket, self.state = socket, state
        state["heard"] = 0

    def on_message(self, message: str | bytes) -> None:
        self.state["heard"] += 1
        if self.state["heard"] == 1:
            self.state["deaf"] = self.socket
            self.socket.pause_reading()

    def on_drain(self) -> None: ...

    def on_shutdown(self) -> None: ...

    def on_close(self, code: int) -> None:
        self.state["code"] = code


async def flood(request: Request) -> Response:
    """Send without end."""
    state = request.scope["state"]["flood"] = {"sent": 0}
    return Upgrade(lambda socket: Flood(socket, state))


async def deafen(request: Request) -> Response:
    """Read nothing."""
    return Upgrade(lambda socket: Deaf(socket, request.scope["state"]))


ROUTES = (
    Route(WEBSOCKET, "/echo", at_primary, echo),
    Route(WEBSOCKET, "/room/{id}", at_home(by="path"), echo),
    Route(WEBSOCKET, "/chosen", at_primary, choose),
    Route(WEBSOCKET, "/refused", at_primary, refuse),
    Route(WEBSOCKET, "/known", anywhere, refuse_on_replica),
    Route(WEBSOCKET, "/flood", at_primary, flood),
    Route(WEBSOCKET, "/deaf", at_primary, deafen),
)


def dial(machine: Machine, path: str, **options: object) -> connect:
    address = f"ws://127.0.0.1:{machine.port}{path}"
    return connect(address, proxy=None, max_size=None, compression=None, open_timeout=20, **options)  # type: ignore[arg-type]


async def ended(socket: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code or 0, socket.close_reason or ""


async def test_messages_pass_both_ways_of_every_kind_and_size() -> None:
    async with pair(ROUTES) as both, dial(both.replica, "/echo?x=1") as socket:
        for message in ("hello", "", "ü" * LARGE, b"\0" * LARGE, b""):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send(["in ", "three ", "pieces"])
        assert await socket.recv() == "in three pieces"
        assert both.primary.observed == both.replica.observed == [("/echo", 101)]


async def test_a_socket_asked_for_at_the_wrong_machine_is_opened_at_its_home() -> None:
    async def home_of(name: str) -> Destination | None:
        return Destination("ams", "m2")

    async with pair(ROUTES, home_of=home_of) as both, dial(both.primary, "/room/a") as socket:
        await socket.send("x")
        assert await socket.recv() == "x"
        assert both.replica.observed == [("/room/{id}", 101)]


async def test_the_close_codes_and_reasons_of_both_ends_are_passed_on() -> None:
    async with pair(ROUTES) as both:
        async with dial(both.replica, "/echo") as socket:
            await socket.send("close 4408 Too slow")
            assert await ended(socket) == (4408, "Too slow")
        async with dial(both.replica, "/deaf") as socket:
            await socket.close(4001, "bye")
            await comes(lambda: both.primary.state.get("code") == 4001)


async def test_pings_are_answered_by_the_other_end() -> None:
    async with pair(ROUTES) as both, dial(both.replica, "/echo") as socket:
        assert await (await socket.ping(b"anybody?")) >= 0
        for held in list(both.primary.server.server_state.connections):
            if isinstance(held, Socket):
                held.ping()
        await socket.send("still")
        assert await socket.recv() == "still"


async def test_the_dialect_is_the_destinations_choice() -> None:
    async with pair(ROUTES) as both, dial(both.replica, "/chosen", subprotocols=["a", "b"]) as socket:
        assert socket.subprotocol == "b"


async def test_a_refusal_passes_as_plain_http() -> None:
    async with pair(ROUTES) as both:
        with pytest.raises(InvalidStatus) as refused:
            await dial(both.replica, "/refused")
        response = refused.value.response
        said = json.loads(response.body)
        assert (response.status_code, said["code"], said["details"]) == (403, "forbidden", "x")
        assert response.headers.get_all("x-request-id") == [said["requestId"]]


async def test_whom_a_replica_does_not_know_the_primary_lets_in() -> None:
    async with pair(ROUTES) as both, dial(both.replica, "/known") as socket:
        await socket.send("x")
        assert await socket.recv() == "x"
        assert both.primary.observed == [("/known", 101)]


async def test_a_client_that_does_not_read_holds_the_sender_up() -> None:
    async with pair(ROUTES) as both, dial(both.replica, "/flood", max_queue=1) as socket:
        await comes(lambda: "flood" in both.primary.state)
        assert await at_rest(lambda: both.primary.state["flood"]["sent"]) < 1_000
        for _ in range(4_000):
            await socket.recv()


async def test_a_destination_that_does_not_read_holds_the_client_up() -> None:
    async with pair(ROUTES) as both, dial(both.replica, "/deaf") as socket:
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(2_000):
                await socket.send(b"x" * 65_536)
                sent += 1

        sending = asyncio.create_task(send())
        assert await at_rest(lambda: sent) < 1_000
        both.primary.state["deaf"].resume_reading()
        await sending
        await comes(lambda: both.primary.state["heard"] == 2_000)


async def test_a_client_that_vanishes_ends_the_far_socket() -> None:
    async with pair(ROUTES) as both, dial(both.replica, "/echo") as socket:
        await socket.send("x")
        await socket.recv()
        socket.transport.abort()
        await comes(lambda: not both.primary.state["echoes"])
        await comes(lambda: not both.replica.server.server_state.connections)


async def test_a_lost_machine_closes_its_sockets_with_1013() -> None:
    lines: list[DelayProxy] = []

    def between(port: int) -> int:
        lines.append(DelayProxy(port))
        return lines[-1].port

    async with pair(ROUTES, between=between) as both, dial(both.replica, "/echo") as socket:
        await socket.send("x")
        await socket.recv()
        lines[0].cut()
        assert await ended(socket) == (1013, "the other machine is gone")
        with pytest.raises(InvalidStatus) as refused:
            await dial(both.replica, "/echo")
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["retry-after"] == "1"
    for line in lines:
        line.close()


async def test_a_machine_that_stops_closes_what_goes_through_it_with_1012() -> None:
    async with pair(ROUTES) as both, dial(both.replica, "/echo") as socket:
        await socket.send("x")
        await socket.recv()
        both.replica.server.should_exit = True
        assert await ended(socket) == (1012, "restart")


async def test_a_stopping_destination_says_goodbye_itself() -> None:
    async with pair(ROUTES) as both, dial(both.replica, "/echo") as socket:
        await socket.send("x")
        await socket.recv()
        both.primary.server.should_exit = True
        assert await socket.recv() == "going"
        assert await socket.recv() == "away"
        assert await ended(socket) == (1012, "restart")


async def test_a_socket_is_moved_once() -> None:
    async with pair(ROUTES) as both:
        both.primary.node.is_primary = False
        both.primary.node.region = "somewhere"
        with pytest.raises(InvalidStatus) as refused:
            await dial(both.replica, "/echo")
        assert refused.value.response.status_code == 503


async def test_a_plain_get_of_a_sockets_address_is_refused_where_it_is_asked() -> None:
    async with pair(ROUTES) as both, client(both.replica) as asking:
        assert (await asking.get("/echo")).status_code == 400
        assert both.primary.observed == []


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1_000_000])
def test_frames_are_counted_however_they_are_cut(step: int) -> None:
    stream = frame_text(b"a") + frame(2, b"b" * 200) + frame(2, b"c" * 70_000) + frame_text(b"")
    frames = Frames()
    for at in range(0, len(stream), step):
        frames.feed(stream[at : at + step])
    assert (frames.between, frames.closed) == (True, False)
    frames.feed(frame_text(b"abc")[:-1])
    assert not frames.between
    frames.feed(b"c" + frame_close(1000))
    assert (frames.between, frames.closed) == (True, True)
