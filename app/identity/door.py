"""Doors: the words in which each family of routes refuses, and the rate at which it lets people in."""

from typing import NamedTuple

from app.edge.limiter import Rate

WITH_CREDENTIAL = Rate(600, 200)
WITHOUT_CREDENTIAL = Rate(60, 60)


class Door(NamedTuple):
    """`rate` None means the rate of the caller's plan."""

    name: str
    missing: str
    invalid: str
    expired: str
    rate: Rate | None
    dev_user: bool = True


METERED = Door("metered", "No token provided", "Invalid token", "Invalid token", None)
INGESTION = Door("ingestion", "No token provided", "Invalid token", "Invalid token", None, dev_user=False)
MINDCACHE = Door("mindcache", "Authorization required", "Invalid token", "Token expired", WITH_CREDENTIAL)
