"""The lease of this machine: until when it may acknowledge for what it owns.

It belongs to the machine, not to what it owns. Its end is counted from the sending of the last heartbeat that the
primary answered, on a clock that goes on while the machine sleeps, so it ends here before the primary's own count
of it does, however long the answer was on its way.
"""

import time
from collections.abc import Callable

from app.errors import Unavailable

LEASE_SECONDS = 90.0
HEARTBEAT_SECONDS = 1.0
TICK_SECONDS = 0.5
# A process that did not tick for so long was paused, and an operator may have called its machine lost meanwhile.
PAUSE_SECONDS = 3.0


def boot_time() -> float:
    """Seconds since the machine was started, those that it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fenced(Unavailable):
    """This machine may not acknowledge: somebody else may own by now what it did."""

    def __init__(self) -> None:
        super().__init__("This machine has lost its lease: try again")


class Lease:
    """Held under the session that the primary gave; `check` before a commit, and before it is acknowledged.

    Once it is ticked, a pause makes it doubtful: it is not held until a heartbeat that was sent after it is answered.
    """

    def __init__(self, clock: Callable[[], float] = boot_time) -> None:
        self._clock = clock
        self._until = float("-inf")
        self._ticked: float | None = None
        self._doubted_at: float | None = None
        self.session: str | None = None

    @property
    def held(self) -> bool:
        self._look()
        return self._doubted_at is None and self._clock() < self._until

    @property
    def seconds_left(self) -> float:
        """For how long it is held if no other heartbeat is answered; 0 while it is not held."""
        return self._until - self._clock() if self.held else 0.0

    def tick(self) -> None:
        """This process runs: say so every TICK_SECONDS."""
        self._look()
        self._ticked = self._clock()

    def sending(self) -> float:
        """The moment at which a heartbeat is sent; `renew` is told it with the answer."""
        return self._clock()

    def begin(self, session: str, sent_at: float) -> None:
        """A new session: whatever was owned under the one before has to be asked for anew."""
        self.session = session
        self._until = sent_at + LEASE_SECONDS

    def renew(self, session: str, sent_at: float) -> None:
        """The primary has answered a heartbeat. One of a session that has ended says nothing."""
        self._look()
        if session == self.session:
            if self._doubted_at is not None and sent_at >= self._doubted_at:
                self._doubted_at = None
            self._until = max(self._until, sent_at + LEASE_SECONDS)

    def end(self) -> None:
        """The primary has ended the session, or this machine gives up what it owns."""
        self.session = None
        self._until = float("-inf")

    def _look(self) -> None:
        now = self._clock()
        if self._ticked is not None and now - self._ticked > PAUSE_SECONDS:
            self._doubted_at = self._ticked = now

    def check(self) -> None:
        """Fenced when the lease is over."""
        if not self.held:
            raise Fenced
