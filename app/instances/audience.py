"""The audience: the members of an instance, and what all of them hear."""

import time
from collections.abc import Sequence

from app.edge.framing import frame_texts
from app.instances import endings
from app.instances.draft import Told
from app.instances.member import Member
from app.instances.presence import Presence


class Audience:
    """`left_at` is when the last member left, by the monotonic clock."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.presence = Presence()
        self.left_at = time.monotonic()

    def enter(self, member: Member) -> None:
        self.members[member.id] = member

    def hear(self, told: Sequence[Told]) -> None:
        """Changes that were committed: framed once, joined, one write for each member."""
        if told:
            shared = frame_texts([one.frame for one in told])
            for member in list(self.members.values()):
                member.hear(told, shared)

    def leave(self, member: Member) -> None:
        if self.members.pop(member.id, None) is not None:
            self.left_at = time.monotonic()
            self.presence.leave(member)

    def close_all(self, code: int, reason: str, last: bytes | None = None) -> None:
        for member in list(self.members.values()):
            if last is not None:
                member.send(last)
            member.socket.close(code, reason)

    def send_away(self) -> None:
        self.close_all(endings.GOING_AWAY, endings.GOING_AWAY_REASON, endings.going_away())

    def drop_slow(self, now: float) -> None:
        """Close whoever has taken nothing for too long. `now` is of the monotonic clock."""
        for member in list(self.members.values()):
            if member.outbox.overdue(now):
                member.outbox.drop()
