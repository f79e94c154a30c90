"""POST /api/projects/:id/instances with `cloneFrom`: what is in the source is in the copy, and theirs apart."""

import json
import time

import pytest
from websockets.sync.client import connect

from tests.projects.conftest import OPERATOR, Cast, Json, Key, Person, refused

FRAME_SECONDS = 10


@pytest.fixture
def key(cast: Cast, alice: Person) -> Key:
    return cast.key(alice, "write")


def put(cast: Cast, key: Key, instance_id: str, name: str, value: object) -> None:
    """Set a key over a socket and wait until it is acknowledged."""
    address = f"{cast.server.url.replace('http', 'ws')}/sync/{instance_id}?apiKey={key.headers['X-API-Key']}"
    with connect(address, open_timeout=FRAME_SECONDS, proxy=None) as socket:
        socket.send(json.dumps({"type": "set", "key": name, "value": value, "timestamp": int(time.time() * 1000)}))
        while json.loads(socket.recv(FRAME_SECONDS)).get("key") != name:
            pass


def values(cast: Cast, instance_id: str) -> Json:
    answer = cast.client.get(f"/admin/do/{instance_id}", headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    return {name: held["value"] for name, held in answer.json()["keys"].items()}


def test_a_copy_has_what_its_source_had_and_changes_alone(cast: Cast, alice: Person, key: Key) -> None:
    project = cast.project(alice)
    source = project["defaultInstanceId"]
    put(cast, key, source, "plan", {"beds": [1, 2]})
    path = f"/api/projects/{project['id']}/instances"
    copy = cast.make(alice, path, {"name": "copy", "cloneFrom": source})
    assert copy == {"id": copy["id"], "name": "copy", "region": "local"}
    assert values(cast, copy["id"]) == {"plan": {"beds": [1, 2]}}
    put(cast, key, copy["id"], "plan", "another")
    assert (values(cast, source), values(cast, copy["id"])) == ({"plan": {"beds": [1, 2]}}, {"plan": "another"})


def test_a_repeated_post_makes_one_copy(cast: Cast, alice: Person) -> None:
    project = cast.project(alice)
    path, body = f"/api/projects/{project['id']}/instances", {"name": "c", "cloneFrom": project["defaultInstanceId"]}
    answers = [cast.call(alice, "POST", path, body, Idempotency_Key="k") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    listed = {row["id"] for row in cast.get(alice, path)["instances"]}
    assert listed == {project["defaultInstanceId"], answers[0].json()["id"]}
    other = cast.call(alice, "POST", path, {**body, "name": "d"}, Idempotency_Key="k")
    assert other.status_code == 422
    assert len(cast.get(alice, path)["instances"]) == 2


def test_a_reader_of_the_source_copies_it_into_a_project_of_theirs(cast: Cast, alice: Person, bob: Person) -> None:
    shared, own = cast.project(alice), cast.project(bob)
    cast.share(alice, f"instances/{shared['defaultInstanceId']}", "read", bob)
    body = {"name": "mine", "cloneFrom": shared["defaultInstanceId"]}
    copy = cast.make(bob, f"/api/projects/{own['id']}/instances", body)
    assert cast.role(bob, f"/api/instances/{copy['id']}") == "owner"
    answer = cast.call(bob, "POST", f"/api/projects/{shared['id']}/instances", body)
    assert refused(answer) == (404, "Project not found")
