"""If-Match and If-None-Match where many write the same key at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.instances.conftest import put
from tests.projects.conftest import Cast, Person

WRITERS = 20
CLIENTS = 5
INCREMENTS = 10


@pytest.fixture
def path(room: str) -> str:
    return f"/api/instances/{room}/keys/a"


def at_once(work: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    """What WRITERS threads hear that begin together."""
    start = threading.Barrier(WRITERS)

    def run(number: int) -> httpx.Response:
        start.wait(10)
        return work(number)

    with ThreadPoolExecutor(WRITERS) as threads:
        return list(threads.map(run, range(WRITERS)))


def seqs_of(cast: Cast, who: Person, path: str) -> list[int]:
    """Every change of the key, oldest first."""
    told = cast.get(who, f"{path.removesuffix('/keys/a')}/history?key=a&limit=1000")["history"]
    return [change["seq"] for change in reversed(told)]


def test_of_twenty_writers_who_know_one_etag_one_succeeds(cast: Cast, alice: Person, path: str) -> None:
    etag = put(cast, alice, path, "first").headers["etag"]
    answers = at_once(lambda number: put(cast, alice, path, number, If_Match=etag))
    (done,) = [answer for answer in answers if answer.status_code == 200]
    assert [answer.status_code for answer in answers].count(412) == WRITERS - 1
    assert {answer.json()["code"] for answer in answers if answer.status_code == 412} == {"precondition_failed"}
    assert cast.get(alice, path) == done.json()
    assert seqs_of(cast, alice, path) == [1, 2]


def test_of_twenty_who_make_a_key_that_must_not_be_there_one_does(cast: Cast, alice: Person, path: str) -> None:
    answers = at_once(lambda number: put(cast, alice, path, number, If_None_Match="*"))
    (done,) = [answer for answer in answers if answer.status_code == 201]
    assert [answer.status_code for answer in answers].count(412) == WRITERS - 1
    assert cast.get(alice, path) == done.json()


def test_of_twenty_who_delete_what_they_know_one_does(cast: Cast, alice: Person, path: str) -> None:
    etag = put(cast, alice, path, "first").headers["etag"]
    answers = at_once(lambda number: cast.call(alice, "DELETE", path, If_Match=etag))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * (WRITERS - 1)
    assert seqs_of(cast, alice, path) == [1, 2]


def test_each_of_twenty_hears_of_its_own_change(cast: Cast, alice: Person, path: str) -> None:
    answers = at_once(lambda number: put(cast, alice, path, number))
    assert [answer.json()["value"] for answer in answers] == list(range(WRITERS))
    assert sorted(answer.status_code for answer in answers) == [200] * (WRITERS - 1) + [201]
    (made,) = [answer for answer in answers if answer.status_code == 201]
    assert made.json()["seq"] == 1
    assert sorted(answer.json()["seq"] for answer in answers) == list(range(1, WRITERS + 1))
    for answer in answers:
        assert answer.headers["etag"].endswith(f'-{answer.json()["seq"]}"')


def test_increments_by_clients_that_try_again_sum_up(cast: Cast, alice: Person, path: str) -> None:
    put(cast, alice, path, 0)
    writers = [cast.person() for _ in range(CLIENTS)]
    for writer in writers:
        cast.share(alice, path.removeprefix("/api/").removesuffix("/keys/a"), "write", writer)

    def increment(writer: Person) -> int:
        lost = 0
        for _ in range(INCREMENTS):
            status = 0
            while status != 200:
                known = cast.call(writer, "GET", path)
                answer = put(cast, writer, path, known.json()["value"] + 1, If_Match=known.headers["etag"])
                status = answer.status_code
                assert status in (200, 412), answer.text
                lost += status == 412
        return lost

    with ThreadPoolExecutor(CLIENTS) as threads:
        lost = sum(threads.map(increment, writers))
    assert lost > 0
    assert cast.get(alice, path)["value"] == CLIENTS * INCREMENTS
    assert len(seqs_of(cast, alice, path)) == CLIENTS * INCREMENTS + 1


def test_both_preconditions_must_hold(cast: Cast, alice: Person, path: str) -> None:
    etag = put(cast, alice, path, 1).headers["etag"]
    assert put(cast, alice, path, 2, If_Match='"other-1"', If_None_Match='"other-1"').status_code == 412
    assert put(cast, alice, path, 2, If_Match=etag, If_None_Match=etag).status_code == 412
    assert put(cast, alice, path, 2, If_Match=f'"other-1", {etag}', If_None_Match='"other-1"').status_code == 200
