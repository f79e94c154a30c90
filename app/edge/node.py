"""Node: this machine, where it stands, and whether it is the primary."""

import secrets
from typing import NamedTuple

from app.settings import Settings


class Node(NamedTuple):
    """A machine alone is its own primary and never lags."""

    region: str
    machine: str
    is_primary: bool = True
    lag_ms: int = 0


def single(settings: Settings) -> Node:
    """The one node of `REPLICATION=none`."""
    return Node(region=settings.region, machine=settings.machine or secrets.token_hex(4))
