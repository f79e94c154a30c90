"""A turn: what has gathered in a mailbox, applied to one draft in order."""

from collections.abc import Collection, Mapping, Sequence

from app.errors import AppError
from app.instances.draft import Draft, Refusal
from app.instances.mailbox import Ask, Result
from app.instances.protocol import NO_PERMISSION
from app.instances.queries import Operation

# A principal and its name for an operation.
Name = tuple[str, str]
# None for what is not decided yet.
Outcome = Result | AppError | None


def named_in(asks: Sequence[Ask]) -> list[Name]:
    """The operations that were given a name, so that each is applied once."""
    return sorted({(ask.caller.principal, ask.op_id) for ask in asks if ask.op_id is not None})


def apply_all(
    draft: Draft, asks: Sequence[Ask], before: Mapping[Name, int], doubted: Collection[str] | None = None
) -> tuple[list[Outcome], list[Operation]]:
    """What becomes of each once the draft is committed, and the operations that are new.

    `before` are operations that were applied before, and the seq of each. Members of whom a refusal is `doubted` wait,
    and so does who is refused now for want of a permission; None where no refusal is.
    """
    applied = dict(before)
    waiting = None if doubted is None else set(doubted)
    fresh: list[Operation] = []
    outcomes: list[Outcome] = []
    for ask in asks:
        name = ask.caller.principal, ask.op_id or ""
        outcome = _decide(draft, ask, applied.get(name), waiting)
        outcomes.append(outcome)
        if ask.op_id is not None and name not in applied and isinstance(outcome, Result):
            applied[name] = outcome.seq
            fresh.append(Operation(*name, outcome.seq, outcome.kept))
    return outcomes, fresh


def _decide(draft: Draft, ask: Ask, applied_at: int | None, waiting: set[str] | None) -> Outcome:
    if ask.member is None or waiting is None:
        return _apply(draft, ask, applied_at)
    if ask.member.id in waiting:
        return None
    outcome = _apply(draft, ask, applied_at)
    if isinstance(outcome, Refusal) and outcome.frame_code == NO_PERMISSION and not ask.sure:
        waiting.add(ask.member.id)
        return None
    return outcome


def _apply(draft: Draft, ask: Ask, applied_at: int | None) -> Result | AppError:
    if ask.refusal is not None:
        return ask.refusal

    def apply() -> Result:
        if applied_at is not None:
            return Result(applied_at, 0)
        sender = ask.member.id if ask.member is not None else None
        changed = draft.apply(ask.changes, ask.caller, sender=sender, op_id=ask.op_id, turn_id=ask.turn_id)
        return Result(draft.seq, changed)

    try:
        return apply() if ask.around is None else ask.around(draft, apply)
    except AppError as error:
        return error
