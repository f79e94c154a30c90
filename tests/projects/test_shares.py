"""/api/projects|instances/:id/shares and /api/shares/:id."""

import pytest

from tests.projects.conftest import Cast, Person, refused


def test_a_share_is_echoed_with_its_row(cast: Cast, alice: Person, bob: Person) -> None:
    project = cast.project(alice)
    path = f"/api/projects/{project['id']}/shares"
    asked = {"targetType": "user", "targetEmail": bob.email, "permission": "write"}
    made = cast.make(alice, path, asked)
    assert asked.items() <= made.items()
    row = {name: made[name] for name in made if name not in ("targetType", "targetEmail")}
    assert row == {
        "id": made["id"],
        "target_type": "user",
        "target_id": bob.clerk_id,
        "permission": "write",
        "created_at": made["created_at"],
        "target_email": bob.email,
        "target_name": None,
    }
    assert cast.get(alice, path) == {"shares": [row]}
    assert cast.role(bob, f"/api/projects/{project['id']}") == "write"


@pytest.mark.parametrize("place", ["projects", "instances"])
def test_who_is_no_admin_shares_nothing_and_sees_no_shares(cast: Cast, alice: Person, bob: Person, place: str) -> None:
    """The old server let anybody share anything."""
    project = cast.project(alice)
    path = f"/api/{place}/{project['id'] if place == 'projects' else project['defaultInstanceId']}/shares"
    mine = {"targetType": "user", "targetId": bob.id, "permission": "admin"}
    assert cast.call(bob, "POST", path, mine).status_code == 404
    cast.share(alice, f"projects/{project['id']}", "write", bob)
    assert refused(cast.call(bob, "POST", path, mine)) == (403, "Admin permission required")
    assert refused(cast.call(bob, "GET", path)) == (403, "Admin permission required")
    assert cast.role(bob, f"/api/instances/{project['defaultInstanceId']}") == "write"


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"targetType": "user", "targetId": "user_unknown", "permission": "read"}, (404, "User not found")),
        ({"targetType": "user", "targetEmail": "x@nowhere.example", "permission": "read"}, (404, "User not found")),
        ({"targetType": "group", "targetId": "grp_unknown", "permission": "read"}, (404, "Group not found")),
        ({"targetType": "api_key", "targetId": "key_unknown", "permission": "read"}, (404, "API key not found")),
    ],
)
def test_a_target_that_is_not_there(cast: Cast, alice: Person, body: dict[str, str], refusal: tuple[int, str]) -> None:
    assert refused(cast.call(alice, "POST", f"/api/projects/{cast.project(alice)['id']}/shares", body)) == refusal


@pytest.mark.parametrize(
    "body",
    [
        {"targetType": "public", "permission": "owner"},
        {"targetType": "public", "permission": "system"},
        {"targetType": "public"},
        {"targetType": "everybody", "permission": "read"},
        {"targetType": "user", "permission": "read"},
        {"targetType": "group", "targetEmail": "x@example.com", "permission": "read"},
    ],
)
def test_a_share_that_makes_no_sense_is_400(cast: Cast, alice: Person, body: dict[str, str]) -> None:
    answer = cast.call(alice, "POST", f"/api/projects/{cast.project(alice)['id']}/shares", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


def test_a_second_share_to_the_same_target_replaces_the_first(cast: Cast, alice: Person, bob: Person) -> None:
    place = f"projects/{cast.project(alice)['id']}"
    first, second = cast.share(alice, place, "write", bob), cast.share(alice, place, "read", bob)
    public = [cast.share(alice, place, permission) for permission in ("write", "read")]
    assert first["id"] == second["id"]
    assert public[0]["id"] == public[1]["id"]
    assert [row["permission"] for row in cast.get(alice, f"/api/{place}/shares")["shares"]] == ["read", "read"]


def test_an_address_of_two_is_that_of_the_one_whom_clerk_verified(cast: Cast, alice: Person) -> None:
    """Else whoever signs up elsewhere with somebody's address would be let in for them."""
    impostor, known = cast.person("shared@example.com"), cast.person("shared@example.com")
    cast.beside(forget_identity, impostor.id)
    body = {"targetType": "user", "targetEmail": "Shared@Example.com", "permission": "read"}
    made = cast.make(alice, f"/api/projects/{cast.project(alice)['id']}/shares", body)
    assert made["target_id"] == known.clerk_id


def forget_identity(tx: object, user_id: str) -> None:
    tx.execute("DELETE FROM identities WHERE user_id = ?", user_id)  # type: ignore[attr-defined]


def test_a_share_with_a_group_lets_its_members_in_until_it_ends(cast: Cast, alice: Person, bob: Person) -> None:
    project = cast.project(alice)
    group = cast.make(alice, "/api/groups", {"name": "Gardeners"})
    cast.make(alice, f"/api/groups/{group['id']}/members", {"email": bob.email})
    body = {"targetType": "group", "targetId": group["id"], "permission": "write"}
    made = cast.make(alice, f"/api/projects/{project['id']}/shares", body)
    assert (made["target_id"], made["target_name"], made["target_email"]) == (group["id"], "Gardeners", None)
    assert cast.role(bob, f"/api/projects/{project['id']}") == "write"
    cast.call(alice, "DELETE", f"/api/groups/{group['id']}")
    assert cast.role(bob, f"/api/projects/{project['id']}") == 404
    assert cast.get(alice, f"/api/projects/{project['id']}/shares") == {"shares": []}
    assert f"project:{project['id']}" in cast.announced("access")


def test_a_group_of_others_is_not_shared_with(cast: Cast, alice: Person, bob: Person) -> None:
    group = cast.make(bob, "/api/groups", {"name": "g"})
    body = {"targetType": "group", "targetId": group["id"], "permission": "read"}
    path = f"/api/projects/{cast.project(alice)['id']}/shares"
    assert refused(cast.call(alice, "POST", path, body)) == (404, "Group not found")


def test_a_share_is_taken_back_at_once(cast: Cast, alice: Person, bob: Person) -> None:
    project = cast.project(alice)
    instance_id = project["defaultInstanceId"]
    of_project = cast.share(alice, f"projects/{project['id']}", "read", bob)
    of_instance = cast.share(alice, f"instances/{instance_id}", "write", bob)
    assert cast.role(bob, f"/api/instances/{instance_id}") == "write"
    assert cast.call(alice, "DELETE", f"/api/shares/{of_instance['id']}").json() == {"success": True}
    assert cast.role(bob, f"/api/instances/{instance_id}") == "read"
    assert cast.call(alice, "DELETE", f"/api/shares/{of_project['id']}").json() == {"success": True}
    assert cast.role(bob, f"/api/instances/{instance_id}") == 404
    again = cast.call(alice, "DELETE", f"/api/shares/{of_project['id']}")
    assert refused(again) == (404, "Share not found")
    told = cast.announced("access")
    assert told.count(f"instance:{instance_id}") == told.count(f"project:{project['id']}") == 2


def test_a_share_of_what_one_does_not_see_is_not_found(cast: Cast, alice: Person, bob: Person) -> None:
    share = cast.share(alice, f"projects/{cast.project(alice)['id']}", "read", cast.person())
    assert refused(cast.call(bob, "DELETE", f"/api/shares/{share['id']}")) == (404, "Share not found")


def test_shares_are_listed_newest_first(cast: Cast, alice: Person) -> None:
    place = f"instances/{cast.project(alice)['defaultInstanceId']}"
    made = [cast.share(alice, place, "read", cast.person())["id"] for _ in range(3)]
    assert [row["id"] for row in cast.get(alice, f"/api/{place}/shares")["shares"]] == made[::-1]


def test_the_shares_of_a_deleted_user_go_with_it(cast: Cast, alice: Person, bob: Person) -> None:
    place = f"projects/{cast.project(alice)['id']}"
    cast.share(alice, place, "admin", bob)
    cast.delete(bob)
    assert cast.get(alice, f"/api/{place}/shares") == {"shares": []}
    assert refused(cast.call(bob, "GET", f"/api/{place}")) == (401, "Invalid token")
