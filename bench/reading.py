"""Reads: quota and profile, by key and by token, and quota over a short and a long ledger."""

from collections.abc import Callable, Iterator

from bench import messages, world
from bench.figure import Figure, compared
from bench.rounds import interleave
from bench.stage import Stage

CONNECTIONS = 16
EMPTY = "empty GET"
READ_RATIO = 0.6
LONG_RATIO = 0.9
SHORT_LEDGER = 10_000
MICROSECONDS = 1_000_000


def measure_quota(stage: Stage) -> Iterator[Figure]:
    """Quota as a relay asks for it, with its key and a user's id."""
    asked = messages.get(f"{messages.QUOTA}?userId={messages.user_name(1)}", stage.key)
    yield _beside_empty(stage, "quota, by key", asked)


def measure_tokens(stage: Stage) -> Iterator[Figure]:
    """Quota as a client asks for it, with a token that the server has verified before, and with a new one each time."""
    token = messages.get(messages.QUOTA, stage.clerk.token(world.READER))
    yield _beside_empty(stage, "quota, by token", token)
    yield _first_seen(stage, token)


def measure_profile(stage: Stage) -> Iterator[Figure]:
    asked = messages.get(messages.PROFILE, stage.clerk.token(world.READER))
    yield _beside_empty(stage, "profile, by token", asked)


def measure_length(stage: Stage) -> Iterator[Figure]:
    """The same question to two servers whose ledgers differ in length only."""
    short = _quota_rate(stage, SHORT_LEDGER)
    long = _quota_rate(stage, stage.extent.long_ledger)
    given = interleave(stage.extent.rounds, {"long": long, "short": short})
    name, baseline = f"quota at {stage.extent.long_ledger:,} rows", f"at {SHORT_LEDGER:,}"
    yield compared(name, "requests/s", given["long"], baseline, given["short"], LONG_RATIO)


def _beside_empty(stage: Stage, name: str, request: bytes) -> Figure:
    stage.require(stage.litehouse, request)
    subjects = {
        "litehouse": lambda: stage.drive(stage.litehouse, (request,), CONNECTIONS).rate,
        EMPTY: lambda: stage.drive(stage.empty, (request,), CONNECTIONS).rate,
    }
    given = interleave(stage.extent.rounds, subjects)
    ours, theirs = (stage.cost(server, stage.extent.rounds) for server in (stage.litehouse, stage.empty))
    note = f"{ours:.0f} µs of processor, empty {theirs:.0f}"
    return compared(name, "requests/s", given["litehouse"], EMPTY, given[EMPTY], READ_RATIO, note)


def _first_seen(stage: Stage, seen: bytes) -> Figure:
    """Each token is sent once. What a verification costs is the difference to the token seen before."""

    def measure_new() -> float:
        tokens = [stage.clerk.token(world.READER) for _ in range(stage.extent.tokens)]
        requests = tuple(messages.get(messages.QUOTA, token) for token in tokens)
        return stage.drive(stage.litehouse, requests, CONNECTIONS, most=len(requests)).rate

    subjects = {
        "new": measure_new,
        "seen": lambda: stage.drive(stage.litehouse, (seen,), CONNECTIONS, most=stage.extent.tokens).rate,
    }
    given = interleave(stage.extent.rounds, subjects)
    figure = compared("quota, by a new token", "requests/s", given["new"], "a known token", given["seen"])
    cost = MICROSECONDS / figure.median - MICROSECONDS / (figure.baseline or figure.median)
    return figure._replace(note=f"{cost:.0f} µs a verification")


def _quota_rate(stage: Stage, rows: int) -> Callable[[], float]:
    data = stage.folder / f"rows-{rows}"
    key = world.make(data / "core.db")
    world.fill(data / "core.db", rows)
    server = stage.serve(data)
    asked = messages.get(f"{messages.QUOTA}?userId={world.READER}", key)
    return lambda: stage.drive(server, (asked,), CONNECTIONS).rate
