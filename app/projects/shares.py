"""Shares: what lets a user, a group, a key or everybody into a project or an instance."""

from typing import Annotated, Literal

import msgspec

from app.edge.clock import unix_seconds
from app.edge.database import Connection, Transaction
from app.errors import Invalid, NotFound
from app.identity import queries as identity_queries
from app.identity.ids import new_id
from app.identity.principal import Principal
from app.projects import group_queries, share_queries
from app.projects.access import (
    NO_INSTANCE,
    NO_PROJECT,
    Level,
    announce_instance,
    announce_project,
    require_instance,
    require_project,
)
from app.projects.page import Page
from app.projects.share_queries import ListedShare, Place, Target

NO_SHARE, NO_USER, NO_GROUP, NO_KEY = "Share not found", "User not found", "Group not found", "API key not found"

Permission = Literal["read", "write", "admin"]
AnyId = Annotated[str, msgspec.Meta(max_length=255)]


class NewShare(msgspec.Struct, omit_defaults=True):
    """A user by `targetId`, Clerk's or ours, or by `targetEmail`; a group or a key by `targetId`; public needs none."""

    targetType: Literal["user", "group", "api_key", "public"]
    permission: Permission
    targetId: AnyId | None = None
    targetEmail: AnyId | None = None


class ShareView(msgspec.Struct):
    """`target_email` and `target_name` are what is known of the target; times in unix seconds."""

    id: str
    target_type: str
    target_id: str | None
    permission: str
    created_at: int
    target_email: str | None
    target_name: str | None


class SharesView(msgspec.Struct):
    shares: list[ShareView]


class ShareMade(ShareView, kw_only=True):
    """The row, and what was asked for."""

    targetType: str
    targetId: str | msgspec.UnsetType = msgspec.UNSET
    targetEmail: str | msgspec.UnsetType = msgspec.UNSET


def list_all(connection: Connection, principal: Principal, place: Place, page: Page, now: int) -> list[ListedShare]:
    """The shares of a project or an instance, for its admins."""
    require_admin(connection, principal, place, now)
    return share_queries.list_shares(connection, place, page)


def create(tx: Transaction, principal: Principal, place: Place, form: NewShare, now: int) -> ShareMade:
    """Let somebody in, or change what an earlier share to the same target allows. NotFound for the target."""
    require_admin(tx, principal, place, now)
    target = _target(tx, principal, form)
    share_id = share_queries.find_share_id(tx, place, target)
    if share_id is None:
        share_id = new_id("shr")
        share_queries.insert_share(tx, share_id, place, target, form.permission, now)
    else:
        share_queries.update_share(tx, share_id, form.permission)
    announce_place(tx, place)
    made = share_queries.find_share(tx, share_id)
    assert made is not None
    row = msgspec.structs.asdict(view(made))
    return ShareMade(
        **row,
        targetType=form.targetType,
        targetId=form.targetId or msgspec.UNSET,
        targetEmail=form.targetEmail or msgspec.UNSET,
    )


def delete(tx: Transaction, principal: Principal, share_id: str, now: int) -> None:
    """Take a share back. NotFound also for one of what the caller does not see."""
    place = share_queries.find_place(tx, share_id)
    if place is None:
        raise NotFound(NO_SHARE)
    require_admin(tx, principal, place, now, absent=NO_SHARE)
    announce_place(tx, place)
    share_queries.delete_share(tx, share_id)


def announce_place(tx: Transaction, place: Place) -> None:
    if place.instance_id is not None:
        announce_instance(tx, place.instance_id)
    if place.project_id is not None:
        announce_project(tx, place.project_id)


def view(row: ListedShare) -> ShareView:
    return ShareView(
        row.id,
        row.target_type,
        row.target_id,
        row.permission,
        unix_seconds(row.created_at),
        row.target_email,
        row.target_name,
    )


def find_user(connection: Connection, any_id: str | None, email: str | None) -> str:
    """Our id of a user by Clerk's id, ours or an address. NotFound."""
    if any_id:
        found = identity_queries.find_user_id(connection, any_id)
    else:
        found = share_queries.find_user_by_email(connection, email.strip()) if email else None
    if found is None:
        raise NotFound(NO_USER)
    return found


def require_admin(
    connection: Connection, principal: Principal, place: Place, now: int, *, absent: str | None = None
) -> None:
    if place.instance_id is not None:
        require_instance(
            connection, principal, place.instance_id, Level.ADMIN, now, absent=absent or NO_INSTANCE, unready=True
        )
    if place.project_id is not None:
        require_project(connection, principal, place.project_id, Level.ADMIN, now, absent=absent or NO_PROJECT)


def _target(connection: Connection, principal: Principal, form: NewShare) -> Target:
    if form.targetType == "public":
        return Target("public", None)
    if not form.targetId and not (form.targetType == "user" and form.targetEmail):
        raise Invalid(f"targetId: expected the id of a {form.targetType}")
    if form.targetType == "user":
        return Target("user", find_user(connection, form.targetId, form.targetEmail))
    found = form.targetId or ""
    if form.targetType == "api_key":
        if not share_queries.has_key(connection, found):
            raise NotFound(NO_KEY)
    elif not _sees_group(connection, principal, found):
        raise NotFound(NO_GROUP)
    return Target(form.targetType, found)


def _sees_group(connection: Connection, principal: Principal, group_id: str) -> bool:
    """Whether the group is there for whoever shares: its owner's and its members'."""
    user_id = principal.account.user_id if principal.account else None
    group = group_queries.find_group(connection, group_id)
    if group is None:
        return False
    return principal.is_operator or (
        user_id is not None and (group.owner_id == user_id or group_queries.has_member(connection, group_id, user_id))
    )
