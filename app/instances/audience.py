"""The audience: the members of an instance, what all of them hear, and who of them says where it is."""

import time
from collections.abc import Sequence

import msgspec

from app.edge.framing import frame_texts
from app.instances import protocol
from app.instances.draft import Told
from app.instances.member import Member


class Audience:
    """`left_at` is when the last member left, by the monotonic clock."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.left_at = time.monotonic()
        self._presence: dict[str, bytes] = {}

    def enter(self, member: Member) -> None:
        self.members[member.id] = member

    def hear(self, told: Sequence[Told]) -> None:
        """Changes that were committed: framed once, joined, one write for each member."""
        if told:
            shared = frame_texts([one.frame for one in told])
            for member in list(self.members.values()):
                member.hear(told, shared)

    def leave(self, member: Member) -> None:
        if self.members.pop(member.id, None) is None:
            return
        self.left_at = time.monotonic()
        if member.present:
            self._presence.pop(member.id, None)
            self._tell_present(protocol.presence(member.id, member.caller.public_id, protocol.NULL), member)

    def be_present(self, member: Member, state: msgspec.Raw) -> None:
        """Pass on where a member is; only those that say so themselves hear it."""
        newcomer = not member.present
        member.present = True
        self._presence[member.id] = protocol.presence(member.id, member.caller.public_id, state)
        if newcomer:
            member.socket.write_joined([held for other, held in self._presence.items() if other != member.id])
        self._tell_present(self._presence[member.id], member)

    def close_all(self, code: int, reason: str, last: bytes | None = None) -> None:
        for member in list(self.members.values()):
            if last is not None:
                member.send(last)
            member.socket.close(code, reason)

    def drop_slow(self, now: float) -> None:
        for member in list(self.members.values()):
            if member.overdue(now):
                member.drop()

    def _tell_present(self, payload: bytes, sender: Member) -> None:
        for member in self.members.values():
            if member.present and member is not sender and not member.slow:
                member.send(payload)
