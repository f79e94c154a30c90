"""/api/projects/:id/instances and /api/instances/:id."""

import pytest

from app.edge.clock import now_ms
from app.edge.database import Database, Transaction
from app.errors import NotFound, Unavailable
from app.identity.principal import Kind, Principal
from app.identity.queries import insert_user
from app.projects import instances, queries
from app.projects.access import Level, level_of, require_instance
from app.projects.instances import InstanceMade, NewInstance
from app.projects.projects import NewProject, ProjectMade, create
from tests.projects.conftest import Cast, Person, refused


def test_an_instance_is_made_where_the_caller_landed_or_where_it_is_asked_for(cast: Cast, alice: Person) -> None:
    project = cast.project(alice)
    path = f"/api/projects/{project['id']}/instances"
    near, far = cast.make(alice, path, {"name": "near"}), cast.make(alice, path, {"name": "far", "region": "syd"})
    assert near == {"id": near["id"], "name": "near", "region": "local"}
    assert cast.get(alice, f"/api/instances/{far['id']}")["region"] == "syd"
    listed = cast.get(alice, path)["instances"]
    assert [row["name"] for row in listed] == ["far", "near", "main"]
    assert listed[0].keys() == {"id", "project_id", "name", "is_readonly", "created_at", "updated_at"}
    assert listed[0]["is_readonly"] == 0


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({}, (400, "Name required")),
        ({"name": " "}, (400, "Name required")),
        ({"name": "x", "cloneFrom": "ins_unknown"}, (404, "Instance not found")),
        ({"name": "x", "cloneFrom": "../x"}, (404, "Instance not found")),
    ],
)
def test_an_instance_that_cannot_be_made(
    cast: Cast, alice: Person, body: dict[str, object], refusal: tuple[int, str]
) -> None:
    project = cast.project(alice)
    assert refused(cast.call(alice, "POST", f"/api/projects/{project['id']}/instances", body)) == refusal
    assert len(cast.get(alice, f"/api/projects/{project['id']}/instances")["instances"]) == 1


@pytest.mark.parametrize("region", ["", "../etc", "FRA", "x" * 33, "a\n"])
def test_a_region_is_a_word(cast: Cast, alice: Person, region: str) -> None:
    path = f"/api/projects/{cast.project(alice)['id']}/instances"
    assert cast.call(alice, "POST", path, {"name": "x", "region": region}).status_code == 400


def test_what_is_not_visible_is_not_copied(cast: Cast, alice: Person, bob: Person) -> None:
    hidden, own = cast.project(alice), cast.project(bob)
    body = {"name": "copy", "cloneFrom": hidden["defaultInstanceId"]}
    answer = cast.call(bob, "POST", f"/api/projects/{own['id']}/instances", body)
    assert refused(answer) == (404, "Instance not found")
    cast.share(alice, f"instances/{hidden['defaultInstanceId']}", "read", bob)
    answer = cast.call(bob, "POST", f"/api/projects/{hidden['id']}/instances", body)
    assert refused(answer) == (404, "Project not found")


def test_an_instance_shows_its_role_and_region(cast: Cast, alice: Person) -> None:
    project = cast.project(alice)
    found = cast.get(alice, f"/api/instances/{project['defaultInstanceId']}")
    assert found == {
        "id": project["defaultInstanceId"],
        "project_id": project["id"],
        "name": "main",
        "is_readonly": 0,
        "created_at": project["created_at"],
        "updated_at": project["updated_at"],
        "role": "owner",
        "region": "local",
    }


@pytest.mark.parametrize(("sent", "kept"), [(1, 1), (True, 1), (0, 0), (False, 0)])
def test_an_instance_is_made_read_only_and_writable_again(cast: Cast, alice: Person, sent: object, kept: int) -> None:
    path = f"/api/instances/{cast.project(alice)['defaultInstanceId']}"
    answer = cast.call(alice, "PATCH", path, {"name": "both", "is_readonly": sent})
    assert (answer.json()["name"], answer.json()["is_readonly"]) == ("both", kept)
    assert answer.json() == cast.get(alice, path)


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": None}, {"name": " ", "is_readonly": 1}])
def test_a_change_needs_a_name_or_a_flag(cast: Cast, alice: Person, body: dict[str, object]) -> None:
    path = f"/api/instances/{cast.project(alice)['defaultInstanceId']}"
    assert refused(cast.call(alice, "PATCH", path, body)) == (400, "Name is required")
    assert cast.call(alice, "PATCH", path, {"is_readonly": 2}).status_code == 400


def test_a_writer_renames_but_does_not_lock(cast: Cast, alice: Person, bob: Person) -> None:
    project = cast.project(alice)
    cast.share(alice, f"projects/{project['id']}", "write", bob)
    path = f"/api/instances/{project['defaultInstanceId']}"
    assert cast.call(bob, "PATCH", path, {"name": "by bob"}).json()["role"] == "write"
    assert refused(cast.call(bob, "PATCH", path, {"is_readonly": 1})) == (403, "Admin permission required")
    assert refused(cast.call(bob, "DELETE", path)) == (403, "Admin permission required")
    cast.share(alice, f"projects/{project['id']}", "read", bob)
    assert refused(cast.call(bob, "PATCH", path, {"name": "x"})) == (403, "Write permission required")


def test_a_lock_is_told_to_whoever_holds_the_instance_open(cast: Cast, alice: Person) -> None:
    instance_id = cast.project(alice)["defaultInstanceId"]
    cast.call(alice, "PATCH", f"/api/instances/{instance_id}", {"is_readonly": 1})
    assert f"instance:{instance_id}" in cast.announced("access")


def test_a_deleted_instance_is_gone_and_announced(cast: Cast, alice: Person) -> None:
    project = cast.project(alice)
    path = f"/api/instances/{project['defaultInstanceId']}"
    assert cast.call(alice, "DELETE", path).json() == {"success": True}
    assert refused(cast.call(alice, "GET", path)) == (404, "Instance not found")
    assert refused(cast.call(alice, "DELETE", path)) == (404, "Instance not found")
    assert project["defaultInstanceId"] in cast.announced("instance")
    assert cast.get(alice, f"/api/projects/{project['id']}/instances") == {"instances": []}


def test_a_user_who_is_deleted_takes_instances_along_in_whatever_way(cast: Cast, alice: Person, bob: Person) -> None:
    project = cast.project(alice)
    cast.share(alice, f"projects/{project['id']}", "write", bob)
    cast.delete(alice)
    path = f"/api/instances/{project['defaultInstanceId']}"
    assert refused(cast.call(bob, "GET", path)) == (404, "Instance not found")
    assert cast.rows("SELECT region FROM instance_tombstones WHERE instance_id = ?", project["defaultInstanceId"]) == [
        ("local",)
    ]
    assert project["defaultInstanceId"] in cast.announced("instance")


# -- jobs, without a server ---------------------------------------------------------------------------------


OPERATOR = Principal(Kind.OPERATOR, None, is_operator=True)


def make_project(tx: Transaction) -> ProjectMade:
    insert_user(tx, "usr_1", now=now_ms())
    return create(tx, "usr_1", NewProject("garden"), "local", now_ms())


async def start_copy(db: Database) -> tuple[ProjectMade, InstanceMade]:
    project = await db.write(make_project)
    form = NewInstance("copy", cloneFrom=project.defaultInstanceId)
    made = await db.write(instances.create, OPERATOR, project.id, form, "ins_copy", "local", now_ms())
    return project, made


@pytest.mark.anyio
async def test_a_copy_is_unavailable_until_it_is_there(db: Database) -> None:
    _, made = await start_copy(db)
    with pytest.raises(Unavailable):
        await db.read(require_instance, OPERATOR, made.id, Level.READ, now_ms())
    assert await db.write(instances.finish, made) == made
    level, instance = await db.read(require_instance, OPERATOR, made.id, Level.READ, now_ms())
    assert (level, instance.state) == (Level.ADMIN, "ready")


@pytest.mark.anyio
async def test_a_copy_that_was_deleted_meanwhile_is_not_finished(db: Database) -> None:
    _, made = await start_copy(db)
    await db.write(instances.delete, OPERATOR, made.id, now_ms())
    with pytest.raises(NotFound):
        await db.write(instances.finish, made)


@pytest.mark.anyio
async def test_copies_that_nobody_finishes_any_more_are_taken_back(db: Database) -> None:
    project, made = await start_copy(db)
    await db.write(instances.discard_unfinished)
    assert (await db.read(level_of, OPERATOR, made.id, now_ms())).instance is None
    assert (await db.read(level_of, OPERATOR, project.defaultInstanceId, now_ms())).level is Level.ADMIN
    assert await db.read(queries.has_tombstone, made.id)


@pytest.mark.anyio
async def test_an_instance_of_any_id_is_made_on_first_use_once_and_not_after_its_deletion(db: Database) -> None:
    await db.write(insert_dev_user)
    for _ in range(2):
        await db.write(instances.ensure, "my-notes", "dev-user", "local", now_ms())
    found = await db.read(level_of, OPERATOR, "my-notes", now_ms())
    assert found.instance is not None
    assert (found.instance.owner_id, found.instance.name) == ("dev-user", "my-notes")
    await db.write(instances.delete, OPERATOR, "my-notes", now_ms())
    for refused_id in ("my-notes", "../x", ""):
        with pytest.raises(NotFound):
            await db.write(instances.ensure, refused_id, "dev-user", "local", now_ms())


def insert_dev_user(tx: Transaction) -> None:
    insert_user(tx, "dev-user", now=now_ms())
