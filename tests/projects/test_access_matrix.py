"""Who may do what: every route of projects and instances, as everybody.

A new route is a line in TABLE, with its body in BODIES where it takes one. Each cell is tried in a world of its own,
so that nothing depends on what another cell has done.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from app.edge.clock import now_ms
from app.edge.database import Transaction
from app.edge.limiter import Rate
from app.edge.openapi import DELEGATE, operation_of
from app.identity.principal import Account, Kind, Principal
from app.projects import delegates, groups, projects, shares, webhooks
from app.projects.delegates import KeyPermissions, NewDelegate, NewGrant, NewSecret
from app.projects.groups import GroupForm, NewMember
from app.projects.projects import NewProject
from app.projects.share_queries import Place
from app.projects.shares import NewShare
from app.projects.webhooks import NewWebhook
from app.routes import ROUTES
from app.webhooks.outbox_queries import insert_deliveries, insert_event
from tests.projects.conftest import OPERATOR, Cast, Person, add_live_key

# owner      whose project it is
# admin … reader   a share of the project to the user, with that permission
# member     in the owner's group, to which the project is shared with permission write
# delegate   of the owner's, granted write at the instance
# public     nobody, where the project is shared with the public to read
# stranger   a signed-in user without any share
# nobody     without a credential, where nothing is public
# revoked    a key of the owner's, with permission admin, that was revoked
# elsewhere  a key of the owner's, with permission admin, for another of its projects
# deleted    the session of a user who was an admin and was deleted
# operator   an admin header
TABLE = """
                                                         owner admin writer reader member delegate public stranger nobody revoked elsewhere deleted operator
GET    /api/projects                                       200   200    200    200    200      200    401      200    401     401       200     401      200
POST   /api/projects                                       201   201    201    201    201      403    401      201    401     401       403     401      403
GET    /api/projects/{id}                                  200   200    200    200    200      404    200      404    401     401       404     401      200
PUT    /api/projects/{id}                                  200   403    403    403    403      404    401      404    401     401       404     401      403
DELETE /api/projects/{id}                                  200   403    403    403    403      404    401      404    401     401       404     401      403
GET    /api/projects/{id}/instances                        200   200    200    200    200      404    200      404    401     401       404     401      200
POST   /api/projects/{id}/instances                        201   201    201    403    201      404    401      404    401     401       404     401      201
GET    /api/projects/{id}/shares                           200   200    403    403    403      404    401      404    401     401       404     401      200
POST   /api/projects/{id}/shares                           201   201    403    403    403      404    401      404    401     401       404     401      201
GET    /api/instances/{id}                                 200   200    200    200    200      200    200      404    401     401       404     401      200
PATCH  /api/instances/{id}                                 200   200    200    403    200      200    401      404    401     401       404     401      200
DELETE /api/instances/{id}                                 200   200    403    403    403      403    401      404    401     401       404     401      200
GET    /api/instances/{id}/shares                          200   200    403    403    403      403    401      404    401     401       404     401      200
POST   /api/instances/{id}/shares                          201   201    403    403    403      403    401      404    401     401       404     401      201
DELETE /api/shares/{id}                                    200   200    403    403    403      404    401      404    401     401       404     401      200
GET    /api/groups                                         200   200    200    200    200      403    401      200    401     401       403     401      403
POST   /api/groups                                         201   201    201    201    201      403    401      201    401     401       403     401      403
GET    /api/groups/{id}                                    200   404    404    404    200      403    401      404    401     401       403     401      403
PUT    /api/groups/{id}                                    200   404    404    404    403      403    401      404    401     401       403     401      403
DELETE /api/groups/{id}                                    200   404    404    404    403      403    401      404    401     401       403     401      403
GET    /api/groups/{id}/members                            200   404    404    404    200      403    401      404    401     401       403     401      403
POST   /api/groups/{id}/members                            201   404    404    404    403      403    401      404    401     401       403     401      403
DELETE /api/groups/{id}/members/{userId}                   200   404    404    404    403      403    401      404    401     401       403     401      403
GET    /api/delegates                                      200   200    200    200    200      403    401      200    401     401       403     401      403
POST   /api/delegates                                      201   201    201    201    201      403    401      201    401     401       403     401      403
DELETE /api/delegates/{id}                                 200   404    404    404    404      403    401      404    401     401       403     401      403
GET    /api/delegates/{id}/secrets                         200   404    404    404    404      403    401      404    401     401       403     401      403
POST   /api/delegates/{id}/secrets                         201   404    404    404    404      403    401      404    401     401       403     401      403
DELETE /api/delegates/{id}/secrets/{secretId}              200   404    404    404    404      403    401      404    401     401       403     401      403
GET    /api/delegates/{id}/grants                          200   404    404    404    404      403    401      404    401     401       403     401      403
POST   /api/delegates/{id}/grants                          200   404    404    404    404      403    401      404    401     401       403     401      403
DELETE /api/delegates/{id}/grants/{instanceId}             200   404    404    404    404      403    401      404    401     401       403     401      403
GET    /api/webhooks                                       200   200    200    200    200      403    401      200    401     401       403     401      403
POST   /api/webhooks                                       201   201    403    403    403      403    401      404    401     401       404     401      403
GET    /api/webhooks/{id}                                  200   200    403    403    403      404    401      404    401     401       404     401      200
PUT    /api/webhooks/{id}                                  200   200    403    403    403      404    401      404    401     401       404     401      200
PATCH  /api/webhooks/{id}                                  200   200    403    403    403      404    401      404    401     401       404     401      200
DELETE /api/webhooks/{id}                                  200   200    403    403    403      404    401      404    401     401       404     401      200
GET    /api/webhooks/{id}/deliveries                       200   200    403    403    403      404    401      404    401     401       404     401      200
POST   /api/webhooks/{id}/deliveries/{deliveryId}/replay   200   200    403    403    403      404    401      404    401     401       404     401      200
GET    /api/instances/{id}/keys                            200   200    200    200    200      200    200      404    401     401       404     401      200
GET    /api/instances/{id}/keys/{key}                      404   404    404    404    404      404    404      404    401     401       404     401      404
PUT    /api/instances/{id}/keys/{key}                      201   201    201    403    201      201    401      404    401     401       404     401      201
DELETE /api/instances/{id}/keys/{key}                      404   404    404    403    404      404    401      404    401     401       404     401      404
GET    /api/instances/{id}/history                         200   200    200    200    200      200    200      404    401     401       404     401      200
POST   /api/instances/{id}/revert                          200   200    200    403    200      200    401      404    401     401       404     401      200
POST   /api/instances/{id}/undo                            404   404    404    403    404      404    401      404    401     401       404     401      404
GET    /api/instances/{id}/export                          200   200    200    200    200      200    200      404    401     401       404     401      200
POST   /api/instances/{id}/import                          200   200    200    403    200      200    401      404    401     401       404     401      200
POST   /api/ws-token                                       200   200    200    200    200      200    200      404    401     401       404     401      200
GET    /admin/do/{id}                                      403   403    403    403    403      401    401      403    401     401       401     401      200
GET    /admin/do/                                          403   403    403    403    403      401    401      403    401     401       401     401      400
"""  # noqa: E501

ROOMS = ("app.projects.", "app.instances.")
# A handshake has credentials and refusals of its own.
SOCKETS = "/sync"
URL = "https://hooks.invalid/"
SHARE = {"targetType": "user", "targetId": "{stranger}", "permission": "read"}
# What a route is sent; a word in braces is a field of the world.
BODIES: dict[str, Any] = {
    "POST /api/projects": {"name": "new"},
    "PUT /api/projects/{id}": {"name": "renamed"},
    "POST /api/projects/{id}/instances": {"name": "new"},
    "POST /api/projects/{id}/shares": SHARE,
    "PATCH /api/instances/{id}": {"name": "renamed"},
    "POST /api/instances/{id}/shares": SHARE,
    "POST /api/groups": {"name": "new"},
    "PUT /api/groups/{id}": {"name": "renamed"},
    "POST /api/groups/{id}/members": {"userId": "{stranger}"},
    "POST /api/delegates": {"name": "new"},
    "POST /api/delegates/{id}/secrets": {"name": "new"},
    "POST /api/ws-token": {"instanceId": "{instance}"},
    "POST /api/webhooks": {"url": URL, "events": ["key.created"], "projectId": "{project}"},
    "PUT /api/webhooks/{id}": {"events": ["key.deleted"]},
    "PATCH /api/webhooks/{id}": {"events": ["key.deleted"]},
    "PUT /api/instances/{id}/keys/{key}": {"value": 1},
    "POST /api/instances/{id}/revert": {"seq": 0},
    "POST /api/instances/{id}/undo": {"actor": "{stranger}"},
    "POST /api/instances/{id}/import": {"greeting": {"value": 1}},
    "POST /api/delegates/{id}/grants": {"instanceId": "{instance}", "permission": "read"},
}
# What `{id}` is, by the first word behind /api/.
IDS = {
    "projects": "project",
    "instances": "instance",
    "shares": "share",
    "groups": "group",
    "delegates": "delegate",
    "webhooks": "webhook",
    "do": "instance",
}
DAY_MS = 86_400_000
NOBODIES = ("public", "nobody")


class Cell(NamedTuple):
    route: str
    who: str
    status: int


class World(NamedTuple):
    """The ids of what there is in one cell, and the delegate's credential."""

    project: str
    instance: str
    share: str
    group: str
    delegate: str
    secretId: str
    instanceId: str
    key: str
    webhook: str
    deliveryId: str
    userId: str
    stranger: str
    credential: str


def read_table() -> list[Cell]:
    header, *lines = TABLE.strip("\n").splitlines()
    names = header.split()
    cells = []
    for line in lines:
        method, path, *statuses = line.split()
        cells += [Cell(f"{method} {path}", who, int(status)) for who, status in zip(names, statuses, strict=True)]
    return cells


CELLS = read_table()


class Stage:
    """The people, and a world for each cell."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        people = ("owner", "admin", "writer", "reader", "member", "stranger", "deleted", "victim")
        self.people = {name: cast.person() for name in people}
        elsewhere = cast.project(self.people["owner"], "elsewhere")["id"]
        owner_id = self.people["owner"].id
        (revoked_id, revoked), (_, other) = cast.beside(add_keys, owner_id, elsewhere)
        assert cast.server.command("keys", "revoke", revoked_id).returncode == 0
        self.headers = {name: person.headers for name, person in self.people.items()} | {
            "revoked": {"X-API-Key": revoked},
            "elsewhere": {"X-API-Key": other},
            "operator": OPERATOR,
        }
        worlds: list[World] = cast.beside(build_all, self.people)
        self.worlds = dict(zip(CELLS, worlds, strict=True))
        cast.delete(self.people["deleted"])

    def try_cell(self, cell: Cell) -> httpx.Response:
        world = self.worlds[cell]
        method, path = cell.route.split()
        if "{id}" in path:
            path = path.replace("{id}", getattr(world, IDS[path.split("/")[2]]))
        path = re.sub(r"\{(\w+)\}", lambda found: getattr(world, found[1]), path)
        headers = dict(self.headers.get(cell.who, {}))
        if cell.who == "delegate":
            headers = {"Authorization": f"ApiKey {world.credential}"}
        with client_of(self.cast, cell.who) as client:
            return client.request(method, path, json=fill(BODIES.get(cell.route), world), headers=headers)


def client_of(cast: Cast, who: str) -> httpx.Client:
    """Who has no credential is counted by address, so each of the two nobodies has one of its own."""
    address = f"127.0.0.{2 + NOBODIES.index(who)}" if who in NOBODIES else "127.0.0.1"
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=cast.server.url, transport=transport, timeout=30, trust_env=False)


def fill(body: Any, world: World) -> Any:
    if isinstance(body, dict):
        return {name: fill(value, world) for name, value in body.items()}
    if isinstance(body, str) and body.startswith("{"):
        return getattr(world, body[1:-1])
    return body


def add_keys(tx: Transaction, owner_id: str, elsewhere: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (
        add_live_key(tx, owner_id, ("admin",), None),
        add_live_key(tx, owner_id, ("admin",), ("project", elsewhere)),
    )


def build_all(tx: Transaction, people: dict[str, Person]) -> list[World]:
    return [build(tx, people, cell) for cell in CELLS]


def build(tx: Transaction, people: dict[str, Person], cell: Cell) -> World:
    now, owner_id = now_ms(), people["owner"].id
    owner = Principal(Kind.USER, Account(owner_id, None, False, Rate(0, 0)))
    project = projects.create(tx, owner_id, NewProject("garden"), "local", now)
    place = Place(project.id, None)
    made = [
        shares.create(tx, owner, place, NewShare("user", permission, people[name].id), now)
        for name, permission in (("admin", "admin"), ("writer", "write"), ("reader", "read"), ("deleted", "admin"))
    ]
    group = groups.create(tx, owner_id, GroupForm("gardeners"), now)
    for name in ("member", "victim"):
        groups.add_member(tx, owner_id, group.id, NewMember(people[name].id), now)
    shares.create(tx, owner, place, NewShare("group", "write", group.id), now)
    if cell.who == "public":
        shares.create(tx, owner, place, NewShare("public", "read"), now)
    delegate = delegates.create(tx, owner_id, NewDelegate("sensor", KeyPermissions(True, True, True)), now).delegate_id
    text = delegates.new_secret()
    secret = delegates.add_secret(tx, owner_id, delegate, NewSecret("first"), text, now)
    delegates.grant(tx, owner, owner_id, delegate, NewGrant(project.defaultInstanceId, "write"), now)
    # A user may have so many and no more, so there is one only where it is asked for.
    webhook = add_webhook(tx, owner, project.id, now) if "/webhooks/" in cell.route else ""
    return World(
        project=project.id,
        instance=project.defaultInstanceId,
        share=made[2].id,
        group=group.id,
        delegate=delegate,
        secretId=secret.secret_id,
        instanceId=project.defaultInstanceId,
        key="greeting",
        webhook=webhook,
        deliveryId=f"delivery-{webhook}",
        userId=people["victim"].clerk_id,
        stranger=people["stranger"].id,
        credential=f"{delegate}:{text}",
    )


def add_webhook(tx: Transaction, owner: Principal, project_id: str, now: int) -> str:
    """With a delivery that is due tomorrow."""
    webhook = webhooks.create(tx, owner, NewWebhook(URL, ("key.created",), projectId=project_id), now).id
    insert_event(tx, webhook, "key.created", "{}")
    insert_deliveries(tx, [(f"delivery-{webhook}", webhook, webhook)], now + DAY_MS)
    return webhook


@pytest.fixture(scope="module")
def stage(served: Cast) -> Iterator[Stage]:
    yield Stage(served)


@pytest.mark.parametrize("route", dict.fromkeys(cell.route for cell in CELLS))
def test_a_route_answers_everybody_as_the_table_says(stage: Stage, route: str) -> None:
    row = [cell for cell in CELLS if cell.route == route]
    answered = [stage.try_cell(cell) for cell in row]
    found = {cell.who: answer.status_code for cell, answer in zip(row, answered, strict=True)}
    assert found == {cell.who: cell.status for cell in row}
    for answer in answered:
        assert answer.headers["content-type"] == "application/json"


def test_every_route_of_these_rooms_stands_in_the_table() -> None:
    known = {cell.route for cell in CELLS}
    routes = {
        f"{route.method} {re.sub(r':[a-z]+}', '}', route.path)}"
        for route in ROUTES
        if route.endpoint.__module__.startswith(ROOMS) and not route.path.startswith(SOCKETS)
    }
    assert routes - known == set()
    assert known - routes == set()


def test_the_document_names_a_delegates_credential_where_it_opens_something() -> None:
    marks = {f"{route.method} {re.sub(r':[a-z]+}', '}', route.path)}": operation_of(route.endpoint) for route in ROUTES}
    named = {route for route, mark in marks.items() if mark is not None and DELEGATE in mark.credentials}
    assert {cell.route for cell in CELLS if cell.who == "delegate" and cell.status in (200, 201)} <= named
    assert not [route for route in named if re.search("/(groups|delegates|webhooks|usage|projects/)", route)]
