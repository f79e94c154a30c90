"""Revert and undo while others write: nothing of theirs is lost without being taken back on purpose."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.projects.conftest import Cast, Json, Person

WRITERS = 3
ROUNDS = 15
KEYS = 4


@pytest.fixture
def writers(cast: Cast, alice: Person, place: str) -> list[Person]:
    made = [cast.person() for _ in range(WRITERS)]
    for writer in made:
        cast.share(alice, place.removeprefix("/api/"), "write", writer)
    return made


@contextmanager
def writing(cast: Cast, writers: list[Person], place: str) -> Iterator[list[Json]]:
    """Meanwhile everybody sets every key over and over; what they were told."""
    enough = threading.Event()
    told: list[Json] = []
    begun = threading.Barrier(len(writers) + 1)

    def write(writer: Person) -> None:
        number = 0
        # The rate of a person ends it too, long after the last round.
        while not enough.is_set() and number < 150:
            path = f"{place}/keys/k{number % KEYS}"
            answer = cast.call(writer, "PUT", path, {"value": f"{writer.clerk_id} {number}"})
            assert answer.status_code in (200, 201), answer.text
            told.append(answer.json())
            number += 1
            if number == KEYS:
                begun.wait(10)

    with ThreadPoolExecutor(len(writers)) as threads:
        running: list[Future[None]] = [threads.submit(write, writer) for writer in writers]
        try:
            begun.wait(10)
            yield told
        finally:
            enough.set()
        for one in running:
            one.result()


def history_of(cast: Cast, who: Person, place: str) -> list[Json]:
    """Every change, oldest first."""
    told: list[Json] = cast.get(who, f"{place}/history?limit=1000")["history"]
    assert told[-1]["seq"] == 1
    return told[::-1]


def states(history: list[Json]) -> list[dict[str, Any]]:
    """What was there after each seq; the first is before the first change."""
    found: list[dict[str, Any]] = [{}]
    for change in history:
        state = dict(found[-1])
        if change["op"] == "set":
            state[change["key"]] = change["value"]
        else:
            del state[change["key"]]
        found.append(state)
    return found


def test_a_revert_is_whole_and_what_comes_after_it_stays(
    cast: Cast, alice: Person, writers: list[Person], place: str
) -> None:
    made: list[tuple[int, Json]] = []
    with writing(cast, writers, place) as told:
        for _ in range(ROUNDS):
            seq = told[-1]["seq"]
            answer = cast.call(alice, "POST", f"{place}/revert", {"seq": seq})
            assert answer.status_code == 200, answer.text
            made.append((seq, answer.json()))
    history = history_of(cast, alice, place)
    after = states(history)
    for seq, reverted in made:
        assert after[reverted["seq"]] == after[seq]
        mine = history[reverted["seq"] - reverted["changed"] : reverted["seq"]]
        assert {change["actor"]["id"] for change in mine} <= {alice.clerk_id}
    assert sum(reverted["changed"] for _, reverted in made) > 0
    assert_all_is_told(history, told)
    now = {key: held["value"] for key, held in cast.get(alice, f"{place}/keys")["keys"].items()}
    assert now == after[-1]


def test_an_undo_takes_nothing_back_that_was_not_asked_for(
    cast: Cast, alice: Person, writers: list[Person], place: str
) -> None:
    undone = 0
    with writing(cast, writers, place) as told:
        for _ in range(ROUNDS):
            answer = cast.call(alice, "POST", f"{place}/undo", {"actor": writers[0].clerk_id})
            assert answer.status_code == 200, answer.text
            undone += answer.json()["changed"]
    history = history_of(cast, alice, place)
    by_seq = {change["seq"]: change for change in history}
    mine = [change for change in history if change["actor"]["id"] == alice.clerk_id]
    assert len(mine) == undone > 0
    for change in mine:
        assert by_seq[change["previous"]["seq"]]["actor"]["id"] == writers[0].clerk_id
    assert_all_is_told(history, told)


def assert_all_is_told(history: list[Json], told: list[Json]) -> None:
    """Every acknowledged change stands in history as it was acknowledged."""
    by_seq: dict[int, Json] = {change["seq"]: change for change in history}
    assert [_heard(by_seq[one["seq"]]) for one in told] == [_heard(one) for one in told]


def _heard(change: Json) -> tuple[str, Any]:
    return change["key"], change["value"]
