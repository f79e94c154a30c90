"""What each credential may do where, and that asking again gives the answer of now."""

from collections.abc import Callable
from typing import Any

import pytest

from app.edge.clock import now_ms
from app.edge.database import Connection, Database, Transaction
from app.edge.limiter import Rate
from app.identity import api_keys, queries, users
from app.identity.principal import Account, Kind, Principal
from app.identity.queries import find_key_in_use
from app.projects import delegates, projects, shares
from app.projects.access import Level, level_of, level_of_project
from app.projects.delegates import KeyPermissions, NewDelegate, NewGrant, NewSecret
from app.projects.door import NOBODY
from app.projects.page import Page
from app.projects.projects import NewProject
from app.projects.share_queries import Place
from app.projects.shares import NewShare
from tests.projects.conftest import Cast, Person, add_live_key, refused
from tests.waiting import until

OWNER, BOB = "usr_owner", "usr_bob"
# What the feed promises.
FEED_SECONDS = 1.0
PERMISSIONS = ("read", "write", "admin")


# -- shares -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_project", PERMISSIONS)
@pytest.mark.parametrize("of_instance", PERMISSIONS)
def test_a_share_of_an_instance_goes_before_that_of_its_project(
    cast: Cast, alice: Person, bob: Person, of_project: str, of_instance: str
) -> None:
    project = cast.project(alice)
    other = cast.instance(alice, project)
    cast.share(alice, f"projects/{project['id']}", of_project, bob)
    cast.share(alice, f"instances/{project['defaultInstanceId']}", of_instance, bob)
    assert cast.role(bob, f"/api/instances/{project['defaultInstanceId']}") == of_instance
    assert cast.role(bob, f"/api/instances/{other['id']}") == of_project
    assert cast.role(bob, f"/api/projects/{project['id']}") == of_project


def test_what_all_may_read_its_members_may_still_write(cast: Cast, alice: Person, bob: Person) -> None:
    project = cast.project(alice)
    path = f"/api/instances/{project['defaultInstanceId']}"
    cast.share(alice, f"projects/{project['id']}", "write", bob)
    cast.share(alice, f"instances/{project['defaultInstanceId']}", "read")
    assert (cast.role(bob, path), cast.role(cast.person(), path), cast.role(None, path)) == ("write", "read", "read")


def test_a_share_of_an_instance_says_nothing_of_its_project(cast: Cast, alice: Person, bob: Person) -> None:
    project = cast.project(alice)
    cast.share(alice, f"instances/{project['defaultInstanceId']}", "admin", bob)
    assert cast.role(bob, f"/api/instances/{project['defaultInstanceId']}") == "admin"
    assert cast.role(bob, f"/api/projects/{project['id']}") == 404


def test_nobody_is_capped_to_read_and_never_told_what_exists(cast: Cast, alice: Person) -> None:
    project = cast.project(alice)
    instance = f"/api/instances/{project['defaultInstanceId']}"
    private = [cast.call(None, "GET", path) for path in (instance, "/api/instances/ins_unknown")]
    assert [refused(answer) for answer in private] == [(401, "Authorization required")] * 2
    cast.share(alice, f"projects/{project['id']}", "admin")
    assert cast.role(None, instance) == "read"
    for method, body in (("PATCH", {"name": "x"}), ("DELETE", None)):
        assert refused(cast.call(None, method, instance, body)) == (401, "Authorization required")
    assert refused(cast.call(None, "GET", f"{instance}/shares")) == (401, "Authorization required")


# -- keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("permissions", "role"),
    [(("read",), "read"), (("read", "write"), "write"), (("write", "read"), "write"), (("admin",), "owner")],
)
def test_a_keys_level_is_the_highest_of_its_permissions(
    cast: Cast, alice: Person, permissions: tuple[str, ...], role: str
) -> None:
    project = cast.project(alice)
    key = cast.key(alice, *permissions)
    assert cast.role(key, f"/api/projects/{project['id']}") == role
    assert cast.role(key, f"/api/instances/{project['defaultInstanceId']}") == role
    assert [row["role"] for row in cast.get(key, "/api/projects")["projects"]] == [role]


@pytest.mark.parametrize(("scope", "role"), [("read", "read"), ("write", "write"), ("admin:all", "owner")])
def test_the_other_keys_are_narrowed_by_scopes(cast: Cast, alice: Person, scope: str, role: str) -> None:
    project = cast.project(alice)
    key = cast.ak_key(alice, scope if ":" in scope else f"{scope}:instances")
    assert cast.role(key, f"/api/instances/{project['defaultInstanceId']}") == role
    assert [row["role"] for row in cast.get(key, "/api/projects")["projects"]] == [role]


def test_a_key_without_the_scope_is_told_which(cast: Cast, alice: Person) -> None:
    path = f"/api/instances/{cast.project(alice)['defaultInstanceId']}"
    reader, other = cast.ak_key(alice, "read:instances"), cast.ak_key(alice, "write:usage", "read:chats")
    assert refused(cast.call(other, "GET", path)) == (403, "API key lacks scope read:instances")
    for key in (reader, other):
        answer = cast.call(key, "PATCH", path, {"name": "x"})
        assert refused(answer) == (403, "API key lacks scope write:instances")


def test_a_key_never_exceeds_its_user(cast: Cast, alice: Person, bob: Person) -> None:
    project = cast.project(alice)
    path = f"/api/instances/{project['defaultInstanceId']}"
    key = cast.key(bob, "admin")
    assert cast.role(key, path) == 404
    cast.share(alice, f"projects/{project['id']}", "read", bob)
    assert cast.role(key, path) == "read"


def test_a_key_never_exceeds_its_scope(cast: Cast, alice: Person) -> None:
    one, two = cast.project(alice), cast.project(alice)
    sibling = cast.instance(alice, one)["id"]
    of_project = cast.key(alice, "admin", scope=("project", one["id"]))
    of_instance = cast.key(alice, "admin", scope=("instance", one["defaultInstanceId"]))
    paths = [f"/api/projects/{one['id']}", f"/api/instances/{one['defaultInstanceId']}", f"/api/instances/{sibling}"]
    paths += [f"/api/projects/{two['id']}", f"/api/instances/{two['defaultInstanceId']}"]
    assert [cast.role(of_project, path) for path in paths] == ["owner", "owner", "owner", 404, 404]
    assert [cast.role(of_instance, path) for path in paths] == [404, "owner", 404, 404, 404]
    assert [row["id"] for row in cast.get(of_project, "/api/projects")["projects"]] == [one["id"]]
    assert cast.get(of_instance, "/api/projects") == {"projects": []}
    for key, words in ((of_project, "project"), (of_instance, "instance")):
        answer = cast.call(key, "POST", "/api/projects", {"name": "x"})
        assert refused(answer) == (403, f"This key is limited to one {words}")


def test_a_share_to_a_key_adds_to_that_key_only(cast: Cast, alice: Person, bob: Person) -> None:
    project = cast.project(alice)
    path = f"/api/instances/{project['defaultInstanceId']}"
    key, other = cast.key(bob, "read", "write"), cast.key(bob, "admin")
    body = {"targetType": "api_key", "targetId": key.id, "permission": "admin"}
    made = cast.make(alice, f"/api/projects/{project['id']}/shares", body)
    assert (made["target_id"], made["target_name"]) == (key.id, "a test's")
    assert [cast.role(who, path) for who in (key, other, bob)] == ["write", 404, 404]
    assert [row["id"] for row in cast.get(key, "/api/projects")["projects"]] == [project["id"]]


def test_a_revoked_key_and_that_of_a_suspended_user_are_refused_at_once(cast: Cast, alice: Person, bob: Person) -> None:
    path = f"/api/projects/{cast.project(alice)['id']}"
    key = cast.key(alice, "read")
    assert cast.role(key, path) == "read"
    cast.server.command("keys", "revoke", key.id)
    until(lambda: cast.call(key, "GET", path).status_code == 401, FEED_SECONDS)
    other = cast.key(bob, "read")
    assert cast.call(other, "GET", "/api/projects").status_code == 200
    cast.server.command("users", "suspend", bob.id)
    until(lambda: cast.call(other, "GET", "/api/projects").status_code == 401, FEED_SECONDS)


# -- operators ----------------------------------------------------------------------------------------------


def test_an_operator_is_an_admin_everywhere_and_an_owner_nowhere(cast: Cast, alice: Person) -> None:
    project = cast.project(alice)
    with cast.server.client(**{"X-Admin-Token": "test-admin-token"}) as operator:
        found = operator.get(f"/api/instances/{project['defaultInstanceId']}")
        assert found.json()["role"] == "admin"
        assert operator.delete(f"/api/projects/{project['id']}").status_code == 403
    with cast.server.client(**{"X-Admin-Token": "wrong"}) as stranger:
        answer = stranger.get(f"/api/instances/{project['defaultInstanceId']}")
    assert refused(answer) == (401, "Authorization required")


# -- asked again with the principal of before ---------------------------------------------------------------


class World:
    """One instance, and everybody who was let in as they were then."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def build(self) -> "World":
        self.project_id, self.instance_id = await self.db.write(_build)
        self.bob = Principal(Kind.USER, _account(BOB))
        key_id, text = await self.db.write(add_live_key, BOB, ("write",), None)
        self.key = Principal(Kind.KEY, _account(BOB), await self.db.read(find_key_in_use, key_id))
        self.text = text
        self.delegate = await self.db.write(_delegate, self.instance_id)
        return self

    async def level(self, principal: Principal, now: int | None = None) -> Level:
        return (await self.db.read(level_of, principal, self.instance_id, now or now_ms())).level

    async def levels(self) -> list[str]:
        return [(await self.level(who)).role for who in (self.bob, self.key, self.delegate, NOBODY)]


def _account(user_id: str) -> Account:
    return Account(user_id, None, False, Rate(0, 0))


def _build(tx: Transaction) -> tuple[str, str]:
    now = now_ms()
    for user_id in (OWNER, BOB):
        queries.insert_user(tx, user_id, now=now)
    owner = Principal(Kind.USER, _account(OWNER))
    project = projects.create(tx, OWNER, NewProject("garden"), "local", now)
    place = Place(project.id, None)
    shares.create(tx, owner, place, NewShare("user", "write", BOB), now)
    shares.create(tx, owner, place, NewShare("public", "read"), now)
    return project.id, project.defaultInstanceId


def _delegate(tx: Transaction, instance_id: str) -> Principal:
    now = now_ms()
    bob = Principal(Kind.USER, _account(BOB))
    made = delegates.create(tx, BOB, NewDelegate("sensor", KeyPermissions(True, True)), now).delegate_id
    secret = delegates.new_secret()
    delegates.add_secret(tx, BOB, made, NewSecret(), secret, now)
    delegates.grant(tx, bob, BOB, made, NewGrant(instance_id, "write"), now)
    return Principal(Kind.DELEGATE, None, delegate=delegates.identify(tx, f"{made}:{secret}", now))


@pytest.fixture
async def world(db: Database) -> World:
    return await World(db).build()


@pytest.mark.anyio
async def test_everybody_is_let_in_before_anything_is_taken_back(world: World) -> None:
    assert await world.levels() == ["write", "write", "write", "read"]


def drop_shares(tx: Transaction, world: World) -> None:
    tx.execute("DELETE FROM shares")


def suspend(tx: Transaction, world: World) -> None:
    users.suspend(tx, BOB, True, now_ms())


def delete_user(tx: Transaction, world: World) -> None:
    users.delete(tx, BOB, now_ms())


def revoke_key(tx: Transaction, world: World) -> None:
    api_keys.revoke(tx, world.key.id, now_ms())


def revoke_secret(tx: Transaction, world: World) -> None:
    assert world.delegate.delegate is not None
    delegates.revoke_secret(tx, BOB, world.delegate.id, world.delegate.delegate.secret_id, now_ms())


def withdraw(tx: Transaction, world: World) -> None:
    delegates.withdraw(tx, BOB, world.delegate.id, world.instance_id)


def delete_instance(tx: Transaction, world: World) -> None:
    tx.execute("DELETE FROM instances")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("job", "left"),
    [
        # bob, his key, his delegate, nobody
        (drop_shares, ["none", "none", "none", "none"]),
        (suspend, ["none", "none", "none", "read"]),
        (delete_user, ["none", "none", "none", "read"]),
        (revoke_key, ["write", "none", "write", "read"]),
        (revoke_secret, ["write", "write", "none", "read"]),
        (withdraw, ["write", "write", "none", "read"]),
        (delete_instance, ["none", "none", "none", "none"]),
    ],
)
async def test_what_was_taken_back_is_gone_for_whoever_asks_again(
    world: World, job: Callable[[Transaction, World], None], left: list[str]
) -> None:
    await world.db.write(job, world)
    assert await world.levels() == left


@pytest.mark.anyio
async def test_an_access_says_when_it_ends_by_itself(world: World) -> None:
    now = now_ms()
    await world.db.write(expire_all, now + 1_000)
    for principal in (world.key, world.delegate):
        access = await world.db.read(level_of, principal, world.instance_id, now)
        assert (access.level, access.until_ms) == (Level.WRITE, now + 1_000)
        assert await world.level(principal, now + 1_000) is Level.NONE


def expire_all(tx: Transaction, at: int) -> None:
    tx.execute("UPDATE api_keys SET expires_at_ms = ?", at)
    tx.execute("UPDATE delegates SET expires_at_ms = ?", at + 5_000)
    tx.execute("UPDATE do_permissions SET expires_at_ms = ?", at)


@pytest.mark.anyio
async def test_access_costs_the_same_however_many_were_let_in(world: World) -> None:
    """A share is found by an index: what grew with their number would be paid by every frame's reconnect."""
    await world.db.write(let_many_in, world.project_id, world.instance_id)
    plans = await world.db.read(plan_of_access, world)
    assert [step for step in plans if step.startswith(("SCAN s", "SCAN p")) and "public" not in step] == []
    assert await world.levels() == ["write", "write", "write", "read"]


def let_many_in(tx: Transaction, project_id: str, instance_id: str) -> None:
    for number in range(200):
        queries.insert_user(tx, f"usr_{number}", now=now_ms())
        owner = Principal(Kind.USER, _account(OWNER))
        shares.create(tx, owner, Place(None, instance_id), NewShare("user", "read", f"usr_{number}"), now_ms())


class Explained(Connection):
    """Notes how each statement is run."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.raw)
        self.steps: list[str] = []

    def fetch(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        self.steps += [row[3] for row in self.raw.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        return super().fetch(sql, *values)


def plan_of_access(connection: Connection, world: World) -> list[str]:
    explained = Explained(connection)
    for principal in (world.bob, world.key, world.delegate, NOBODY):
        level_of(explained, principal, world.instance_id, now_ms())
        level_of_project(explained, principal, world.project_id, now_ms())
    projects.list_all(explained, world.bob, True, Page(1_000, 1 << 62, 1 << 62))
    assert explained.steps
    return explained.steps
