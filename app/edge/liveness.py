"""Liveness: when the primary last heard each machine that owns something, and whether it is gone.

It is memory: a primary that starts has heard everybody at its start, so it gives nothing away for one lease.
"""

import time
from collections.abc import Callable, Iterator, Mapping
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
        self._refusing: dict[str, float] = {}
        self._leaving: set[str] = set()
        self._lost: set[str] = set()

    def began(self, machine: str, session: str) -> None:
        """A new session was committed."""
        self._sessions[machine] = session
        self._lost.discard(machine)
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

    def is_gone(self, machine: str) -> bool:
        """Whether what it owns may be given to others."""
        if machine in self._lost:
            return True
        now = self._clock()
        refusing = self._refusing.get(machine)
        if refusing is not None and now - refusing >= REFUSED_SECONDS:
            return True
        return now - self._heard.get(machine, self._began) >= LEASE_SECONDS + PACE_SECONDS

    def lost(self, machine: str) -> None:
        """An operator has said that it is gone."""
        self._lost.add(machine)

    def seconds_since(self, machine: str) -> float | None:
        """How long ago it was heard; None when it was not since this primary began."""
        heard = self._heard.get(machine)
        return None if heard is None else self._clock() - heard

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
