"""Key management for MindCache clients: `mc_live_` keys, listed, made and deleted."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.edge.clock import now_ms, sql_text
from app.edge.database import Transaction
from app.edge.http import cached_response, db_of, decode_json, encode_json, json_response, read_body
from app.edge.idempotency import write_once
from app.edge.openapi import BEARER, operation
from app.errors import Invalid, NotFound
from app.identity import api_keys, queries
from app.identity.authenticator import authenticate
from app.identity.door import MINDCACHE
from app.identity.ids import Secret, new_id, new_live_key
from app.identity.principal import account_of
from app.identity.queries import KeyRow

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
    account = account_of(await authenticate(request, MINDCACHE))
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
        scope_id=None,
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
    once = await write_once(request, account.user_id, body, 201, _issue, secret, row, secret=True)
    once.response.headers["Cache-Control"] = "no-store"
    return once.response


def _issue(tx: Transaction, secret: Secret, row: KeyRow) -> dict[str, Any]:
    api_keys.issue(tx, secret, row)
    return {
        "id": row.id,
        "name": row.name,
        "key": secret.text,
        "keyPrefix": row.key_prefix,
        "scopeType": row.scope_type,
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
    if form.scopeType != "account":
        raise NotFound(f"{form.scopeType.capitalize()} not found")


def _view(row: KeyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "key_prefix": row.key_prefix,
        "scope_type": row.scope_type,
        "scope_id": row.scope_id,
        "permissions": row.permissions,
        "created_at": int(datetime.fromisoformat(row.created_at).replace(tzinfo=UTC).timestamp()),
        "last_used_at": row.last_used_at_ms // 1000 if row.last_used_at_ms else None,
    }
