"""Presence: where members say they are. Nothing of it is stored, and only those that say so themselves hear it."""

import asyncio

import msgspec

from app.instances import protocol
from app.instances.member import Member

# A member's state is passed on at once, and then at most this often: the newest at the end of the interval.
PRESENCE_SECONDS = 0.1


class Presence:
    """The members of one instance that said where they are; one timer for all of them, and none when it is quiet."""

    def __init__(self) -> None:
        self._present: dict[str, Member] = {}
        self._states: dict[str, bytes] = {}
        # Who was passed on in this interval, and who of them has said something new since.
        self._recent: set[str] = set()
        self._stale: set[str] = set()

    def say(self, member: Member, state: msgspec.Raw) -> None:
        if member.id not in self._present:
            self._present[member.id] = member
            for other, held in self._states.items():
                member.outbox.send(held, _name(other))
        self._states[member.id] = protocol.presence(member.id, member.caller.public_id, state)
        if member.id in self._recent:
            self._stale.add(member.id)
            return
        if not self._recent:
            asyncio.get_running_loop().call_later(PRESENCE_SECONDS, self._end_interval)
        self._recent.add(member.id)
        self._pass_on(member.id, self._states[member.id])

    def leave(self, member: Member) -> None:
        """Say so at once, to those who heard of it."""
        if self._present.pop(member.id, None) is not None:
            del self._states[member.id]
            self._stale.discard(member.id)
            self._pass_on(member.id, protocol.presence(member.id, member.caller.public_id, protocol.NULL))

    def _end_interval(self) -> None:
        self._recent, self._stale = self._stale, set()
        for sender in self._recent:
            self._pass_on(sender, self._states[sender])
        if self._recent:
            asyncio.get_running_loop().call_later(PRESENCE_SECONDS, self._end_interval)

    def _pass_on(self, sender: str, payload: bytes) -> None:
        for member in self._present.values():
            if member.id != sender:
                member.outbox.send(payload, _name(sender))


def _name(sender: str) -> tuple[str, str]:
    return "presence", sender
