"""A turn: what has gathered in a mailbox, applied to one draft in order."""

from collections.abc import Mapping, Sequence

from app.errors import AppError
from app.instances.draft import Draft
from app.instances.mailbox import Ask, Result

# A principal and its name for an operation.
Operation = tuple[str, str]
Outcome = Result | AppError


def named_in(asks: Sequence[Ask]) -> list[Operation]:
    """The operations that were given a name, so that each is applied once."""
    return sorted({(ask.caller.principal, ask.op_id) for ask in asks if ask.op_id is not None})


def apply_all(
    draft: Draft, asks: Sequence[Ask], before: Mapping[Operation, int]
) -> tuple[list[Outcome], dict[Operation, int]]:
    """What becomes of each once the draft is committed, and the seq of each operation that is new.

    `before` are operations that were applied before, and the seq of each.
    """
    fresh: dict[Operation, int] = {}
    outcomes: list[Outcome] = []
    for ask in asks:
        operation = ask.caller.principal, ask.op_id or ""
        seq = before.get(operation, fresh.get(operation))
        outcome = _apply(draft, ask, seq)
        outcomes.append(outcome)
        if ask.op_id is not None and seq is None and isinstance(outcome, Result):
            fresh[operation] = outcome.seq
    return outcomes, fresh


def _apply(draft: Draft, ask: Ask, applied_at: int | None) -> Outcome:
    if ask.refusal is not None:
        return ask.refusal
    if ask.op_id is not None and applied_at is not None:
        return Result(applied_at, 0)
    sender = ask.member.id if ask.member is not None else None
    try:
        changed = draft.apply(ask.changes, ask.caller, sender=sender, op_id=ask.op_id, turn_id=ask.turn_id)
    except AppError as error:
        return error
    return Result(draft.seq, changed)
