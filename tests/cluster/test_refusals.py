"""A replica may say yes; only the primary may say no."""

import asyncio
from collections.abc import Callable

import pytest
from starlette.requests import Request
from starlette.responses import Response

from app import errors
from app.edge import placer
from app.edge.http import json_response, read_body
from app.edge.mount import AtPrimaryOnly
from app.edge.peers import POSITION
from app.edge.placement import Destination, anywhere, at_home
from app.edge.router import Route
from app.edge.transaction import Position
from app.errors import AppError
from tests.cluster.pair import EPOCH, client, pair
from tests.waiting import comes

pytestmark = pytest.mark.anyio

RESTS_ON_ROWS: list[type[AppError]] = [
    errors.Unauthenticated,
    errors.QuotaExceeded,
    errors.Forbidden,
    errors.NotFound,
    errors.Conflict,
    errors.Gone,
    errors.PreconditionFailed,
    errors.Unprocessable,
]
CERTAIN: list[type[AppError]] = [
    errors.Invalid,
    errors.MethodNotAllowed,
    errors.TimedOut,
    errors.TooLarge,
    errors.RateLimited,
    errors.Internal,
    errors.Upstream,
    errors.Unavailable,
]

Refuse = Callable[[], AppError]


def refusing(refuse: Refuse) -> tuple[Route, ...]:
    """A route that a replica refuses and the primary does not; with the body that it has read."""

    async def answer(request: Request) -> Response:
        node, body = request.scope["state"]["node"], await read_body(request, 64 << 20)
        if not node.is_primary:
            request.scope["rate_headers"] = [(b"x-ratelimit-limit", b"1")]
            raise refuse()
        return json_response({"machine": node.machine, "size": len(body)})

    return Route("GET", "/asked", anywhere, answer), Route("POST", "/asked", anywhere, answer)


@pytest.mark.parametrize(
    "refuse",
    [
        *[lambda kind=kind: kind("no") for kind in RESTS_ON_ROWS],
        lambda: errors.Invalid("looked up", certain=False),
        lambda: errors.Unavailable("the database here", certain=False),
        lambda: AtPrimaryOnly("a write, or a read that takes too long"),
    ],
    ids=[
        *[kind.__name__ for kind in RESTS_ON_ROWS],
        "a 400 that looked something up",
        "its own database",
        "what only the primary can do",
    ],
)
async def test_a_refusal_that_rests_on_rows_is_the_primarys(refuse: Refuse) -> None:
    async with pair(refusing(refuse)) as both, client(both.replica) as asking:
        for method, body in (("GET", b""), ("POST", b"x" * 200_000)):
            answer = await asking.request(method, "/asked", content=body)
            assert (answer.status_code, answer.json()) == (200, {"machine": "m1", "size": len(body)})
            assert "x-ratelimit-limit" not in answer.headers
        await both.primary.close()
        answer = await asking.get("/asked")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    "refuse",
    [
        *[lambda kind=kind: kind("no") for kind in CERTAIN],
        *[lambda kind=kind: kind("no", certain=True) for kind in RESTS_ON_ROWS],
    ],
    ids=[*[kind.__name__ for kind in CERTAIN], *[f"{kind.__name__} that is certain" for kind in RESTS_ON_ROWS]],
)
async def test_a_refusal_that_needs_no_rows_is_given_where_it_is_found(refuse: Refuse) -> None:
    async with pair(refusing(refuse)) as both, client(both.replica) as asking:
        assert (await asking.get("/asked")).status_code == refuse().status
        assert both.primary.observed == []


async def test_a_refusal_that_is_returned_counts_like_one_that_is_raised() -> None:
    async def answer(request: Request) -> Response:
        found = request.scope["state"]["node"].is_primary
        return json_response({"found": found}, 200 if found else 404)

    async with pair([Route("GET", "/asked", anywhere, answer)]) as both, client(both.replica) as asking:
        assert (await asking.get("/asked")).json() == {"found": True}


async def test_an_unknown_path_or_method_is_known_everywhere() -> None:
    async with pair(refusing(lambda: errors.NotFound("no"))) as both, client(both.replica) as asking:
        assert (await asking.get("/nothing")).status_code == 404
        assert (await asking.put("/asked")).status_code == 405
        assert both.primary.observed == []


async def test_a_body_too_large_to_be_kept_is_503_and_never_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placer, "KEPT_BYTES", 1000)
    async with pair(refusing(lambda: errors.NotFound("no"))) as both, client(both.replica) as asking:
        assert (await asking.post("/asked", content=b"x" * 1000)).status_code == 200
        assert (await asking.post("/asked", content=b"x" * 1001)).status_code == 503


async def test_the_primary_refuses_for_itself() -> None:
    async def answer(request: Request) -> Response:
        raise errors.NotFound("nowhere", details=request.scope["state"]["node"].machine)

    async with pair([Route("GET", "/asked", anywhere, answer)]) as both:
        for machine in (both.primary, both.replica):
            async with client(machine) as asking:
                said = await asking.get("/asked")
                assert (said.status_code, said.json()["details"]) == (404, "m1")


async def test_many_at_once_find_each_its_own_answer() -> None:
    async with pair(refusing(lambda: errors.NotFound("no"))) as both, client(both.replica) as asking:
        answers = await asyncio.gather(*(asking.post("/asked", content=b"x" * size) for size in range(200)))
        assert [answer.json()["size"] for answer in answers] == list(range(200))


async def test_a_home_refuses_once_it_has_come_as_far_as_the_primary() -> None:
    """What is asked of a home cannot go to the primary: the home waits for what the primary holds by now."""

    async def answer(request: Request) -> Response:
        node, body = request.scope["state"]["node"], await read_body(request)
        if node.position.sequence < 4:
            raise errors.Forbidden("no")
        return json_response({"machine": node.machine, "size": len(body)})

    async def home_of(name: str) -> Destination | None:
        return Destination("ams", "m2")

    async def position(question: bytes, machine: str) -> bytes:
        return b"e1-%d" % sequence

    routes = [Route("POST", "/home/{id}", at_home(by="path"), answer)]
    async with pair(routes, home_of=home_of) as both, client(both.primary) as asking:
        sequence, node = 4, both.replica.node
        both.primary.peers.answers[POSITION] = position
        asked = asyncio.create_task(asking.post("/home/a", content=b"xyz"))
        await comes(lambda: bool(node._waiters))
        node.advance(Position(EPOCH, 4))
        assert (await asked).json() == {"machine": "m2", "size": 3}
        # It is as far as the primary, and it is no.
        node.position, sequence = Position(EPOCH, 3), 3
        assert (await asking.post("/home/a")).status_code == 403
        del both.primary.peers.answers[POSITION]
        assert (await asking.post("/home/a")).status_code == 503


async def test_a_replica_whose_core_does_not_fit_its_code_answers_nothing_from_it() -> None:
    async def answer(request: Request) -> Response:
        return json_response({"machine": request.scope["state"]["node"].machine})

    async with pair([Route("GET", "/asked", anywhere, answer)]) as both, client(both.replica) as asking:
        for fits, machine in ((True, "m2"), (False, "m1"), (True, "m2")):
            both.replica.node.schema_fits = fits
            assert (await asking.get("/asked")).json() == {"machine": machine}


async def test_what_has_got_another_home_meanwhile_is_asked_there() -> None:
    """It was made or given away while the request ran where it lived a moment ago."""
    home = Destination("ams", "m2")

    async def home_of(name: str) -> Destination | None:
        return home

    async def answer(request: Request) -> Response:
        nonlocal home
        node, body = request.scope["state"]["node"], await read_body(request)
        home = Destination("fra", "m1")
        if not node.is_primary:
            raise errors.Unavailable("This machine is not its home", certain=False)
        return json_response({"machine": node.machine, "size": len(body)})

    async def position(question: bytes, machine: str) -> bytes:
        return b"e1-1"

    routes = [Route("POST", "/home/{id}", at_home(by="path"), answer)]
    async with pair(routes, home_of=home_of) as both, client(both.replica) as asking:
        both.primary.peers.answers[POSITION] = position
        assert (await asking.post("/home/a", content=b"xyz")).json() == {"machine": "m1", "size": 3}
