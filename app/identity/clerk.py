"""Clerk's session tokens: RS256, verified against the issuer's keys, remembered until they expire."""

from typing import NamedTuple

from app.edge.outbound import Outbound
from app.settings import Clerk


class Claims(NamedTuple):
    sub: str
    sid: str
    exp: int


class BadToken(Exception):
    """The token is not accepted; `expired` when only its time is over."""

    def __init__(self, reason: str, *, expired: bool = False) -> None:
        super().__init__(reason)
        self.expired = expired


class ClerkTokens:
    def __init__(self, clerk: Clerk, outbound: Outbound) -> None: ...

    async def verify(self, token: str) -> Claims:
        raise BadToken("Clerk is not configured")
