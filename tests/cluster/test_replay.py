"""Replay: behind Fly's proxy a request is taken to another machine by an answer that says so."""

import hashlib
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.edge import freshness
from app.edge.database import written_position
from app.edge.freshness import COOKIE
from app.edge.placement import Destination, anywhere, at_home, at_primary
from app.edge.replay import state_of
from app.edge.router import Route
from app.edge.seal import Seal
from app.edge.transaction import Position
from app.edge.upgrade import WEBSOCKET
from app.errors import NotFound
from cluster.fly_proxy import Backend, FlyProxy
from tests.cluster.pair import Pair, client, pair
from tests.cluster.test_forward import take, waited, where
from tests.edge.echoing import echo

pytestmark = pytest.mark.anyio

MEGABYTE = 1 << 20


async def write(request: Request) -> Response:
    """Commit something."""
    written_position.set(Position("e1", 5))
    return await where(request)


async def find(request: Request) -> Response:
    """What a replica does not have yet."""
    if not request.scope["state"]["node"].is_primary:
        raise NotFound("Not here")
    return await where(request)


async def nowhere_found(request: Request) -> Response:
    """What nobody has."""
    raise NotFound("Nowhere")


ROUTES = (
    Route("POST", "/take", at_primary, take),
    Route("POST", "/write", at_primary, write),
    Route("GET", "/where", anywhere, where),
    Route("GET", "/waited", anywhere, waited),
    Route("GET", "/find", anywhere, find),
    Route("GET", "/nowhere", anywhere, nowhere_found),
    Route("POST", "/body", at_home(by="body", name="instanceId", limit=8 * MEGABYTE), take),
    Route(WEBSOCKET, "/echo", at_primary, echo),
    Route(WEBSOCKET, "/room/{id}", at_home(by="path"), echo),
)


async def at_replica(name: str) -> Destination | None:
    return Destination("ams", "m2")


class Edge:
    """The proxy before a pair, and a client near its replica."""

    def __init__(self) -> None:
        self.proxy: FlyProxy | None = None

    def before(self, both: Pair) -> FlyProxy:
        self.proxy = FlyProxy([Backend(m.node.region, m.node.machine, m.port) for m in (both.primary, both.replica)])
        return self.proxy

    def client(self, **headers: str) -> httpx.AsyncClient:
        assert self.proxy is not None
        return httpx.AsyncClient(
            base_url=self.proxy.url, headers={"x-near": "ams"} | headers, timeout=30, trust_env=False
        )


@pytest.fixture
def edge() -> Iterator[Edge]:
    made = Edge()
    yield made
    if made.proxy is not None:
        made.proxy.close()


async def test_a_write_is_replayed_at_the_primary(edge: Edge) -> None:
    async with pair(ROUTES, "fly") as both:
        proxy = edge.before(both)
        async with edge.client(**{"x-client": "203.0.113.7"}) as asking:
            body = b"x" * MEGABYTE
            said = (await asking.post("/take?a=1", content=body)).json()
        assert (said["machine"], said["client"], said["query"]) == ("m1", "203.0.113.7", "a=1")
        assert said["hash"] == hashlib.sha256(body).hexdigest()
        assert len(proxy.replays) == 1
        assert proxy.replays[0].startswith("region=fra;state=")
        assert proxy.replays[0].endswith("ms;fallback=force_self")
        assert [status for _, status in both.replica.observed] == [409]


@pytest.mark.parametrize("told", [True, False], ids=["over a megabyte", "of a length not told"])
async def test_what_cannot_be_replayed_is_forwarded(edge: Edge, told: bool) -> None:
    body = b"y" * (MEGABYTE + 1)

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    async with pair(ROUTES, "fly") as both:
        proxy = edge.before(both)
        async with edge.client(**{"x-client": "203.0.113.7"}) as asking:
            said = (await asking.post("/take", content=body if told else chunks())).json()
        assert (said["machine"], said["client"], said["size"]) == ("m1", "203.0.113.7", len(body))
        assert proxy.replays == []
        assert [status for _, status in both.replica.observed] == [201]


async def test_a_home_is_named_by_its_machine_also_when_the_body_says_whose_it_is(edge: Edge) -> None:
    async with pair(ROUTES, "fly", at_replica) as both:
        proxy = edge.before(both)
        async with edge.client(**{"x-near": "fra"}) as asking:
            small = (await asking.post("/body", content=b'{"instanceId":"a"}')).json()
            large = (await asking.post("/body", content=b'{"instanceId":"a"}' + b" " * MEGABYTE)).json()
        assert (small["machine"], large["machine"]) == ("m2", "m2")
        assert [wish.split(";")[0] for wish in proxy.replays] == ["instance=m2"]


async def test_an_upgrade_is_replayed_before_it_is_accepted(edge: Edge) -> None:
    async with pair(ROUTES, "fly", at_replica) as both:
        proxy = edge.before(both)
        for near, path in (("ams", "/echo"), ("fra", "/room/a")):
            address = f"ws://127.0.0.1:{proxy.port}{path}"
            async with connect(address, proxy=None, additional_headers={"x-near": near}) as socket:
                await socket.send("hello")
                assert await socket.recv() == "hello"
        assert [wish.split(";")[0] for wish in proxy.replays] == ["region=fra", "instance=m2"]


async def test_what_a_replica_does_not_find_is_asked_of_the_primary(edge: Edge) -> None:
    async with pair(ROUTES, "fly") as both:
        edge.before(both)
        async with edge.client() as asking:
            assert (await asking.get("/find")).json() == {"machine": "m1"}
            answer = await asking.get("/nowhere")
            assert (answer.status_code, answer.json()["error"]) == (404, "Nowhere")
            assert both.primary.observed[-1] == ("/nowhere", 404)


async def test_a_request_is_replayed_once_and_never_in_a_circle(edge: Edge) -> None:
    async with pair(ROUTES, "fly") as both:
        both.primary.node.is_primary = False
        both.primary.node.region = "fra2"
        proxy = edge.before(both)
        proxy.backends[0] = proxy.backends[0]._replace(region="fra")
        async with edge.client() as asking:
            answer = await asking.post("/take", content=b"x")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert len(proxy.replays) == 1
            address = f"ws://127.0.0.1:{proxy.port}/echo"
            with pytest.raises(InvalidStatus) as refused:
                await connect(address, proxy=None, additional_headers={"x-near": "ams"})
            assert refused.value.response.status_code == 503


async def test_a_primary_that_cannot_be_reached_is_503_also_for_what_is_not_found(edge: Edge) -> None:
    async with pair(ROUTES, "fly") as both:
        proxy = edge.before(both)
        proxy.backends.pop(0)
        proxy.backends.insert(0, Backend("fra", "m1", 1))
        async with edge.client() as asking:
            for method, path in (("POST", "/take"), ("GET", "/find")):
                answer = await asking.request(method, path)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert (await asking.get("/where")).json() == {"machine": "m2"}


async def test_after_a_replayed_write_its_callers_reads_go_to_the_primary(edge: Edge) -> None:
    async with pair(ROUTES, "fly") as both:
        edge.before(both)
        async with edge.client(Authorization="Bearer mine") as asking:
            assert (await asking.get("/where")).json() == {"machine": "m2"}
            await asking.post("/write")
            assert (await asking.get("/where")).json() == {"machine": "m1"}
            assert (await asking.get("/where", headers={"Authorization": "Bearer b"})).json() == {"machine": "m2"}
            # Who says how far it has come is believed.
            assert (await asking.get("/where", headers={"X-Txid": "e1-1"})).json() == {"machine": "m2"}


async def test_a_caller_with_cookies_is_told_in_a_cookie_how_far_it_has_come(edge: Edge) -> None:
    async with pair(ROUTES, "fly") as both:
        edge.before(both)
        async with edge.client() as asking:
            assert "set-cookie" not in (await asking.post("/write")).headers
            answer = await asking.post("/write", headers={"Cookie": "session=1"})
            assert answer.headers["x-txid"] == "e1-5"
            assert answer.headers["set-cookie"] == (
                f"{COOKIE}=e1-5; Path=/; Max-Age=300; Secure; HttpOnly; SameSite=None"
            )
            assert "set-cookie" not in (await asking.get("/where", headers={"Cookie": "session=1"})).headers


async def test_a_replayed_request_keeps_its_id_and_what_it_has_waited(edge: Edge) -> None:
    async with pair(ROUTES, "fly") as both:
        edge.before(both)
        async with edge.client() as asking:
            answer = await asking.get("/waited", headers={"X-Txid": "e1-9"})
            both.replica.requests.flush()
            assert answer.headers["x-request-id"] == json.loads(both.replica.log.getvalue())["request_id"]
            assert freshness.WAIT_SECONDS <= answer.json()["waited"] < freshness.WAIT_SECONDS + 3


@pytest.mark.parametrize(
    ("source", "state"),
    [
        (b"instance=m2;region=ams;t=1;state=abc-_1", "abc-_1"),
        (b"state=abc;t=1", "abc"),
        (b"t=1;state=", None),
        (b"instance=m2;otherstate=a", None),
        (b"state=" + b"a" * 5_000, None),
    ],
)
def test_the_state_of_a_replay_is_found_in_its_source(source: bytes, state: str | None) -> None:
    assert state_of([(b"host", b"x"), (b"fly-replay-src", source)]) == state
    assert state_of([(b"host", b"state=a")]) is None


async def test_a_state_that_no_machine_has_signed_is_worth_nothing() -> None:
    async with pair(ROUTES, "fly") as both, client(both.primary) as asking:
        forged = Seal(("another-secret-of-another-machine",), "m2").passport("GET", b"/waited", "203.0.113.7", "mine")
        for state in ("x", forged):
            answer = await asking.get("/waited", headers={"fly-replay-src": f"instance=m2;state={state}"})
            assert answer.headers["x-request-id"] != "mine"
            assert answer.json()["waited"] == 0
