"""/api/delegates, their secrets and their grants, and what a delegate may do."""

import re
import time

import pytest

from tests.projects.conftest import Cast, Key, Person, delegate, grant, refused, with_secret
from tests.waiting import until

ALL = {"can_read": True, "can_write": True, "can_system": True}


def test_a_delegate_is_made_with_its_flags(cast: Cast, alice: Person) -> None:
    flags = {"can_read": True, "can_write": False, "can_system": False}
    body = {"name": "sensor", "keyPermissions": flags, "expiresAt": "2030-01-01T00:00"}
    made = cast.make(alice, "/api/delegates", body)
    assert re.fullmatch(r"del_[0-9a-f]{32}", made["delegate_id"])
    row = {"name": "sensor", **flags, "expires_at": 1_893_456_000, "created_at": made["created_at"]}
    row["delegate_id"] = made["delegate_id"]
    assert made == row | {"keyPermissions": flags, "expiresAt": "2030-01-01T00:00"}
    assert cast.get(alice, "/api/delegates") == {"delegates": [row]}
    assert cast.rows("SELECT expires_at FROM delegates WHERE delegate_id = ?", made["delegate_id"]) == [
        ("2030-01-01 00:00:00",)
    ]


@pytest.mark.parametrize("expiry", [None, ""])
def test_an_empty_expiry_is_none(cast: Cast, alice: Person, expiry: str | None) -> None:
    made = cast.make(alice, "/api/delegates", {"name": "x", "keyPermissions": ALL, "expiresAt": expiry})
    assert (made["expires_at"], made["expiresAt"]) == (None, None)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"keyPermissions": ALL}, "Name required"),
        ({"name": " ", "keyPermissions": ALL}, "Name required"),
        ({"name": "x", "keyPermissions": ALL, "expiresAt": "soon"}, "Invalid expiration date format"),
        ({"name": "x", "keyPermissions": ALL, "expiresAt": "2030-13-01"}, "Invalid expiration date format"),
    ],
)
def test_a_delegate_that_cannot_be_made(cast: Cast, alice: Person, body: dict[str, object], sentence: str) -> None:
    assert refused(cast.call(alice, "POST", "/api/delegates", body)) == (400, sentence)


def test_a_secret_is_shown_once_and_kept_as_a_hash(cast: Cast, alice: Person) -> None:
    delegate_id = cast.make(alice, "/api/delegates", {"name": "x", "keyPermissions": ALL})["delegate_id"]
    path = f"/api/delegates/{delegate_id}/secrets"
    answer = cast.call(alice, "POST", path, {"name": "greenhouse"})
    made = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert made.keys() == {"secret_id", "delegate_id", "delegateSecret", "name", "warning"}
    assert re.fullmatch(r"sec_[A-Za-z0-9]{32}", made["delegateSecret"])
    (row,) = cast.get(alice, path)["secrets"]
    assert row == {
        "secret_id": made["secret_id"],
        "name": "greenhouse",
        "created_at": row["created_at"],
        "last_used_at": None,
        "revoked_at": None,
    }
    stored = cast.rows("SELECT hex(secret_hash) FROM delegate_secrets WHERE secret_id = ?", made["secret_id"])
    assert len(stored[0][0]) == 64


def test_a_repeated_post_makes_no_second_secret_and_tells_none(cast: Cast, alice: Person) -> None:
    delegate_id = cast.make(alice, "/api/delegates", {"name": "x", "keyPermissions": ALL})["delegate_id"]
    path = f"/api/delegates/{delegate_id}/secrets"
    statuses = [cast.call(alice, "POST", path, {}, Idempotency_Key="k").status_code for _ in range(2)]
    assert statuses == [201, 409]
    assert len(cast.get(alice, path)["secrets"]) == 1


def test_a_grant_is_given_listed_and_withdrawn(cast: Cast, alice: Person) -> None:
    instance_id = cast.project(alice)["defaultInstanceId"]
    sensor = delegate(cast, alice, **ALL)
    path = f"/api/delegates/{sensor.id}/grants"
    answer = cast.call(alice, "POST", path, {"instanceId": instance_id, "permission": "system"})
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    (row,) = cast.get(alice, path)["grants"]
    assert abs(row.pop("granted_at") - time.time()) < 60
    assert row == {"do_id": instance_id, "instance_id": instance_id, "permission": "system", "expires_at": None}
    assert cast.role(sensor, f"/api/instances/{instance_id}") == "admin"
    grant(cast, alice, sensor, instance_id, "read")
    assert cast.role(sensor, f"/api/instances/{instance_id}") == "read"
    assert cast.call(alice, "DELETE", f"{path}/{instance_id}").json() == {"success": True}
    assert cast.role(sensor, f"/api/instances/{instance_id}") == 404
    assert refused(cast.call(alice, "DELETE", f"{path}/{instance_id}")) == (404, "Instance not found")
    assert f"delegate:{sensor.id}" in cast.announced("access")


@pytest.mark.parametrize(
    ("flags", "permission", "role"),
    [
        ("read write system", "system", "admin"),
        ("read write system", "admin", "admin"),
        ("read write system", "write", "write"),
        ("read write", "admin", "write"),
        ("read", "write", "read"),
        ("read system", "write", "read"),
        ("read system", "admin", "admin"),
        ("write", "read", 404),
        ("", "admin", 404),
    ],
)
def test_a_delegate_may_do_what_its_flags_and_its_grant_both_allow(
    cast: Cast, alice: Person, flags: str, permission: str, role: str | int
) -> None:
    instance_id = cast.project(alice)["defaultInstanceId"]
    sensor = delegate(cast, alice, **{f"can_{flag}": True for flag in flags.split()})
    grant(cast, alice, sensor, instance_id, permission)
    assert cast.role(sensor, f"/api/instances/{instance_id}") == role


def test_a_delegate_is_nothing_elsewhere(cast: Cast, alice: Person) -> None:
    project = cast.project(alice)
    sensor = delegate(cast, alice, **ALL)
    grant(cast, alice, sensor, project["defaultInstanceId"], "admin")
    other = cast.instance(alice, project)["id"]
    assert cast.role(sensor, f"/api/instances/{other}") == 404
    assert cast.role(sensor, f"/api/projects/{project['id']}") == 404
    assert cast.get(sensor, "/api/projects") == {"projects": []}
    assert cast.call(sensor, "POST", "/api/projects", {"name": "x"}).status_code == 403
    assert cast.call(sensor, "GET", "/api/delegates").status_code == 403
    assert cast.call(sensor, "GET", "/api/user/profile").status_code == 401
    assert cast.call(sensor, "GET", "/api/keys").status_code == 401


def test_nobody_grants_more_than_they_have(cast: Cast, alice: Person, bob: Person) -> None:
    project = cast.project(alice)
    instance_id, sensor = project["defaultInstanceId"], delegate(cast, bob, **ALL)
    path = f"/api/delegates/{sensor.id}/grants"
    body = {"instanceId": instance_id, "permission": "admin"}
    assert refused(cast.call(bob, "POST", path, body)) == (404, "Instance not found")
    share = cast.share(alice, f"instances/{instance_id}", "write", bob)
    assert refused(cast.call(bob, "POST", path, body)) == (403, "Admin permission required")
    grant(cast, bob, sensor, instance_id, "write")
    assert cast.role(sensor, f"/api/instances/{instance_id}") == "write"
    cast.call(alice, "DELETE", f"/api/shares/{share['id']}")
    assert cast.role(sensor, f"/api/instances/{instance_id}") == 404


@pytest.mark.parametrize("permission", ["owner", "", None])
def test_a_grant_of_another_word_is_400(cast: Cast, alice: Person, permission: str | None) -> None:
    sensor = delegate(cast, alice)
    body = {"instanceId": cast.project(alice)["defaultInstanceId"], "permission": permission}
    assert cast.call(alice, "POST", f"/api/delegates/{sensor.id}/grants", body).status_code == 400


def test_a_revoked_secret_ends_and_the_others_live_on(cast: Cast, alice: Person) -> None:
    first = delegate(cast, alice, **ALL)
    second = with_secret(cast, alice, first.id)
    path = f"/api/delegates/{first.id}/secrets"
    newest, oldest = (row["secret_id"] for row in cast.get(alice, path)["secrets"])
    for _ in range(2):
        assert cast.call(alice, "DELETE", f"{path}/{oldest}").json() == {"success": True}
    assert refused(cast.call(first, "GET", "/api/projects")) == (401, "Invalid delegate credentials")
    assert cast.call(second, "GET", "/api/projects").status_code == 200
    revoked = {row["secret_id"]: row["revoked_at"] is not None for row in cast.get(alice, path)["secrets"]}
    assert revoked == {newest: False, oldest: True}
    assert refused(cast.call(alice, "DELETE", f"{path}/dsc_unknown")) == (404, "Secret not found")


@pytest.mark.parametrize("credential", ["x", "del_x", "del_x:", "del_x:sec_y", ":", "del_x:sec_y:z", "mc_live_x"])
def test_credentials_of_no_delegate_are_401(cast: Cast, credential: str) -> None:
    answer = cast.call(Key("", {"Authorization": f"ApiKey {credential}"}), "GET", "/api/projects")
    assert refused(answer) == (401, "Invalid delegate credentials")


def test_a_secret_opens_its_own_delegate_only(cast: Cast, alice: Person) -> None:
    first, second = delegate(cast, alice), delegate(cast, alice)
    secret = first.headers["Authorization"].partition(":")[2]
    answer = cast.call(Key("", {"Authorization": f"ApiKey {second.id}:{secret}"}), "GET", "/api/projects")
    assert answer.status_code == 401


def test_an_expired_delegate_is_refused(cast: Cast, alice: Person) -> None:
    body = {"name": "old", "keyPermissions": ALL, "expiresAt": "2020-01-01T00:00:00Z"}
    expired = with_secret(cast, alice, cast.make(alice, "/api/delegates", body)["delegate_id"])
    assert refused(cast.call(expired, "GET", "/api/projects")) == (401, "Invalid delegate credentials")


def test_a_deleted_delegate_and_one_of_a_suspended_user_are_refused(cast: Cast, alice: Person, bob: Person) -> None:
    deleted, idle = delegate(cast, alice), delegate(cast, bob)
    assert cast.call(alice, "DELETE", f"/api/delegates/{deleted.id}").json() == {"success": True}
    assert refused(cast.call(alice, "DELETE", f"/api/delegates/{deleted.id}")) == (404, "Delegate not found")
    assert cast.server.command("users", "suspend", bob.clerk_id).returncode == 0
    for key in (deleted, idle):
        assert refused(cast.call(key, "GET", "/api/projects")) == (401, "Invalid delegate credentials")
    assert f"delegate:{deleted.id}" in cast.announced("access")


def test_when_a_secret_was_last_used_is_written(cast: Cast, alice: Person) -> None:
    sensor = delegate(cast, alice, **ALL)
    assert cast.call(sensor, "GET", "/api/projects").status_code == 200
    path = f"/api/delegates/{sensor.id}/secrets"
    used_at = until(lambda: cast.get(alice, path)["secrets"][0]["last_used_at"], 20)
    assert abs(used_at - time.time()) < 60


def test_a_delegate_is_its_users(cast: Cast, alice: Person, bob: Person) -> None:
    sensor = delegate(cast, alice)
    for end in ("", "/secrets", "/grants"):
        method = "DELETE" if end == "" else "GET"
        answer = cast.call(bob, method, f"/api/delegates/{sensor.id}{end}")
        assert refused(answer) == (404, "Delegate not found")


def test_a_key_needs_admin_for_delegates(cast: Cast, alice: Person) -> None:
    assert cast.call(cast.key(alice, "write"), "GET", "/api/delegates").status_code == 403
    assert cast.call(cast.ak_key(alice, "write:instances"), "GET", "/api/delegates").status_code == 403
    assert cast.get(cast.key(alice, "admin"), "/api/delegates") == {"delegates": []}
