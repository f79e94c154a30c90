"""Endings: why a live connection is closed, and what it hears before."""

from random import uniform

from app.instances import protocol

DELETED, DELETED_REASON = 1000, "Instance deleted"
GOING_AWAY, GOING_AWAY_REASON = 1012, "Going away"
TRY_AGAIN, TRY_AGAIN_REASON = 1013, "Try again later"
AWAY_MS = (200, 2_000)


def going_away() -> bytes:
    """How long to wait before coming back: not the same for all."""
    return protocol.going_away(round(uniform(*AWAY_MS)))
