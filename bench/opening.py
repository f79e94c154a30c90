"""Opening: the first answer of an instance that nobody has used since the server started, beside its second."""

import http.client
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median

import msgspec

from bench import hubs, messages, process
from bench.dialects import VALUE_CHARACTERS
from bench.figure import Figure
from bench.process import Refused
from bench.stage import Stage

KEYS = 1_000
OPENING_MS = 10.0
ANSWER_SECONDS = 10.0
MILLISECONDS = 1_000
# Opened before the first that is timed: what the server itself does only once is not what an instance costs.
WARM_UPS = 3


def measure_opening(stage: Stage) -> Iterator[Figure]:
    """From the request for one key to the answer. Files were just written: the disk's cache is warm."""
    instance_ids = [f"asleep-{number}" for number in range(WARM_UPS + stage.extent.instances)]
    data = stage.folder / "opening"
    hubs.make(data, instance_ids)
    _fill(stage, data, instance_ids)
    first, second = [], []
    with process.litehouse(data, **stage.production()) as server, closing(_connection(server.port)) as connection:
        for instance_id in instance_ids:
            first.append(_milliseconds(connection, instance_id, stage.reader))
            second.append(_milliseconds(connection, instance_id, stage.reader))
    first, second = first[WARM_UPS:], second[WARM_UPS:]
    slowest = sorted(first)[round(0.99 * (len(first) - 1))]
    note = f"p99 {slowest:.1f} ms, of {len(first)} instances; {median(first) / median(second):.1f} times a second GET"
    name = f"opening an instance of {KEYS:,} keys"
    yield Figure(name, median(first), "ms", "a second GET", median(second), aim=OPENING_MS, note=note)


def _fill(stage: Stage, data: Path, instance_ids: list[str]) -> None:
    """Import the keys; that server ends, so that the next one has every instance still to open."""
    body = msgspec.json.encode({_key(number): {"value": "x" * VALUE_CHARACTERS} for number in range(KEYS)})
    headers = {"Authorization": f"Bearer {stage.reader}"}
    with process.litehouse(data, **stage.production()) as server:
        for instance_id in instance_ids:
            stage.require(server, messages.post(f"/api/instances/{instance_id}/import", body, headers))


def _connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)


def _milliseconds(connection: http.client.HTTPConnection, instance_id: str, token: str) -> float:
    target = f"/api/instances/{instance_id}/keys/{_key(KEYS // 2)}"
    begun = time.perf_counter()
    connection.request("GET", target, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    body = answer.read()
    spent = time.perf_counter() - begun
    if answer.status != 200 or "x" * VALUE_CHARACTERS not in body.decode():
        raise Refused(f"GET {target} answered {answer.status}: {body[:200]!r}")
    return MILLISECONDS * spent


def _key(number: int) -> str:
    return f"key-{number:04d}"
