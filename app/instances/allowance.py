"""The allowance of a connection: how many changes it may still send before it is not read for a while."""

import time

from app.instances.protocol import MESSAGES_BURST, MESSAGES_PER_SECOND


class Allowance:
    """A bucket of MESSAGES_BURST that fills by MESSAGES_PER_SECOND."""

    def __init__(self) -> None:
        self._left = float(MESSAGES_BURST)
        self._at = time.monotonic()

    def take(self, count: int) -> float:
        """Seconds until there is something left again: 0 while there is."""
        now = time.monotonic()
        filled = self._left + (now - self._at) * MESSAGES_PER_SECOND
        self._left, self._at = min(float(MESSAGES_BURST), filled) - count, now
        return max(0.0, -self._left / MESSAGES_PER_SECOND)

    def give_back(self, count: int) -> None:
        """What turned out to be free."""
        self._left = min(float(MESSAGES_BURST), self._left + count)
