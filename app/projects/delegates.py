"""Delegates: machine identities of a user's, let in by secrets, to the instances that each was granted."""

import secrets
from typing import Annotated, Literal

import msgspec

from app.edge.clock import parse_instant, sql_text, unix_seconds
from app.edge.database import Connection, Transaction
from app.errors import Invalid, NotFound, Unauthenticated
from app.identity.ids import KEY_ALPHABET, hash_secret, new_id
from app.identity.principal import Delegate, Principal
from app.projects import delegate_queries
from app.projects.access import LEVELS, NO_INSTANCE, Done, announce_delegate, check_id, require_instance
from app.projects.delegate_queries import DelegateRow, GrantRow, SecretRow
from app.projects.names import Name, name_of, plain
from app.projects.page import Page

NO_DELEGATE, NO_SECRET = "Delegate not found", "Secret not found"
ID_BYTES = 16
SECRET_CHARACTERS = 32
WARNING = "Store this secret now: it is not shown again."

Instant = Annotated[str, msgspec.Meta(max_length=64)] | None


class KeyPermissions(msgspec.Struct):
    can_read: bool = False
    can_write: bool = False
    can_system: bool = False


class NewDelegate(msgspec.Struct):
    """`expiresAt` is ISO-8601; without a zone it is UTC."""

    name: Name = None
    keyPermissions: KeyPermissions = msgspec.field(default_factory=KeyPermissions)
    expiresAt: Instant = None


class NewSecret(msgspec.Struct):
    name: Name = None


class NewGrant(msgspec.Struct):
    """`system` is the page's word for admin."""

    instanceId: Annotated[str, msgspec.Meta(max_length=64)]
    permission: Literal["read", "write", "admin", "system"]
    expiresAt: Instant = None


class DelegateView(msgspec.Struct):
    """Times in unix seconds."""

    delegate_id: str
    name: str
    can_read: bool
    can_write: bool
    can_system: bool
    created_at: int
    expires_at: int | None


class DelegatesView(msgspec.Struct):
    delegates: list[DelegateView]


class DelegateMade(DelegateView):
    """The row, and what was asked for."""

    keyPermissions: KeyPermissions
    expiresAt: str | None


class SecretView(msgspec.Struct):
    """Times in unix seconds."""

    secret_id: str
    name: str
    created_at: int
    last_used_at: int | None
    revoked_at: int | None


class SecretsView(msgspec.Struct):
    secrets: list[SecretView]


class SecretMade(msgspec.Struct):
    """`delegateSecret` is in this answer and nowhere else."""

    secret_id: str
    delegate_id: str
    delegateSecret: str
    name: str
    warning: str


class GrantView(msgspec.Struct):
    """`do_id` is the instance's id too; times in unix seconds."""

    do_id: str
    instance_id: str
    permission: str
    granted_at: int
    expires_at: int | None


class GrantsView(msgspec.Struct):
    grants: list[GrantView]


def identify(connection: Connection, credential: str, now: int) -> Delegate:
    """The delegate of `del_…:sec_…`. Unauthenticated."""
    delegate_id, _, secret = credential.partition(":")
    found = delegate_queries.find_by_secret(connection, delegate_id, hash_secret(secret), now)
    if found is None:
        raise Unauthenticated("Invalid delegate credentials")
    return found


def create(tx: Transaction, user_id: str, form: NewDelegate, now: int) -> DelegateMade:
    """Invalid without a name, and for a time that is none."""
    flags = form.keyPermissions
    row = DelegateRow(
        f"del_{secrets.token_hex(ID_BYTES)}",
        name_of(form.name),
        flags.can_read,
        flags.can_write,
        flags.can_system,
        sql_text(now),
        _expiry(form.expiresAt),
    )
    delegate_queries.insert_delegate(tx, row, user_id)
    return DelegateMade(**msgspec.structs.asdict(view(row)), keyPermissions=flags, expiresAt=form.expiresAt or None)


def delete(tx: Transaction, user_id: str, delegate_id: str) -> None:
    """Its secrets and grants go with it."""
    _require(tx, delegate_id, user_id)
    announce_delegate(tx, delegate_id)
    delegate_queries.delete_delegate(tx, delegate_id)


def list_secrets(connection: Connection, user_id: str, delegate_id: str, page: Page) -> list[SecretRow]:
    _require(connection, delegate_id, user_id)
    return delegate_queries.list_secrets(connection, delegate_id, page)


def new_secret() -> str:
    return "sec_" + "".join(secrets.choice(KEY_ALPHABET) for _ in range(SECRET_CHARACTERS))


def add_secret(tx: Transaction, user_id: str, delegate_id: str, form: NewSecret, secret: str, now: int) -> SecretMade:
    """Only a hash of it is kept."""
    _require(tx, delegate_id, user_id)
    made = SecretMade(new_id("dsc"), delegate_id, secret, (plain(form.name, "name") or "").strip(), WARNING)
    delegate_queries.insert_secret(tx, made.secret_id, delegate_id, made.name, hash_secret(secret), now)
    return made


def revoke_secret(tx: Transaction, user_id: str, delegate_id: str, secret_id: str, now: int) -> None:
    """For ever; its row stays, so that its last use can be looked up."""
    _require(tx, delegate_id, user_id)
    check_id(secret_id, NO_SECRET)
    announce_delegate(tx, delegate_id)
    if not delegate_queries.update_secret_revoked(tx, delegate_id, secret_id, now):
        raise NotFound(NO_SECRET)


def write_uses(tx: Transaction, uses: list[tuple[int, str]]) -> None:
    delegate_queries.update_secrets_used(tx, uses)


def list_grants(connection: Connection, user_id: str, delegate_id: str, page: Page) -> list[GrantRow]:
    _require(connection, delegate_id, user_id)
    return delegate_queries.list_grants(connection, delegate_id, page)


def grant(tx: Transaction, principal: Principal, user_id: str, delegate_id: str, form: NewGrant, now: int) -> Done:
    """Let a delegate into an instance, or change what it may do there. Who grants must have as much there."""
    _require(tx, delegate_id, user_id)
    require_instance(tx, principal, form.instanceId, LEVELS[form.permission], now, unready=True)
    announce_delegate(tx, delegate_id)
    expires = _expiry(form.expiresAt)
    delegate_queries.upsert_grant(tx, delegate_id, form.instanceId, form.permission, expires, now)
    return Done()


def withdraw(tx: Transaction, user_id: str, delegate_id: str, instance_id: str) -> None:
    """NotFound when it has no grant there."""
    _require(tx, delegate_id, user_id)
    announce_delegate(tx, delegate_id)
    if not delegate_queries.delete_grant(tx, delegate_id, instance_id):
        raise NotFound(NO_INSTANCE)


def view(row: DelegateRow) -> DelegateView:
    return DelegateView(*row[:5], unix_seconds(row.created_at), _seconds(row.expires_at_ms))


def secret_view(row: SecretRow) -> SecretView:
    used, revoked = _seconds(row.last_used_at_ms), _seconds(row.revoked_at_ms)
    return SecretView(row.secret_id, row.name, unix_seconds(row.created_at), used, revoked)


def grant_view(row: GrantRow) -> GrantView:
    granted, expires = unix_seconds(row.granted_at), _seconds(row.expires_at_ms)
    return GrantView(row.instance_id, row.instance_id, row.permission, granted, expires)


def _require(connection: Connection, delegate_id: str, user_id: str) -> None:
    check_id(delegate_id, NO_DELEGATE)
    if not delegate_queries.has_delegate(connection, delegate_id, user_id):
        raise NotFound(NO_DELEGATE)


def _expiry(text: str | None) -> int | None:
    """Milliseconds; an empty text, as an empty field of a page sends it, is never."""
    if not text:
        return None
    try:
        return parse_instant(text)
    except (ValueError, OverflowError) as error:
        raise Invalid("Invalid expiration date format") from error


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000
