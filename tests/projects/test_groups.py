"""/api/groups, /api/groups/:id and its members."""

import time

import pytest

from tests.projects.conftest import Cast, Person, refused


def test_a_group_is_its_makers(cast: Cast, alice: Person) -> None:
    made = cast.make(alice, "/api/groups", {"name": "Gardeners"})
    assert made == {"id": made["id"], "name": "Gardeners", "created_at": made["created_at"], "member_count": 0}
    assert abs(made["created_at"] - time.time()) < 60
    second = cast.make(alice, "/api/groups", {"name": "Cooks"})
    assert cast.get(alice, "/api/groups") == {"groups": [second, made]}
    assert cast.get(alice, f"/api/groups/{made['id']}") == made


@pytest.mark.parametrize("body", [{}, {"name": " "}])
def test_a_group_needs_a_name(cast: Cast, alice: Person, body: dict[str, str]) -> None:
    assert refused(cast.call(alice, "POST", "/api/groups", body)) == (400, "Name required")
    group = cast.make(alice, "/api/groups", {"name": "g"})
    assert refused(cast.call(alice, "PUT", f"/api/groups/{group['id']}", body)) == (400, "Name required")


def test_a_group_is_renamed(cast: Cast, alice: Person) -> None:
    group = cast.make(alice, "/api/groups", {"name": "g"})
    assert cast.call(alice, "PUT", f"/api/groups/{group['id']}", {"name": "h"}).json() == {"success": True}
    assert cast.get(alice, f"/api/groups/{group['id']}")["name"] == "h"


def test_members_come_and_go(cast: Cast, alice: Person, bob: Person) -> None:
    path = f"/api/groups/{cast.make(alice, '/api/groups', {'name': 'g'})['id']}"
    carol = cast.person()
    first = cast.make(alice, f"{path}/members", {"email": bob.email})
    assert first == {"user_id": bob.clerk_id, "email": bob.email, "name": None, "added_at": first["added_at"]}
    second = cast.make(alice, f"{path}/members", {"userId": carol.id})
    assert cast.make(alice, f"{path}/members", {"userId": bob.clerk_id}) == first
    assert cast.get(alice, f"{path}/members") == {"members": [second, first]}
    assert cast.get(alice, path)["member_count"] == 2
    assert cast.call(alice, "DELETE", f"{path}/members/{bob.clerk_id}").json() == {"success": True}
    assert cast.call(alice, "DELETE", f"{path}/members/{carol.id}").json() == {"success": True}
    assert cast.get(alice, f"{path}/members") == {"members": []}
    assert cast.announced("access").count(f"user:{bob.id}") == 3


@pytest.mark.parametrize("body", [{}, {"userId": "user_unknown"}, {"email": "x@nowhere.example"}])
def test_a_member_is_a_user(cast: Cast, alice: Person, body: dict[str, str]) -> None:
    path = f"/api/groups/{cast.make(alice, '/api/groups', {'name': 'g'})['id']}/members"
    assert refused(cast.call(alice, "POST", path, body)) == (404, "User not found")


def test_who_is_not_in_a_group_is_not_taken_out(cast: Cast, alice: Person, bob: Person) -> None:
    path = f"/api/groups/{cast.make(alice, '/api/groups', {'name': 'g'})['id']}/members"
    for user_id in (bob.clerk_id, "user_unknown", "a.b"):
        assert refused(cast.call(alice, "DELETE", f"{path}/{user_id}")) == (404, "User not found")


def test_who_leaves_a_group_loses_what_was_shared_with_it(cast: Cast, alice: Person, bob: Person) -> None:
    project = cast.project(alice)
    group = cast.make(alice, "/api/groups", {"name": "g"})
    cast.make(alice, f"/api/groups/{group['id']}/members", {"userId": bob.id})
    body = {"targetType": "group", "targetId": group["id"], "permission": "admin"}
    cast.make(alice, f"/api/projects/{project['id']}/shares", body)
    assert cast.role(bob, f"/api/instances/{project['defaultInstanceId']}") == "admin"
    cast.call(alice, "DELETE", f"/api/groups/{group['id']}/members/{bob.id}")
    assert cast.role(bob, f"/api/instances/{project['defaultInstanceId']}") == 404


def test_a_member_sees_the_group_and_changes_nothing(cast: Cast, alice: Person, bob: Person) -> None:
    path = f"/api/groups/{cast.make(alice, '/api/groups', {'name': 'g'})['id']}"
    assert refused(cast.call(bob, "GET", path)) == (404, "Group not found")
    cast.make(alice, f"{path}/members", {"userId": bob.id})
    assert [row["name"] for row in cast.get(bob, "/api/groups")["groups"]] == ["g"]
    assert len(cast.get(bob, f"{path}/members")["members"]) == 1
    for method, end in (("PUT", ""), ("DELETE", ""), ("POST", "/members"), ("DELETE", f"/members/{bob.id}")):
        body = {"name": "mine", "userId": bob.id} if method in ("PUT", "POST") else None
        assert refused(cast.call(bob, method, path + end, body)) == (403, "Admin permission required")


def test_a_key_needs_admin_to_change_a_group(cast: Cast, alice: Person) -> None:
    """Who puts a member into a group gives away what is shared with it."""
    assert cast.call(cast.key(alice, "write"), "POST", "/api/groups", {"name": "g"}).status_code == 403
    made = cast.make(cast.key(alice, "admin"), "/api/groups", {"name": "g"})
    assert cast.get(cast.key(alice, "read"), "/api/groups") == {"groups": [made]}
