"""Ownership: what this machine may believe to own, from its lease, from its replica, and from what it was told.

While one session lasts the primary takes nothing away, so a row that names this machine is true once the replica has
come to where the session began. What the primary answered is kept until the replica has it too.
"""

from app.edge.homes import Home, Machine
from app.edge.lease import Lease
from app.edge.node import Node
from app.edge.transaction import Position

TOLD_HOMES = 10_000


class Ownership:
    """One for the process. `me` is this machine."""

    def __init__(self, me: Machine, lease: Lease, node: Node) -> None:
        self.me = me
        self.lease = lease
        self._node = node
        self._from: Position | None = None
        self._told: dict[str, Home] = {}
        self._left: dict[str, int] = {}

    def begin(self, session: str, sent_at: float, position: Position) -> None:
        """A session has begun; rows are to be believed from `position` on."""
        self._from = position
        self._told.clear()
        self._left.clear()
        self.lease.begin(session, sent_at)

    def tell(self, home: Home) -> None:
        """What the primary said, which the replica may not know yet."""
        known = self._told.get(home.name)
        if known is None or known.number < home.number:
            self._told.pop(home.name, None)
            self._told[home.name] = home
        while len(self._told) > TOLD_HOMES:
            del self._told[next(iter(self._told))]

    def forget(self, name: str) -> None:
        """It is deleted, and its name is never given again."""
        self._told.pop(name, None)

    def newest(self, name: str, row: Home | None) -> Home | None:
        """Of what the replica holds and what the primary said, the later."""
        told = self._told.get(name)
        if told is None or (row is not None and row.number >= told.number):
            self._told.pop(name, None)
            return row
        return told

    def owns(self, home: Home | None) -> bool:
        """Whether this machine may open what `home` is of, and acknowledge for it until its lease ends."""
        if home is None or home.machine != self.me.machine or self.has_left(home):
            return False
        return self.ready

    @property
    def ready(self) -> bool:
        """Whether rows that name this machine are to be believed."""
        return self.lease.held and self._from is not None and self._node.has(self._from)

    def leave(self, home: Home) -> None:
        """Before it is handed over: nothing is acknowledged under this number again, whatever becomes of that."""
        self._left[home.name] = home.number

    def has_left(self, home: Home) -> bool:
        return home.number <= self._left.get(home.name, 0)
