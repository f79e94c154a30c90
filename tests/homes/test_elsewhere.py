"""A home that cannot be reached, or is one no longer, is asked once more: where the primary says that it is now."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.cluster.cast import AMS, NRT, PRIMARY, Machine
from tests.conftest import ADMIN_TOKEN
from tests.homes.conftest import Frame, Homes, open_homes
from tests.instances.conftest import dial, fresh
from tests.waiting import until


@pytest.fixture(scope="module", params=["forward", "fly"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    yield from open_homes("standin", tmp_path_factory, request.param, DURABLE_ACK="all")


@pytest.fixture
def homes(served: Homes) -> Iterator[Homes]:
    yield served
    served.calm()
    for machine in served.machines:
        until(lambda machine=machine: machine.has(served.primary.health()["position"]))


def filled_room(homes: Homes) -> str:
    """An instance in ams with something in it that its replica has too."""
    room = homes.room("ams")
    answer = ask(homes, homes.machines[1], "PUT", f"/api/instances/{room}/keys/a", {"value": 1})
    assert answer.status_code == 201, answer.text
    return room


def owner_of(homes: Homes, room: str) -> tuple[str, str] | None:
    """The machine and the region of a room, asked of the primary as when the proxy brings a request back to it."""
    brought_back = {"X-Admin-Token": ADMIN_TOKEN, "fly-replay-failed": f"instance={PRIMARY};reason=timeout"}
    answer = httpx.get(f"{homes.primary.url}/admin/do/{room}", headers=brought_back, timeout=30, trust_env=False)
    assert answer.status_code in (200, 503), answer.text
    return (answer.json()["machine"], answer.json()["region"]) if answer.status_code == 200 else None


def door(homes: Homes, machine: Machine) -> tuple[Any, dict[str, str]]:
    """Where a client near a machine comes in, and how that is known."""
    return (machine, {}) if homes.proxy is None else (homes.proxy, {"x-near": machine.region})


def ask(homes: Homes, machine: Machine, method: str, path: str, body: Any = None) -> httpx.Response:
    """A request near a machine, over a connection of its own: an old one might just be closed."""
    server, headers = door(homes, machine)
    return httpx.request(method, server.url + path, json=body, headers=headers, timeout=30, trust_env=False)


def greeting(homes: Homes, machine: Machine, room: str) -> Frame:
    """What a client near a machine hears first."""
    server, headers = door(homes, machine)
    with dial(server, room, headers) as peer:
        return peer.hear()


def test_a_third_machine_answers_for_a_home_that_is_lost(homes: Homes) -> None:
    """Asked through one that has not heard of it: it believes in the lost one until nobody is found there."""
    _, ams, nrt = homes.machines
    read, written, listened, forgotten = (filled_room(homes) for _ in range(4))
    until(lambda: nrt.has(homes.primary.health()["position"]))
    nrt.control(paused=True)
    ams.kill()
    try:
        for room in (read, written, listened):
            until(lambda room=room: owner_of(homes, room) == (PRIMARY, "fra"))
        if homes.proxy is not None:
            homes.proxy.replays.clear()
        with ThreadPoolExecutor() as pool:
            asked = [
                pool.submit(ask, homes, nrt, "GET", f"/api/instances/{read}/keys/a"),
                pool.submit(ask, homes, nrt, "PUT", f"/api/instances/{written}/keys/a", {"value": 2}),
                pool.submit(ask, homes, nrt, "GET", f"/api/instances/{forgotten}/keys/a"),
            ]
            greeted = pool.submit(greeting, homes, nrt, listened)
        answers = [answer.result() for answer in asked]
        told = [(answer.status_code, answer.json().get("value")) for answer in answers]
        assert told == [(200, 1), (200, 2), (200, 1)]
        assert (greeted.result()["type"], greeted.result()["seq"]) == ("auth_success", 1)
        # What nobody has asked for yet has become the asker's own.
        owners = [owner_of(homes, room) for room in (read, written, listened, forgotten)]
        assert owners == [(PRIMARY, "fra")] * 3 + [(NRT, "nrt")]
        if homes.proxy is not None:
            # Each was wished to the lost one, once, and then forwarded.
            assert [wish.split(";")[0] for wish in homes.proxy.replays] == [f"instance={AMS}"] * 4
    finally:
        ams.start()


def test_a_new_home_that_has_not_heard_of_it_asks_before_it_sends_anybody_away(homes: Homes) -> None:
    _, ams, nrt = homes.machines
    room = filled_room(homes)
    until(lambda: nrt.has(homes.primary.health()["position"]))
    nrt.control(paused=True)
    homes.command("instances", "move", room, "--to", "nrt")
    answer = ask(homes, ams, "GET", f"/api/instances/{room}/keys/a")
    assert (answer.status_code, answer.json().get("value")) == (200, 1), answer.text
    assert greeting(homes, ams, room)["type"] == "auth_success"
    assert owner_of(homes, room) == (NRT, "nrt")


def test_in_development_an_unknown_instance_lives_where_it_was_opened(homes: Homes) -> None:
    fra, ams, nrt = homes.machines
    for machine, owner in ((ams, AMS), (nrt, NRT), (fra, PRIMARY)):
        room = fresh()
        for asked in (machine, *homes.machines):
            assert greeting(homes, asked, room)["type"] == "auth_success"
        assert owner_of(homes, room) == (owner, machine.region)
    assert ask(homes, ams, "GET", f"/api/instances/{fresh()}/keys").status_code == 404


def test_two_who_open_the_same_unknown_instance_at_once_meet_in_it(homes: Homes) -> None:
    _, ams, nrt = homes.machines
    both = threading.Barrier(2)

    def open_at(machine: Machine, room: str) -> Frame:
        both.wait()
        return greeting(homes, machine, room)

    for _ in range(5):
        room = fresh()
        with ThreadPoolExecutor() as pool:
            greeted = [pool.submit(open_at, machine, room) for machine in (ams, nrt)]
        heard = [one.result() for one in greeted]
        assert [frame["type"] for frame in heard] == ["auth_success"] * 2, heard
        assert heard[0]["epoch"] == heard[1]["epoch"]
