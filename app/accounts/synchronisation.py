"""Synchronisation: users brought up to what Clerk's API says of them, when an operator asks."""

import time

import msgspec

from app.accounts import clerk_user, queries
from app.accounts.clerk_api import PAGE_USERS, ClerkApi
from app.accounts.clerk_user import ClerkUser
from app.accounts.profile import UserView, view
from app.edge.clock import now_ms
from app.edge.database import Connection, Database, Transaction
from app.errors import NotFound
from app.identity import queries as identity_queries
from app.identity.queries import CLERK
from app.webhooks.log import Outcome

SYNC_USERS = 10_000
SYNC_SECONDS = 60.0


class SyncedUser(msgspec.Struct):
    success: bool
    outcome: str
    user: UserView


class SyncedUsers(msgspec.Struct):
    """`skipped` were deleted here or are known newer; where `hasMore`, go on with `offset=nextOffset`."""

    success: bool
    total: int
    synced: int
    skipped: int
    hasMore: bool
    nextOffset: int


async def sync_user(db: Database, clerk: ClerkApi, any_id: str) -> SyncedUser:
    """NotFound when neither we nor Clerk know the user, or it was deleted here."""
    clerk_id = await db.read(queries.find_clerk_id, any_id) or any_id
    user = await clerk.find_user(clerk_id)
    if user is None:
        raise NotFound("User not found")
    outcome = await db.write(clerk_user.record, user, now_ms())
    return SyncedUser(True, outcome.text, await db.read(_get_view, user.id))


async def sync_users(db: Database, clerk: ClerkApi, offset: int) -> SyncedUsers:
    """At most SYNC_USERS, for at most about SYNC_SECONDS."""
    until, total, skipped = time.monotonic() + SYNC_SECONDS, 0, 0
    more = True
    while more and total < SYNC_USERS and time.monotonic() < until:
        users = await clerk.list_users(offset + total)
        outcomes = await db.write(_record_all, users, now_ms())
        total += len(users)
        skipped += sum(outcome in clerk_user.SKIPPED for outcome in outcomes)
        more = len(users) >= PAGE_USERS
    return SyncedUsers(True, total, total - skipped, skipped, more, offset + total)


def _record_all(tx: Transaction, users: list[ClerkUser], now: int) -> list[Outcome]:
    return [clerk_user.record(tx, user, now) for user in users]


def _get_view(connection: Connection, clerk_id: str) -> UserView:
    user_id = identity_queries.find_user_id_by_subject(connection, CLERK, clerk_id)
    row = queries.find_user(connection, user_id) if user_id else None
    if row is None:
        raise NotFound("User not found")
    return view(clerk_id, row)
