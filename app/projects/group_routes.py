"""The endpoints of groups. Changing one changes what its members may do, so a key needs `admin` for it."""

from starlette.requests import Request
from starlette.responses import Response

from app.edge import idempotency
from app.edge.clock import now_ms
from app.edge.http import cached_response, db_of, decode_json, json_response, read_body, read_json
from app.edge.openapi import API_KEY, BEARER, operation
from app.identity.api_keys import WRITE_INSTANCES
from app.identity.principal import Account
from app.projects import group_queries, groups, page
from app.projects.access import Done, Level
from app.projects.door import enter, user_of
from app.projects.groups import GroupForm, GroupsView, GroupView, MembersView, MemberView, NewMember
from app.projects.page import page_response, read_page
from app.projects.project_routes import READ_ERRORS, WRITE_ERRORS, id_of
from app.projects.shares import NO_GROUP, NO_USER

CREDENTIALS = (BEARER, API_KEY)


@operation(answer=GroupsView, query=page.PARAMETERS, errors=READ_ERRORS, credentials=CREDENTIALS, cached=True)
async def show_all(request: Request) -> Response:
    """The groups that the caller owns or is in, newest first."""
    account = user_of(await enter(request), Level.READ)
    asked = read_page(request)
    rows = await db_of(request).read(group_queries.list_groups, account.user_id, asked)
    return page_response(request, asked, rows, GroupsView([groups.view(row) for row in rows[: asked.limit]]))


@operation(
    answer=GroupView,
    status=201,
    body=GroupForm,
    errors=WRITE_ERRORS,
    credentials=CREDENTIALS,
    example={"name": "Gardeners"},
    idempotent=True,
)
async def create(request: Request) -> Response:
    """Make a group. It is the caller's, and has no members yet."""
    account = await _admin(request)
    body = await read_body(request)
    form = decode_json(body, GroupForm)
    once = await idempotency.write_once(
        request, account.user_id, body, 201, groups.create, account.user_id, form, now_ms()
    )
    return once.response


@operation(answer=GroupView, errors=READ_ERRORS, credentials=CREDENTIALS, cached=True)
async def show(request: Request) -> Response:
    """One group, for its owner and its members."""
    account = user_of(await enter(request), Level.READ)
    group = await db_of(request).read(groups.get, account.user_id, _id(request))
    return cached_response(request, group)


@operation(answer=Done, body=GroupForm, errors=WRITE_ERRORS, credentials=CREDENTIALS, example={"name": "Growers"})
async def rename(request: Request) -> Response:
    """Give a group another name."""
    account = await _admin(request)
    form = await read_json(request, GroupForm)
    await db_of(request).write(groups.rename, account.user_id, _id(request), form, now_ms())
    return json_response(Done())


@operation(answer=Done, errors=WRITE_ERRORS, credentials=CREDENTIALS)
async def delete(request: Request) -> Response:
    """Delete a group, and what was shared with it."""
    account = await _admin(request)
    await db_of(request).write(groups.delete, account.user_id, _id(request))
    return json_response(Done())


@operation(answer=MembersView, query=page.PARAMETERS, errors=READ_ERRORS, credentials=CREDENTIALS, cached=True)
async def show_members(request: Request) -> Response:
    """Who is in a group, the last added first."""
    account = user_of(await enter(request), Level.READ)
    asked = read_page(request)
    rows = await db_of(request).read(groups.list_members, account.user_id, _id(request), asked)
    view = MembersView([groups.member_view(row) for row in rows[: asked.limit]])
    return page_response(request, asked, rows, view)


@operation(
    answer=MemberView,
    status=201,
    body=NewMember,
    errors=WRITE_ERRORS,
    credentials=CREDENTIALS,
    example={"userId": "dev-user"},
    idempotent=True,
)
async def add_member(request: Request) -> Response:
    """Put a user into a group."""
    account = await _admin(request)
    body = await read_body(request)
    form = decode_json(body, NewMember)
    arguments = (account.user_id, _id(request), form, now_ms())
    once = await idempotency.write_once(request, account.user_id, body, 201, groups.add_member, *arguments)
    return once.response


@operation(answer=Done, errors=WRITE_ERRORS, credentials=CREDENTIALS)
async def remove_member(request: Request) -> Response:
    """Take a user out of a group."""
    account = await _admin(request)
    member_id = id_of(request, "userId", NO_USER)
    await db_of(request).write(groups.remove_member, account.user_id, _id(request), member_id)
    return json_response(Done())


async def _admin(request: Request) -> Account:
    return user_of(await enter(request, WRITE_INSTANCES), Level.ADMIN)


def _id(request: Request) -> str:
    return id_of(request, absent=NO_GROUP)
