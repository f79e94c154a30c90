"""Key management for MindCache clients: `mc_live_` keys, listed, made and deleted."""

from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.edge.clock import now_ms, sql_text, unix_seconds
from app.edge.database import Transaction
from app.edge.http import cached_response, db_of, decode_json, encode_json, json_response, read_body
from app.edge.idempotency import write_once
from app.edge.openapi import BEARER, operation
from app.errors import Invalid
from app.identity import api_keys, queries
from app.identity.authenticator import authenticate
from app.identity.door import MINDCACHE
from app.identity.ids import Secret, new_id, new_live_key
from app.identity.principal import Principal, account_of
from app.identity.queries import KeyRow
from app.projects.access import Level, require_instance, require_project

KEYS_LISTED = 1_000
NAME_CHARACTERS = 100
ERRORS = (400, 401, 403, 404, 429, 503)


class NewKey(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(max_length=NAME_CHARACTERS)] = ""
    scopeType: Literal["account", "project", "instance"] = "account"
    scopeId: str | None = None
    permissions: tuple[Literal["read", "write", "admin"], ...] = ("read", "write")


@operation(errors=ERRORS, credentials=(BEARER,), cached=True)
async def show_all(request: Request) -> Response:
    """The caller's keys, newest first; times in unix seconds, `permissions` as a JSON string."""
    account = account_of(await authenticate(request, MINDCACHE))
    rows = await db_of(request).read(queries.list_keys, account.user_id, KEYS_LISTED)
    return cached_response(request, {"keys": [_view(row) for row in rows]})


@operation(
    status=201,
    body=NewKey,
    errors=(*ERRORS, 409, 413, 422),
    credentials=(BEARER,),
    example={"name": "My laptop"},
    idempotent=True,
)
async def create(request: Request) -> Response:
    """Make a key. Its secret is in this answer and nowhere else."""
    principal = await authenticate(request, MINDCACHE)
    account = account_of(principal)
    body = await read_body(request)
    form = decode_json(body, NewKey)
    _check(form)
    secret = new_live_key()
    permissions = encode_json(form.permissions).decode()
    row = KeyRow(
        id=new_id("key"),
        name=form.name.strip(),
        key_prefix=secret.prefix,
        scope_type=form.scopeType,
        scope_id=None if form.scopeType == "account" else form.scopeId,
        permissions=permissions,
        scopes="[]",
        by_operator=False,
        rate_limit=0,
        status="active",
        expires_at_ms=None,
        last_used_at_ms=None,
        created_at=sql_text(now_ms()),
        user_id=account.user_id,
    )
    once = await write_once(request, account.user_id, body, 201, _issue, principal, secret, row, secret=True)
    once.response.headers["Cache-Control"] = "no-store"
    return once.response


def _issue(tx: Transaction, principal: Principal, secret: Secret, row: KeyRow) -> dict[str, Any]:
    _require_scope(tx, principal, row)
    api_keys.issue(tx, secret, row)
    scope = {"scopeId": row.scope_id} if row.scope_id else {}
    return {
        "id": row.id,
        "name": row.name,
        "key": secret.text,
        "keyPrefix": row.key_prefix,
        "scopeType": row.scope_type,
        **scope,
        "permissions": msgspec.Raw(row.permissions.encode()),
    }


@operation(errors=ERRORS, credentials=(BEARER,))
async def delete(request: Request) -> Response:
    """Delete a key; it is refused everywhere at once."""
    account = account_of(await authenticate(request, MINDCACHE))
    await db_of(request).write(api_keys.delete, request.path_params["id"], account.user_id)
    return json_response({"success": True})


def _check(form: NewKey) -> None:
    if not form.name.strip():
        raise Invalid("Name required")
    if "\0" in form.name:
        raise Invalid("name: a text holds a NUL character")
    if not form.permissions:
        raise Invalid("permissions: expected at least one of read, write, admin")
    if form.scopeType != "account" and not form.scopeId:
        raise Invalid(f"scopeId: expected the id of a {form.scopeType}")


def _require_scope(tx: Transaction, principal: Principal, row: KeyRow) -> None:
    """A key is for what its user sees. What it may do there is asked whenever it is used."""
    if row.scope_type == "project":
        require_project(tx, principal, row.scope_id or "", Level.READ, now_ms())
    if row.scope_type == "instance":
        require_instance(tx, principal, row.scope_id or "", Level.READ, now_ms(), unready=True)


def _view(row: KeyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "key_prefix": row.key_prefix,
        "scope_type": row.scope_type,
        "scope_id": row.scope_id,
        "permissions": row.permissions,
        "created_at": unix_seconds(row.created_at),
        "last_used_at": row.last_used_at_ms // 1000 if row.last_used_at_ms else None,
    }
