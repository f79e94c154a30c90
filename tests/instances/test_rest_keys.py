"""/api/instances/:id/keys: entries with ETags and preconditions."""

from urllib.parse import quote

import pytest

from tests.instances.conftest import put
from tests.projects.conftest import Cast, Json, Person, refused


@pytest.fixture
def place(room: str) -> str:
    return f"/api/instances/{room}/keys"


def test_a_key_is_made_read_changed_and_deleted(cast: Cast, alice: Person, place: str) -> None:
    made = put(cast, alice, f"{place}/a", {"n": 1})
    assert (made.status_code, made.json()["value"], made.json()["seq"]) == (201, {"n": 1}, 1)
    assert put(cast, alice, f"{place}/a", 2).status_code == 200
    found: Json = cast.get(alice, f"{place}/a")
    assert found.keys() == {"key", "value", "attributes", "updatedAt", "seq"}
    assert (found["key"], found["value"], found["seq"]) == ("a", 2, 2)
    assert cast.call(alice, "DELETE", f"{place}/a").json() == {"success": True}
    assert refused(cast.call(alice, "GET", f"{place}/a")) == (404, "Key not found")
    assert refused(cast.call(alice, "DELETE", f"{place}/a")) == (404, "Key not found")


@pytest.mark.parametrize("key", ["a/b", "a//b/", "ü ?#%", "%2F", "..", "keys/x", "line\nend"])
def test_a_key_may_be_any_text(cast: Cast, alice: Person, place: str, key: str) -> None:
    path = f"{place}/{quote(key, safe='').replace('..', '%2E%2E')}"
    assert put(cast, alice, path, 1).status_code == 201
    assert cast.get(alice, path)["key"] == key
    assert list(cast.get(alice, place)["keys"]) == [key]


def test_a_list_is_narrowed_by_prefix_and_tag(cast: Cast, alice: Person, place: str) -> None:
    put(cast, alice, f"{place}/a1", 1)
    cast.call(alice, "PUT", f"{place}/a2", {"value": 2, "attributes": {"contentTags": ["red"]}})
    put(cast, alice, f"{place}/b1", 3)
    listed = cast.get(alice, f"{place}?prefix=a")
    assert (list(listed["keys"]), listed["seq"]) == (["a1", "a2"], 3)
    assert listed["keys"]["a1"].keys() == {"value", "attributes", "updatedAt", "seq"}
    assert list(cast.get(alice, f"{place}?tag=red")["keys"]) == ["a2"]


def test_who_holds_an_entry_or_the_list_gets_a_304(cast: Cast, alice: Person, place: str) -> None:
    put(cast, alice, f"{place}/a", 1)
    for path in (place, f"{place}/a"):
        first = cast.call(alice, "GET", path)
        etag = first.headers["etag"]
        assert etag.endswith('-1"')
        again = cast.call(alice, "GET", path, If_None_Match=etag)
        assert (again.status_code, again.content) == (304, b"")
    put(cast, alice, f"{place}/b", 1)
    assert cast.call(alice, "GET", place, If_None_Match=etag).status_code == 200
    assert cast.call(alice, "GET", f"{place}/a", If_None_Match=etag).status_code == 304


def test_a_precondition_holds_a_change_to_what_is_known(cast: Cast, alice: Person, place: str) -> None:
    path = f"{place}/a"
    first = put(cast, alice, path, 1, If_None_Match="*")
    etag = first.headers["etag"]
    assert first.status_code == 201
    assert put(cast, alice, path, 2, If_None_Match="*").status_code == 412
    assert put(cast, alice, path, 2, If_Match=etag).status_code == 200
    late = put(cast, alice, path, 3, If_Match=etag)
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    assert cast.call(alice, "DELETE", path, If_Match=etag).status_code == 412
    assert put(cast, alice, path, 3, If_Match='"other-2"').status_code == 412
    assert put(cast, alice, f"{place}/absent", 3, If_Match="*").status_code == 412
    assert cast.get(alice, path)["value"] == 2


def test_a_value_above_the_limit_is_too_large(cast: Cast, alice: Person, place: str) -> None:
    answer = put(cast, alice, f"{place}/a", "x" * (2 << 20))
    assert answer.status_code == 413
    answer = put(cast, alice, f"{place}/a", "x" * (10 << 20))
    assert (answer.status_code, answer.json()["limit"]) == (413, 10 << 20)
    assert cast.get(alice, place) == {"keys": {}, "seq": 0}


@pytest.mark.parametrize("body", [{}, {"value": 1, "attributes": []}, {"value": 1, "expiresAt": "soon"}])
def test_a_body_that_is_none(cast: Cast, alice: Person, place: str, body: Json) -> None:
    assert cast.call(alice, "PUT", f"{place}/a", body).status_code == 400


def test_who_may_only_read_does_not_write(cast: Cast, alice: Person, place: str) -> None:
    bob, stranger = cast.person(), cast.person()
    cast.share(alice, place.removeprefix("/api/").removesuffix("/keys"), "read", bob)
    assert cast.get(bob, place)["seq"] == 0
    assert refused(put(cast, bob, f"{place}/a", 1)) == (403, "Write permission required")
    assert refused(put(cast, stranger, f"{place}/a", 1)) == (404, "Instance not found")
    assert put(cast, None, f"{place}/a", 1).status_code == 401
