"""Forward: a request that another machine must answer is taken there, and its answer comes back as it streams."""

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.edge import freshness, peers
from app.edge.freshness import COOKIE
from app.edge.http import client_address, json_response, read_body
from app.edge.job import waited_before
from app.edge.placement import Destination, anywhere, at_home, at_primary, here
from app.edge.router import Route
from app.errors import Conflict, NotFound
from cluster.delay_proxy import DelayProxy
from tests.cluster.pair import ORIGIN, Machine, at_rest, client, pair
from tests.waiting import comes

pytestmark = pytest.mark.anyio

LIMIT = 8 << 20
PIECE = b"x" * (64 << 10)
PIECES = 2_000


def machine_of(request: Request) -> str:
    name: str = request.scope["state"]["node"].machine
    return name


async def take(request: Request) -> Response:
    """Say what arrived, and where."""
    body = await read_body(request, LIMIT)
    return json_response(
        {
            "machine": machine_of(request),
            "client": client_address(request),
            "id": request.scope["request_id"],
            "size": len(body),
            "hash": hashlib.sha256(body).hexdigest(),
            "query": request.url.query,
            "headers": [(name.decode(), value.decode("latin-1")) for name, value in request.scope["headers"]],
        },
        201,
        {"X-Txid": "e1-7", "Set-Cookie": "a=1"},
    )


async def where(request: Request) -> Response:
    """The machine that answers."""
    return json_response({"machine": machine_of(request)})


async def pour(request: Request) -> Response:
    """More than anybody's buffers hold, and a count of what was taken."""
    state = request.scope["state"]

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(PIECES):
            state["poured"] = state.get("poured", 0) + 1
            yield PIECE

    return StreamingResponse(pieces(), headers={"Content-Encoding": "identity"})


async def tick(request: Request) -> Response:
    """An event when a test says so."""
    gate: asyncio.Queue[str] = request.scope["state"]["gate"]

    async def events() -> AsyncIterator[bytes]:
        try:
            while True:
                yield f"data: {await gate.get()}\n\n".encode()
        finally:
            request.scope["state"]["ended"] = True

    return StreamingResponse(events(), media_type="text/event-stream")


async def sip(request: Request) -> Response:
    """Read of the body what a test allows."""
    state, size = request.scope["state"], 0
    async for chunk in request.stream():
        size += len(chunk)
        state["sipped"] = size
        await state["open"].wait()
    return json_response({"size": size})


async def zipped(request: Request) -> Response:
    """A body that is compressed already."""
    return Response(gzip.compress(b"hello" * 1000), headers={"Content-Encoding": "gzip", "ETag": '"e"'})


async def break_off(request: Request) -> Response:
    """An answer that never comes to its end."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        raise NotFound("gone")

    return StreamingResponse(pieces())


async def waited(request: Request) -> Response:
    """How long the request has waited before it came here."""
    return json_response({"waited": waited_before.get()})


async def clash(request: Request) -> Response:
    """A refusal of the primary's."""
    raise Conflict("taken", limit=3)


async def sleep(request: Request) -> Response:
    """Nothing, until the test is over."""
    request.scope["state"]["asleep"] = True
    await request.scope["state"]["open"].wait()
    return json_response({})


ROUTES = (
    Route("POST", "/take", at_primary, take),
    Route("GET", "/take", at_primary, take),
    Route("GET", "/where", anywhere, where),
    Route("GET", "/waited", anywhere, waited),
    Route("GET", "/here", here, where),
    Route("GET", "/pour", at_primary, pour),
    Route("GET", "/tick", at_primary, tick),
    Route("POST", "/sip", at_primary, sip),
    Route("GET", "/zipped", at_primary, zipped),
    Route("GET", "/break", at_primary, break_off),
    Route("POST", "/clash", at_primary, clash),
    Route("GET", "/sleep", at_primary, sleep),
    Route("POST", "/home/{id}", at_home(by="path"), take),
    Route("POST", "/body", at_home(by="body", name="instanceId", limit=LIMIT), take),
    Route("GET", "/stream/{id}", at_home(by="stream"), where),
)


def echoes(machine: Machine) -> list[int]:
    return [status for _, status in machine.observed]


async def test_a_write_runs_at_the_primary_and_is_answered_by_the_replica() -> None:
    async with pair(ROUTES) as both, client(both.replica) as asking:
        body = b"\0payload" * 1000
        answer = await asking.post("/take?a=%2Fb&c=%C3%A9", content=body, headers={"X-Own": "1"})
        said = answer.json()
        assert (answer.status_code, said["machine"], said["size"]) == (201, "m1", len(body))
        assert said["hash"] == hashlib.sha256(body).hexdigest()
        assert said["query"] == "a=%2Fb&c=%C3%A9"
        assert answer.headers["x-txid"] == "e1-7"
        assert echoes(both.replica) == echoes(both.primary) == [201]


async def test_the_primary_knows_the_client_and_the_request_by_the_same_names() -> None:
    async with pair(ROUTES) as both, client(both.replica) as asking:
        answer = await asking.post("/take", headers={"Fly-Client-IP": "203.0.113.9", "X-Forwarded-For": "203.0.113.8"})
        said = answer.json()
        assert said["client"] == "127.0.0.1"
        assert answer.headers.get_list("x-request-id") == [said["id"]]
        both.primary.requests.flush()
        assert json.loads(both.primary.log.getvalue())["request_id"] == said["id"]


async def test_what_a_header_says_in_other_letters_arrives_as_it_was_sent() -> None:
    name = "Zoë’s room".encode()
    async with pair(ROUTES) as both, client(both.replica) as asking:
        said = (await asking.post("/take", headers=[(b"x-room", name)])).json()
        assert [value.encode("latin-1") for key, value in said["headers"] if key == "x-room"] == [name]


async def test_what_belongs_to_one_connection_stays_there() -> None:
    async with pair(ROUTES) as both, client(both.replica) as asking:
        hop = {"Connection": "keep-alive, X-Mine", "X-Mine": "1", "TE": "trailers", "Proxy-Authorization": "Basic eA=="}
        said = (await asking.post("/take", content=b"1", headers=hop | {"Litehouse-Passport": "mine"})).json()
        names = [name for name, _ in said["headers"]]
        assert not {"x-mine", "te", "proxy-authorization", "litehouse-passport", "upgrade"} & set(names)
        assert names.count("host") == names.count("content-length") == 1


async def test_a_forwarded_answer_has_one_set_of_headers_for_browsers() -> None:
    async with pair(ROUTES) as both, client(both.replica, Origin=ORIGIN) as asking:
        answer = await asking.post("/take")
        for name, value in (("access-control-allow-origin", ORIGIN), ("vary", "Origin"), ("set-cookie", "a=1")):
            assert answer.headers.get_list(name) == [value]


async def test_a_refusal_of_the_primary_comes_as_it_is() -> None:
    async with pair(ROUTES) as both, client(both.replica) as asking:
        answer = await asking.post("/clash", content=b"x")
        assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (409, "conflict", 3)


async def test_a_compressed_answer_and_a_head_pass_unchanged() -> None:
    async with pair(ROUTES) as both, client(both.replica) as asking:
        answer = await asking.get("/zipped")
        assert (answer.text, answer.headers["etag"]) == ("hello" * 1000, '"e"')
        head = await asking.head("/zipped")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize("told", [True, False], ids=["with its length", "in chunks"])
async def test_a_large_body_arrives_whole(told: bool) -> None:
    body = bytes(range(256)) * (LIMIT // 256 - 1)

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]

    async with pair(ROUTES) as both, client(both.replica) as asking:
        said = (await asking.post("/take", content=body if told else chunks())).json()
        assert (said["size"], said["hash"]) == (len(body), hashlib.sha256(body).hexdigest())


async def test_the_limit_is_the_destinations_and_the_refused_body_does_not_travel() -> None:
    line: list[DelayProxy] = []

    def between(port: int) -> int:
        line.append(DelayProxy(port))
        return line[-1].port

    async with pair(ROUTES, between=between) as both, client(both.replica) as asking:
        answer = await asking.post("/take", content=b"x" * (LIMIT + 1))
        assert (answer.status_code, answer.json()["actual"]) == (413, LIMIT + 1)
        assert line[0].bytes_up < 10_000
        # Nothing waits for the rest of it.
        await comes(lambda: both.replica.observed == [("/take", 413)])
    for proxy in line:
        proxy.close()


async def test_a_connection_between_machines_serves_many_requests() -> None:
    lines: list[DelayProxy] = []

    def between(port: int) -> int:
        lines.append(DelayProxy(port))
        return lines[-1].port

    async with pair(ROUTES, between=between) as both, client(both.replica) as asking:
        for _ in range(10):
            assert (await asking.post("/take", content=b"x")).status_code == 201
            assert (await asking.get("/zipped")).status_code == 200
        assert lines[0].connections == 1
    for line in lines:
        line.close()


async def test_a_client_that_reads_slowly_holds_the_other_machine_up() -> None:
    async with pair(ROUTES) as both, client(both.replica) as asking, asking.stream("GET", "/pour") as answer:
        chunks = answer.aiter_raw()
        first = len(await anext(chunks))
        state = both.primary.state
        assert await at_rest(lambda: state["poured"]) < PIECES / 4
        size = first
        async for chunk in chunks:
            size += len(chunk)
        assert size == len(PIECE) * PIECES


async def test_a_destination_that_reads_slowly_holds_the_client_up() -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(PIECES):
            sent += 1
            yield PIECE

    async with pair(ROUTES) as both, client(both.replica) as asking:
        state = both.primary.state
        state["open"] = asyncio.Event()
        asked = asyncio.create_task(asking.post("/sip", content=chunks()))
        await comes(lambda: "sipped" in state)
        assert await at_rest(lambda: sent) < PIECES / 4
        state["open"].set()
        assert (await asked).json() == {"size": PIECES * len(PIECE)}


async def test_events_come_one_by_one_and_the_client_that_leaves_ends_the_stream() -> None:
    async with pair(ROUTES) as both, client(both.replica) as asking:
        gate = both.primary.state["gate"] = asyncio.Queue()
        async with asking.stream("GET", "/tick") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.aiter_lines()
            for word in ("one", "two"):
                gate.put_nowait(word)
                assert await anext(lines) == f"data: {word}"
                assert await anext(lines) == ""
        await comes(lambda: "ended" in both.primary.state)


async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one() -> None:
    async with pair(ROUTES) as both, client(both.replica) as asking:
        with pytest.raises(httpx.RemoteProtocolError):
            await asking.get("/break")


async def test_a_primary_that_is_gone_is_503_with_retry_after() -> None:
    async with pair(ROUTES) as both, client(both.replica) as asking:
        await both.primary.close()
        answer = await asking.post("/take", content=b"x")
        assert (answer.status_code, answer.headers["retry-after"], answer.json()["code"]) == (503, "1", "unavailable")


async def test_a_primary_that_freezes_is_503_before_eight_seconds_are_over() -> None:
    line: list[DelayProxy] = []

    def between(port: int) -> int:
        line.append(DelayProxy(port))
        return line[-1].port

    async with pair(ROUTES, between=between) as both, client(both.replica) as asking:
        line[0].pause()
        begun = asyncio.get_running_loop().time()
        answer = await asking.post("/take", content=b"x")
        assert answer.status_code == 503
        assert asyncio.get_running_loop().time() - begun < 8
    for proxy in line:
        proxy.close()


async def test_a_slow_answer_of_a_living_primary_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.edge.forward.FIRST_CARE_SECONDS", 0.1)
    monkeypatch.setattr("app.edge.forward.CARE_SECONDS", 0.1)
    async with pair(ROUTES) as both, client(both.replica) as asking:
        pings = 0

        async def count(question: bytes, machine: str) -> bytes:
            nonlocal pings
            pings += 1
            return b"pong"

        both.primary.peers.answers[peers.PING] = count
        both.primary.state["open"] = asyncio.Event()
        asked = asyncio.create_task(asking.get("/sleep"))
        await comes(lambda: pings > 2)
        both.primary.state["open"].set()
        assert (await asked).status_code == 200


async def test_a_request_is_moved_once_and_never_in_a_circle() -> None:
    """Each of the two takes the other for the primary."""
    async with pair(ROUTES) as both, client(both.replica) as asking:
        both.primary.node.is_primary = False
        both.primary.node.region = "somewhere"
        answer = await asking.post("/take", content=b"x")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert len(both.primary.observed) == len(both.replica.observed) == 1


async def test_without_a_way_to_move_a_replica_says_503() -> None:
    async with pair(ROUTES, replay="off") as both, client(both.replica) as asking:
        assert (await asking.post("/take")).status_code == 503
        assert (await asking.get("/where")).json() == {"machine": "m2"}


async def test_reads_stay_where_they_are_while_the_lag_is_small() -> None:
    async with pair(ROUTES) as both, client(both.replica) as asking:
        told: dict[int | None, Any] = {}
        for lag in (0, 89_999, 90_000, None):
            both.replica.node.lag_ms = lag
            told[lag] = (await asking.get("/where")).json()["machine"]
        assert told == {0: "m2", 89_999: "m2", 90_000: "m1", None: "m1"}
        assert (await asking.get("/here")).json() == {"machine": "m2"}


@pytest.mark.parametrize(
    ("home", "wanted"),
    [
        (Destination("ams", "m2"), "m2"),
        (Destination("fra", "m1"), "m1"),
        (Destination("ams"), "m2"),
        (Destination("fra"), "m1"),
        (None, "m1"),
    ],
)
async def test_what_has_a_home_is_answered_there_wherever_it_is_asked(home: Destination | None, wanted: str) -> None:
    asked_for = []

    async def home_of(name: str) -> Destination | None:
        asked_for.append(name)
        return home

    async with pair(ROUTES, home_of=home_of) as both:
        for machine in (both.primary, both.replica):
            async with client(machine) as asking:
                body = json.dumps({"instanceId": "room", "pad": "x" * (2 << 20)}).encode()
                by_path = (await asking.post("/home/room", content=b"abc")).json()
                by_body = (await asking.post("/body", content=body)).json()
                by_stream = (await asking.get("/stream/room")).json()
                assert [said["machine"] for said in (by_path, by_body, by_stream)] == [wanted] * 3
                assert by_body["hash"] == hashlib.sha256(body).hexdigest()
                assert (await asking.post("/body", content=b"x" * (LIMIT + 1))).status_code == 413
                assert (await asking.post("/body", content=b"not json")).json()["size"] == 8
    assert set(asked_for) == {"room"}


async def test_a_caller_reads_its_own_write_from_the_machine_that_it_passed_through() -> None:
    """The replica has not come as far as the write: it waits a moment, then the primary answers."""
    async with pair(ROUTES) as both, client(both.replica, Authorization="Bearer mine") as asking:
        await asking.post("/take")
        assert (await asking.get("/where")).json() == {"machine": "m1"}
        assert (await asking.get("/where", headers={"Authorization": "Bearer other"})).json() == {"machine": "m2"}
        both.replica.node.advance(both.replica.node.position._replace(sequence=7))  # type: ignore[union-attr]
        assert (await asking.get("/where")).json() == {"machine": "m2"}


@pytest.mark.parametrize(
    ("token", "wanted"),
    [("e1-1", "m2"), ("e1-9", "m1"), ("e0-1", "m1"), ("garbage", "m2"), ("e1-", "m2"), ("e1-1e9", "m2"), ("-5", "m2")],
)
async def test_a_read_waits_for_the_position_that_its_caller_names(token: str, wanted: str) -> None:
    async with pair(ROUTES) as both, client(both.replica) as asking:
        for headers in ({"X-Txid": token}, {"Cookie": f"a=1; {COOKIE}={token}"}):
            assert (await asking.get("/where", headers=headers)).json() == {"machine": wanted}


async def test_the_wait_for_a_position_counts_at_the_primary_too() -> None:
    """Nobody waits longer than eight seconds in all, also in the primary's queue."""
    async with pair(ROUTES) as both, client(both.replica) as asking:
        assert (await asking.get("/waited")).json()["waited"] == 0
        said = (await asking.get("/waited", headers={"X-Txid": "e1-9"})).json()
        assert freshness.WAIT_SECONDS <= said["waited"] < freshness.WAIT_SECONDS + 3


async def test_a_read_goes_on_here_as_soon_as_the_position_has_come() -> None:
    async with pair(ROUTES) as both, client(both.replica) as asking:
        asked = asyncio.create_task(asking.get("/where", headers={"X-Txid": "e1-2"}))
        await comes(lambda: bool(both.replica.node._waiters))
        both.replica.node.advance(both.replica.node.position._replace(sequence=2))  # type: ignore[union-attr]
        assert (await asked).json() == {"machine": "m2"}


async def test_a_write_whose_answer_is_lost_is_not_repeated_by_the_machine_between() -> None:
    """Whether it came to be is unknown there; the caller knows whether it may be done twice."""
    lines: list[DelayProxy] = []
    done: list[str] = []

    def between(port: int) -> int:
        lines.append(DelayProxy(port))
        return lines[-1].port

    async def look(request: Request) -> Response:
        return json_response({})

    async def delete(request: Request) -> Response:
        done.append(request.method)
        lines[0].drop()
        return json_response({})

    methods = ("PUT", "DELETE", "POST")
    routes = [Route("GET", "/it", at_primary, look), *(Route(method, "/it", at_primary, delete) for method in methods)]
    try:
        async with pair(routes, between=between) as both, client(both.replica) as asking:
            for method in methods:
                # On a connection that is open already, as most are.
                assert (await asking.get("/it")).status_code == 200
                lost = await asking.request(method, "/it")
                assert (lost.status_code, lost.headers["retry-after"]) == (503, "1")
            assert done == list(methods)
    finally:
        for line in lines:
            line.close()


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_change_that_may_have_come_to_a_home_is_not_made_at_the_next_one(method: str) -> None:
    """The home is lost in the middle, and another machine has all that it had: also the change."""
    lines: list[DelayProxy] = []
    done: list[str] = []

    def between(port: int) -> int:
        lines.append(DelayProxy(port))
        return lines[-1].port

    async def home_of(name: str) -> Destination:
        return Destination("ams", "m2") if done else Destination("fra", "m1")

    async def change(request: Request) -> Response:
        done.append(machine_of(request))
        if done == ["m1"]:
            lines[0].drop()
        return json_response({})

    routes = [Route(method, "/it/{id}", at_home(by="path"), change)]
    try:
        async with pair(routes, home_of=home_of, between=between) as both, client(both.replica) as asking:
            answer = await asking.request(method, "/it/room")
            assert (answer.status_code, answer.headers.get("retry-after"), done) == (503, "1", ["m1"])
    finally:
        for line in lines:
            line.close()
