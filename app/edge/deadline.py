"""Deadline: the time after which SQLite ends a statement."""

import time
from typing import Any


class Deadline:
    """Ends a statement that runs past it: SQLite asks every `steps` of its instructions."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = float("inf")

    def watch(self, raw: Any, steps: int) -> None:
        raw.set_progress_handler(self.passed, steps)

    def restart(self) -> None:
        self._until = time.monotonic() + self._seconds

    def lift(self) -> None:
        self._until = float("inf")

    def passed(self) -> int:
        return time.monotonic() > self._until
