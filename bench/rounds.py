"""Rounds: subjects measured in turn, A B A B, so that a busy moment of the machine meets them all alike."""

from collections.abc import Callable, Mapping
from statistics import median

# The first run of each only warms it up: caches, statements, the branch predictor, the growing file.
WARM_UPS = 1

Subject = Callable[[], float]


def interleave(rounds: int, subjects: Mapping[str, Subject]) -> dict[str, list[float]]:
    """What each subject gave in each round."""
    given: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(WARM_UPS + rounds):
        for name, measure in subjects.items():
            value = measure()
            if number >= WARM_UPS:
                given[name].append(value)
    return given


def ratio(measured: list[float], baseline: list[float]) -> float:
    """The median of the rounds' own ratios: both halves of each were measured in the same seconds."""
    return median(one / other for one, other in zip(measured, baseline, strict=True))
