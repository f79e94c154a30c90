"""The handshake: what is accepted, and what is refused over HTTP before anything is a WebSocket."""

import asyncio
import json
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.edge import front
from app.edge.framing import TEXT
from app.edge.http import json_response
from app.edge.placement import anywhere
from app.edge.router import Route
from app.edge.socket import Socket
from app.edge.sockets import Sockets
from app.edge.upgrade import WEBSOCKET, Handshake, Upgrade
from app.edge.websocket import protocol_of
from app.errors import Forbidden, Unavailable
from tests.conftest import Server
from tests.edge.conftest import Site, site
from tests.edge.echoing import Echo, echo
from tests.edge.wire import ACCEPT, WAIT_SECONDS, Wire, asking, connected, head
from tests.waiting import comes

pytestmark = pytest.mark.anyio


async def choose(request: Request) -> Response:
    assert isinstance(request, Handshake)
    wanted = "v2" if "v2" in request.subprotocols else None
    return Upgrade(lambda connection: Echo(connection, set()), subprotocol=wanted)


async def refuse(request: Request) -> Response:
    raise Forbidden("Instance not found or access denied", details=request.path_params["id"])


async def crash(request: Request) -> Response:
    raise LookupError("inside")


async def lose_patience(request: Request) -> Response:
    raise TimeoutError("with something else than the handshake")


async def replay(request: Request) -> Response:
    response = json_response({"elsewhere": True})
    response.headers["fly-replay"] = "region=fra"
    return response


async def crash_after_accepting(request: Request) -> Response:
    def fail(connection: Socket) -> Echo:
        raise LookupError("inside")

    return Upgrade(fail)


async def plain(request: Request) -> Response:
    return json_response("plain")


class Waiting:
    """An endpoint that does not answer before it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.go = asyncio.Event()
        self.upgraded = 0

    async def answer(self, request: Request) -> Response:
        self.entered.set()
        await self.go.wait()
        return Upgrade(self._count)

    async def hang_up(self, request: Request) -> Response:
        """Over HTTP, once it is let go."""
        await self.go.wait()
        return Response("bye", headers={"Connection": "close"})

    def _count(self, connection: Socket) -> Echo:
        self.upgraded += 1
        return Echo(connection, set())


ROUTES = (
    Route(WEBSOCKET, "/echo", anywhere, echo),
    Route(WEBSOCKET, "/choose", anywhere, choose),
    Route(WEBSOCKET, "/refuse/{id}", anywhere, refuse),
    Route(WEBSOCKET, "/crash", anywhere, crash),
    Route(WEBSOCKET, "/wait", anywhere, lose_patience),
    Route(WEBSOCKET, "/replay", anywhere, replay),
    Route(WEBSOCKET, "/late", anywhere, crash_after_accepting),
    Route("GET", "/plain", anywhere, plain),
    Route("GET", "/both", anywhere, plain),
    Route(WEBSOCKET, "/both", anywhere, echo),
)


def serving(routes: Any = ROUTES, **config: Any) -> Any:
    return site(routes, ws=protocol_of(Sockets()), **config)


async def refusal(wire: Wire) -> dict[str, Any]:
    """The body of an answer over HTTP, which ends the connection."""
    body = await wire.read_to_end()
    assert len(body) == int(wire.headers["content-length"])
    assert wire.headers["connection"] == "close"
    told: dict[str, Any] = json.loads(body)
    return told


async def test_a_handshake_is_answered_as_rfc_6455_computes_it_and_has_an_id() -> None:
    async with serving() as (_, served), connected(served.port) as wire:
        assert wire.status == 101
        assert wire.headers["sec-websocket-accept"] == ACCEPT
        assert (wire.headers["upgrade"], wire.headers["connection"]) == ("websocket", "Upgrade")
        assert wire.headers["x-request-id"]
        wire.send(TEXT, b"first")
        assert await wire.receive() == (TEXT, b"first")


async def test_no_extension_is_accepted() -> None:
    offer = head("/echo", Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
    async with serving() as (_, served), connected(served.port, offer) as wire:
        assert wire.status == 101
        assert "sec-websocket-extensions" not in wire.headers


@pytest.mark.parametrize(("offered", "chosen"), [("v1, v2", "v2"), ("v1", None), (None, None)])
async def test_the_endpoint_chooses_among_the_subprotocols(offered: str | None, chosen: str | None) -> None:
    request = head("/choose", Sec_WebSocket_Protocol=offered)
    async with serving() as (_, served), connected(served.port, request) as wire:
        assert wire.headers.get("sec-websocket-protocol") == chosen


async def test_a_refusal_is_the_json_of_every_other_refusal() -> None:
    async with serving() as (_, served), connected(served.port, head("/refuse/42?token=secret")) as wire:
        told = await refusal(wire)
        served.requests.flush()
    assert wire.status == 403
    assert told == {
        "error": "Instance not found or access denied",
        "message": "Instance not found or access denied",
        "code": "forbidden",
        "requestId": wire.headers["x-request-id"],
        "details": "42",
    }
    assert served.observed == [("/refuse/{id}", WEBSOCKET, 403)]
    assert "secret" not in served.log.getvalue()


async def test_an_accepted_handshake_is_measured_and_logged_when_it_is_over_not_when_the_socket_is() -> None:
    async with serving() as (_, served), connected(served.port):
        served.requests.flush()
        line = json.loads(served.log.getvalue())
        assert served.observed == [("/echo", WEBSOCKET, 101)]
    assert (line["method"], line["path"], line["status"]) == (WEBSOCKET, "/echo", 101)


@pytest.mark.parametrize("path", ["/crash", "/wait"])
async def test_an_unexpected_failure_is_a_bare_500_and_is_logged(path: str) -> None:
    with capture_logs() as logged:
        async with serving() as (_, served), connected(served.port, head(path)) as wire:
            told = await refusal(wire)
    assert (wire.status, told["error"]) == (500, "Internal server error")
    assert [line["event"] for line in logged] == ["unexpected"]


async def test_a_failure_after_the_handshake_closes_with_1011() -> None:
    with capture_logs() as logged:
        async with serving() as (_, served), connected(served.port, head("/late")) as wire:
            assert wire.status == 101
            assert await wire.receive_close() == (1011, "")
    assert [line["event"] for line in logged] == ["unexpected"]


async def test_an_upgrade_may_be_answered_without_being_accepted() -> None:
    """As a platform asks for it that replays the request elsewhere."""
    async with serving() as (_, served), connected(served.port, head("/replay")) as wire:
        assert await refusal(wire) == {"elsewhere": True}
    assert (wire.status, wire.headers["fly-replay"]) == (200, "region=fra")


async def test_an_unknown_path_is_404_and_a_path_without_sockets_400() -> None:
    async with serving() as (_, served):
        async with connected(served.port, head("/nowhere")) as unknown:
            assert (unknown.status, (await refusal(unknown))["error"]) == (404, "Not found")
        async with connected(served.port, head("/plain")) as http_only:
            told = await refusal(http_only)
    assert (http_only.status, told["error"]) == (400, "WebSocket required or invalid endpoint")


async def test_a_plain_get_is_told_that_a_websocket_is_required_unless_it_has_a_route() -> None:
    async with serving() as (client, _):
        plain_get, both = await client.get("/echo"), await client.get("/both")
        posted, head_only = await client.post("/echo"), await client.head("/echo")
    assert (plain_get.status_code, plain_get.json()["error"]) == (400, "WebSocket required or invalid endpoint")
    assert head_only.status_code == 400
    assert (both.status_code, both.json()) == (200, "plain")
    assert (posted.status_code, posted.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    ("request_head", "status", "header"),
    [
        (head("/echo", Sec_WebSocket_Version="8"), 400, ("sec-websocket-version", "13")),
        (head("/echo", Sec_WebSocket_Version=None), 400, ("sec-websocket-version", "13")),
        (head("/echo", Sec_WebSocket_Key=None), 400, None),
        (head("/echo", Sec_WebSocket_Key="c2hvcnQ="), 400, None),
        (head("/echo", Sec_WebSocket_Key="not base64 at all!!!!!!!"), 400, None),
        (head("/echo", method="POST", Content_Length="0"), 405, ("allow", "GET")),
    ],
    ids=["version 8", "no version", "no key", "short key", "no base64", "post"],
)
async def test_a_handshake_that_breaks_rfc_6455_4_2_1_is_refused(
    request_head: bytes, status: int, header: tuple[str, str] | None
) -> None:
    async with serving() as (_, served), connected(served.port, request_head) as wire:
        told = await refusal(wire)
    assert wire.status == status
    assert told["requestId"] == wire.headers["x-request-id"]
    assert header is None or wire.headers[header[0]] == header[1]


async def test_the_command_serves_upgrades(server: Server) -> None:
    async with connected(server.port, head("/health")) as wire:
        told = await refusal(wire)
    assert (wire.status, told["error"]) == (400, "WebSocket required or invalid endpoint")


async def test_two_keys_are_refused() -> None:
    doubled = head("/echo").replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
    async with serving() as (_, served), connected(served.port, doubled) as wire:
        assert wire.status == 400


async def test_an_upgrade_to_something_else_is_an_ordinary_request() -> None:
    async with serving() as (_, served), connected(served.port, head("/plain", Upgrade="h2c")) as wire:
        assert wire.status == 200


async def test_what_is_sent_before_the_answer_waits_for_it() -> None:
    waiting = Waiting()
    routes = (Route(WEBSOCKET, "/echo", anywhere, waiting.answer),)
    async with serving(routes) as (client, served), asking(served.port) as wire:
        await asyncio.wait_for(waiting.entered.wait(), WAIT_SECONDS)
        wire.send(TEXT, b"early")
        # Another request is answered meanwhile, so these bytes have had their turn.
        await client.get("/nowhere")
        waiting.go.set()
        await wire.read_head()
        assert await wire.receive() == (TEXT, b"early")


async def test_a_handshake_that_takes_too_long_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "HANDSHAKE_SECONDS", 0.05)
    routes = (Route(WEBSOCKET, "/echo", anywhere, Waiting().answer),)
    async with serving(routes) as (_, served), connected(served.port) as wire:
        told = await refusal(wire)
    assert (wire.status, told["code"]) == (503, "unavailable")
    assert wire.headers["retry-after"]


async def test_a_client_that_leaves_during_the_handshake_becomes_no_socket() -> None:
    waiting = Waiting()
    sockets = Sockets()
    routes = (Route(WEBSOCKET, "/echo", anywhere, waiting.answer),)
    async with site(routes, ws=protocol_of(sockets)) as (_, served):
        async with asking(served.port):
            await asyncio.wait_for(waiting.entered.wait(), WAIT_SECONDS)
        waiting.go.set()
        await ended(served, sockets)
    assert served.server.server_state.connections == set()


async def test_a_connection_that_ends_during_the_handshake_is_a_client_that_left() -> None:
    """A request that was sent before, on the same connection, may end it."""
    before, waiting = Waiting(), Waiting()
    routes = (Route("GET", "/before", anywhere, before.hang_up), Route(WEBSOCKET, "/echo", anywhere, waiting.answer))
    both = b"GET /before HTTP/1.1\r\nHost: localhost\r\n\r\n" + head("/echo")
    sockets = Sockets()
    async with site(routes, ws=protocol_of(sockets)) as (_, served), asking(served.port, both) as wire:
        await asyncio.wait_for(waiting.entered.wait(), WAIT_SECONDS)
        before.go.set()
        assert (await wire.read_to_end()).endswith(b"bye")
        waiting.go.set()
        await ended(served, sockets)
    assert waiting.upgraded == 0
    assert served.observed == [("/before", "GET", 200), ("/echo", WEBSOCKET, 499)]


async def ended(served: Site, sockets: Sockets) -> None:
    """Until no connection and no task of the site is left."""
    state = served.server.server_state
    await comes(lambda: not (state.connections or state.tasks or len(sockets)))


async def test_more_connections_than_the_limit_are_503() -> None:
    async with (
        serving(limit_concurrency=2) as (_, served),
        connected(served.port),
        connected(served.port),
        connected(served.port) as wire,
    ):
        told = await refusal(wire)
    assert (wire.status, told["error"]) == (503, "Too many connections")


async def test_a_server_that_stops_accepts_no_handshake_more() -> None:
    waiting = Waiting()
    routes = (Route(WEBSOCKET, "/echo", anywhere, waiting.answer),)
    async with serving(routes) as (_, served), asking(served.port) as wire:
        await asyncio.wait_for(waiting.entered.wait(), WAIT_SECONDS)
        stopping(served.server)
        waiting.go.set()
        await wire.read_head()
        told = await refusal(wire)
    assert (wire.status, told["code"], waiting.upgraded) == (503, "unavailable", 0)


def stopping(server: uvicorn.Server) -> None:
    """What uvicorn does to each connection when it is told to stop."""
    for connection in list(server.server_state.connections):
        connection.shutdown()


async def test_another_librarys_client_opens_talks_and_closes() -> None:
    async with serving() as (_, served), connect(f"ws://127.0.0.1:{served.port}/echo", proxy=None) as client:
        await client.send("text of any length " * 50_000)
        assert await client.recv() == "text of any length " * 50_000
        await client.send([b"in ", b"fragments"])
        assert await client.recv() == b"in fragments"
        await asyncio.wait_for(await client.ping(), WAIT_SECONDS)
        await client.close(4321, "enough")
    assert (client.close_code, client.close_reason) == (4321, "")


async def test_another_librarys_client_reads_a_refusal() -> None:
    async with serving() as (_, served):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"ws://127.0.0.1:{served.port}/refuse/1", proxy=None):
                raise AssertionError
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body or b"")["code"] == "forbidden"


async def unavailable(request: Request) -> Response:
    raise Unavailable("Not now", retry_after=7)


async def test_a_refusal_carries_its_headers() -> None:
    routes = (Route(WEBSOCKET, "/echo", anywhere, unavailable),)
    async with serving(routes) as (_, served), connected(served.port) as wire:
        assert (wire.status, wire.headers["retry-after"]) == (503, "7")
