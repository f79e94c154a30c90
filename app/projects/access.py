"""Access: the one function that decides what a principal may do at an instance or a project.

It asks the rows anew each time, also whether the user, key or delegate is still good; who holds a connection open
asks again when the feed says so under TOPIC, and when `until_ms` has come.
"""

import re
from enum import IntEnum
from typing import NamedTuple

import msgspec

from app.edge.changes import announce
from app.edge.database import Connection, Transaction
from app.errors import AppError, Forbidden, NotFound, Unauthenticated, Unavailable
from app.identity import api_keys, queries
from app.identity.door import MINDCACHE
from app.identity.principal import ApiKey, Delegate, Kind, Principal
from app.projects import access_queries
from app.projects.access_queries import CREATING, Instance, Project

# Keys under this topic: `instance:<id>`, `project:<id>`, `user:<id>`, `delegate:<id>`. A user or key that ends is
# announced by identity under topics of its own.
TOPIC = "access"
NO_INSTANCE, NO_PROJECT = "Instance not found", "Project not found"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Level(IntEnum):
    """Each may do what those below it may; the names in lower case are the roles that answers give."""

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3
    OWNER = 4

    @property
    def role(self) -> str:
        return self.name.lower()

    @property
    def permission(self) -> str:
        """The same for whoever asks about an instance: an owner is its admin."""
        return min(self, Level.ADMIN).role


LEVELS = {"read": Level.READ, "write": Level.WRITE, "admin": Level.ADMIN, "system": Level.ADMIN}


class Done(msgspec.Struct):
    """The answer to a change that has nothing else to say."""

    success: bool = True


class Access(NamedTuple):
    """`instance` is None when there is none; the level may end at `until_ms` by itself."""

    level: Level
    instance: Instance | None
    until_ms: int | None = None


class ProjectAccess(NamedTuple):
    level: Level
    project: Project | None


class _Place(NamedTuple):
    """A project, or an instance in it."""

    project_id: str
    owner_id: str
    instance_id: str | None


class _Standing(NamedTuple):
    """Whom a credential acts for, and what it is capped to."""

    user_id: str | None
    cap: Level
    key_id: str | None = None
    until_ms: int | None = None


_NOTHING = _Standing(None, Level.NONE)


def level_of(connection: Connection, principal: Principal, instance_id: str, now: int) -> Access:
    """What `principal` may do at an instance."""
    instance = access_queries.find_instance(connection, instance_id)
    if instance is None:
        return Access(Level.NONE, None)
    place = _Place(instance.project_id, instance.owner_id, instance.id)
    level, until = _weigh(connection, principal, place, now)
    return Access(level, instance, until)


def level_of_project(connection: Connection, principal: Principal, project_id: str, now: int) -> ProjectAccess:
    """What `principal` may do at a project; a share of one of its instances says nothing of it."""
    project = access_queries.find_project(connection, project_id)
    if project is None:
        return ProjectAccess(Level.NONE, None)
    level, _ = _weigh(connection, principal, _Place(project.id, project.owner_id, None), now)
    return ProjectAccess(level, project)


def require_instance(
    connection: Connection,
    principal: Principal,
    instance_id: str,
    least: Level,
    now: int,
    *,
    absent: str = NO_INSTANCE,
    unready: bool = False,
) -> tuple[Level, Instance]:
    """The instance, and the level of who has at least `least` there.

    NotFound (`absent`) for what is not there or not visible, Forbidden for what is visible only, Unauthenticated
    for nobody; Unavailable for a clone that is being made, unless `unready` will do.
    """
    check_id(instance_id, absent)
    level, instance, _ = level_of(connection, principal, instance_id, now)
    if level < least or instance is None:
        raise refusal(principal, level, least, absent)
    if instance.state == CREATING and not unready:
        raise Unavailable("The instance is being copied", certain=False)
    return level, instance


def require_project(
    connection: Connection, principal: Principal, project_id: str, least: Level, now: int, *, absent: str = NO_PROJECT
) -> tuple[Level, Project]:
    """The same for a project."""
    check_id(project_id, absent)
    level, project = level_of_project(connection, principal, project_id, now)
    if level < least or project is None:
        raise refusal(principal, level, least, absent)
    return level, project


def refusal(principal: Principal, level: Level, least: Level, absent: str) -> AppError:
    """Why a level does not do. Nobody is only told to sign in, whether or not there is anything."""
    if principal.kind is Kind.ANONYMOUS:
        return Unauthenticated(MINDCACHE.missing)
    if level is Level.NONE:
        return NotFound(absent)
    return Forbidden("Write permission required" if least <= Level.WRITE else "Admin permission required")


def check_id(text: str, absent: str) -> None:
    """NotFound for what cannot be an id, so that it never becomes a path or a query."""
    if not _ID.fullmatch(text):
        raise NotFound(absent, certain=True)


def cap_of(key: ApiKey) -> Level:
    """The most that a key may do: the highest of its permissions, or of its scopes for instances.

    What may do all does it as its user, who may be the owner.
    """
    if not key.live:
        held = key.scopes
        if api_keys.ADMIN in held:
            return Level.OWNER
        return Level.WRITE if api_keys.WRITE_INSTANCES in held else Level(api_keys.READ_INSTANCES in held)
    highest = max((LEVELS.get(permission, Level.NONE) for permission in key.permissions), default=Level.NONE)
    return Level.OWNER if highest is Level.ADMIN else highest


def announce_instance(tx: Transaction, instance_id: str) -> None:
    announce(tx, TOPIC, f"instance:{instance_id}")


def announce_project(tx: Transaction, project_id: str) -> None:
    announce(tx, TOPIC, f"project:{project_id}")


def announce_user(tx: Transaction, user_id: str) -> None:
    announce(tx, TOPIC, f"user:{user_id}")


def announce_delegate(tx: Transaction, delegate_id: str) -> None:
    announce(tx, TOPIC, f"delegate:{delegate_id}")


def _weigh(connection: Connection, principal: Principal, place: _Place, now: int) -> tuple[Level, int | None]:
    if principal.kind is Kind.OPERATOR:
        return Level.ADMIN, None
    standing = _standing(connection, principal, place, now)
    if standing.cap is Level.NONE:
        return Level.NONE, None
    level = Level.OWNER if standing.user_id == place.owner_id else _shared(connection, standing, place)
    if principal.is_operator:
        level = max(level, Level.ADMIN)
    return min(level, standing.cap), standing.until_ms


def _standing(connection: Connection, principal: Principal, place: _Place, now: int) -> _Standing:
    if principal.kind is Kind.ANONYMOUS:
        return _Standing(None, Level.READ)
    if principal.delegate is not None:
        return _delegate_standing(connection, principal.delegate, place, now)
    if principal.key is not None:
        return _key_standing(connection, principal.key.id, place, now)
    user_id = principal.account.user_id if principal.account else ""
    return _Standing(user_id, Level.OWNER) if queries.is_user_active(connection, user_id) else _NOTHING


def _key_standing(connection: Connection, key_id: str, place: _Place, now: int) -> _Standing:
    key = queries.find_key_in_use(connection, key_id)
    if key is None or key.status != "active" or (key.expires_at_ms is not None and key.expires_at_ms <= now):
        return _NOTHING
    if not _covers(key, place) or not queries.is_user_active(connection, key.user_id):
        return _NOTHING
    return _Standing(key.user_id, cap_of(key), key.id, key.expires_at_ms)


def _covers(key: ApiKey, place: _Place) -> bool:
    if key.scope_type == "account":
        return True
    return key.scope_id is not None and key.scope_id in (
        place.project_id if key.scope_type == "project" else place.instance_id,
    )


def _delegate_standing(connection: Connection, delegate: Delegate, place: _Place, now: int) -> _Standing:
    """A delegate stands at instances that it was granted, with what its flags and the grant both allow.

    It acts for its user, so it has no more there than the user has now.
    """
    if place.instance_id is None:
        return _NOTHING
    grant = access_queries.find_grant(connection, delegate.id, delegate.secret_id, place.instance_id, now)
    if grant is None:
        return _NOTHING
    flags = ((grant.can_read, Level.READ), (grant.can_write, Level.WRITE), (grant.can_system, Level.ADMIN))
    most = LEVELS[grant.permission]
    cap = max((level for flag, level in flags if flag and level <= most), default=Level.NONE)
    return _Standing(grant.user_id, cap, until_ms=grant.until_ms)


def _shared(connection: Connection, standing: _Standing, place: _Place) -> Level:
    """What shares give. One of the instance goes before those of its project to the same kind of target, so that
    a user's or a group's may also narrow; what a key gets by itself and what all get only add."""
    found: dict[tuple[str, bool], Level] = {}
    for kind, of_instance, permission in access_queries.list_shares_for(
        connection, place.project_id, place.instance_id, standing.user_id, standing.key_id
    ):
        held = found.get((kind, of_instance), Level.NONE)
        found[kind, of_instance] = max(held, LEVELS[permission])
    return max(
        found.get((kind, True)) or found.get((kind, False), Level.NONE) for kind in ("named", "api_key", "public")
    )
