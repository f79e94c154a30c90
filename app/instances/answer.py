"""The answer: what who asked is told of its own changes, beside what everybody hears of them."""

from collections.abc import Sequence

from app.errors import AppError
from app.instances import protocol
from app.instances.draft import Change, Refusal, State
from app.instances.mailbox import Ask, Result
from app.instances.member import Member
from app.instances.protocol import NO_PERMISSION, PARSE_ERROR, TOO_LARGE, UNAVAILABLE, Clear, Delete, Set


def answer(ask: Ask, outcome: Result | AppError, state: State | None, now: int) -> None:
    """The outcome to a call that waits for it, frames to a member.

    Without a `state`, which a hub that has ended cannot vouch for, nobody is told what a key holds.
    """
    if ask.member is not None:
        _tell(ask.member, ask, outcome, state, now)
    elif ask.future is None or ask.future.done():
        return
    elif isinstance(outcome, AppError):
        ask.future.set_exception(outcome)
    else:
        ask.future.set_result(outcome)


def _tell(member: Member, ask: Ask, outcome: Result | AppError, state: State | None, now: int) -> None:
    """An acknowledgement, or what its key really holds and why it was refused."""
    if isinstance(outcome, Result):
        assert state is not None
        _acknowledge(member, ask, outcome, state, now)
        return
    refusal = outcome if isinstance(outcome, Refusal) else _refusal_of(outcome, ask.changes)
    if state is None:
        member.error(refusal.message, refusal.frame_code, ask.op_id)
        return
    stored = state.entries.get(refusal.key) if refusal.key is not None else None
    member.refuse(refusal, stored, now, state.seq, ask.op_id)


def _acknowledge(member: Member, ask: Ask, result: Result, state: State, now: int) -> None:
    if result.changed == 0:
        for change in ask.changes:
            if isinstance(change, Delete):
                # A delete of what is not there is told to its sender only. It has heard the whole turn by now: where a
                # later change has set the key, that is what holds.
                member.show(change.key, state.entries.get(change.key), now, state.seq)
    if ask.op_id is not None:
        member.send(protocol.ack(ask.op_id, result.seq))
        return
    sets = sum(isinstance(change, Set) for change in ask.changes)
    member.allowance.give_back(max(0, sets - result.changed))


def _refusal_of(error: AppError, changes: Sequence[Change]) -> Refusal:
    """An error of another kind, in the words of a frame."""
    code = {"forbidden": NO_PERMISSION, "too_large": TOO_LARGE, "unavailable": UNAVAILABLE}
    key = next((change.key for change in changes if not isinstance(change, Clear)), None)
    return Refusal(code.get(error.code, PARSE_ERROR), error.message, key)
