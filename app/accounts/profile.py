"""The profile: who a user is, and the quota that `/api/usage/quota` gives too."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.accounts import queries
from app.accounts.queries import UserRow
from app.edge.clock import instant, now_ms, parse_instant
from app.edge.database import Connection
from app.edge.http import cached_response, db_of
from app.edge.openapi import API_KEY, BEARER, operation
from app.errors import Unauthenticated
from app.identity.authenticator import authenticate
from app.identity.door import METERED
from app.identity.principal import Account, account_of
from app.usage import quota
from app.usage.quota import QuotaSummary

SCOPE = "read:profile"


class UserView(msgspec.Struct):
    """`id` is Clerk's where there is one; `subscription` is the plan's name."""

    id: str
    email: str | None
    firstName: str | None
    lastName: str | None
    imageUrl: str | None
    subscription: str
    createdAt: str
    updatedAt: str


class ProfileView(msgspec.Struct):
    user: UserView
    quota: QuotaSummary


@operation(
    answer=ProfileView,
    errors=(401, 403, 429, 503),
    credentials=(BEARER, API_KEY),
    cached=True,
)
async def show(request: Request) -> Response:
    """Who the caller is, on which plan, and what is left of it. It has a strong ETag."""
    account = account_of(await authenticate(request, METERED, SCOPE))
    profile = await db_of(request).read(_read_profile, account, now_ms())
    return cached_response(request, profile)


def view(public_id: str, row: UserRow) -> UserView:
    return UserView(
        id=public_id,
        email=row.email,
        firstName=row.first_name,
        lastName=row.last_name,
        imageUrl=row.image_url,
        subscription=row.plan,
        createdAt=instant(parse_instant(row.created_at)),
        updatedAt=instant(parse_instant(row.updated_at)),
    )


def _read_profile(connection: Connection, account: Account, now: int) -> ProfileView:
    row = queries.find_user(connection, account.user_id)
    left = quota.read_quota(connection, account.user_id, now)
    if row is None or left is None:
        # Deleted since it was authenticated, a moment ago.
        raise Unauthenticated(METERED.invalid)
    return ProfileView(view(account.public_id, row), quota.summary(left))
