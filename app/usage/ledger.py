"""The ledger: append-only rows; a trigger keeps the counters and roll-ups with each of them.

An event is one for ever: the same source and id again is a duplicate, with other contents a conflict, also when
its row has left the core.
"""

from typing import NamedTuple

import msgspec

from app.edge.clock import sql_text
from app.edge.database import Transaction
from app.errors import AppError, Forbidden, Invalid, Unavailable, Unprocessable
from app.usage import alerts, queries
from app.usage.events import API, REALTIME, Event
from app.usage.period import period_of
from app.usage.queries import Payer, Written
from app.usage.rows import Line
from app.usage.wire import Refused

RESERVATION = "reservation"
# Where an amendment looks for the event that it names when it does not say whose id that is.
SOURCES = (API, REALTIME, RESERVATION)


class Poster(NamedTuple):
    """Who posts: for one user, or (an operator's key, `user_id` None) for anybody."""

    key_id: str | None = None
    user_id: str | None = None


class Result(msgspec.Struct, omit_defaults=True):
    index: int
    id: str | None
    status: str
    error: str | None = None
    code: str | None = None
    storedHash: str | None = None
    receivedHash: str | None = None


class Outcome(msgspec.Struct):
    accepted: int
    duplicates: int
    rejected: int
    results: list[Result]


def record(tx: Transaction, items: list[Event | Refused], poster: Poster, now: int, atomic: bool = False) -> Outcome:
    """Write a batch: each item accepted, duplicate or rejected by itself.

    `atomic` writes all or nothing: Unprocessable, with the same results, when an item is rejected.
    """
    batch = Batch(tx, poster, now)
    results = [batch.add(index, item) for index, item in enumerate(items)]
    if atomic and any(result.status == "rejected" for result in results):
        raise _refuse_all(items, results)
    batch.finish()
    return _outcome(results)


def record_received(tx: Transaction, lines: list[Line | Refused], poster: Poster, now: int) -> Outcome:
    """Write a batch of lines that were received elsewhere, each with the time of its own receipt."""
    batch = Batch(tx, poster, now)
    results = [
        batch.add(index, line) if isinstance(line, Refused) else batch.add(index, line.event, line.received_at_ms)
        for index, line in enumerate(lines)
    ]
    batch.finish()
    return _outcome(results)


def record_one(tx: Transaction, event: Event, poster: Poster, now: int) -> Result:
    """Write a single event."""
    return record(tx, [event], poster, now).results[0]


class Batch:
    """One transaction's worth of events."""

    def __init__(self, tx: Transaction, poster: Poster, now: int) -> None:
        self._tx = tx
        self._poster = poster
        self._now = now
        self._period_start = period_of(now).start_ms
        self._payers: dict[str, Payer] = {}
        self._spent: dict[tuple[Payer, int], int] = {}

    def add(self, index: int, item: Event | Refused, received: int | None = None) -> Result:
        if isinstance(item, Refused):
            return Result(index, item.id, "rejected", item.error, item.code)
        payer = self._payer(item)
        if isinstance(payer, Refused):
            return Result(index, item.id, "rejected", payer.error, payer.code)
        try:
            return self._write(index, item, payer, self._now if received is None else received)
        except Unavailable:
            # Nobody can say what this event is, so nobody says it: the whole request is repeated later.
            raise
        except AppError as error:
            return Result(index, item.id, "rejected", error.message, error.code)

    def finish(self) -> None:
        """Note the thresholds that the batch has passed."""
        for (payer, period_start), spent in self._spent.items():
            if period_start == self._period_start:
                before = payer.used
            else:
                before = queries.find_used(self._tx, payer.user_id, period_start) - spent
            alerts.note(self._tx, payer, period_start, before, before + spent, self._now)

    def _payer(self, event: Event) -> Payer | Refused:
        asked = event.user or self._poster.user_id
        if asked is None:
            return Refused("invalid", "userId: expected the id of a user")
        payer = self._payers.get(asked)
        if payer is None:
            payer = queries.find_payer(self._tx, asked, self._period_start)
            if payer is not None:
                # Under its other id the same user is the same payer, as it stood before this batch.
                payer = self._payers[asked] = self._payers.setdefault(payer.user_id, payer)
        if self._poster.user_id is not None and (payer is None or payer.user_id != self._poster.user_id):
            return Refused("forbidden", "This key writes usage for its own user only")
        return payer or Refused("unknown_user", f"User not found: {asked}")

    def _write(self, index: int, event: Event, payer: Payer, received: int) -> Result:
        content_hash = event.content_hash(payer.user_id)
        amended = self._amended(event, payer) if event.amends else None
        occurred = event.occurred_at_ms if event.occurred_at_ms is not None else received
        session, model, provider, endpoint = event.session_id, event.model, event.provider, event.endpoint
        total, given_input, given_output = event.total, event.input, event.output
        if amended is not None:
            before = queries.get_amended_sums(self._tx, amended.id)
            total -= amended.total + before[0]
            given_input -= amended.input + before[1]
            given_output -= amended.output + before[2]
            occurred, session, model = amended.occurred_at_ms, amended.session_id, amended.model
            provider, endpoint = amended.provider, amended.endpoint
        period_start = period_of(occurred).start_ms
        new = not queries.is_archived(self._tx, event.key) and queries.insert_log(
            self._tx,
            (
                payer.user_id,
                session,
                event.response_id,
                event.id,
                event.event_type,
                provider,
                model,
                total,
                given_input,
                given_output,
                event.input_details,
                event.output_details,
                event.metadata,
                sql_text(received),
                event.source,
                occurred,
                received,
                self._poster.key_id,
                endpoint,
                amended.id if amended else None,
                event.key,
                content_hash,
                period_start,
            ),
        )
        if not new:
            return self._known(index, event, content_hash)
        spent = (payer, period_start)
        self._spent[spent] = self._spent.get(spent, 0) + total
        return Result(index, event.id, "accepted")

    def _known(self, index: int, event: Event, content_hash: bytes) -> Result:
        stored = queries.find_written(self._tx, event.key)
        if stored is None or stored.content_hash == content_hash:
            return Result(index, event.id, "duplicate")
        return Result(
            index,
            event.id,
            "rejected",
            "An event with this id and other contents was recorded before",
            "conflict",
            stored.content_hash.hex(),
            content_hash.hex(),
        )

    def _amended(self, event: Event, payer: Payer) -> Written:
        """The row that an event corrects. Only an operator's key may; the first event is named, not a correction."""
        if self._poster.user_id is not None:
            raise Forbidden("Only an operator's key may amend usage")
        sources = (event.source,) if event.source_given else SOURCES
        found = [
            written
            for source in sources
            if (written := queries.find_written(self._tx, event._replace(id=event.amends or "", source=source).key))
        ]
        if len(found) != 1 or found[0].user_id != payer.user_id:
            raise Invalid(f"amends: expected the id of one event of this user, got {event.amends!r}")
        if found[0].amends_id is not None:
            raise Invalid(f"amends: {event.amends!r} is itself an amendment; name the event that it amends")
        return found[0]


def _outcome(results: list[Result]) -> Outcome:
    counts = {"accepted": 0, "duplicate": 0, "rejected": 0}
    for result in results:
        counts[result.status] += 1
    return Outcome(counts["accepted"], counts["duplicate"], counts["rejected"], results)


def _refuse_all(items: list[Event | Refused], results: list[Result]) -> Unprocessable:
    pairs = list(zip(items, results, strict=True))
    # What is taken back was there for its repeats in the batch, too: none of them is in the ledger.
    undone = {item.key for item, result in pairs if isinstance(item, Event) and result.status == "accepted"}
    refused = [
        Result(result.index, result.id, "rejected", "Another event of this batch was rejected", "atomic")
        if isinstance(item, Event) and result.status != "rejected" and item.key in undone
        else result
        for item, result in pairs
    ]
    outcome = _outcome(refused)
    return Unprocessable(
        "The batch was rejected as a whole",
        accepted=0,
        duplicates=outcome.duplicates,
        rejected=outcome.rejected,
        results=outcome.results,
    )
