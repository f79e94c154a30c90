"""litehouse keys, beside a running server."""

import re

from tests.cli.conftest import follows, refusal, run
from tests.conftest import Server

DEMO_USER = "user_2demoAdaLovelace1815London"


def post_event(server: Server, key: str, event_id: str = "resp_1", user: str = DEMO_USER) -> int:
    with server.client(authorization=f"Bearer {key}") as client:
        return client.post("/api/usage/events", json={"userId": user, "id": event_id, "totalTokens": 3}).status_code


def create(server: Server, *words: str) -> dict[str, object]:
    key: dict[str, object] = run(
        server, "keys", "create", "--user", DEMO_USER, "--scope", "write:usage", "--name", "relay", *words
    )
    return key


def status_of(server: Server, key_id: object) -> str:
    listed = run(server, "keys", "list")
    return str(next(key["status"] for key in listed if key["id"] == key_id))


def test_a_key_made_beside_the_server_writes_for_anybody_at_once(server: Server) -> None:
    key = create(server)
    assert re.fullmatch(r"ak_[0-9a-f]{48}", str(key["key"]))
    assert str(key["key"]).startswith(str(key["keyPrefix"]))
    assert (key["scopes"], key["byOperator"], key["rateLimit"], key["expiresAt"]) == (["write:usage"], True, 0, None)
    assert post_event(server, str(key["key"]), user="dev-user") == 200


def test_a_key_is_for_a_user_by_our_id_or_clerks(server: Server) -> None:
    by_clerk = create(server)
    by_ours = run(
        server, "keys", "create", "--user", str(by_clerk["user"]), "--scope", "read:usage", "--name", "reader"
    )
    assert by_ours["user"] == by_clerk["user"]
    listed = run(server, "keys", "list", "--user", DEMO_USER)
    assert {key["name"] for key in listed} == {"relay", "reader"}


def test_no_list_shows_a_secret(server: Server) -> None:
    key = create(server)
    for form in ((), ("--json",)):
        assert str(key["key"]) not in server.command("keys", "list", *form).stdout


def test_a_revoked_key_is_refused_within_300_ms(server: Server) -> None:
    key = create(server)
    assert post_event(server, str(key["key"])) == 200
    assert run(server, "keys", "revoke", str(key["id"]))["status"] == "revoked"
    assert follows(lambda: post_event(server, str(key["key"])) == 401)


def test_a_revoked_key_stays_revoked(server: Server) -> None:
    key = create(server)
    run(server, "keys", "revoke", str(key["id"]))
    assert refusal(server, "keys", "rotate", str(key["id"])) == "Only a key that can be used can be rotated"
    assert status_of(server, key["id"]) == "revoked"


def test_a_rotated_key_ends_and_its_successor_can_do_the_same(server: Server) -> None:
    old = create(server, "--rate-limit", "7")
    assert post_event(server, str(old["key"])) == 200
    new = run(server, "keys", "rotate", str(old["id"]))
    assert (new["name"], new["scopes"], new["rateLimit"]) == ("relay", ["write:usage"], 7)
    assert new["key"] != old["key"]
    assert post_event(server, str(new["key"]), "resp_2") == 200
    assert follows(lambda: post_event(server, str(old["key"])) == 401)


def test_with_grace_a_rotated_key_lives_on_until_then(server: Server) -> None:
    old = create(server)
    run(server, "keys", "rotate", str(old["id"]), "--grace", "3600")
    assert post_event(server, str(old["key"])) == 200
    (listed,) = [key for key in run(server, "keys", "list") if key["id"] == old["id"]]
    assert (listed["status"], listed["expiresAt"] is not None) == ("active", True)


def test_a_limit_of_its_own_holds(server: Server) -> None:
    key = str(create(server, "--rate-limit", "2")["key"])
    assert [post_event(server, key, f"resp_{number}") for number in range(3)] == [200, 200, 429]


def test_an_expiry_is_in_days(server: Server) -> None:
    key = create(server, "--expires-in", "30")
    assert str(key["expiresAt"])[:10] > str(key["createdAt"])[:10]


def test_what_cannot_be_made_is_one_line(server: Server) -> None:
    words = ("keys", "create", "--name", "x")
    assert refusal(server, *words, "--user", "nobody", "--scope", "write:usage") == "User not found: nobody"
    assert refusal(server, *words, "--user", DEMO_USER, "--scope", "write:all") == "Invalid scopes: write:all"
    assert refusal(server, "keys", "revoke", "key_0") == "API key not found"
    assert refusal(server, "keys", "create", "--name", " ", "--user", DEMO_USER, "--scope", "write:usage").startswith(
        "--name: expected 1 to 100 printable characters"
    )
    assert len(run(server, "keys", "list")) == 1


def test_a_command_that_is_written_wrongly_exits_2(server: Server) -> None:
    assert server.command("keys", "create", "--user", DEMO_USER).returncode == 2
    assert server.command("keys", "forget").returncode == 2
    assert server.command("keyring").returncode == 2
