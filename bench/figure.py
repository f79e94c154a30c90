"""A figure: what was measured, beside what, and whether that meets the aim."""

from statistics import median
from typing import NamedTuple

from bench import rounds


class Figure(NamedTuple):
    """With a `baseline`, the aim is the least ratio to it; without one, the most that `median` may be."""

    name: str
    median: float
    unit: str
    baseline_name: str | None = None
    baseline: float | None = None
    ratio: float | None = None
    aim: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """None where there is no aim."""
        if self.aim is None:
            return None
        return self.ratio >= self.aim if self.ratio is not None else self.median <= self.aim


class Missing(NamedTuple):
    """A figure that could not be taken, and why."""

    name: str
    reason: str


def compared(
    name: str,
    unit: str,
    measured: list[float],
    baseline_name: str,
    baseline: list[float],
    aim: float | None = None,
    note: str = "",
) -> Figure:
    """A figure from the rounds of both."""
    compared = rounds.ratio(measured, baseline)
    return Figure(name, median(measured), unit, baseline_name, median(baseline), compared, aim, note)
