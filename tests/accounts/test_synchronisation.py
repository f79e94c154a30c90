"""POST /api/auth/sync-user/:userId and /api/auth/sync-all-users."""

from collections.abc import Iterator

import pytest

from tests.accounts.conftest import ClerkServer, new_clerk_id, serving_clerk
from tests.fakes.clerk import SECRET, FakeClerk, SigningKey, fake_clerk, user


@pytest.fixture
def backend(signing_key: SigningKey) -> Iterator[FakeClerk]:
    with fake_clerk(signing_key) as fake:
        yield fake


@pytest.fixture
def synced(
    tmp_path_factory: pytest.TempPathFactory, signing_key: SigningKey, backend: FakeClerk
) -> Iterator[ClerkServer]:
    known = {"CLERK_SECRET_KEY": SECRET, "CLERK_API_URL": backend.url}
    with serving_clerk(tmp_path_factory.mktemp("synced") / "data", signing_key, **known) as served:
        yield served


def test_one_user_is_brought_up_to_what_clerk_says(synced: ClerkServer, backend: FakeClerk) -> None:
    ada = new_clerk_id()
    synced.send("user.created", user(ada, first_name="Old", updated_at=100))
    backend.add(user(ada, "ada@example.com", first_name="New", updated_at=200))
    answer = synced.operator("POST", f"/api/auth/sync-user/{ada}").json()
    assert answer["success"] is True
    assert (answer["user"]["id"], answer["user"]["firstName"]) == (ada, "New")
    (ours,) = synced.execute("SELECT user_id FROM identities WHERE subject = ?", ada)[0]
    assert synced.operator("POST", f"/api/auth/sync-user/{ours}").json()["user"] == answer["user"]


def test_a_user_whom_nobody_knows_is_404(synced: ClerkServer, backend: FakeClerk) -> None:
    gone = new_clerk_id()
    synced.send("user.deleted", {"id": gone, "deleted": True})
    backend.add(user(gone))
    for unknown in ("user_nobody", "dev-user", "%2E%2E", "a%2Fb", gone):
        response = synced.operator("POST", f"/api/auth/sync-user/{unknown}")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_a_clerk_that_fails_is_502(synced: ClerkServer, backend: FakeClerk) -> None:
    backend.failing_with = 500
    for path in ("/api/auth/sync-user/user_1", "/api/auth/sync-all-users"):
        response = synced.operator("POST", path)
        assert (response.status_code, response.json()["code"]) == (502, "upstream")
        assert SECRET not in response.text


def test_all_users_are_read_page_by_page(synced: ClerkServer, backend: FakeClerk) -> None:
    made = [user(new_clerk_id(), f"user{number}@example.com", updated_at=200) for number in range(205)]
    backend.add(*made)
    synced.send("user.updated", user(made[0]["id"], first_name="Newer", updated_at=300))
    synced.send("user.deleted", {"id": made[1]["id"], "deleted": True})
    answer = synced.operator("POST", "/api/auth/sync-all-users").json()
    assert answer == {
        "success": True,
        "total": 205,
        "synced": 203,
        "skipped": 2,
        "hasMore": False,
        "nextOffset": 205,
    }
    assert backend.requests["/v1/users"] == 3
    assert synced.execute("SELECT count(*) FROM users WHERE email LIKE 'user%@example.com'") == [(203,)]
    assert synced.execute("SELECT 1 FROM identities WHERE subject = ?", made[1]["id"]) == []
    again = synced.operator("POST", "/api/auth/sync-all-users", offset=200).json()
    assert (again["total"], again["nextOffset"]) == (5, 205)


def test_without_a_secret_key_it_is_503(clerk: ClerkServer) -> None:
    for path in ("/api/auth/sync-user/user_1", "/api/auth/sync-all-users"):
        response = clerk.operator("POST", path)
        assert (response.status_code, response.json()["code"]) == (503, "unavailable")
