"""API keys: issued once in full, kept only as a hash, narrowed by scopes."""

import re
from collections.abc import Sequence

from app.edge.changes import announce
from app.edge.clock import sql_text
from app.edge.database import Transaction
from app.edge.http import encode_json
from app.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from app.identity import queries
from app.identity.ids import Secret
from app.identity.principal import ApiKey
from app.identity.queries import KeyRow

TOPIC = "key"
READ_INSTANCES, WRITE_INSTANCES = "read:instances", "write:instances"
ADMIN = "admin:all"
SCOPES = frozenset(
    [f"{verb}:{noun}" for verb in ("read", "write", "delete") for noun in ("benchmarks", "results", "api_keys")]
    + [f"{verb}:{noun}" for verb in ("read", "write") for noun in ("profile", "usage", "instances", "chats", "tests")]
    + [ADMIN]
)
_FORMAT = re.compile(r"mc_live_[A-Za-z0-9]{32}|ak_[0-9a-f]{48}")


def check_format(text: str) -> None:
    """Unauthenticated, in the words of the door that the key claims to come from."""
    if not _FORMAT.fullmatch(text):
        raise Unauthenticated("Invalid API key format" if text.startswith("ak_") else "Invalid API key", certain=True)


def check_usable(key: ApiKey, now: int) -> None:
    if key.status != "active":
        raise Unauthenticated("API key is revoked" if key.status == "revoked" else "Invalid API key")
    if key.expires_at_ms is not None and key.expires_at_ms <= now:
        raise Unauthenticated("API key has expired")


def check_scope(key: ApiKey, scope: str | None) -> None:
    """Forbidden when the key does not carry `scope`; a route without one takes no key at all.

    An `mc_live_` key carries permissions in place of scopes, weighed where the instance is known. Who may write an
    instance may read it.
    """
    if key.live and scope in (READ_INSTANCES, WRITE_INSTANCES):
        return
    held = key.scopes | {READ_INSTANCES} if WRITE_INSTANCES in key.scopes else key.scopes
    if scope is None or not (scope in held or ADMIN in held):
        raise Forbidden(f"API key lacks scope {scope}" if scope else "An API key cannot be used here")


class Uses:
    """When each key was last used, gathered in memory and written in batches."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def note(self, key_id: str, now: int) -> None:
        self._last[key_id] = now

    def take(self) -> list[tuple[int, str]]:
        """What is to be written, handed over."""
        taken, self._last = self._last, {}
        return [(at, key_id) for key_id, at in taken.items()]


def write_uses(tx: Transaction, uses: list[tuple[int, str]]) -> None:
    queries.update_keys_used(tx, uses)


def operator_key(
    key_id: str,
    secret: Secret,
    user_id: str,
    name: str,
    scopes: Sequence[str],
    now: int,
    *,
    rate_limit: int = 0,
    expires_at_ms: int | None = None,
) -> KeyRow:
    """An `ak_` key that an operator makes: with `write:usage` it writes for anybody. Invalid for an unknown scope."""
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise Invalid(f"Invalid scopes: {', '.join(unknown)}")
    return KeyRow(
        id=key_id,
        name=name,
        key_prefix=secret.prefix,
        scope_type="account",
        scope_id=None,
        permissions="[]",
        scopes=encode_json(list(dict.fromkeys(scopes))).decode(),
        by_operator=True,
        rate_limit=rate_limit,
        status="active",
        expires_at_ms=expires_at_ms,
        last_used_at_ms=None,
        created_at=sql_text(now),
        user_id=user_id,
    )


def issue(tx: Transaction, secret: Secret, row: KeyRow) -> KeyRow:
    """Store a new key; its secret is given out by the caller, once. NotFound when its user is not there."""
    if queries.find_account(tx, row.user_id) is None:
        raise NotFound("User not found")
    queries.insert_key(tx, row, secret.hash)
    return row


def delete(tx: Transaction, key_id: str, user_id: str) -> None:
    """Remove a user's key. NotFound when it has none with this id."""
    announce(tx, TOPIC, key_id)
    if not queries.delete_key(tx, key_id, user_id):
        raise NotFound("API key not found")


def revoke(tx: Transaction, key_id: str, now: int) -> KeyRow:
    """End a key for ever; its row stays, so that its last use can be looked up. NotFound."""
    key = _get(tx, key_id)
    announce(tx, TOPIC, key_id)
    queries.update_key_status(tx, key_id, "revoked", now)
    return key._replace(status="revoked")


def rotate(tx: Transaction, key_id: str, new_id: str, secret: Secret, grace_ms: int, now: int) -> KeyRow:
    """Issue a key like `key_id`, which is revoked, or lives on for `grace_ms`. NotFound; Conflict when it is dead."""
    old = _get(tx, key_id)
    if old.status != "active" or (old.expires_at_ms is not None and old.expires_at_ms <= now):
        raise Conflict("Only a key that can be used can be rotated")
    if grace_ms:
        announce(tx, TOPIC, key_id)
        queries.update_key_expiry(tx, key_id, now + grace_ms, now)
    else:
        revoke(tx, key_id, now)
    fresh = old._replace(id=new_id, key_prefix=secret.prefix, last_used_at_ms=None, created_at=sql_text(now))
    return issue(tx, secret, fresh)


def _get(tx: Transaction, key_id: str) -> KeyRow:
    key = queries.find_key(tx, key_id)
    if key is None:
        raise NotFound("API key not found")
    return key
