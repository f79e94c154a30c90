"""POST /api/keys: keys of one project or instance."""

import re

import pytest

from tests.projects.conftest import Cast, Key, Person, delegate, refused


@pytest.mark.parametrize("kind", ["project", "instance"])
def test_a_key_of_one_place_is_made_listed_and_used_there(cast: Cast, alice: Person, kind: str) -> None:
    project, other = cast.project(alice), cast.project(alice)
    place = project["id"] if kind == "project" else project["defaultInstanceId"]
    body = {"name": "theirs", "scopeType": kind, "scopeId": place, "permissions": ["read", "write"]}
    made = cast.make(alice, "/api/keys", body)
    assert (made["scopeType"], made["scopeId"], made["permissions"]) == (kind, place, ["read", "write"])
    assert re.fullmatch(r"mc_live_[A-Za-z0-9]{32}", made["key"])
    (listed,) = cast.get(alice, "/api/keys")["keys"]
    assert (listed["scope_type"], listed["scope_id"], listed["permissions"]) == (kind, place, '["read","write"]')
    key = Key(made["id"], {"Authorization": f"Bearer {made['key']}"})
    assert cast.role(key, f"/api/instances/{project['defaultInstanceId']}") == "write"
    assert cast.role(key, f"/api/instances/{other['defaultInstanceId']}") == 404


@pytest.mark.parametrize(("kind", "sentence"), [("project", "Project not found"), ("instance", "Instance not found")])
def test_a_key_is_for_what_its_user_sees(cast: Cast, alice: Person, bob: Person, kind: str, sentence: str) -> None:
    project = cast.project(alice)
    place = project["id"] if kind == "project" else project["defaultInstanceId"]
    for scope_id in (place, f"{kind}_unknown", "../x"):
        answer = cast.call(bob, "POST", "/api/keys", {"name": "x", "scopeType": kind, "scopeId": scope_id})
        assert refused(answer) == (404, sentence)
    assert cast.get(bob, "/api/keys") == {"keys": []}
    cast.share(alice, f"{kind}s/{place}", "read", bob)
    made = cast.make(bob, "/api/keys", {"name": "x", "scopeType": kind, "scopeId": place, "permissions": ["admin"]})
    key = Key(made["id"], {"X-API-Key": made["key"]})
    assert cast.role(key, f"/api/instances/{project['defaultInstanceId']}") == "read"


@pytest.mark.parametrize("kind", ["project", "instance"])
def test_a_scope_needs_its_id(cast: Cast, alice: Person, kind: str) -> None:
    for body in ({}, {"scopeId": ""}, {"scopeId": None}):
        assert cast.call(alice, "POST", "/api/keys", {"name": "x", "scopeType": kind, **body}).status_code == 400


def test_a_deleted_key_opens_nothing_at_once(cast: Cast, alice: Person) -> None:
    project = cast.project(alice)
    made = cast.make(alice, "/api/keys", {"name": "x"})
    key = Key(made["id"], {"X-API-Key": made["key"]})
    assert cast.role(key, f"/api/projects/{project['id']}") == "write"
    cast.call(alice, "DELETE", f"/api/keys/{key.id}")
    assert refused(cast.call(key, "GET", f"/api/projects/{project['id']}")) == (401, "Invalid API key")


def test_no_key_and_no_delegate_makes_keys(cast: Cast, alice: Person) -> None:
    body = {"name": "x"}
    assert cast.call(cast.key(alice, "admin"), "POST", "/api/keys", body).status_code == 403
    assert cast.call(delegate(cast, alice), "POST", "/api/keys", body).status_code == 401
