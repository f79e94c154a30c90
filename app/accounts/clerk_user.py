"""A user as Clerk tells of it, in an event or from its API, and what that changes here."""

from typing import Any

import msgspec

from app.accounts import queries
from app.accounts.queries import UserRow
from app.accounts.subscription import put_on_plan
from app.edge.changes import announce
from app.edge.database import Transaction
from app.identity import queries as identity_queries
from app.identity import users
from app.identity.queries import CLERK
from app.usage.plans import UNLIMITED
from app.webhooks.log import Outcome

LARGEST_QUOTA = (1 << 53) - 1
GONE = Outcome("ignored: the user was deleted", erase=True)
STALE = Outcome("ignored: something newer is known")
SKIPPED = (GONE, STALE)


class EmailAddress(msgspec.Struct):
    id: str | None = None
    email_address: str | None = None


class ClerkUser(msgspec.Struct):
    """What is absent leaves what is there, but for a quota: without one the plan's holds."""

    id: str
    first_name: str | msgspec.UnsetType | None = msgspec.UNSET
    last_name: str | msgspec.UnsetType | None = msgspec.UNSET
    image_url: str | msgspec.UnsetType | None = msgspec.UNSET
    email_addresses: list[EmailAddress] | msgspec.UnsetType = msgspec.UNSET
    primary_email_address_id: str | None = None
    # Written by hand in Clerk's dashboard, so it may hold anything.
    public_metadata: Any = None
    banned: bool | None = None
    updated_at: int | None = None

    @property
    def email(self) -> str | msgspec.UnsetType | None:
        """The primary address, never merely the first."""
        if isinstance(self.email_addresses, msgspec.UnsetType):
            return msgspec.UNSET
        wanted = self.primary_email_address_id
        return next((one.email_address for one in self.email_addresses if wanted and one.id == wanted), None)

    def metadata(self, name: str) -> Any:
        return self.public_metadata.get(name) if isinstance(self.public_metadata, dict) else None


def record(tx: Transaction, user: ClerkUser, now: int) -> Outcome:
    """Make or change the row of this user, unless it was deleted or something newer of it is known."""
    user_id = ensure(tx, user.id, now)
    if user_id is None:
        return GONE
    if user.updated_at is not None and not queries.upsert_object(tx, CLERK, user.id, user_id, user.updated_at):
        return STALE
    row = queries.find_user(tx, user_id)
    assert row is not None
    _write_profile(tx, user_id, row, user, now)
    _write_suspension(tx, user_id, row, user, now)
    notes = [_write_quota(tx, user_id, row, user, now), _write_plan(tx, user_id, user, now)]
    return Outcome("; ".join(note for note in ("profile", *notes) if note))


def ensure(tx: Transaction, clerk_id: str, now: int) -> str | None:
    """Our id of a user of Clerk's, with a stub row when it is new; None once it was deleted."""
    if identity_queries.has_tombstone(tx, CLERK, clerk_id):
        return None
    return users.ensure_user(tx, CLERK, clerk_id, now).user_id


def delete(tx: Transaction, clerk_id: str, now: int) -> Outcome:
    """Remove a user and refuse it from now on, also when this is the first that is heard of it."""
    user_id = identity_queries.find_user_id_by_subject(tx, CLERK, clerk_id)
    if user_id is not None:
        users.delete(tx, user_id, now)
    identity_queries.insert_tombstone(tx, CLERK, clerk_id, now)
    return Outcome("user deleted", erase=True)


def _write_profile(tx: Transaction, user_id: str, row: UserRow, user: ClerkUser, now: int) -> None:
    known = row[:4]
    told = (user.email, user.first_name, user.last_name, user.image_url)
    email, first, last, image = (
        held if isinstance(new, msgspec.UnsetType) else new for held, new in zip(known, told, strict=True)
    )
    if (email, first, last, image) != known:
        queries.update_profile(tx, user_id, email, first, last, image, now)


def _write_suspension(tx: Transaction, user_id: str, row: UserRow, user: ClerkUser, now: int) -> None:
    if user.banned is not None and user.banned != row.suspended:
        identity_queries.update_suspended(tx, user_id, user.banned, now)
        announce(tx, users.TOPIC, user_id)


def _write_quota(tx: Transaction, user_id: str, row: UserRow, user: ClerkUser, now: int) -> str:
    told = user.metadata("tokenQuota")
    if not (told is None or (isinstance(told, int) and not isinstance(told, bool) and told <= LARGEST_QUOTA)):
        return "tokenQuota is not a whole number: kept"
    quota = told if told and (told > 0 or told == UNLIMITED) else None
    if quota is None and told:
        return "tokenQuota is below -1: kept"
    if quota != row.token_quota:
        identity_queries.update_token_quota(tx, user_id, quota, now)
        announce(tx, users.TOPIC, user_id)
    return ""


def _write_plan(tx: Transaction, user_id: str, user: ClerkUser, now: int) -> str:
    slug = user.metadata("subscription")
    if slug is None:
        return ""
    return put_on_plan(tx, user_id, slug, now) if isinstance(slug, str) else "subscription is not a text: kept"
