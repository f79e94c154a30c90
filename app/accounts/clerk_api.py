"""Clerk's Backend API, as far as users are read from it."""

import re
from typing import TypeVar

from app.accounts.clerk_user import ClerkUser
from app.edge.http import decode_json
from app.edge.outbound import Outbound, Reply
from app.errors import Invalid, Unavailable, Upstream
from app.settings import Clerk

T = TypeVar("T")

USER_SECONDS = 5.0
PAGE_SECONDS = 10.0
PAGE_USERS = 100

# What may stand in a URL's path; no id of Clerk's is another.
_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")


class ClerkApi:
    """Raises Upstream when Clerk answers wrongly or not in time, Unavailable without a secret key."""

    def __init__(self, clerk: Clerk, outbound: Outbound) -> None:
        self._clerk = clerk
        self._outbound = outbound

    @property
    def configured(self) -> bool:
        return self._clerk.secret_key is not None

    async def find_user(self, clerk_id: str) -> ClerkUser | None:
        if not _ID.fullmatch(clerk_id):
            return None
        reply = await self._get(f"/v1/users/{clerk_id}", USER_SECONDS)
        return None if reply.status == 404 else _read(reply, ClerkUser)

    async def list_users(self, offset: int) -> list[ClerkUser]:
        """At most PAGE_USERS, oldest first, so that users who sign up meanwhile do not move the pages."""
        reply = await self._get(f"/v1/users?limit={PAGE_USERS}&offset={offset}&order_by=%2Bcreated_at", PAGE_SECONDS)
        return _read(reply, list[ClerkUser])

    async def _get(self, path: str, seconds: float) -> Reply:
        if self._clerk.secret_key is None:
            raise Unavailable("CLERK_SECRET_KEY is not set: Clerk's API cannot be asked")
        headers = {"Authorization": f"Bearer {self._clerk.secret_key}", "Accept": "application/json"}
        return await self._outbound.fetch(
            "GET", f"{self._clerk.api_url}{path}", headers=headers, trusted=True, seconds=seconds
        )


def _read(reply: Reply, shape: type[T]) -> T:
    if reply.status != 200:
        raise Upstream(f"Clerk's API answered {reply.status}")
    try:
        return decode_json(reply.body, shape)
    except Invalid as error:
        raise Upstream("Clerk's API answered in another shape") from error
