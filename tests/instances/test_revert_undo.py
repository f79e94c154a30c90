"""POST /api/instances/:id/revert and /undo."""

from typing import Any

import pytest

from tests.instances.conftest import joined, ticket
from tests.projects.conftest import Cast, Person, refused


@pytest.fixture
def bob(cast: Cast, alice: Person, bob: Person, place: str) -> Person:
    """Somebody who may write there."""
    cast.share(alice, place.removeprefix("/api/"), "write", bob)
    return bob


def put(cast: Cast, who: Person, place: str, key: str, value: object) -> None:
    assert cast.call(who, "PUT", f"{place}/keys/{key}", {"value": value}).status_code in (200, 201)


def values(cast: Cast, who: Person, place: str) -> dict[str, Any]:
    return {key: held["value"] for key, held in cast.get(who, f"{place}/keys")["keys"].items()}


def test_a_revert_makes_all_of_it_as_it_was(cast: Cast, alice: Person, place: str) -> None:
    put(cast, alice, place, "changed", 1)
    put(cast, alice, place, "deleted", 2)
    then = cast.get(alice, f"{place}/keys")
    put(cast, alice, place, "changed", 3)
    cast.call(alice, "DELETE", f"{place}/keys/deleted")
    put(cast, alice, place, "new", 4)
    assert cast.make(alice, f"{place}/revert", {"seq": 2}) == {"success": True, "changed": 3, "seq": 8}
    now = cast.get(alice, f"{place}/keys")
    assert {key: (held["value"], held["attributes"]) for key, held in now["keys"].items()} == {
        key: (held["value"], held["attributes"]) for key, held in then["keys"].items()
    }
    assert cast.make(alice, f"{place}/revert", {"seq": 5})["changed"] == 3
    assert values(cast, alice, place) == {"changed": 3, "new": 4}
    assert cast.make(alice, f"{place}/revert", {"seq": 0})["changed"] == 2
    assert values(cast, alice, place) == {}


def test_a_change_that_is_yet_to_come(cast: Cast, alice: Person, place: str) -> None:
    assert refused(cast.call(alice, "POST", f"{place}/revert", {"seq": 1})) == (404, "Change not found")
    assert refused(cast.call(alice, "POST", f"{place}/undo", {"actor": "nobody"})) == (404, "Change not found")
    assert cast.call(alice, "POST", f"{place}/undo", {}).status_code == 400
    assert cast.call(alice, "POST", f"{place}/revert", {"seq": -1}).status_code == 400


def test_an_undo_leaves_what_somebody_else_has_changed_since(
    cast: Cast, alice: Person, bob: Person, place: str
) -> None:
    put(cast, alice, place, "mine", 1)
    put(cast, bob, place, "mine", 2)
    put(cast, bob, place, "mine", 3)
    put(cast, bob, place, "made", 4)
    put(cast, bob, place, "shared", 5)
    put(cast, alice, place, "shared", 6)
    undone = cast.make(alice, f"{place}/undo", {"actor": bob.clerk_id})
    assert undone == {"success": True, "changed": 2, "seq": 8, "skipped": ["shared"]}
    assert values(cast, alice, place) == {"mine": 1, "shared": 6}


def test_an_undo_begins_where_it_is_told_to(cast: Cast, alice: Person, bob: Person, place: str) -> None:
    put(cast, bob, place, "a", 1)
    put(cast, bob, place, "a", 2)
    assert cast.make(alice, f"{place}/undo", {"actor": bob.id, "sinceSeq": 1})["changed"] == 1
    assert values(cast, alice, place) == {"a": 1}


def test_an_import_is_undone_by_its_operation(cast: Cast, alice: Person, place: str) -> None:
    put(cast, alice, place, "a", 1)
    body = {"a": {"value": 2}, "b": {"value": 3}}
    assert cast.call(alice, "POST", f"{place}/import", body, Idempotency_Key="once").status_code == 200
    op_id = cast.get(alice, f"{place}/history")["history"][0]["opId"]
    assert cast.make(alice, f"{place}/undo", {"opId": op_id})["changed"] == 2
    assert values(cast, alice, place) == {"a": 1}


def test_who_may_only_read_takes_nothing_back(cast: Cast, alice: Person, place: str) -> None:
    reader = cast.person()
    cast.share(alice, place.removeprefix("/api/"), "read", reader)
    put(cast, alice, place, "a", 1)
    for path, body in (("revert", {"seq": 0}), ("undo", {"actor": alice.clerk_id})):
        answer = cast.call(reader, "POST", f"{place}/{path}", body)
        assert refused(answer) == (403, "Write permission required")
    assert values(cast, alice, place) == {"a": 1}


def test_a_clear_is_reverted_and_undone(cast: Cast, alice: Person, bob: Person, place: str) -> None:
    put(cast, alice, place, "before", 1)
    put(cast, bob, place, "kept", 2)
    put(cast, bob, place, "before", 3)
    instance_id = place.rpartition("/")[2]
    with joined(cast.server, instance_id, token=ticket(cast, alice, instance_id)) as peer:
        peer.say("clear")
        peer.settle()
    put(cast, bob, place, "after", 4)
    put(cast, bob, place, "kept", 5)
    undone = cast.make(alice, f"{place}/undo", {"actor": alice.clerk_id, "sinceSeq": 3})
    assert (undone["changed"], undone["skipped"]) == (1, ["kept"])
    assert values(cast, alice, place) == {"before": 3, "after": 4, "kept": 5}
    cast.make(alice, f"{place}/revert", {"seq": 2})
    assert values(cast, alice, place) == {"before": 1, "kept": 2}
