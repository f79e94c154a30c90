"""GET /api/instances/:id/history."""

import pytest

from app.instances.history import PAGE_BYTES
from app.instances.protocol import VALUE_BYTES
from tests.projects.conftest import Cast, Person


@pytest.fixture
def place(cast: Cast, alice: Person, place: str) -> str:
    """An instance with two changes: `a` was made and changed."""
    for value in (1, 2):
        cast.call(alice, "PUT", f"{place}/keys/a", {"value": value})
    return place


def test_history_says_who_changed_what_newest_first(cast: Cast, alice: Person, place: str) -> None:
    cast.call(alice, "DELETE", f"{place}/keys/a")
    told = cast.get(alice, f"{place}/history")
    assert told["seq"] == 3
    deleted, changed, made = told["history"]
    assert (deleted["op"], changed["op"], made["op"]) == ("delete", "set", "set")
    assert deleted.keys() == {"seq", "at", "op", "key", "actor", "previous"}
    assert deleted["previous"]["value"] == 2
    assert (changed["seq"], changed["key"], changed["value"], changed["previous"]["value"]) == (2, "a", 2, 1)
    assert made.keys() == {"seq", "at", "op", "key", "value", "attributes", "actor"}
    assert made["actor"] == {"kind": "user", "id": alice.clerk_id}


def test_history_is_narrowed_by_key_actor_and_seq(cast: Cast, alice: Person, place: str) -> None:
    bob = cast.person()
    cast.share(alice, place.removeprefix("/api/"), "write", bob)
    cast.call(bob, "PUT", f"{place}/keys/b", {"value": 1})

    def seqs(query: str) -> list[int]:
        return [change["seq"] for change in cast.get(alice, f"{place}/history?{query}")["history"]]

    assert seqs("key=a") == [2, 1]
    assert seqs(f"actor={bob.clerk_id}") == seqs(f"actor={bob.id}") == [3]
    assert seqs("since=1") == [3, 2]
    assert seqs("since=3") == []


def test_pages_follow_each_other(cast: Cast, alice: Person, place: str) -> None:
    first = cast.call(alice, "GET", f"{place}/history?limit=1&key=a")
    assert [change["seq"] for change in first.json()["history"]] == [2]
    second = cast.call(alice, "GET", first.links["next"]["url"])
    assert [change["seq"] for change in second.json()["history"]] == [1]
    assert "next" not in second.links


def test_a_page_ends_early_where_its_values_are_large(cast: Cast, alice: Person, room: str) -> None:
    path, value = f"/api/instances/{room}", "x" * (VALUE_BYTES - 2)
    keys = [f"k{number}" for number in range(PAGE_BYTES // VALUE_BYTES + 1)]
    cast.make(alice, f"{path}/import", {key: {"value": value} for key in keys})
    page = cast.call(alice, "GET", f"{path}/history?limit=1000")
    assert [change["key"] for change in page.json()["history"]] == keys[:0:-1]
    rest = cast.call(alice, "GET", page.links["next"]["url"])
    assert [change["key"] for change in rest.json()["history"]] == keys[:1]
    assert "next" not in rest.links


@pytest.mark.parametrize("query", ["limit=0", "limit=abc", "since=-1", "cursor=x"])
def test_a_page_that_cannot_be(cast: Cast, alice: Person, place: str, query: str) -> None:
    assert cast.call(alice, "GET", f"{place}/history?{query}").status_code == 400
