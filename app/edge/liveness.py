"""Liveness: when the primary last heard each machine that owns something, and whether it is gone.

It is memory: a primary that starts has heard everybody at its start, so it gives nothing away for one lease.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from app.edge.lease import LEASE_SECONDS

# A process whose port refuses for so long has ended and was not started again.
REFUSED_SECONDS = 2.0
# Clocks of two machines may differ in their pace by a hundredth of a lease.
PACE_SECONDS = LEASE_SECONDS / 100


class Liveness:
    """`clock` may stop while the primary sleeps: that only makes it wait longer."""

    def __init__(self, sessions: Mapping[str, str | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._sessions = dict(sessions)
        self._clock = clock
        self._began = clock()
        self._heard: dict[str, float] = {}
        self._sessions_began: dict[str, float] = {}
        self._refusing: dict[str, float] = {}
        self._leaving: set[str] = set()
        # Of each that is lost or has left, what stays its own.
        self._lost: dict[str, frozenset[str]] = {}

    def began(self, machine: str, session: str) -> None:
        """A new session was committed."""
        self._sessions[machine] = session
        self._sessions_began[machine] = self._clock()
        self._lost.pop(machine, None)
        self._hear(machine)

    def heard(self, machine: str, session: str) -> bool:
        """A heartbeat. False when it must not be answered as a renewal: that session has ended or is about to."""
        if machine in self._leaving or self._sessions.get(machine) != session:
            return False
        self._hear(machine)
        return True

    @property
    def now(self) -> float:
        """The moment at which a port is tried; `refuses` is told it with the outcome."""
        return self._clock()

    def refuses(self, machine: str, tried_at: float) -> None:
        """Its port has refused a connection; of a process that was heard since then that says nothing."""
        if self._heard.get(machine, float("-inf")) <= tried_at:
            self._refusing.setdefault(machine, self._clock())

    def accepts(self, machine: str) -> None:
        """Its port did not refuse: somebody is there, or nobody can tell."""
        self._refusing.pop(machine, None)

    def is_gone(self, machine: str, name: str) -> bool:
        """Whether what it owns under a name may be given to others."""
        if self.is_lost(machine) and name not in self._lost[machine]:
            return True
        refusing = self._refusing.get(machine)
        if refusing is not None and self._clock() - refusing >= REFUSED_SECONDS:
            return True
        return self.is_over(machine)

    def is_over(self, machine: str) -> bool:
        """Whether its lease is over because it was not heard: then its port has nothing more to say."""
        return self._clock() - self._heard.get(machine, self._began) >= LEASE_SECONDS + PACE_SECONDS

    def lost(self, machine: str, kept: Collection[str] = ()) -> None:
        """An operator has said that it is gone, or it has by itself: it keeps what is `kept` as if it had not."""
        self._lost[machine] = frozenset(kept)

    def is_lost(self, machine: str) -> bool:
        return machine in self._lost

    def seconds_since(self, machine: str) -> float | None:
        """How long ago it was heard; None when it was not since this primary began."""
        heard = self._heard.get(machine)
        return None if heard is None else self._clock() - heard

    def seconds_of_session(self, machine: str) -> float:
        """How long its session has lasted, as far as this primary knows; 0 when it has none."""
        if self._sessions.get(machine) is None:
            return 0.0
        return self._clock() - self._sessions_began.get(machine, self._began)

    @contextmanager
    def leaving(self, machine: str) -> Iterator[None]:
        """While something of it is given away none of its heartbeats is answered: the answer would outlive that."""
        self._leaving.add(machine)
        try:
            yield
        finally:
            self._leaving.discard(machine)

    def ended(self, machine: str) -> None:
        """The end of its session was committed."""
        self._sessions[machine] = None

    def _hear(self, machine: str) -> None:
        self._heard[machine] = self._clock()
        self._refusing.pop(machine, None)
