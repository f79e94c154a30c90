"""GET /api/health/data-consistency."""

from collections.abc import Iterator

import pytest

from tests.accounts.conftest import ClerkServer, new_clerk_id, serving_clerk
from tests.fakes.clerk import SigningKey, user

PATH = "/api/health/data-consistency"
EVENTS = 7


@pytest.fixture
def spent(tmp_path_factory: pytest.TempPathFactory, signing_key: SigningKey) -> Iterator[tuple[ClerkServer, str]]:
    """A server, and our id of a user with EVENTS rows in the ledger."""
    with serving_clerk(tmp_path_factory.mktemp("spent") / "data", signing_key) as clerk:
        ada = new_clerk_id()
        clerk.send("user.created", user(ada))
        made = clerk.server.command("keys", "create", "--user", ada, "--scope", "write:usage", "--name", "r", "--json")
        key = {"X-API-Key": made.stdout.split('"key"')[1].split('"')[1]}
        events = [{"userId": ada, "responseId": f"resp_{number}", "totalTokens": 10} for number in range(EVENTS)]
        assert clerk.client.post("/api/usage/events", json=events, headers=key).json()["accepted"] == EVENTS
        (user_id,) = clerk.execute("SELECT user_id FROM identities WHERE subject = ?", ada)[0]
        yield clerk, user_id


def test_what_agrees_is_consistent(spent: tuple[ClerkServer, str]) -> None:
    clerk, _ = spent
    report = clerk.operator("GET", PATH).json()
    assert (report["status"], report["failedWebhooks"]) == ("consistent", 0)
    assert report["counters"] == {"checked": 1, "skipped": 0, "differences": []}


def test_a_counter_that_differs_from_its_rows_is_named(spent: tuple[ClerkServer, str]) -> None:
    clerk, user_id = spent
    clerk.execute("UPDATE usage_periods SET total_tokens = total_tokens + 1")
    report = clerk.operator("GET", PATH).json()
    (difference,) = report["counters"]["differences"]
    assert report["status"] == "inconsistent"
    assert (difference["userId"], difference["counter"], difference["ledger"]) == (user_id, 71, 70)


def test_users_without_a_sign_in_are_counted_and_the_development_user_is_not(spent: tuple[ClerkServer, str]) -> None:
    clerk, user_id = spent
    before = clerk.operator("GET", PATH).json()["usersWithoutIdentity"]
    clerk.execute("DELETE FROM identities WHERE user_id = ?", user_id)
    after = clerk.operator("GET", PATH).json()["usersWithoutIdentity"]
    assert after["count"] == before["count"] + 1
    assert user_id in after["sample"] and "dev-user" not in after["sample"]


def test_an_event_that_failed_makes_it_inconsistent(spent: tuple[ClerkServer, str]) -> None:
    clerk, _ = spent
    clerk.send("user.created", {"id": new_clerk_id(), "first_name": 5})
    report = clerk.operator("GET", PATH).json()
    assert (report["status"], report["failedWebhooks"]) == ("inconsistent", 1)
