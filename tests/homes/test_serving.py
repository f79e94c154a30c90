"""A home that is not the primary serves everybody as the primary would, however far behind its core is."""

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.identity.ids import new_id
from tests.cluster.cast import Machine
from tests.homes.conftest import Homes, open_homes
from tests.instances.conftest import Peer, dial, joined, turned_away
from tests.projects.conftest import Person
from tests.waiting import until

# How far behind the core of the home is in a test, and less than that.
BEHIND_SECONDS, SOONER_SECONDS = 0.6, 0.3


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    """Three machines on which nobody is let in without a credential, with lines between them."""
    yield from open_homes("standin", tmp_path_factory, direct=False, DEV_USER="0")


@pytest.fixture
def homes(served: Homes) -> Iterator[Homes]:
    yield served
    served.calm()


@pytest.fixture
def ams(homes: Homes) -> Machine:
    return homes.machines[1]


@pytest.fixture
def alice(homes: Homes) -> Person:
    return homes.person()


@pytest.fixture
def bob(homes: Homes) -> Person:
    return homes.person()


@pytest.fixture
def room(homes: Homes, alice: Person, ams: Machine) -> str:
    """An instance of alice's that lives in ams, where it is open."""
    project = homes.project(alice)
    made = homes.make(alice, f"/api/projects/{project['id']}/instances", {"name": "room", "region": "ams"})
    until(lambda: ams.get(f"/api/instances/{made['id']}/keys", **alice.headers).status_code == 200)
    name: str = made["id"]
    return name


def newcomer(homes: Homes) -> Person:
    """Somebody with a valid token of whom nobody has heard."""
    person = Person("", new_id("user"), "", {})
    return person._replace(headers=homes.session(person))


def known(homes: Homes, person: Person) -> int:
    """How many rows the primary has of somebody."""
    count: int = homes.rows("SELECT count(*) FROM identities WHERE subject = ?", person.clerk_id)[0][0]
    return count


def arrived(homes: Homes, machine: Machine) -> None:
    """Until a machine has all that the primary has now."""
    until(lambda: machine.has(homes.primary.health()["position"]))


def fall_behind(homes: Homes, machine: Machine) -> None:
    arrived(homes, machine)
    machine.control(delay=BEHIND_SECONDS)


# -- who comes for the first time ----------------------------------------------------------------------------------


def test_who_comes_for_the_first_time_is_served_at_a_home(homes: Homes, alice: Person, room: str, ams: Machine) -> None:
    homes.share(alice, f"instances/{room}", "read")
    arrived(homes, ams)
    for machine in homes.machines:
        person = newcomer(homes)
        answer = machine.get(f"/api/instances/{room}/keys", **person.headers)
        assert answer.status_code == 200, answer.text
        assert known(homes, person) == 1
    person = newcomer(homes)
    refused = ams.asking.put(f"/api/instances/{room}/keys/a", json={"value": 1}, headers=person.headers)
    assert (refused.status_code, known(homes, person)) == (403, 1)
    person = newcomer(homes)
    with joined(ams, room, person.headers):
        assert known(homes, person) == 1
    person = newcomer(homes)
    with dial(ams, room) as peer:
        peer.say("auth", apiKey=person.headers["Authorization"].removeprefix("Bearer "))
        greeting = peer.hear()
        assert (greeting["type"], greeting.get("userId")) == ("auth_success", person.clerk_id), greeting
    assert known(homes, person) == 1


def test_many_first_requests_at_once_make_one_user(homes: Homes, alice: Person, room: str, ams: Machine) -> None:
    homes.share(alice, f"instances/{room}", "read")
    person = newcomer(homes)
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(ams.get, f"/api/instances/{room}/keys", **person.headers) for _ in range(8)]
    assert {answer.result().status_code for answer in asked} == {200}
    assert known(homes, person) == 1


def test_who_was_deleted_is_no_newcomer(homes: Homes, bob: Person, room: str, ams: Machine) -> None:
    homes.delete(bob)
    answer = ams.get(f"/api/instances/{room}/keys", **bob.headers)
    assert (answer.status_code, answer.json()["error"]) == (401, "Invalid token")


def test_without_the_primary_a_newcomer_is_told_to_come_again(
    homes: Homes, alice: Person, room: str, ams: Machine
) -> None:
    homes.share(alice, f"instances/{room}", "read")
    arrived(homes, ams)
    person = newcomer(homes)
    homes.primary.line.cut()
    answer = ams.get(f"/api/instances/{room}/keys", **person.headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert turned_away(ams, room, person.headers)[0] == 503
    with dial(ams, room) as peer:
        peer.say("auth", apiKey=person.headers["Authorization"].removeprefix("Bearer "))
        # No `auth_error` goes before it: clients may take that for the last word on their credential.
        with pytest.raises(ConnectionClosed):
            peer.hear()
        assert peer.closed() == (1013, "Try again later")
    assert known(homes, person) == 0


# -- what a frame is refused ---------------------------------------------------------------------------------------


def test_a_write_is_not_refused_for_a_permission_that_was_granted_just_now(
    homes: Homes, alice: Person, bob: Person, room: str, ams: Machine
) -> None:
    homes.share(alice, f"instances/{room}", "read", bob)
    arrived(homes, ams)
    with joined(ams, room, bob.headers) as peer:
        fall_behind(homes, ams)
        homes.share(alice, f"instances/{room}", "write", bob)
        peer.say("set", key="a", value=1, opId="first", timestamp=0)
        peer.say("set", key="a", value=2, opId="second", timestamp=0)
        peer.say("batch", ops=[], opId="third")
        heard = _until_ack(peer, "third")
    assert [frame["opId"] for frame in heard if frame["type"] == "ack"] == ["first", "second", "third"], heard
    assert ams.get(f"/api/instances/{room}/keys/a", **alice.headers).json()["value"] == 2


def test_what_is_refused_is_refused_in_its_order_and_the_others_do_not_wait_for_it(
    homes: Homes, alice: Person, bob: Person, room: str, ams: Machine
) -> None:
    homes.share(alice, f"instances/{room}", "read", bob)
    arrived(homes, ams)
    with joined(ams, room, bob.headers) as reader, joined(ams, room, alice.headers) as writer:
        homes.primary.line.pause()
        reader.say("set", key="b", value=1, opId="mine", timestamp=0)
        reader.say("batch", ops=[], opId="behind")
        reader.say("ping")
        assert reader.hear()["type"] == "pong"
        begun = time.monotonic()
        for number in range(20):
            writer.say("set", key="c", value=number, opId=f"w{number}", timestamp=0)
            _until_ack(writer, f"w{number}")
        assert time.monotonic() - begun < 1.0
        homes.primary.line.resume()
        heard = _until_ack(reader, "behind")
    others = [frame for frame in heard if frame.get("key") != "c"]
    assert [frame["type"] for frame in others] == ["key_deleted", "error", "ack"], heard
    assert (others[1]["code"], others[1]["opId"]) == ("NO_PERMISSION", "mine")
    # What was written meanwhile was heard before the refusal.
    assert heard.index(others[0]) == 20


def test_without_the_primary_a_frame_is_refused_by_what_is_known(
    homes: Homes, alice: Person, bob: Person, room: str, ams: Machine
) -> None:
    homes.share(alice, f"instances/{room}", "read", bob)
    arrived(homes, ams)
    with joined(ams, room, bob.headers) as peer:
        homes.primary.line.cut()
        peer.say("set", key="a", value=1, opId="mine", timestamp=0)
        frame = peer.until("error")[-1]
        assert (frame["code"], frame["opId"]) == ("NO_PERMISSION", "mine")
        # It is decided anew each time.
        homes.primary.line.mend()
        homes.share(alice, f"instances/{room}", "write", bob)
        peer.say("set", key="a", value=1, opId="again", timestamp=0)
        _until_ack(peer, "again")


def test_a_key_that_was_made_just_now_lets_in_by_a_frame(homes: Homes, alice: Person, room: str, ams: Machine) -> None:
    with dial(ams, room) as peer:
        fall_behind(homes, ams)
        key = homes.key(alice, "read", "write")
        peer.say("auth", apiKey=key.headers["X-API-Key"])
        greeting = peer.hear()
        assert (greeting["type"], greeting.get("userId")) == ("auth_success", alice.clerk_id), greeting


def test_who_was_given_access_just_now_is_let_in_by_a_frame(
    homes: Homes, alice: Person, bob: Person, room: str, ams: Machine
) -> None:
    token = bob.headers["Authorization"].removeprefix("Bearer ")
    with dial(ams, room) as peer:
        fall_behind(homes, ams)
        homes.share(alice, f"instances/{room}", "read", bob)
        peer.say("auth", apiKey=token)
        assert peer.hear()["type"] == "auth_success"
    with pytest.raises(InvalidStatus) as refused, dial(ams, room, newcomer(homes).headers):
        pass
    assert refused.value.response.status_code == 403


def test_an_instance_that_may_be_written_again_just_now_is_written(
    homes: Homes, alice: Person, bob: Person, room: str, ams: Machine
) -> None:
    homes.share(alice, f"instances/{room}", "write", bob)
    path, values = f"/api/instances/{room}/keys/a", itertools.count()
    homes.call(alice, "PATCH", f"/api/instances/{room}", {"is_readonly": True})
    until(lambda: ams.asking.put(path, json={"value": next(values)}, headers=bob.headers).status_code == 403)
    with joined(ams, room, bob.headers) as peer:
        fall_behind(homes, ams)
        assert homes.call(alice, "PATCH", f"/api/instances/{room}", {"is_readonly": False}).status_code == 200
        answer = ams.asking.put(path, json={"value": "http"}, headers=bob.headers)
        assert answer.status_code in (200, 201), answer.text
        homes.call(alice, "PATCH", f"/api/instances/{room}", {"is_readonly": True})
        homes.call(alice, "PATCH", f"/api/instances/{room}", {"is_readonly": False})
        peer.say("set", key="a", value="frame", opId="mine", timestamp=0)
        _until_ack(peer, "mine")


def _until_ack(peer: Peer, mark: str) -> list[dict[str, object]]:
    heard = [peer.hear()]
    while (heard[-1]["type"], heard[-1].get("opId")) != ("ack", mark):
        heard.append(peer.hear())
    return heard
