"""The endpoints of delegates. They hand out credentials, so a key needs `admin` for all of them."""

from starlette.requests import Request
from starlette.responses import Response

from app.edge import idempotency
from app.edge.clock import now_ms
from app.edge.http import db_of, decode_json, json_response, read_body
from app.edge.openapi import API_KEY, BEARER, operation
from app.identity.api_keys import READ_INSTANCES, WRITE_INSTANCES
from app.identity.principal import Account
from app.projects import delegate_queries, delegates, page
from app.projects.access import NO_INSTANCE, Done, Level
from app.projects.delegates import (
    NO_DELEGATE,
    NO_SECRET,
    DelegateMade,
    DelegatesView,
    GrantsView,
    NewDelegate,
    NewGrant,
    NewSecret,
    SecretMade,
    SecretsView,
)
from app.projects.door import enter, user_of
from app.projects.page import page_response, read_page
from app.projects.project_routes import READ_ERRORS, WRITE_ERRORS, id_of

CREDENTIALS = (BEARER, API_KEY)


@operation(answer=DelegatesView, query=page.PARAMETERS, errors=READ_ERRORS, credentials=CREDENTIALS, cached=True)
async def show_all(request: Request) -> Response:
    """The caller's delegates, newest first."""
    account = await _user(request, READ_INSTANCES)
    asked = read_page(request)
    rows = await db_of(request).read(delegate_queries.list_delegates, account.user_id, asked)
    view = DelegatesView([delegates.view(row) for row in rows[: asked.limit]])
    return page_response(request, asked, rows, view)


@operation(
    answer=DelegateMade,
    status=201,
    body=NewDelegate,
    errors=WRITE_ERRORS,
    credentials=CREDENTIALS,
    example={"name": "Sensor", "keyPermissions": {"can_read": True, "can_write": True, "can_system": False}},
    idempotent=True,
)
async def create(request: Request) -> Response:
    """Make a delegate. It can do nothing before it has a secret and a grant."""
    account = await _user(request)
    body = await read_body(request)
    form = decode_json(body, NewDelegate)
    once = await idempotency.write_once(
        request, account.user_id, body, 201, delegates.create, account.user_id, form, now_ms()
    )
    return once.response


@operation(answer=Done, errors=WRITE_ERRORS, credentials=CREDENTIALS)
async def delete(request: Request) -> Response:
    """Delete a delegate; its connections end."""
    account = await _user(request)
    await db_of(request).write(delegates.delete, account.user_id, _id(request))
    return json_response(Done())


@operation(answer=SecretsView, query=page.PARAMETERS, errors=READ_ERRORS, credentials=CREDENTIALS, cached=True)
async def show_secrets(request: Request) -> Response:
    """A delegate's secrets, newest first; never what they are."""
    account = await _user(request, READ_INSTANCES)
    asked = read_page(request)
    rows = await db_of(request).read(delegates.list_secrets, account.user_id, _id(request), asked)
    view = SecretsView([delegates.secret_view(row) for row in rows[: asked.limit]])
    return page_response(request, asked, rows, view)


@operation(
    answer=SecretMade,
    status=201,
    body=NewSecret,
    errors=WRITE_ERRORS,
    credentials=CREDENTIALS,
    example={"name": "In the greenhouse"},
    idempotent=True,
)
async def create_secret(request: Request) -> Response:
    """Make a secret. It is in this answer and nowhere else."""
    account = await _user(request)
    body = await read_body(request)
    form = decode_json(body or b"{}", NewSecret)
    arguments = (account.user_id, _id(request), form, delegates.new_secret(), now_ms())
    once = await idempotency.write_once(
        request, account.user_id, body, 201, delegates.add_secret, *arguments, secret=True
    )
    once.response.headers["Cache-Control"] = "no-store"
    return once.response


@operation(answer=Done, errors=WRITE_ERRORS, credentials=CREDENTIALS)
async def revoke_secret(request: Request) -> Response:
    """Revoke a secret for ever; connections that it let in end."""
    account = await _user(request)
    secret_id = id_of(request, "secretId", NO_SECRET)
    await db_of(request).write(delegates.revoke_secret, account.user_id, _id(request), secret_id, now_ms())
    return json_response(Done())


@operation(answer=GrantsView, query=page.PARAMETERS, errors=READ_ERRORS, credentials=CREDENTIALS, cached=True)
async def show_grants(request: Request) -> Response:
    """Where a delegate may do what, newest first."""
    account = await _user(request, READ_INSTANCES)
    asked = read_page(request)
    rows = await db_of(request).read(delegates.list_grants, account.user_id, _id(request), asked)
    view = GrantsView([delegates.grant_view(row) for row in rows[: asked.limit]])
    return page_response(request, asked, rows, view)


@operation(
    answer=Done,
    body=NewGrant,
    errors=WRITE_ERRORS,
    credentials=CREDENTIALS,
    example={"instanceId": "ins_1", "permission": "write"},
    idempotent=True,
)
async def grant(request: Request) -> Response:
    """Let a delegate into an instance, with no more than the caller has there."""
    principal = await enter(request, WRITE_INSTANCES)
    account = user_of(principal, Level.ADMIN)
    body = await read_body(request)
    form = decode_json(body, NewGrant)
    arguments = (principal, account.user_id, _id(request), form, now_ms())
    once = await idempotency.write_once(request, account.user_id, body, 200, delegates.grant, *arguments)
    return once.response


@operation(answer=Done, errors=WRITE_ERRORS, credentials=CREDENTIALS)
async def withdraw(request: Request) -> Response:
    """Take a grant back."""
    account = await _user(request)
    instance_id = id_of(request, "instanceId", NO_INSTANCE)
    await db_of(request).write(delegates.withdraw, account.user_id, _id(request), instance_id)
    return json_response(Done())


async def _user(request: Request, scope: str = WRITE_INSTANCES) -> Account:
    return user_of(await enter(request, scope), Level.ADMIN)


def _id(request: Request) -> str:
    return id_of(request, absent=NO_DELEGATE)
