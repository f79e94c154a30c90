"""Groups: users under one name, to share with all of them at once. Whoever made one owns it."""

from typing import Annotated

import msgspec

from app.edge.clock import unix_seconds
from app.edge.database import Connection, Transaction
from app.errors import Forbidden, NotFound
from app.identity.ids import new_id
from app.projects import group_queries, share_queries
from app.projects.access import announce_user, check_id
from app.projects.group_queries import ListedGroup, ListedMember
from app.projects.names import Name, name_of
from app.projects.page import Page
from app.projects.shares import NO_GROUP, NO_USER, announce_place, find_user


class GroupForm(msgspec.Struct):
    name: Name = None


class NewMember(msgspec.Struct):
    """By `userId`, Clerk's or ours, or by `email`."""

    userId: Annotated[str, msgspec.Meta(max_length=255)] | None = None
    email: Annotated[str, msgspec.Meta(max_length=255)] | None = None


class GroupView(msgspec.Struct):
    """`created_at` in unix seconds."""

    id: str
    name: str
    created_at: int
    member_count: int


class GroupsView(msgspec.Struct):
    groups: list[GroupView]


class MemberView(msgspec.Struct):
    """`added_at` in unix seconds."""

    user_id: str
    email: str | None
    name: str | None
    added_at: int


class MembersView(msgspec.Struct):
    members: list[MemberView]


def create(tx: Transaction, owner_id: str, form: GroupForm, now: int) -> GroupView:
    """Invalid without a name."""
    group_id = new_id("grp")
    group_queries.insert_group(tx, group_id, owner_id, name_of(form.name), now)
    return view(_get(tx, group_id, owner_id))


def get(connection: Connection, user_id: str, group_id: str) -> GroupView:
    return view(_get(connection, group_id, user_id))


def rename(tx: Transaction, user_id: str, group_id: str, form: GroupForm, now: int) -> None:
    _get_own(tx, group_id, user_id)
    group_queries.update_group(tx, group_id, name_of(form.name), now)


def delete(tx: Transaction, user_id: str, group_id: str) -> None:
    """Its shares go with it."""
    _get_own(tx, group_id, user_id)
    for place in share_queries.list_places_of_group(tx, group_id):
        announce_place(tx, place)
    group_queries.delete_group(tx, group_id)


def list_members(connection: Connection, user_id: str, group_id: str, page: Page) -> list[ListedMember]:
    _get(connection, group_id, user_id)
    return group_queries.list_members(connection, group_id, page)


def add_member(tx: Transaction, user_id: str, group_id: str, form: NewMember, now: int) -> MemberView:
    """Once, however often. NotFound for the user."""
    _get_own(tx, group_id, user_id)
    member_id = find_user(tx, form.userId, form.email)
    group_queries.insert_member(tx, group_id, member_id, now)
    announce_user(tx, member_id)
    member = group_queries.find_member(tx, group_id, member_id)
    assert member is not None
    return member_view(member)


def remove_member(tx: Transaction, user_id: str, group_id: str, member_id: str) -> None:
    """NotFound for who is not in it."""
    _get_own(tx, group_id, user_id)
    found = find_user(tx, member_id, None)
    announce_user(tx, found)
    if not group_queries.delete_member(tx, group_id, found):
        raise NotFound(NO_USER)


def view(row: ListedGroup) -> GroupView:
    return GroupView(row.id, row.name, unix_seconds(row.created_at), row.member_count)


def member_view(row: ListedMember) -> MemberView:
    return MemberView(row.user_id, row.email, row.name, unix_seconds(row.added_at))


def _get(connection: Connection, group_id: str, user_id: str) -> ListedGroup:
    """For its owner and its members. NotFound for anybody else."""
    check_id(group_id, NO_GROUP)
    group = group_queries.find_group(connection, group_id)
    if group is None or not (group.owner_id == user_id or group_queries.has_member(connection, group_id, user_id)):
        raise NotFound(NO_GROUP)
    return group


def _get_own(connection: Connection, group_id: str, user_id: str) -> ListedGroup:
    """For its owner. Forbidden for its members."""
    group = _get(connection, group_id, user_id)
    if group.owner_id != user_id:
        raise Forbidden("Admin permission required")
    return group
