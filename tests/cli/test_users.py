"""litehouse users, beside a running server."""

import pytest

from tests.cli.conftest import follows, refusal, run
from tests.conftest import ADMIN_TOKEN, Server

DEMO_USER = "user_2demoAdaLovelace1815London"


def relay_status(server: Server, key: str) -> int:
    event = {"userId": "dev-user", "id": "resp_1", "totalTokens": 1}
    with server.client(authorization=f"Bearer {key}") as relay:
        return relay.post("/api/usage/events", json=event).status_code


def total_of(server: Server, user: str) -> int:
    with server.client(**{"x-admin-token": ADMIN_TOKEN}) as client:
        total: int = client.get("/api/usage/quota", params={"userId": user}).json()["total"]
        return total


def test_a_user_is_found_by_our_id_and_by_clerks(server: Server) -> None:
    made = run(server, "users", "create", "--clerk-id", "user_2new", "--email", "new@example.com")
    assert (made["clerkId"], made["email"], made["plan"], made["suspended"]) == (
        "user_2new",
        "new@example.com",
        "free",
        False,
    )
    assert run(server, "users", "show", "user_2new") == run(server, "users", "show", made["id"]) == made


def test_a_list_goes_on_behind_the_last_id(server: Server) -> None:
    first = run(server, "users", "list", "--limit", "2")
    rest = run(server, "users", "list", "--after", first[-1]["id"])
    assert [user["id"] for user in first + rest] == [user["id"] for user in run(server, "users", "list")]
    assert (len(first), len(rest)) == (2, 1)


def test_a_plan_is_changed(server: Server) -> None:
    assert total_of(server, DEMO_USER) == 10_000_000
    assert run(server, "users", "plan", DEMO_USER, "premium")["plan"] == "premium"
    assert follows(lambda: total_of(server, DEMO_USER) == 50_000_000)
    assert refusal(server, "users", "plan", DEMO_USER, "gold") == "Plan not found: gold"


@pytest.mark.parametrize(("tokens", "total"), [("1234", 1234), ("-1", -1), ("0", 10_000_000)])
def test_a_quota_overrides_the_plans_until_it_is_0(server: Server, tokens: str, total: int) -> None:
    run(server, "users", "quota", DEMO_USER, "777")
    run(server, "users", "quota", DEMO_USER, tokens)
    assert follows(lambda: total_of(server, DEMO_USER) == total)


def test_a_suspended_users_key_is_refused_within_300_ms_and_taken_again_as_soon(server: Server) -> None:
    key = (server.data_dir / "demo-key").read_text().strip()
    assert relay_status(server, key) == 200
    assert run(server, "users", "suspend", "demo-relay")["suspended"] is True
    assert follows(lambda: relay_status(server, key) == 401)
    run(server, "users", "restore", "demo-relay")
    assert follows(lambda: relay_status(server, key) == 200)


def test_a_deleted_user_is_gone_and_its_clerk_id_cannot_come_back(server: Server) -> None:
    assert run(server, "users", "delete", DEMO_USER)["deleted"] is True
    assert refusal(server, "users", "show", DEMO_USER) == f"User not found: {DEMO_USER}"
    assert refusal(server, "users", "delete", DEMO_USER) == f"User not found: {DEMO_USER}"
    again = refusal(server, "users", "create", "--clerk-id", DEMO_USER)
    assert again == f"{DEMO_USER} was deleted and cannot come back"


def test_what_is_not_a_user_is_refused(server: Server) -> None:
    assert refusal(server, "users", "create", "--clerk-id", DEMO_USER) == f"There is a user {DEMO_USER} already"
    assert "--clerk-id" in refusal(server, "users", "create", "--clerk-id", "a b")
    assert "--email" in refusal(server, "users", "create", "--email", "nobody")
    assert server.command("users", "quota", DEMO_USER, "-2").returncode == 2


def test_a_command_bumps_the_token_that_clients_wait_for(server: Server) -> None:
    def sequence() -> int:
        with server.client() as client:
            txid = client.post("/api/keys", json={"name": "x"}).headers["x-txid"]
        return int(txid.rpartition("-")[2])

    before = sequence()
    run(server, "users", "plan", DEMO_USER, "free")
    assert sequence() == before + 2


def test_columns_are_aligned(server: Server) -> None:
    heading, *rows = server.command("users", "list").stdout.splitlines()
    assert heading.split() == ["id", "clerkId", "email", "plan", "tokenQuota", "suspended", "createdAt"]
    at = heading.index("plan")
    assert sorted(row[at:].split()[0] for row in rows) == ["basic", "free", "premium"]
