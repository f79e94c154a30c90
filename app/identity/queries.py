"""The SQL of users, identities and keys."""

import hashlib
from typing import NamedTuple

import msgspec

from app.edge.clock import sql_text
from app.edge.database import Connection, Row, Transaction
from app.edge.limiter import Rate
from app.identity.principal import Account, ApiKey

CLERK = "clerk"

_ACCOUNT = """
    SELECT u.id, (SELECT subject FROM identities c WHERE c.user_id = u.id AND c.provider = 'clerk'),
           u.suspended, p.requests_per_minute, p.burst
    FROM users u JOIN plans p ON p.name = u.plan
"""


def _account(row: Row | None) -> Account | None:
    return Account(row[0], row[1], bool(row[2]), Rate(row[3], row[4])) if row else None


def find_account(connection: Connection, user_id: str) -> Account | None:
    return _account(connection.fetch_one(f"{_ACCOUNT} WHERE u.id = ?", user_id))


def find_account_by_subject(connection: Connection, provider: str, subject: str) -> Account | None:
    user_id = find_user_id_by_subject(connection, provider, subject)
    return find_account(connection, user_id) if user_id else None


def find_user_id_by_subject(connection: Connection, provider: str, subject: str) -> str | None:
    row = connection.fetch_one("SELECT user_id FROM identities WHERE provider = ? AND subject = ?", provider, subject)
    return row[0] if row else None


def find_user_id(connection: Connection, any_id: str) -> str | None:
    """Our id from ours or from Clerk's."""
    row = connection.fetch_one(
        """SELECT user_id FROM identities WHERE provider = 'clerk' AND subject = ?1
           UNION ALL SELECT id FROM users WHERE id = ?1 LIMIT 1""",
        any_id,
    )
    return row[0] if row else None


def find_public_id(connection: Connection, any_id: str) -> str:
    """The id of a user that answers show, from ours or from that; what is no user's id stays as it is."""
    row = connection.fetch_one("SELECT subject FROM identities WHERE provider = 'clerk' AND user_id = ?", any_id)
    return row[0] if row else any_id


def insert_user(tx: Transaction, user_id: str, *, email: str | None = None, plan: str = "free", now: int) -> None:
    at = sql_text(now)
    tx.execute(
        "INSERT INTO users (id, email, plan, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
        user_id,
        email,
        plan,
        at,
        at,
    )


def insert_identity(tx: Transaction, provider: str, subject: str, user_id: str) -> None:
    tx.execute("INSERT INTO identities (provider, subject, user_id) VALUES (?, ?, ?)", provider, subject, user_id)


def list_subjects(connection: Connection, user_id: str) -> list[tuple[str, str]]:
    rows = connection.fetch("SELECT provider, subject FROM identities WHERE user_id = ?", user_id)
    return [(row[0], row[1]) for row in rows]


def delete_user(tx: Transaction, user_id: str) -> int:
    return tx.execute("DELETE FROM users WHERE id = ?", user_id)


def subject_hash(provider: str, subject: str) -> bytes:
    return hashlib.sha256(f"{provider}\0{subject}".encode()).digest()


def insert_tombstone(tx: Transaction, provider: str, subject: str, now: int) -> None:
    tx.execute(
        "INSERT INTO tombstones (subject_hash, deleted_at_ms) VALUES (?, ?) ON CONFLICT DO NOTHING",
        subject_hash(provider, subject),
        now,
    )


def has_tombstone(connection: Connection, provider: str, subject: str) -> bool:
    return (
        connection.fetch_one("SELECT 1 FROM tombstones WHERE subject_hash = ?", subject_hash(provider, subject))
        is not None
    )


def update_plan(tx: Transaction, user_id: str, plan: str, now: int) -> int:
    return tx.execute("UPDATE users SET plan = ?, updated_at = ? WHERE id = ?", plan, sql_text(now), user_id)


def update_token_quota(tx: Transaction, user_id: str, quota: int | None, now: int) -> int:
    return tx.execute("UPDATE users SET token_quota = ?, updated_at = ? WHERE id = ?", quota, sql_text(now), user_id)


def update_suspended(tx: Transaction, user_id: str, suspended: bool, now: int) -> int:
    return tx.execute(
        "UPDATE users SET suspended = ?, updated_at = ? WHERE id = ?", int(suspended), sql_text(now), user_id
    )


def find_key_by_hash(connection: Connection, key_hash: bytes) -> ApiKey | None:
    row = connection.fetch_one(
        f"{_KEY_IN_USE} WHERE key_hash = ?",
        key_hash,
    )
    return _key_in_use(row) if row else None


def find_key_in_use(connection: Connection, key_id: str) -> ApiKey | None:
    row = connection.fetch_one(f"{_KEY_IN_USE} WHERE id = ?", key_id)
    return _key_in_use(row) if row else None


_KEY_IN_USE = """
    SELECT id, user_id, scopes, by_operator, rate_limit, status, expires_at_ms, key_prefix, scope_type, scope_id,
           permissions
    FROM api_keys
"""


def _key_in_use(row: Row) -> ApiKey:
    return ApiKey(
        id=row[0],
        user_id=row[1],
        scopes=_words(row[2]),
        by_operator=bool(row[3]),
        rate_limit=row[4],
        status=row[5],
        expires_at_ms=row[6],
        live=row[7].startswith("mc_live_"),
        scope_type=row[8],
        scope_id=row[9],
        permissions=_words(row[10]),
    )


def _words(json: str) -> frozenset[str]:
    return frozenset(msgspec.json.decode(json, type=list[str]))


def is_user_active(connection: Connection, user_id: str) -> bool:
    """Whether a user is there and not suspended."""
    return connection.fetch_one("SELECT 1 FROM users WHERE id = ? AND suspended = 0", user_id) is not None


class KeyRow(NamedTuple):
    """A key as its owner sees it."""

    id: str
    name: str
    key_prefix: str
    scope_type: str
    scope_id: str | None
    permissions: str
    scopes: str
    by_operator: bool
    rate_limit: int
    status: str
    expires_at_ms: int | None
    last_used_at_ms: int | None
    created_at: str
    user_id: str


def list_keys(connection: Connection, user_id: str | None, limit: int) -> list[KeyRow]:
    """A user's keys, or everybody's; newest first."""
    rows = connection.fetch(
        """SELECT id, name, key_prefix, scope_type, scope_id, permissions, scopes, by_operator, rate_limit, status,
                  expires_at_ms, last_used_at_ms, created_at, user_id
           FROM api_keys WHERE ?1 IS NULL OR user_id = ?1 ORDER BY created_at DESC, rowid DESC LIMIT ?2""",
        user_id,
        limit,
    )
    return [KeyRow(*row) for row in rows]


def insert_key(tx: Transaction, row: KeyRow, key_hash: bytes) -> None:
    tx.execute(
        """INSERT INTO api_keys (
               id, name, key_prefix, scope_type, scope_id, permissions, scopes, by_operator, rate_limit, status,
               expires_at_ms, last_used_at_ms, created_at, user_id, updated_at, key_hash)
           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?13, ?15)""",
        *row,
        key_hash,
    )


def delete_key(tx: Transaction, key_id: str, user_id: str) -> int:
    return tx.execute("DELETE FROM api_keys WHERE id = ? AND user_id = ?", key_id, user_id)


def update_keys_used(tx: Transaction, uses: list[tuple[int, str]]) -> None:
    tx.executemany("UPDATE api_keys SET last_used_at_ms = ? WHERE id = ?", uses)


class UserRow(NamedTuple):
    """A user as an operator sees it."""

    id: str
    clerk_id: str | None
    email: str | None
    plan: str
    token_quota: int | None
    suspended: bool
    seen_at_ms: int | None
    created_at: str


_USER = """
    SELECT u.id, (SELECT subject FROM identities c WHERE c.user_id = u.id AND c.provider = 'clerk'),
           u.email, u.plan, u.token_quota, u.suspended, u.seen_at_ms, u.created_at
    FROM users u
"""


def _user(row: Row) -> UserRow:
    user = UserRow(*row)
    return user._replace(suspended=bool(user.suspended))


def find_user(connection: Connection, user_id: str) -> UserRow | None:
    row = connection.fetch_one(f"{_USER} WHERE u.id = ?", user_id)
    return _user(row) if row else None


def list_users(connection: Connection, after: str, limit: int) -> list[UserRow]:
    """By our id, from the one behind `after`."""
    rows = connection.fetch(f"{_USER} WHERE u.id > ? ORDER BY u.id LIMIT ?", after, limit)
    return [_user(row) for row in rows]


def find_plan_name(connection: Connection, name: str) -> str | None:
    row = connection.fetch_one("SELECT name FROM plans WHERE name = ?", name)
    return row[0] if row else None


def find_key(connection: Connection, key_id: str) -> KeyRow | None:
    row = connection.fetch_one(
        """SELECT id, name, key_prefix, scope_type, scope_id, permissions, scopes, by_operator, rate_limit, status,
                  expires_at_ms, last_used_at_ms, created_at, user_id
           FROM api_keys WHERE id = ?""",
        key_id,
    )
    return KeyRow(*row) if row else None


def update_key_status(tx: Transaction, key_id: str, status: str, now: int) -> int:
    return tx.execute("UPDATE api_keys SET status = ?, updated_at = ? WHERE id = ?", status, sql_text(now), key_id)


def update_key_expiry(tx: Transaction, key_id: str, expires_at_ms: int, now: int) -> int:
    """A key that expires sooner keeps its own time."""
    return tx.execute(
        """UPDATE api_keys SET expires_at_ms = min(coalesce(expires_at_ms, ?1), ?1), updated_at = ?2 WHERE id = ?3""",
        expires_at_ms,
        sql_text(now),
        key_id,
    )
