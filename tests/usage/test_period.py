"""Periods: a month that ends while requests run, and a clock that goes back."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import time_machine
import uvicorn

from app.edge.clock import instant, parse_instant
from app.edge.database import Connection, Database, Transaction
from app.errors import QuotaExceeded
from app.identity import queries as identity
from app.main import create_app
from app.settings import Settings
from app.usage import ledger, quota, reservations
from app.usage.events import Event, read_event
from app.usage.ledger import Poster
from app.usage.period import period_of
from app.usage.reservations import Asked
from app.usage.wire import Wire
from cluster.ports import free_port
from tests.conftest import START_SECONDS
from tests.usage.conftest import EVENTS, QUOTA, Relay, bearer, differences
from tests.waiting import until

SECOND = 1_000
DECEMBER = 1_796_083_200_000
JANUARY = "2027-01-01T00:00:00.000Z"
BEFORE_SECONDS = 3.0
POSTERS = 3
ENOUGH = 20


def spend(tx: Transaction, user_id: str, tokens: int, now: int) -> str:
    return ledger.record_one(tx, spent(user_id, tokens, now), Poster(), now).status


def spent(user_id: str, tokens: int, now: int) -> Event:
    return read_event(Wire(userId=user_id, totalTokens=tokens), now)


def read(connection: Connection, now: int) -> tuple[int, int, str]:
    """`(used, reserved, reset)` of the only user."""
    found = quota.read_quota(connection, "u", now)
    assert found is not None
    return found.used, found.reserved, quota.summary(found).resetDate


def add_user(tx: Transaction) -> None:
    identity.insert_user(tx, "u", now=DECEMBER)


@pytest.mark.parametrize(
    ("moment", "start", "end"),
    [
        ("2026-01-31T23:59:59.999Z", "2026-01-01", "2026-02-01"),
        ("2026-02-01T00:00:00.000Z", "2026-02-01", "2026-03-01"),
        ("2028-02-29T12:00:00.000Z", "2028-02-01", "2028-03-01"),
        ("2026-12-31T23:59:59.999Z", "2026-12-01", "2027-01-01"),
        ("1970-01-01T00:00:00.000Z", "1970-01-01", "1970-02-01"),
    ],
)
def test_a_period_is_a_calendar_month_in_utc(moment: str, start: str, end: str) -> None:
    from_, to = period_of(parse_instant(moment))
    assert (instant(from_)[:10], instant(to)) == (start, f"{end}T00:00:00.000Z")


@pytest.mark.anyio
async def test_the_last_instant_of_a_month_is_its_own_and_the_next_is_not(db: Database) -> None:
    await db.write(add_user)
    await db.write(spend, "u", 10, DECEMBER - 1)
    await db.write(spend, "u", 4, DECEMBER)
    assert await db.read(read, DECEMBER - 1) == (10, 0, instant(DECEMBER))
    assert await db.read(read, DECEMBER) == (4, 0, JANUARY)


@pytest.mark.anyio
async def test_a_clock_that_goes_back_loses_nothing(db: Database) -> None:
    await db.write(add_user)
    for now, tokens in ((DECEMBER + SECOND, 1), (DECEMBER - SECOND, 2), (DECEMBER + SECOND, 4), (DECEMBER - 1, 8)):
        assert await db.write(spend, "u", tokens, now) == "accepted"
    assert await db.read(read, DECEMBER) == (5, 0, JANUARY)
    assert await db.read(read, DECEMBER - SECOND) == (10, 0, instant(DECEMBER))
    assert differences(db.path) == []


@pytest.mark.anyio
async def test_a_clock_that_goes_back_ends_no_hold_and_lets_no_other_in(db: Database) -> None:
    await db.write(add_user)
    asked = Asked("u", 900_000, 60, None)
    await db.write(reservations.reserve, asked, Poster(), DECEMBER)
    for now in (DECEMBER - 3_600 * SECOND, DECEMBER, DECEMBER + 60 * SECOND - 1):
        assert (await db.read(read, now))[1] == 900_000
        with pytest.raises(QuotaExceeded):
            await db.write(reservations.reserve, asked, Poster(), now)
    assert (await db.read(read, DECEMBER + 60 * SECOND))[1] == 0


@pytest.mark.anyio
async def test_a_hold_lives_on_into_the_next_month(db: Database) -> None:
    await db.write(add_user)
    hold = await db.write(reservations.reserve, Asked("u", 900_000, 60, None), Poster(), DECEMBER - SECOND)
    later = DECEMBER + SECOND
    assert await db.read(read, later) == (0, 900_000, JANUARY)
    await db.write(reservations.settle, hold.id, spent("u", 5, later), Poster(), later)
    assert await db.read(read, later) == (5, 0, JANUARY)


def test_a_month_ends_while_requests_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The server runs in this process, whose clock can be set to a few seconds before December."""
    relay = Relay(tmp_path_factory.mktemp("month") / "data")
    relay.close()
    passed = threading.Event()
    url = f"http://127.0.0.1:{free_port()}"

    def post(_: int) -> int:
        body, number = {"userId": relay.bob.id, "totalTokens": 1}, 0
        with httpx.Client(base_url=url, headers=bearer(relay.key), timeout=30, trust_env=False) as client:
            while not passed.is_set():
                assert client.post(EVENTS, json=body).json()["accepted"] == 1
                number += 1
        return number

    def watch() -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        with httpx.Client(base_url=url, headers=bearer(relay.key), timeout=30, trust_env=False) as client:
            while not passed.is_set():
                seen.append(client.get(QUOTA, params={"userId": relay.bob.id}).json())
                if seen[-1]["resetDate"] == JANUARY and seen[-1]["used"] > ENOUGH:
                    passed.set()
        return seen

    moment = DECEMBER / SECOND - BEFORE_SECONDS
    with time_machine.travel(moment, tick=True), served_here(relay, url), ThreadPoolExecutor(POSTERS + 1) as pool:
        posting = [pool.submit(post, number) for number in range(POSTERS)]
        seen = pool.submit(watch).result(timeout=60)
        posted = sum(each.result(timeout=60) for each in posting)

    november = [each["used"] for each in seen if each["resetDate"] == instant(DECEMBER)]
    december = [each["used"] for each in seen if each["resetDate"] == JANUARY]
    assert [each["used"] for each in seen] == november + december
    assert november == sorted(november)
    assert december == sorted(december)
    assert november[-1] > 0
    months = relay.rows("SELECT total_tokens FROM usage_periods ORDER BY period_start_ms")
    assert len(months) == 2
    assert months[0][0] >= november[-1]
    assert months[0][0] + months[1][0] == posted
    assert differences(relay.path) == []


@contextmanager
def served_here(relay: Relay, url: str) -> Iterator[None]:
    """The application on a thread of this process."""
    made = create_app(Settings(data_dir=relay.path.parent, database_path=relay.path, log_level="warning"))
    config = uvicorn.Config(made, log_config=None, access_log=False, ws="none", lifespan="on")
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", int(url.rsplit(":", 1)[1])))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            until(lambda: server.started, START_SECONDS)
            yield
        finally:
            server.should_exit = True
            thread.join()
