"""Faults during ingestion. What was answered is usage that somebody pays for: none of it may be lost or doubled."""

import random
import resource
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from app.edge import sqlite
from tests.conftest import locked
from tests.usage.conftest import EVENTS, RESERVATIONS, Person, Relay, bearer, differences, first, native

KILLS = 50
POSTERS = 4
MOST_IN_A_BATCH = 20
ACKNOWLEDGED_BEFORE_A_KILL = 120
WAIT_SECONDS = 20.0
BUSY_SECONDS = 5.0
QUEUE_SECONDS = 7.5


class Poster(threading.Thread):
    """A relay that posts batches one after another, and each again until it is acknowledged."""

    def __init__(self, relay: Relay, name: str, up: threading.Event, progress: threading.Condition) -> None:
        super().__init__(name=name)
        self._relay, self._up, self._progress = relay, up, progress
        self._ended = threading.Event()
        self.acknowledged: dict[str, int] = {}
        self.sent: set[str] = set()
        self.repeats = 0
        self.problem: str | None = None

    def run(self) -> None:
        with self._relay.server.client(**bearer(self._relay.key)) as client:
            number = 0
            while not self._ended.is_set() and self.problem is None:
                number += 1
                self._post_until_acknowledged(client, self._batch(number))

    def ask_to_end(self) -> None:
        self._ended.set()

    def end(self) -> None:
        self.join(WAIT_SECONDS)
        assert not self.is_alive()

    def _batch(self, number: int) -> list[dict[str, Any]]:
        size = random.randrange(1, MOST_IN_A_BATCH)
        return [
            {"id": f"{self.name}.{number}.{each}", "userId": self._relay.bob.id, "totalTokens": each + 1}
            for each in range(size)
        ]

    def _post_until_acknowledged(self, client: httpx.Client, batch: list[dict[str, Any]]) -> None:
        self.sent.update(event["id"] for event in batch)
        while not self._ended.is_set():
            self._up.wait(WAIT_SECONDS)
            try:
                answer = client.post(EVENTS, json=batch)
            except httpx.TransportError:
                self.repeats += 1
                continue
            if answer.status_code == 503:
                continue
            self._note(batch, answer)
            return

    def _note(self, batch: list[dict[str, Any]], answer: httpx.Response) -> None:
        if answer.status_code != 200 or answer.json()["rejected"]:
            self.problem = answer.text
        with self._progress:
            self.acknowledged |= {event["id"]: event["totalTokens"] for event in batch}
            self._progress.notify_all()


@contextmanager
def posting(relay: Relay) -> Iterator[tuple[list[Poster], threading.Event, threading.Condition]]:
    """Relays that post while the server is `up`."""
    up, progress = threading.Event(), threading.Condition()
    posters = [Poster(relay, f"poster{number}", up, progress) for number in range(POSTERS)]
    for poster in posters:
        poster.start()
    try:
        yield posters, up, progress
    finally:
        for poster in posters:
            poster.ask_to_end()
        up.set()
        for poster in posters:
            poster.end()


def count(posters: list[Poster]) -> int:
    return sum(len(poster.acknowledged) for poster in posters)


def wait_for(posters: list[Poster], progress: threading.Condition, acknowledged: int) -> None:
    with progress:
        assert progress.wait_for(lambda: count(posters) >= acknowledged, WAIT_SECONDS), "nothing is acknowledged"


def assert_all_present_once(relay: Relay, posters: list[Poster]) -> int:
    """Every acknowledged event is in the ledger, once; the counters are its sums. How many rows there are."""
    rows = relay.rows("SELECT event_id, total_tokens FROM usage_logs")
    present = dict(rows)
    acknowledged = {event: tokens for poster in posters for event, tokens in poster.acknowledged.items()}
    lost = [event for event, tokens in acknowledged.items() if present.get(event) != tokens]
    told = f"{len(acknowledged)} acknowledged, {len(rows)} in the ledger, {len(lost)} lost: {lost[:5]}"
    assert not lost, told
    assert len(rows) == len(present), f"{len(rows) - len(present)} doubled; {told}"
    assert present.keys() <= set().union(*(poster.sent for poster in posters)), told
    assert differences(relay.path) == [], told
    return len(rows)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Relay]:
    """A relay with a server of its own, which a test may kill; not yet started."""
    made = Relay(tmp_path / "data")
    try:
        yield made
    finally:
        made.close()


def test_every_acknowledged_event_survives_fifty_kills(own: Relay) -> None:
    with posting(own) as (posters, up, progress):
        for _ in range(KILLS):
            own.server.start()
            before = count(posters)
            up.set()
            wait_for(posters, progress, before + random.randrange(1, ACKNOWLEDGED_BEFORE_A_KILL))
            own.server.kill()
            up.clear()
            assert_all_present_once(own, posters)
        own.server.start()
        up.set()
        wait_for(posters, progress, count(posters) + 1)
    acknowledged, repeats = count(posters), sum(poster.repeats for poster in posters)
    rows = assert_all_present_once(own, posters)
    told = f"{KILLS} kills, {acknowledged} acknowledged, {rows} in the ledger, {repeats} posted again"
    assert [poster.problem for poster in posters] == [None] * POSTERS, told
    assert repeats >= KILLS // 2, f"the kills did not meet ingestion: {told}"
    assert acknowledged <= rows <= acknowledged + POSTERS * MOST_IN_A_BATCH, told
    (used,) = own.rows("SELECT sum(total_tokens) FROM usage_logs")[0]
    assert own.quota(own.bob)["used"] == used, told
    raw = sqlite.connect(own.path, read_only=True)
    try:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)], told
    finally:
        raw.close()


def test_a_server_that_is_stopped_finishes_what_it_has_accepted(own: Relay) -> None:
    with posting(own) as (posters, up, progress):
        own.server.start()
        up.set()
        wait_for(posters, progress, ACKNOWLEDGED_BEFORE_A_KILL)
        up.clear()
        assert own.server.stop() == 0
        assert_all_present_once(own, posters)


def test_while_another_process_holds_the_lock_writes_are_503_and_reads_go_on(relay: Relay, person: Person) -> None:
    relay.accept(native(person, 1))
    event = native(person, 2)
    with locked(relay.path), ThreadPoolExecutor(POSTERS) as pool:
        begun = time.monotonic()
        refused = [pool.submit(relay.post, each) for each in (event, native(person, 4))]
        hold = pool.submit(relay.reserve, person, 5)
        assert relay.quota(person)["used"] == 1
        assert time.monotonic() - begun < BUSY_SECONDS
        answers = [future.result() for future in (*refused, hold)]
        assert time.monotonic() - begun < QUEUE_SECONDS + 1
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    found = relay.quota(person)
    assert (found["used"], found["reserved"]) == (1, 0)
    assert first(relay.post(event))["status"] == "accepted"


def test_a_short_lock_is_waited_for(relay: Relay, person: Person) -> None:
    with ThreadPoolExecutor(1) as pool:
        with locked(relay.path):
            waiting = pool.submit(relay.post, native(person, 2))
            assert relay.quota(person)["used"] == 0
            assert not waiting.done()
        assert first(waiting.result())["status"] == "accepted"


def test_a_full_disk_refuses_and_keeps_nothing_of_it_then_recovers(own: Relay) -> None:
    person = own.bob
    own.server.start()
    own.accept(native(person, 1))
    accepted: list[str] = []
    refused: list[str] = []
    with full_disk(own):
        for _ in range(10):
            events = [native(person, 1, metadata={"a": "x" * 1_000}) for _ in range(50)]
            answer = own.post(events)
            assert answer.status_code in (200, 503), answer.text
            (accepted if answer.status_code == 200 else refused).extend(event["id"] for event in events)
        assert refused, "the disk was never full"
        assert own.quota(person)["used"] == 1 + len(accepted)
        assert own.reserve(person, 10).status_code in (201, 503)
    after = native(person, 1)
    own.accept(after)
    present = {row["event_id"] for row in own.ledger(person)}
    assert set(accepted) | {after["id"]} <= present
    assert not set(refused) & present
    assert own.quota(person)["used"] == 1 + len(accepted) + 1
    assert differences(own.path) == []


@contextmanager
def full_disk(relay: Relay) -> Iterator[None]:
    """The server's files may not grow: what a write then meets is what it meets on a full disk."""
    assert relay.server.process is not None
    pid, wal = relay.server.process.pid, Path(f"{relay.path}-wal")
    size = max(relay.path.stat().st_size, wal.stat().st_size)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + (64 << 10), resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_relay_that_goes_away_in_the_middle_of_a_body_leaves_nothing(relay: Relay, person: Person) -> None:
    body = msgspec.json.encode(native(person, 5))
    head = head_of(relay, body)
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", relay.server.port)) as connection:
            connection.sendall(head + body[:-1])
    relay.accept(native(person, 3))
    assert relay.quota(person)["used"] == 3


def test_a_relay_that_does_not_wait_for_its_answer_can_ask_again(relay: Relay, person: Person) -> None:
    event = native(person, 5)
    body = msgspec.json.encode(event)
    head = head_of(relay, body)
    with socket.create_connection(("127.0.0.1", relay.server.port)) as connection:
        connection.sendall(head + body)
    assert first(relay.post(event))["status"] in ("accepted", "duplicate")
    assert relay.quota(person)["used"] == 5


def head_of(relay: Relay, body: bytes) -> bytes:
    lines = (f"POST {EVENTS} HTTP/1.1", "Host: x", f"Authorization: Bearer {relay.key}", f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode()


def test_no_fault_here_was_an_unexpected_one(relay: Relay, person: Person) -> None:
    relay.post({"userId": person.id, "maxTokens": 1}, url=RESERVATIONS)
    assert "unexpected" not in relay.server.log()
