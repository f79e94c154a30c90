"""GET /api/user/profile."""

import re

from tests.accounts.conftest import OPERATOR, ClerkServer, new_clerk_id
from tests.conftest import Server
from tests.fakes.clerk import user

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def test_a_profile_has_every_field_and_clerks_id(clerk: ClerkServer) -> None:
    ada = new_clerk_id()
    clerk.send("user.created", user(ada, "ada@example.com", public_metadata={"subscription": "basic"}))
    profile = clerk.profile(ada).json()
    created_at, updated_at = profile["user"].pop("createdAt"), profile["user"].pop("updatedAt")
    assert profile["user"] == {
        "id": ada,
        "email": "ada@example.com",
        "firstName": "Ada",
        "lastName": "Lovelace",
        "imageUrl": f"https://img.clerk.com/{ada}",
        "subscription": "basic",
    }
    assert INSTANT.fullmatch(created_at) and INSTANT.fullmatch(updated_at)


def test_the_profiles_quota_is_the_quotas(clerk: ClerkServer) -> None:
    ada = new_clerk_id()
    clerk.send("user.created", user(ada, public_metadata={"tokenQuota": -1}))
    profile = clerk.profile(ada).json()["quota"]
    quota = clerk.client.get("/api/usage/quota", headers=clerk.session(ada)).json()
    assert profile == {name: quota[name] for name in ("total", "used", "remaining", "resetDate")}
    assert (profile["total"], profile["remaining"]) == (-1, -1)


def test_a_user_whom_no_webhook_announced_has_a_profile_on_the_free_plan(clerk: ClerkServer) -> None:
    ada = new_clerk_id()
    first = clerk.profile(ada)
    assert (first.status_code, first.json()["user"]["id"]) == (200, ada)
    assert first.json()["user"]["email"] is None
    assert first.json()["user"]["subscription"] == "free"


def test_a_profile_that_did_not_change_is_304(clerk: ClerkServer) -> None:
    ada = new_clerk_id()
    session = clerk.session(ada)
    etag = clerk.client.get("/api/user/profile", headers=session).headers["etag"]
    assert clerk.client.get("/api/user/profile", headers=session | {"If-None-Match": etag}).status_code == 304
    clerk.send("user.updated", user(ada))
    assert clerk.client.get("/api/user/profile", headers=session | {"If-None-Match": etag}).status_code == 200


def test_who_has_no_session_is_refused_in_the_words_of_the_route(clerk: ClerkServer) -> None:
    missing = clerk.client.get("/api/user/profile")
    wrong = clerk.client.get("/api/user/profile", headers={"Authorization": "Bearer nonsense"})
    assert (missing.status_code, missing.json()["error"]) == (401, "No token provided")
    assert (wrong.status_code, wrong.json()["error"]) == (401, "Invalid token")


def test_an_operator_without_a_user_has_no_profile(clerk: ClerkServer) -> None:
    assert clerk.client.get("/api/user/profile", headers=OPERATOR).status_code == 401


def test_development_answers_for_a_missing_credential(server: Server) -> None:
    with server.client() as client:
        assert client.get("/api/user/profile").json()["user"]["id"] == "dev-user"
