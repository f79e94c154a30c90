"""Newcomers: users whom a token announces before any webhook did. The primary makes their rows."""

from collections.abc import Callable

from app.edge.clock import now_ms
from app.edge.database import Database
from app.edge.follower import Follower, writes
from app.edge.peers import Answer
from app.errors import Unavailable
from app.identity import queries, users
from app.identity.principal import Account

WELCOME = "/peer/newcomer"

# Told the Clerk id of a user whom nobody announced before.
Offer = Callable[[str], None]


class Newcomers:
    """`follower` is there where the primary has to be asked; `offer` is told, at the primary, of who is new."""

    def __init__(self, db: Database, offer: Offer, follower: Follower | None = None) -> None:
        self._db = db
        self._offer = offer
        self._follower = follower

    async def welcome(self, subject: str) -> Account:
        """The account behind a Clerk id that has no row here. Unauthenticated once it was deleted; Unavailable."""
        if self._follower is None:
            return await self._make(subject)
        await self._follower.have_written(WELCOME, subject)
        account = await self._db.read(queries.find_account_by_subject, queries.CLERK, subject)
        if account is None:
            raise Unavailable("The user was deleted a moment ago")
        return account

    def answers(self) -> dict[str, Answer]:
        """What the primary says to the others."""
        return {WELCOME: writes(self._make, tuple[str])}

    async def _make(self, subject: str) -> Account:
        account = await self._db.write(users.ensure_user, queries.CLERK, subject, now_ms())
        self._offer(subject)
        return account
