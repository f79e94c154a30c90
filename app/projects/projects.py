"""Projects: what a user keeps its instances in, each with one instance `main` from the start."""

from typing import NamedTuple

import msgspec

from app.edge.clock import sql_text, unix_seconds
from app.edge.database import Connection, Transaction
from app.errors import Invalid
from app.identity.ids import new_id
from app.identity.principal import Kind, Principal
from app.projects import instances, queries
from app.projects.access import Level, cap_of, require_project
from app.projects.access_queries import READY, Project
from app.projects.names import Description, Name, name_of, plain
from app.projects.page import Page
from app.projects.queries import ListedProject

MAIN = "main"


class NewProject(msgspec.Struct):
    name: Name = None
    description: Description = None


class ProjectChange(msgspec.Struct):
    """What is absent stays."""

    name: Name | msgspec.UnsetType = msgspec.UNSET
    description: Description | msgspec.UnsetType = msgspec.UNSET


class ProjectView(msgspec.Struct):
    """`role` is the caller's: owner, admin, write or read; times in unix seconds."""

    id: str
    name: str
    description: str | None
    created_at: int
    updated_at: int
    role: str


class ProjectsView(msgspec.Struct):
    projects: list[ProjectView]


class ProjectMade(msgspec.Struct):
    id: str
    name: str
    description: str | None
    defaultInstanceId: str
    created_at: int
    updated_at: int


class _Lister(NamedTuple):
    """Whose projects are listed, and up to which level."""

    user_id: str | None
    key_id: str | None
    project_id: str | None
    cap: Level


def list_all(connection: Connection, principal: Principal, public: bool, page: Page) -> list[ListedProject]:
    """The projects that a principal sees, the last changed first, each once with its strongest level."""
    lister = _lister(principal)
    if lister is None:
        return []
    return [
        row._replace(level=min(row.level, lister.cap))
        for row in queries.list_projects(connection, lister.user_id, lister.key_id, public, lister.project_id, page)
    ]


def create(tx: Transaction, owner_id: str, form: NewProject, region: str, now: int) -> ProjectMade:
    """Invalid without a name."""
    at = sql_text(now)
    project = Project(new_id("prj"), owner_id, name_of(form.name), plain(form.description, "description"), at, at)
    queries.insert_project(tx, project, now)
    instance_id = new_id("ins")
    queries.insert_instance(tx, instance_id, project.id, MAIN, region, READY, now)
    return ProjectMade(project.id, project.name, project.description, instance_id, unix_seconds(at), unix_seconds(at))


def get(connection: Connection, principal: Principal, project_id: str, now: int) -> ProjectView:
    level, project = require_project(connection, principal, project_id, Level.READ, now)
    return ProjectView(
        project.id,
        project.name,
        project.description,
        unix_seconds(project.created_at),
        unix_seconds(project.updated_at),
        level.role,
    )


def change(tx: Transaction, principal: Principal, project_id: str, form: ProjectChange, now: int) -> None:
    """Its owner's alone. Invalid when nothing is to be changed, or the name to nothing."""
    _, project = require_project(tx, principal, project_id, Level.OWNER, now)
    if form.name is msgspec.UNSET and form.description is msgspec.UNSET:
        raise Invalid("Name required")
    name = project.name if form.name is msgspec.UNSET else name_of(form.name)
    description = project.description
    if form.description is not msgspec.UNSET:
        description = plain(form.description, "description")
    queries.update_project(tx, project_id, name, description, now)


def delete(tx: Transaction, principal: Principal, project_id: str, now: int) -> None:
    """Its owner's alone; its instances go with it."""
    require_project(tx, principal, project_id, Level.OWNER, now)
    for instance_id in queries.list_instance_ids(tx, project_id):
        instances.announce_deletion(tx, instance_id)
    queries.delete_project(tx, project_id)


def view(row: ListedProject) -> ProjectView:
    return ProjectView(
        row.id,
        row.name,
        row.description,
        unix_seconds(row.created_at),
        unix_seconds(row.updated_at),
        Level(row.level).role,
    )


def _lister(principal: Principal) -> _Lister | None:
    """None for who sees no list of projects: an operator, a delegate, a key of one instance."""
    if principal.kind is Kind.ANONYMOUS:
        return _Lister(None, None, None, Level.READ)
    if principal.account is None:
        return None
    key, user_id = principal.key, principal.account.user_id
    if key is None:
        return _Lister(user_id, None, None, Level.OWNER)
    if key.scope_type == "instance":
        return None
    return _Lister(user_id, key.id, key.scope_id, cap_of(key))
