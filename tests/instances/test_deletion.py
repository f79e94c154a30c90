"""Deletion while others write: everybody is told, nobody is acknowledged afterwards, no file stays."""

import threading
import time
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.instances.conftest import in_background, joined, turned_away
from tests.projects.conftest import OPERATOR, Cast, Person
from tests.waiting import until

WARM_ROUNDS = 5
COLD_ROUNDS = 60
LATER_SECONDS = 0.0005
WRITERS = 4
CALLERS = 3
DIALERS = 2
ANSWERS_BEFORE = 20
CALLS_AFTER = 5
GONE_SECONDS = 5.0
DELETED = 1000, "Instance deleted"


class Crowd:
    """Sockets that write, REST callers, and sockets that come and go, at one instance until it is deleted."""

    def __init__(self, strict: Cast, who: Person, room: str) -> None:
        self.strict = strict
        self.who = who
        self.room = room
        self.answered = threading.Semaphore(0)
        # By the monotonic clock; what was said later must not be acknowledged.
        self.deleted_at = float("inf")
        self.acked_at: list[float] = []
        self.closings: list[tuple[int, str]] = []
        self.calls: list[tuple[float, int]] = []
        self.refusals: list[int] = []

    def write(self) -> None:
        with joined(self.strict.server, self.room, self.who.headers) as peer:
            try:
                for number in range(100_000):
                    said_at = time.monotonic()
                    peer.say("set", key=f"k{number % 9}", value=number, opId=f"{id(peer)}-{number}")
                    # Who never reads would not come to the Close frame behind all the others' changes.
                    peer.until("ack")
                    self.acked_at.append(said_at)
                    self.answered.release()
            except ConnectionClosed:
                self.closings.append(peer.closed())

    def call(self, client: httpx.Client, method: str) -> None:
        """Until it was answered so many times after the deletion."""
        after = 0
        while after < CALLS_AFTER:
            said_at = time.monotonic()
            answer = client.request(method, f"/api/instances/{self.room}/keys/r", json={"value": said_at})
            self.calls.append((said_at, answer.status_code))
            self.answered.release()
            after += said_at > self.deleted_at

    def dial(self) -> None:
        """Until it is turned away."""
        while True:
            try:
                with joined(self.strict.server, self.room, self.who.headers):
                    pass
            except ConnectionClosed:
                pass
            except InvalidStatus as refused:
                self.refusals.append(refused.response.status_code)
                return

    def delete(self) -> None:
        assert self.strict.call(self.who, "DELETE", f"/api/instances/{self.room}").status_code == 200
        self.deleted_at = time.monotonic()


def files_of(strict: Cast, room: str) -> list[Path]:
    return list(strict.path.parent.glob(f"instances/*/{room}.db*"))


def until_gone(strict: Cast, room: str) -> None:
    until(lambda: not files_of(strict, room), GONE_SECONDS)


@pytest.fixture
def project(strict: Cast, alice: Person) -> dict[str, str]:
    """A project of alice's that tells an address of every change, so that files owe events, too."""
    made: dict[str, str] = strict.project(alice)
    hook = {"url": "https://192.0.2.1/", "projectId": made["id"], "events": ["key.created", "key.updated"]}
    strict.make(alice, "/api/webhooks", hook)
    return made


def test_deletion_under_writers_ends_everything_at_once(strict: Cast, alice: Person, project: dict[str, str]) -> None:
    rooms = []
    for _ in range(WARM_ROUNDS):
        room = strict.instance(alice, project)["id"]
        crowd = Crowd(strict, alice, room)
        with strict.server.client(**OPERATOR) as client:
            threads = [in_background(crowd.write) for _ in range(WRITERS)]
            threads += [in_background(crowd.call, client, "PUT") for _ in range(CALLERS)]
            threads += [in_background(crowd.dial) for _ in range(DIALERS)]
            for _ in range(ANSWERS_BEFORE * (WRITERS + CALLERS)):
                assert crowd.answered.acquire(timeout=10)
            crowd.delete()
            for thread in threads:
                thread.join(20)
                assert not thread.is_alive()
        assert crowd.closings == [DELETED] * WRITERS
        assert crowd.refusals == [404] * DIALERS
        assert max(crowd.acked_at) < crowd.deleted_at
        assert {status for _, status in crowd.calls} == {200, 201, 404}
        assert {status for said_at, status in crowd.calls if said_at > crowd.deleted_at} == {404}
        assert turned_away(strict.server, room, alice.headers)[0] == 404
        until_gone(strict, room)
        rooms.append(room)
    assert [room for room in rooms if files_of(strict, room)] == []
    log = strict.server.log()
    assert not any(word in log for word in ("Traceback", "events_not_carried", "commit_failed", "unexpected"))


def test_an_instance_that_is_opened_while_it_is_deleted_stays_deleted(
    strict: Cast, alice: Person, project: dict[str, str]
) -> None:
    """Who opens a file has looked before whether the instance is there: it must not make the file anew."""
    rooms = [strict.instance(alice, project)["id"] for _ in range(COLD_ROUNDS)]
    with strict.server.client(**OPERATOR) as client:
        for number, room in enumerate(rooms):
            crowd = Crowd(strict, alice, room)
            threads = [in_background(crowd.call, client, method) for method in ("PUT", "GET")]
            # Each round a little later, so that the deletion falls on every step of opening.
            time.sleep(number * LATER_SECONDS)
            crowd.delete()
            for thread in threads:
                thread.join(20)
                assert not thread.is_alive()
            assert {status for _, status in crowd.calls} <= {200, 201, 404}
            assert {status for said_at, status in crowd.calls if said_at > crowd.deleted_at} == {404}
            until_gone(strict, room)
    assert [room for room in rooms if files_of(strict, room)] == []
