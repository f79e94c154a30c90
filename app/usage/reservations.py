"""Reservations: tokens held before they are spent, so that calls at once cannot pass the limit together.

A hold is one conditional insert at the single writer. One that has expired counts no more, by itself.
"""

from typing import NamedTuple

import msgspec

from app.edge.clock import instant, sql_text
from app.edge.database import Transaction
from app.errors import AppError, Conflict, Forbidden, Invalid, NotFound, QuotaExceeded
from app.identity.ids import new_id
from app.usage import ledger, queries, quota
from app.usage.events import Event
from app.usage.ledger import Poster
from app.usage.plans import UNLIMITED
from app.usage.queries import Reservation

HELD, RELEASED, SETTLED = "held", "released", "settled"
TTL_SECONDS = 300
LONGEST_TTL_SECONDS = 3_600
_REFUSALS: dict[str, type[AppError]] = {"conflict": Conflict, "forbidden": Forbidden}


class Asked(NamedTuple):
    """What a caller wants held. `user` is Clerk's id or ours, None for the key's own."""

    user: str | None
    max_tokens: int
    ttl_seconds: int
    id: str | None


class Granted(msgspec.Struct, frozen=True):
    """`remaining` is what is left after all holds, -1 when unlimited."""

    id: str
    granted: int
    remaining: int
    expiresAt: str


class Settled(msgspec.Struct, frozen=True):
    """Tokens spent, and how many of them were not held."""

    id: str
    settled: int
    overshoot: int


class Released(msgspec.Struct, frozen=True):
    id: str
    released: bool


class Extended(msgspec.Struct, frozen=True):
    id: str
    expiresAt: str


def reserve(tx: Transaction, asked: Asked, poster: Poster, now: int) -> Granted:
    """Hold all of it or nothing. QuotaExceeded says what would fit; the same id again gets the first answer."""
    user_id = _user(tx, asked.user, poster)
    known = queries.find_reservation(tx, asked.id) if asked.id else None
    if known is not None:
        if (known.user_id, known.max_tokens, known.ttl_seconds) != (user_id, asked.max_tokens, asked.ttl_seconds):
            raise Conflict("A reservation with this id and other values exists")
        return Granted(known.id, known.max_tokens, known.remaining, instant(known.first_expires_at_ms))
    remaining = _remaining_after(tx, user_id, asked.max_tokens, now)
    expires = now + asked.ttl_seconds * 1000
    hold = Reservation(
        asked.id or new_id("rsv"),
        user_id,
        asked.max_tokens,
        asked.ttl_seconds,
        remaining,
        HELD,
        None,
        expires,
        expires,
    )
    queries.insert_reservation(tx, hold, poster.key_id, sql_text(now))
    return Granted(hold.id, hold.max_tokens, remaining, instant(expires))


def settle(tx: Transaction, reservation_id: str, event: Event, poster: Poster, now: int) -> Settled:
    """Record what was spent, in full, also after the hold has ended; a repeat gets the first answer."""
    hold = _get(tx, reservation_id, poster)
    if hold.state == SETTLED:
        spent = hold.settled_tokens or 0
    else:
        event = event._replace(user=hold.user_id, id=event.id or hold.id)
        result = ledger.record_one(tx, event, poster, now)
        if result.status == "rejected":
            raise _REFUSALS.get(result.code or "", Invalid)(result.error or "The event was rejected")
        spent = event.total
        queries.update_reservation_state(tx, hold.id, SETTLED, spent, sql_text(now))
    return Settled(hold.id, spent, max(0, spent - hold.max_tokens))


def release(tx: Transaction, reservation_id: str, poster: Poster, now: int) -> Released:
    """Give the hold back. Conflict once it is settled: then the tokens are spent."""
    hold = _get(tx, reservation_id, poster)
    if hold.state == SETTLED:
        raise Conflict("The reservation is settled")
    queries.update_reservation_state(tx, hold.id, RELEASED, None, sql_text(now))
    return Released(hold.id, True)


def extend(tx: Transaction, reservation_id: str, ttl_seconds: int, poster: Poster, now: int) -> Extended:
    """Let a hold live `ttl_seconds` from now. Conflict once it has ended: its tokens may be another's."""
    hold = _get(tx, reservation_id, poster)
    if hold.state != HELD or hold.expires_at_ms <= now:
        raise Conflict("The reservation has ended")
    expires = now + ttl_seconds * 1000
    queries.update_reservation_expiry(tx, hold.id, expires, sql_text(now))
    return Extended(hold.id, instant(expires))


def _user(tx: Transaction, asked: str | None, poster: Poster) -> str:
    wanted = asked or poster.user_id
    if wanted is None:
        raise Invalid("userId: expected the id of a user")
    payer = queries.find_payer(tx, wanted, 0)
    if poster.user_id is not None and (payer is None or payer.user_id != poster.user_id):
        raise Forbidden("This key reserves for its own user only")
    if payer is None:
        raise NotFound("User not found")
    return payer.user_id


def _remaining_after(tx: Transaction, user_id: str, tokens: int, now: int) -> int:
    held = quota.read_quota(tx, user_id, now)
    if held is None:
        raise NotFound("User not found")
    if held.free is None:
        return UNLIMITED
    if tokens > held.free:
        raise QuotaExceeded(
            "Quota exceeded",
            plan=held.plan,
            total=held.total,
            used=held.used,
            reserved=held.reserved,
            requested=tokens,
            resetDate=quota.summary(held).resetDate,
            fits=held.free,
        )
    return held.free - tokens


def _get(tx: Transaction, reservation_id: str, poster: Poster) -> Reservation:
    hold = queries.find_reservation(tx, reservation_id)
    if hold is None or (poster.user_id is not None and hold.user_id != poster.user_id):
        raise NotFound("Reservation not found")
    return hold
