"""Enrichment: what Clerk's API adds to users whom a token announced."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.accounts.clerk_api import ClerkApi
from app.accounts.enrichment import WAITING_USERS, Enrichment
from app.edge.database import Database
from app.edge.outbound import Outbound
from app.identity.queries import find_user_id_by_subject
from app.settings import Clerk
from tests.accounts.conftest import ClerkServer, new_clerk_id, serving_clerk
from tests.fakes.clerk import SECRET, FakeClerk, SigningKey, fake_clerk, user
from tests.waiting import until

ANSWER_SECONDS = 2.0


@pytest.fixture(scope="module")
def backend(signing_key: SigningKey) -> Iterator[FakeClerk]:
    with fake_clerk(signing_key) as fake:
        yield fake


@pytest.fixture(scope="module")
def clerk(
    tmp_path_factory: pytest.TempPathFactory, signing_key: SigningKey, backend: FakeClerk
) -> Iterator[ClerkServer]:
    known = {"CLERK_SECRET_KEY": SECRET, "CLERK_API_URL": backend.url}
    with serving_clerk(tmp_path_factory.mktemp("clerk") / "data", signing_key, **known) as served:
        yield served


def asked(backend: FakeClerk, clerk_id: str) -> int:
    return backend.requests[f"/v1/users/{clerk_id}"]


def test_a_new_user_gets_the_primary_address_plan_and_quota_that_clerk_knows(
    clerk: ClerkServer, backend: FakeClerk
) -> None:
    ada = new_clerk_id()
    told = user(ada, "first@example.com", "primary@example.com")
    told["primary_email_address_id"] = told["email_addresses"][1]["id"]
    told["public_metadata"] = {"subscription": "premium_plan", "tokenQuota": 123_456}
    backend.add(told)
    assert clerk.profile(ada).json()["user"]["id"] == ada
    until(lambda: clerk.profile(ada).json()["user"]["email"] == "primary@example.com")
    profile = clerk.profile(ada).json()
    assert (profile["user"]["subscription"], profile["quota"]["total"]) == ("premium", 123_456)
    assert asked(backend, ada) == 1


def test_a_slow_clerk_delays_no_request_and_overwrites_nothing_newer(clerk: ClerkServer, backend: FakeClerk) -> None:
    ada = new_clerk_id()
    backend.add(user(ada, first_name="Older", updated_at=100))
    with backend.slow():
        begun = time.monotonic()
        assert clerk.profile(ada).status_code == 200
        assert time.monotonic() - begun < ANSWER_SECONDS
        until(lambda: asked(backend, ada) == 1)
        clerk.send("user.updated", user(ada, first_name="Newer", updated_at=200))
    marker = new_clerk_id()
    backend.add(user(marker, first_name="Marker"))
    clerk.profile(marker)
    # One worker takes them in order: once it has come to the second, it is done with the first.
    until(lambda: clerk.profile(marker).json()["user"]["firstName"] == "Marker")
    assert clerk.profile(ada).json()["user"]["firstName"] == "Newer"


def test_a_user_that_is_deleted_meanwhile_does_not_come_back(clerk: ClerkServer, backend: FakeClerk) -> None:
    ada, marker = new_clerk_id(), new_clerk_id()
    backend.add(user(ada), user(marker, first_name="Marker"))
    with backend.slow():
        assert clerk.profile(ada).status_code == 200
        until(lambda: asked(backend, ada) == 1)
        clerk.send("user.deleted", {"id": ada, "deleted": True})
    clerk.profile(marker)
    until(lambda: clerk.profile(marker).json()["user"]["firstName"] == "Marker")
    assert clerk.profile(ada).status_code == 401


@pytest.mark.parametrize("status", [404, 429, 500])
def test_a_failing_clerk_fails_no_request_and_ends_no_worker(
    clerk: ClerkServer, backend: FakeClerk, status: int
) -> None:
    ada, marker = new_clerk_id(), new_clerk_id()
    backend.add(user(ada), user(marker, first_name="Marker"))
    backend.failing_with = status
    try:
        assert clerk.profile(ada).json()["user"]["email"] is None
        until(lambda: asked(backend, ada) == 1)
    finally:
        backend.failing_with = None
    clerk.profile(marker)
    until(lambda: clerk.profile(marker).json()["user"]["firstName"] == "Marker")
    assert clerk.profile(ada).status_code == 200


def test_a_clerk_that_is_not_there_fails_no_request(tmp_path: Path, signing_key: SigningKey) -> None:
    nobody = {"CLERK_SECRET_KEY": SECRET, "CLERK_API_URL": "http://127.0.0.1:9"}
    with serving_clerk(tmp_path / "data", signing_key, **nobody) as clerk:
        assert clerk.profile(new_clerk_id()).status_code == 200
        assert clerk.server.stop() == 0


def test_a_stop_does_not_wait_for_clerk(tmp_path: Path, signing_key: SigningKey, backend: FakeClerk) -> None:
    known = {"CLERK_SECRET_KEY": SECRET, "CLERK_API_URL": backend.url}
    ada = new_clerk_id()
    with backend.slow(), serving_clerk(tmp_path / "data", signing_key, **known) as clerk:
        clerk.profile(ada)
        until(lambda: asked(backend, ada) == 1)
        begun = time.monotonic()
        assert clerk.server.stop() == 0
        assert time.monotonic() - begun < ANSWER_SECONDS


@pytest.mark.anyio
async def test_a_user_who_waits_already_is_fetched_once_and_a_full_queue_refuses_nobody(
    db: Database, backend: FakeClerk
) -> None:
    ada, outbound = new_clerk_id(), Outbound()
    backend.add(user(ada, "ada@example.com"))
    enrichment = Enrichment(db, ClerkApi(Clerk(secret_key=SECRET, api_url=backend.url), outbound))
    for clerk_id in (ada, ada, *(f"no id {number}" for number in range(WAITING_USERS + 5))):
        enrichment.offer(clerk_id)
    running = asyncio.create_task(enrichment.run())
    while await db.read(find_user_id_by_subject, "clerk", ada) is None:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    await outbound.close()
    assert asked(backend, ada) == 1
