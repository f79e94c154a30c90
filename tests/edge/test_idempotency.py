"""Idempotency-Key: one effect and one answer, whatever happens between two requests."""

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from app.edge import expiring, idempotency
from app.edge.clock import now_ms
from app.edge.database import Database, Transaction
from app.edge.idempotency import Running, write_once
from app.edge.placement import at_primary
from app.edge.router import Route
from tests.edge.conftest import Refused, held, names, opened, site
from tests.waiting import comes

pytestmark = pytest.mark.anyio


def make(tx: Transaction, name: str) -> dict[str, object]:
    rows = tx.fetch("INSERT INTO things (name) VALUES (?) RETURNING id", name or None)
    if name == "refused":
        raise Refused("No")
    return {"id": rows[0][0], "name": name}


async def create(request: Request) -> Response:
    body = await request.body()
    who = request.headers.get("x-who", "somebody")
    return (await write_once(request, who, body, 201, make, body.decode())).response


ROUTES = (Route("POST", "/things", at_primary, create), Route("POST", "/others", at_primary, create))


def state(db: Database) -> dict[str, object]:
    return {"db": db, "running": Running()}


async def post(
    client: httpx.AsyncClient, body: str, key: str = "k1", path: str = "/things", **headers: str
) -> httpx.Response:
    return await client.post(path, content=body, headers={"Idempotency-Key": key, **headers})


async def test_a_repeat_gets_the_first_answer_and_has_no_effect(things: Database) -> None:
    async with site(ROUTES, state(things)) as (client, _):
        first, again = await post(client, "a"), await post(client, "a")
    assert (first.status_code, first.json()) == (201, {"id": 1, "name": "a"})
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["content-type"] == first.headers["content-type"] == "application/json"
    assert names(things.path) == {"a"}


async def test_the_same_key_with_another_body_is_422(things: Database) -> None:
    async with site(ROUTES, state(things)) as (client, _):
        await post(client, "a")
        other = await post(client, "b")
    assert (other.status_code, other.json()["code"]) == (422, "unprocessable")
    assert names(things.path) == {"a"}


async def test_a_key_belongs_to_its_principal_method_and_path(things: Database) -> None:
    async with site(ROUTES, state(things)) as (client, _):
        answers = [
            await post(client, "a"),
            await post(client, "b", **{"X-Who": "somebody else"}),
            await post(client, "c", path="/others"),
            await post(client, "d", key="k2"),
        ]
    assert [answer.status_code for answer in answers] == [201] * 4
    assert names(things.path) == {"a", "b", "c", "d"}


async def test_a_repeat_while_the_first_still_runs_is_409(things: Database) -> None:
    async with site(ROUTES, state(things)) as (client, _):
        async with held(things):
            first = asyncio.create_task(post(client, "a"))
            await comes(lambda: things.writer.queued >= 2)
            running = await post(client, "a")
        assert (running.status_code, running.json()["code"]) == (409, "conflict")
        assert (await first).status_code == 201
        assert (await post(client, "a")).content == (await first).content


async def test_thirty_at_once_have_one_effect(things: Database) -> None:
    async with site(ROUTES, state(things)) as (client, _):
        answers = await asyncio.gather(*(post(client, "a") for _ in range(30)))
    done = [answer.content for answer in answers if answer.status_code == 201]
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len(set(done)) == 1
    assert names(things.path) == {"a"}


async def test_a_refused_write_keeps_no_answer(things: Database) -> None:
    async with site(ROUTES, state(things)) as (client, _):
        assert (await post(client, "refused")).status_code == 422
        assert names(things.path) == set()
        # The key is free again: the refusal had no effect that a repeat could double.
        assert (await post(client, "allowed")).status_code == 201


async def test_an_answer_survives_a_restart(tmp_path: Path) -> None:
    answers = []
    for _ in range(2):
        async with opened(tmp_path / "core.db") as db, site(ROUTES, state(db)) as (client, _served):
            answers.append(await post(client, "a"))
    assert answers[0].status_code == answers[1].status_code == 201
    assert answers[0].content == answers[1].content
    assert names(tmp_path / "core.db") == {"a"}


async def test_an_answer_dies_after_a_day(things: Database) -> None:
    before = now_ms()
    async with site(ROUTES, state(things)) as (client, _):
        await post(client, "a")
    (row,) = await things.read(lambda connection: connection.fetch("SELECT kind, key, expires_at_ms FROM expiring"))
    assert row[0] == idempotency.KIND
    assert before + 24 * 3_600_000 <= row[2] <= now_ms() + 24 * 3_600_000
    assert await things.read(lambda c: expiring.find(c, row[0], row[1], now_ms=row[2] - 1)) is not None
    assert await things.read(lambda c: expiring.find(c, row[0], row[1], now_ms=row[2])) is None


async def test_an_answer_that_is_too_large_to_keep_is_409_and_its_effect_is_had_once(
    things: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "ANSWER_BYTES", 10)
    async with site(ROUTES, state(things)) as (client, _):
        first, again = await post(client, "large"), await post(client, "large")
    assert (first.status_code, first.json()["name"]) == (201, "large")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert names(things.path) == {"large"}


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_of_no_use_is_400(things: Database, key: str) -> None:
    async with site(ROUTES, state(things)) as (client, _):
        refused = await post(client, "a", key=key)
    assert refused.status_code == 400
    assert refused.json()["error"] == f"Idempotency-Key: expected 1 to 255 characters, got {len(key)}"


async def test_without_a_key_every_request_has_its_effect(things: Database) -> None:
    async with site(ROUTES, state(things)) as (client, _):
        for name in ("a", "b"):
            assert (await client.post("/things", content=name)).status_code == 201
    assert names(things.path) == {"a", "b"}
