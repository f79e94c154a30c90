"""The front: ids, one place for errors, and nothing of the inside in an answer or a log."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from structlog.testing import capture_logs

from app.edge.database import Database
from app.edge.http import db_of, json_response
from app.edge.placement import anywhere, at_primary
from app.edge.router import Route
from app.errors import Conflict, Unavailable
from tests.conftest import serving
from tests.edge.conftest import Refused, add, names, site

pytestmark = pytest.mark.anyio

SECRET = "sk_live_do_not_tell"


async def crash(request: Request) -> Response:
    raise LookupError(f"SELECT secret FROM users -- {SECRET}")


async def refuse(request: Request) -> Response:
    raise Conflict("That is taken", details={"id": request.path_params["id"]})


async def wait(request: Request) -> Response:
    raise Unavailable("Not now", retry_after=7)


async def break_off(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"begun"
        raise LookupError("in the middle")

    return StreamingResponse(parts())


async def write(request: Request) -> Response:
    return json_response({"name": await db_of(request).write(add, request.path_params["name"])}, 201)


async def write_and_refuse(request: Request) -> Response:
    await db_of(request).write(add, request.path_params["name"])
    raise Refused("Too bad")


async def read(request: Request) -> Response:
    return json_response(await db_of(request).read(lambda connection: connection.fetch("SELECT name FROM things")))


ROUTES = (
    Route("GET", "/crash", anywhere, crash),
    Route("GET", "/refuse/{id}", anywhere, refuse),
    Route("GET", "/wait", anywhere, wait),
    Route("GET", "/break", anywhere, break_off),
    Route("POST", "/write/{name}", at_primary, write),
    Route("POST", "/write/{name}/refused", at_primary, write_and_refuse),
    Route("GET", "/read", anywhere, read),
)


@pytest.mark.parametrize("path", ["/nothing", "/refuse/x", "/crash"])
async def test_no_cache_keeps_a_refusal(path: str) -> None:
    async with site(ROUTES) as (client, _):
        refused = await client.get(path)
    assert refused.status_code >= 400
    assert refused.headers["cache-control"] == "no-store"


async def test_an_unexpected_failure_is_a_bare_500_and_is_logged_with_the_request_id() -> None:
    with capture_logs() as logged:
        async with site(ROUTES) as (client, _):
            answer = await client.get("/crash")
    request_id = answer.headers["x-request-id"]
    assert answer.status_code == 500
    assert answer.json() == {
        "error": "Internal server error",
        "message": "Internal server error",
        "code": "internal",
        "requestId": request_id,
    }
    assert [(line["event"], line["request_id"], line["path"]) for line in logged] == [
        ("unexpected", request_id, "/crash")
    ]


async def test_a_refusal_is_its_code_its_sentence_and_its_fields() -> None:
    async with site(ROUTES) as (client, _):
        taken, later = await client.get("/refuse/a%2Fb%20c"), await client.get("/wait")
    assert taken.status_code == 404
    assert later.status_code == 503
    assert later.headers["retry-after"] == "7"
    assert later.json() == {
        "error": "Not now",
        "message": "Not now",
        "code": "unavailable",
        "requestId": later.headers["x-request-id"],
        "retryAfter": 7,
    }
    async with site(ROUTES) as (client, _):
        taken = await client.get("/refuse/42")
    assert (taken.status_code, taken.json()["code"], taken.json()["details"]) == (409, "conflict", {"id": "42"})


async def test_an_answer_that_breaks_off_ends_the_connection_and_is_logged() -> None:
    with capture_logs() as logged:
        async with site(ROUTES) as (client, _):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/break")
            assert (await client.get("/wait")).status_code == 503
    assert [line["event"] for line in logged] == ["unexpected"]


async def test_every_answer_has_an_id_of_its_own_and_no_client_chooses_it() -> None:
    async with site(ROUTES) as (client, served):
        answers = [await client.get(path, headers={"X-Request-Id": "mine"}) for path in ("/wait", "/wait", "/none")]
        served.requests.flush()
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len({*ids, "mine"}) == 4
    assert [json.loads(line)["request_id"] for line in served.log.getvalue().splitlines()] == ids


async def test_an_unknown_path_is_404_and_a_wrong_method_405_with_allow() -> None:
    async with site(ROUTES) as (client, served):
        unknown = await client.get("/nowhere")
        slash = await client.get("/wait/")
        wrong = await client.delete("/wait")
        pattern = await client.put("/refuse/1")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "Not found")
    assert slash.status_code == 404
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, HEAD, OPTIONS"
    assert pattern.status_code == 405
    # Paths and methods that no route knows share one measurement: scanners must not grow the registry.
    assert [route for route, _, _ in served.observed] == [None, None, None, None]


async def test_head_answers_as_get_does_without_a_body(things: Database) -> None:
    async with site(ROUTES, {"db": things}) as (client, _):
        answer = await client.head("/read")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_only_the_answer_to_a_write_carries_a_position(things: Database) -> None:
    async with site(ROUTES, {"db": things}) as (client, _):
        before = await client.get("/read")
        written = await client.post("/write/one")
        twice = await client.post("/write/one")
        refused = await client.post("/write/two/refused")
        after = await client.get("/read")
    (token,) = await things.read(lambda connection: connection.fetch("SELECT epoch, sequence FROM replication_token"))
    epoch, _, sequence = written.headers["x-txid"].rpartition("-")
    assert epoch == token[0]
    # What was written before the refusal is written: its position is told too.
    assert int(refused.headers["x-txid"].rpartition("-")[2]) > int(sequence)
    assert twice.status_code == 500
    for answer in (before, twice, after):
        assert "x-txid" not in answer.headers


async def test_a_position_is_never_that_of_another_request(things: Database) -> None:
    async with site(ROUTES, {"db": things}) as (client, _):
        answers = await asyncio.gather(
            *(client.post(f"/write/{number}") for number in range(20)), *(client.get("/read") for _ in range(20))
        )
    assert all("x-txid" in answer.headers for answer in answers[:20])
    assert not any("x-txid" in answer.headers for answer in answers[20:])
    assert len(names(things.path)) == 20


async def test_a_client_that_hangs_up_leaves_the_server_well() -> None:
    async with site(ROUTES) as (client, served):
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        assert (await client.get("/wait")).status_code == 503


def test_a_server_logs_paths_but_no_query_header_or_body(tmp_path: Path) -> None:
    with serving(tmp_path / "data", LOG_LEVEL="debug") as server, server.client() as client:
        for path in ("/health", "/api/usage/quota", "/nowhere"):
            client.get(f"{path}?token={SECRET}", headers={"Authorization": f"Bearer {SECRET}", "X-Admin-Key": SECRET})
        client.post("/api/usage/events", content=json.dumps({"secret": SECRET}), headers={"X-API-Key": f"mc_{SECRET}"})
        server.stop()
        log = server.log()
    assert '"path":"/api/usage/quota"' in log
    assert '"path":"/nowhere"' in log
    assert SECRET not in log
    requests = [line for line in log.splitlines() if '"event":"request"' in line]
    assert {frozenset(json.loads(line)) for line in requests} == {
        frozenset({"event", "timestamp", "level", "method", "path", "status", "ms", "request_id"})
    }
