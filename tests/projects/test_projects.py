"""/api/projects and /api/projects/:id."""

import time

import pytest

from tests.conftest import serving
from tests.projects.conftest import Cast, Person, refused


def test_a_project_is_made_with_its_first_instance(cast: Cast, alice: Person) -> None:
    before = int(time.time())
    made = cast.make(alice, "/api/projects", {"name": " garden ", "description": "What grows"})
    assert set(made) == {"id", "name", "description", "defaultInstanceId", "created_at", "updated_at"}
    assert (made["name"], made["description"]) == ("garden", "What grows")
    assert before <= made["created_at"] == made["updated_at"] <= time.time()
    (instance,) = cast.get(alice, f"/api/projects/{made['id']}/instances")["instances"]
    assert (instance["id"], instance["name"]) == (made["defaultInstanceId"], "main")


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "  "}, {"name": None}])
def test_a_project_needs_a_name(cast: Cast, alice: Person, body: dict[str, object]) -> None:
    assert refused(cast.call(alice, "POST", "/api/projects", body)) == (400, "Name required")
    assert cast.get(alice, "/api/projects") == {"projects": []}


@pytest.mark.parametrize("body", [{"name": "x" * 201}, {"name": "a\0b"}, {"name": 5}, {"name": "x", "description": 5}])
def test_a_name_that_cannot_be_kept_is_refused(cast: Cast, alice: Person, body: dict[str, object]) -> None:
    answer = cast.call(alice, "POST", "/api/projects", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


def test_a_repeated_post_makes_one_project(cast: Cast, alice: Person) -> None:
    answers = [cast.call(alice, "POST", "/api/projects", {"name": "once"}, Idempotency_Key="k") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert len(cast.get(alice, "/api/projects")["projects"]) == 1
    assert cast.call(alice, "POST", "/api/projects", {"name": "two"}, Idempotency_Key="k").status_code == 422


def test_a_project_shows_its_role_and_unix_seconds(cast: Cast, alice: Person) -> None:
    made = cast.project(alice)
    found = cast.get(alice, f"/api/projects/{made['id']}")
    expected = {name: made[name] for name in ("id", "name", "description", "created_at", "updated_at")}
    assert found == expected | {"role": "owner"}


def test_the_list_has_what_is_owned_and_shared_each_once_with_the_strongest_role(
    cast: Cast, alice: Person, bob: Person
) -> None:
    own, shared, by_group, public, other = (
        cast.project(who, name)
        for who, name in ((bob, "own"), (alice, "shared"), (alice, "by group"), (alice, "public"), (alice, "other"))
    )
    cast.share(alice, f"projects/{shared['id']}", "read", bob)
    group = cast.make(alice, "/api/groups", {"name": "g"})
    cast.make(alice, f"/api/groups/{group['id']}/members", {"userId": bob.clerk_id})
    for project in (shared, by_group):
        cast.make(
            alice,
            f"/api/projects/{project['id']}/shares",
            {"targetType": "group", "targetId": group["id"], "permission": "write"},
        )
    cast.share(alice, f"projects/{public['id']}", "read")
    cast.share(alice, f"instances/{other['defaultInstanceId']}", "admin", bob)
    listed = cast.get(bob, "/api/projects")["projects"]
    assert {row["name"]: row["role"] for row in listed} == {"own": "owner", "shared": "write", "by group": "write"}
    assert len(listed) == 3
    assert listed[0].keys() == {"id", "name", "description", "created_at", "updated_at", "role"}
    with_public = cast.get(bob, "/api/projects?include=public")["projects"]
    assert {row["id"]: row["role"] for row in with_public}[public["id"]] == "read"
    assert own["id"] in {row["id"] for row in with_public}


def test_the_list_begins_with_what_was_changed_last(cast: Cast, alice: Person) -> None:
    made = [cast.project(alice, name) for name in ("first", "second", "third")]
    cast.call(alice, "PUT", f"/api/projects/{made[0]['id']}", {"name": "first again"})
    names = [row["name"] for row in cast.get(alice, "/api/projects")["projects"]]
    assert names == ["first again", "third", "second"]


def test_a_list_is_read_page_by_page(cast: Cast, alice: Person) -> None:
    for number in range(5):
        cast.project(alice, str(number))
    path, names = "/api/projects?limit=2", []
    for _ in range(3):
        answer = cast.call(alice, "GET", path)
        names += [row["name"] for row in answer.json()["projects"]]
        path = answer.links.get("next", {}).get("url", "")
    assert (names, path) == (["4", "3", "2", "1", "0"], "")


@pytest.mark.parametrize("query", ["limit=abc", "limit=-1", "limit=0", "cursor=x", "include=all"])
def test_a_list_refuses_what_it_does_not_know(cast: Cast, alice: Person, query: str) -> None:
    assert cast.call(alice, "GET", f"/api/projects?{query}").status_code == 400


def test_a_list_that_has_not_changed_is_304(cast: Cast, alice: Person) -> None:
    cast.project(alice)
    first = cast.call(alice, "GET", "/api/projects")
    assert first.headers["cache-control"] == "private, no-cache"
    assert cast.call(alice, "GET", "/api/projects", If_None_Match=first.headers["etag"]).status_code == 304
    cast.project(alice)
    assert cast.call(alice, "GET", "/api/projects", If_None_Match=first.headers["etag"]).status_code == 200


def test_what_is_not_named_in_a_change_stays(cast: Cast, alice: Person) -> None:
    path = f"/api/projects/{cast.make(alice, '/api/projects', {'name': 'a', 'description': 'b'})['id']}"
    steps = (({"name": "c"}, ("c", "b")), ({"description": "d"}, ("c", "d")), ({"description": None}, ("c", None)))
    for body, expected in steps:
        assert cast.call(alice, "PUT", path, body).json() == {"success": True}
        found = cast.get(alice, path)
        assert (found["name"], found["description"]) == expected


@pytest.mark.parametrize("body", [{}, {"name": " "}, {"name": None}])
def test_a_name_cannot_be_changed_to_nothing(cast: Cast, alice: Person, body: dict[str, object]) -> None:
    made = cast.project(alice)
    assert refused(cast.call(alice, "PUT", f"/api/projects/{made['id']}", body)) == (400, "Name required")


def test_a_deleted_project_takes_its_instances_along(cast: Cast, alice: Person) -> None:
    made = cast.project(alice)
    ids = [made["defaultInstanceId"], cast.instance(alice, made)["id"]]
    assert cast.call(alice, "DELETE", f"/api/projects/{made['id']}").json() == {"success": True}
    gone = cast.call(alice, "GET", f"/api/projects/{made['id']}")
    assert refused(gone) == (404, "Project not found")
    for instance_id in ids:
        assert refused(cast.call(alice, "GET", f"/api/instances/{instance_id}")) == (404, "Instance not found")
    tombstones = cast.rows("SELECT instance_id FROM instance_tombstones")
    assert {(instance_id,) for instance_id in ids} <= set(tombstones)
    assert set(ids) <= set(cast.announced("instance"))


def test_an_admin_is_refused_before_anything_is_deleted(cast: Cast, alice: Person, bob: Person) -> None:
    """The old server wiped the storage first and looked afterwards."""
    made = cast.project(alice)
    cast.share(alice, f"projects/{made['id']}", "admin", bob)
    answer = cast.call(bob, "DELETE", f"/api/projects/{made['id']}")
    assert refused(answer) == (403, "Admin permission required")
    assert cast.call(cast.person(), "DELETE", f"/api/projects/{made['id']}").status_code == 404
    assert made["defaultInstanceId"] not in cast.announced("instance")
    assert cast.get(alice, f"/api/instances/{made['defaultInstanceId']}")["role"] == "owner"


@pytest.mark.parametrize("project_id", ["x" * 65, "a.b", "a%20b", "%00", "prj_unknown", "é"])
def test_what_can_be_no_id_is_404(cast: Cast, alice: Person, project_id: str) -> None:
    answer = cast.call(alice, "GET", f"/api/projects/{project_id}/instances")
    assert refused(answer) == (404, "Project not found")


def test_without_a_credential_only_public_projects_are_listed(cast: Cast, alice: Person) -> None:
    private, public = cast.project(alice), cast.project(alice)
    cast.share(alice, f"projects/{public['id']}", "admin")
    assert refused(cast.call(None, "GET", "/api/projects")) == (401, "Authorization required")
    listed = cast.get(None, "/api/projects?include=public")["projects"]
    roles = {row["id"]: row["role"] for row in listed}
    assert roles[public["id"]] == "read"
    assert private["id"] not in roles


def test_the_development_user_makes_projects_without_a_credential(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(tmp_path_factory.mktemp("development") / "data") as server, server.client() as client:
        made = client.post("/api/projects", json={"name": "mine"})
        assert made.status_code == 201
        (listed,) = client.get("/api/projects").json()["projects"]
        assert (listed["id"], listed["role"]) == (made.json()["id"], "owner")
        for _ in range(80):
            assert client.get("/api/projects").status_code == 200
        bad = client.get("/api/projects", headers={"Authorization": "ApiKey del_x:sec_y"})
        assert refused(bad) == (401, "Invalid delegate credentials")
