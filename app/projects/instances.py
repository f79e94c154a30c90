"""Instances as rows: whose project each is in, its name, its region; what is in it is its hub's."""

from typing import Annotated, Literal, Protocol

import msgspec

from app.edge.changes import announce
from app.edge.clock import sql_text, unix_seconds
from app.edge.database import Connection, Transaction
from app.errors import NotFound
from app.identity.ids import new_id
from app.identity.principal import Principal
from app.projects import queries
from app.projects.access import NO_INSTANCE, Level, announce_instance, check_id, require_instance, require_project
from app.projects.access_queries import CREATING, READY, Instance, Project, find_instance
from app.projects.names import Name, name_of
from app.projects.page import Page
from app.projects.queries import ListedInstance

# Told an instance's id when it is deleted.
TOPIC = "instance"
DEVELOPMENT = "Development"

Id = Annotated[str, msgspec.Meta(max_length=64)]
Region = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,32}(?![\s\S])")]
Flag = bool | Literal[0, 1]


class NewInstance(msgspec.Struct):
    """`cloneFrom` is the id of an instance to copy; `region` is where the caller landed unless given."""

    name: Name = None
    cloneFrom: Id | None = None
    region: Region | None = None


class InstanceChange(msgspec.Struct):
    """What is absent stays; `is_readonly` needs an admin."""

    name: Name | msgspec.UnsetType = msgspec.UNSET
    is_readonly: Flag | msgspec.UnsetType = msgspec.UNSET


class InstanceMade(msgspec.Struct):
    id: str
    name: str
    region: str


class InstanceRow(msgspec.Struct):
    """`is_readonly` is 0 or 1; times in unix seconds."""

    id: str
    project_id: str
    name: str
    is_readonly: int
    created_at: int
    updated_at: int


class InstancesView(msgspec.Struct):
    instances: list[InstanceRow]


class InstanceView(InstanceRow):
    """`role` is the caller's: owner, admin, write or read."""

    role: str
    region: str


class Copier(Protocol):
    """What copies the content of instances."""

    async def clone(self, source_id: str, new_id: str) -> None:
        """Make the content of `new_id`, which has none yet, that of `source_id`."""


def list_all(
    connection: Connection, principal: Principal, project_id: str, page: Page, now: int
) -> list[ListedInstance]:
    require_project(connection, principal, project_id, Level.READ, now)
    return queries.list_instances(connection, project_id, page)


def create(
    tx: Transaction, principal: Principal, project_id: str, form: NewInstance, instance_id: str, region: str, now: int
) -> InstanceMade:
    """A new row; one that is to be a copy is `creating` until `finish`. NotFound when its source is not visible."""
    require_project(tx, principal, project_id, Level.WRITE, now)
    name = name_of(form.name)
    if form.cloneFrom is not None:
        require_instance(tx, principal, form.cloneFrom, Level.READ, now)
    made = InstanceMade(instance_id, name, form.region or region)
    state = READY if form.cloneFrom is None else CREATING
    queries.insert_instance(tx, made.id, project_id, made.name, made.region, state, now)
    return made


def finish(tx: Transaction, made: InstanceMade) -> InstanceMade:
    """The copy is there. NotFound when the row was deleted meanwhile."""
    if not queries.update_instance_ready(tx, made.id):
        raise NotFound(NO_INSTANCE)
    return made


def discard(tx: Transaction, instance_id: str) -> None:
    """Take back a row whose copy was not made."""
    announce_deletion(tx, instance_id)
    queries.delete_instance(tx, instance_id)


def discard_unfinished(tx: Transaction) -> None:
    """Take back what was being copied when the primary ended: whoever asked for it was never answered."""
    for instance_id in queries.list_creating(tx):
        discard(tx, instance_id)


def get(connection: Connection, principal: Principal, instance_id: str, now: int) -> InstanceView:
    level, instance = require_instance(connection, principal, instance_id, Level.READ, now)
    return _view(instance, level)


def change(tx: Transaction, principal: Principal, instance_id: str, form: InstanceChange, now: int) -> InstanceView:
    """Rename, or make read-only. Invalid when nothing is to be changed, or the name to nothing."""
    least = Level.WRITE if form.is_readonly is msgspec.UNSET else Level.ADMIN
    level, instance = require_instance(tx, principal, instance_id, least, now)
    if form.name is not msgspec.UNSET or form.is_readonly is msgspec.UNSET:
        name = None if isinstance(form.name, msgspec.UnsetType) else form.name
        instance = instance._replace(name=name_of(name, "Name is required"))
    if form.is_readonly is not msgspec.UNSET:
        instance = instance._replace(is_readonly=bool(form.is_readonly))
        announce_instance(tx, instance_id)
    instance = instance._replace(updated_at=sql_text(now))
    queries.update_instance(tx, instance, now)
    return _view(instance, level)


def delete(tx: Transaction, principal: Principal, instance_id: str, now: int) -> None:
    """Remove the row; its id stays refused, and its home deletes its file and closes its sockets."""
    require_instance(tx, principal, instance_id, Level.ADMIN, now, unready=True)
    announce_deletion(tx, instance_id)
    queries.delete_instance(tx, instance_id)


def announce_deletion(tx: Transaction, instance_id: str) -> None:
    """The trigger on the table says it too, for rows that go in other ways, but is only heard a moment later."""
    announce(tx, TOPIC, instance_id)


def ensure(tx: Transaction, instance_id: str, owner_id: str, region: str, now: int) -> None:
    """Make an instance of a given id in the owner's first project, as development does on first use.

    NotFound for what can be no id, and for one that was deleted.
    """
    check_id(instance_id, NO_INSTANCE)
    if find_instance(tx, instance_id) is not None:
        return
    if queries.has_tombstone(tx, instance_id):
        raise NotFound(NO_INSTANCE)
    project_id = queries.find_first_project(tx, owner_id)
    if project_id is None:
        project_id = new_id("prj")
        at = sql_text(now)
        queries.insert_project(tx, Project(project_id, owner_id, DEVELOPMENT, None, at, at), now)
    queries.insert_instance(tx, instance_id, project_id, instance_id, region, READY, now)


def row_view(row: ListedInstance) -> InstanceRow:
    return InstanceRow(*row[:4], unix_seconds(row.created_at), unix_seconds(row.updated_at))


def _view(instance: Instance, level: Level) -> InstanceView:
    return InstanceView(
        instance.id,
        instance.project_id,
        instance.name,
        int(instance.is_readonly),
        unix_seconds(instance.created_at),
        unix_seconds(instance.updated_at),
        level.role,
        instance.region,
    )
