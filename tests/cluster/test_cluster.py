"""A cluster of real machines: writes run at the primary, reads anywhere, and nobody notices the difference."""

import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from app.identity.ids import new_id
from tests.cluster.cast import PRIMARY, Cluster, Machine, running
from tests.conftest import STOP_SECONDS
from tests.instances.conftest import Peer, dial
from tests.projects.conftest import Person
from tests.waiting import until

REPLICAS = (1, 2)
TOO_OLD_MS = 90_000


def names(cluster: Cluster, member: int, who: Person, **headers: str) -> set[str]:
    answer = cluster.ask(member, who, "GET", "/api/projects", **headers)
    assert answer.status_code == 200, answer.text
    return {project["name"] for project in answer.json()["projects"]}


def until_found(cluster: Cluster, member: int, who: Person) -> None:
    """The copy there has come to know a person: a replica answers, and the primary was not asked."""
    until(lambda: cluster.machines[member].name == _answered_by(cluster, member, who))


def _answered_by(cluster: Cluster, member: int, who: Person) -> str:
    before = _listed_by_the_primary(cluster)
    assert cluster.ask(member, who, "GET", "/api/projects").status_code == 200
    asked_primary = _listed_by_the_primary(cluster) != before
    return cluster.machines[0 if asked_primary else member].name


def _listed_by_the_primary(cluster: Cluster) -> str:
    """How often it was asked for projects: the machines may speak with it at any time."""
    said = cluster.primary.get("/metrics")
    assert said.status_code == 200, said.text
    return "".join(re.findall(r'litehouse_request_seconds_count\{[^}]*route="/api/projects".*', said.text))


@pytest.mark.parametrize("member", REPLICAS)
def test_a_write_at_any_machine_is_read_at_any_machine(cluster: Cluster, member: int) -> None:
    alice = cluster.person()
    made = cluster.ask(member, alice, "POST", "/api/projects", {"name": "garden"})
    assert made.status_code in (200, 201), made.text
    token = made.headers["x-txid"]
    for reader in range(3):
        assert names(cluster, reader, alice, **{"X-Txid": token}) == {"garden"}
        assert names(cluster, reader, alice) <= {"garden"}
    assert names(cluster, member, alice) == {"garden"}


def test_a_caller_reads_its_writes_while_the_copy_stands_still(cluster: Cluster) -> None:
    alice = cluster.person()
    until_found(cluster, 1, alice)
    cluster.machines[1].control(paused=True)
    made = cluster.ask(1, alice, "POST", "/api/projects", {"name": "garden"})
    # It says nothing of how far it has come, and stays with the machine that its write passed through.
    assert names(cluster, 1, alice) == {"garden"}
    assert names(cluster, 1, alice, **{"X-Txid": made.headers["x-txid"]}) == {"garden"}
    bob_elsewhere = cluster.ask(0, alice, "POST", "/api/projects", {"name": "yard"})
    assert names(cluster, 1, alice, **{"X-Txid": bob_elsewhere.headers["x-txid"]}) == {"garden", "yard"}


def test_a_read_waits_for_a_copy_that_is_a_little_late(cluster: Cluster) -> None:
    alice = cluster.person()
    until_found(cluster, 1, alice)
    cluster.machines[1].control(delay=0.2)
    token = cluster.ask(0, alice, "POST", "/api/projects", {"name": "garden"}).headers["x-txid"]
    before = _listed_by_the_primary(cluster)
    assert names(cluster, 1, alice, **{"X-Txid": token}) == {"garden"}
    assert _listed_by_the_primary(cluster) == before


def test_who_and_what_a_copy_does_not_know_yet_is_never_refused(cluster: Cluster) -> None:
    for member in REPLICAS:
        cluster.machines[member].control(paused=True)
    alice = cluster.person()
    key = cluster.key(alice, "read", "write")
    project = cluster.project(alice)
    instance = cluster.instance(alice, project)
    for member in REPLICAS:
        for who in (alice, key):
            for path in (f"/api/projects/{project['id']}", f"/api/instances/{instance['id']}"):
                assert cluster.ask(member, who, "GET", path).status_code == 200
        assert cluster.ask(member, alice, "GET", "/api/usage/quota").status_code == 200
        assert cluster.ask(member, alice, "GET", "/api/user/profile").status_code == 200


@pytest.mark.parametrize("replay", ["forward", "fly"], indirect=True)
def test_who_comes_for_the_first_time_is_made_at_the_primary_whichever_machine_it_asks(cluster: Cluster) -> None:
    """A read that has to write first: a replica cannot, and does not say so."""
    for member in range(3):
        subject = new_id("user")
        newcomer = Person("", subject, "", {})
        newcomer = newcomer._replace(headers=cluster.session(newcomer))
        assert cluster.ask(member, newcomer, "GET", "/api/usage/quota").status_code == 200
        assert cluster.rows("SELECT count(*) FROM identities WHERE subject = ?", subject) == [(1,)]
        assert cluster.ask(member, newcomer, "GET", "/api/user/profile").status_code == 200


def test_what_is_nowhere_is_refused_by_the_primary_and_503_without_it(cluster: Cluster) -> None:
    alice = cluster.person()
    until_found(cluster, 1, alice)
    absent = "/api/projects/nowhere"
    assert cluster.ask(1, alice, "GET", absent).status_code == 404
    assert cluster.ask(1, None, "GET", "/api/keys", **{"X-API-Key": "mc_live_" + "a" * 32}).status_code == 401
    cluster.machines[0].line.cut()
    for path, headers in ((absent, {}), ("/api/keys", {"X-API-Key": "mc_live_" + "a" * 32})):
        answer = cluster.ask(1, None if headers else alice, "GET", path, **headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert cluster.ask(1, alice, "GET", "/api/projects").status_code == 200
    assert cluster.ask(1, alice, "POST", "/api/projects", {"name": "x"}).status_code == 503


def test_what_needs_no_rows_is_refused_without_the_primary(cluster: Cluster) -> None:
    alice = cluster.person()
    until_found(cluster, 1, alice)
    cluster.machines[0].line.cut()
    forged = alice.headers["Authorization"][:-8] + "AAAAAAAA"
    for headers in ({"Authorization": forged}, {"X-API-Key": "mc_live_short"}, {"X-API-Key": "ak_short"}):
        assert cluster.ask(1, None, "GET", "/api/usage/quota", **headers).status_code == 401
    assert cluster.ask(1, None, "GET", "/api/usage/quota").status_code == 401
    assert cluster.ask(1, None, "GET", "/api/nothing").status_code == 404
    assert cluster.ask(1, None, "DELETE", "/api/usage/quota").status_code == 405
    assert cluster.ask(1, alice, "GET", "/api/projects?limit=abc").status_code == 400


@pytest.mark.parametrize("lag_ms", [TOO_OLD_MS, None])
def test_a_copy_that_is_too_old_answers_nothing(stood_in: Cluster, lag_ms: int | None) -> None:
    cluster = stood_in
    alice = cluster.person()
    until_found(cluster, 1, alice)
    cluster.machines[1].control(lag_ms=lag_ms)
    until(lambda: cluster.ask(1, None, "GET", "/readyz").status_code == 503)
    assert _answered_by(cluster, 1, alice) == PRIMARY
    cluster.machines[0].line.cut()
    assert cluster.ask(1, alice, "GET", "/api/projects").status_code == 503
    assert cluster.ask(1, None, "GET", "/livez").status_code == 200


def test_a_socket_opens_through_any_machine_and_hears_all(cluster: Cluster) -> None:
    alice = cluster.person()
    instance = cluster.instance(alice, cluster.project(alice))["id"]

    def dialled(member: int) -> Any:
        address = f"{cluster.machines[member].url.replace('http', 'ws')}/sync/{instance}"
        return connect(address, additional_headers=alice.headers, proxy=None, close_timeout=2)

    with dialled(0) as first, dialled(1) as second, dialled(2) as third:
        peers = [Peer(socket) for socket in (first, second, third)]
        for peer in peers:
            peer.greeting()
        peers[1].say("set", key="a", value=1, timestamp=0)
        for peer in (peers[0], peers[2]):
            assert peer.until("key_updated")[-1]["value"] == 1
        assert cluster.ask(2, alice, "GET", f"/api/instances/{instance}/keys/a").json()["value"] == 1
        assert cluster.ask(1, alice, "PUT", f"/api/instances/{instance}/keys/b", {"value": 2}).status_code == 201
        assert peers[2].until("key_updated")[-1]["key"] == "b"


@pytest.mark.parametrize("replay", ["forward", "fly"], indirect=True)
def test_an_instance_lives_where_its_maker_landed(cluster: Cluster) -> None:
    alice = cluster.person()
    for member, region in enumerate(("fra", "ams", "nrt")):
        project = cluster.ask(member, alice, "POST", "/api/projects", {"name": region}).json()
        place = f"/api/projects/{project['id']}/instances"
        made = cluster.ask(member, alice, "POST", place, {"name": "room"}).json()
        for instance in (made["id"], project["defaultInstanceId"]):
            assert cluster.get(alice, f"/api/instances/{instance}")["region"] == region
        far = cluster.ask(member, alice, "POST", place, {"name": "far", "region": "ams"}).json()
        assert cluster.get(alice, f"/api/instances/{far['id']}")["region"] == "ams"


def test_a_ticket_lets_one_socket_in_wherever_it_is_brought_also_after_a_move(cluster: Cluster) -> None:
    alice = cluster.person()
    made = {"name": "room", "region": "ams"}
    room = cluster.make(alice, f"/api/projects/{cluster.project(alice)['id']}/instances", made)["id"]
    # Home is where a ticket is used up, whoever is asked for the socket.
    assert cluster.ask(2, alice, "GET", f"/api/instances/{room}/keys").status_code == 200
    token = cluster.make(alice, "/api/ws-token", {"instanceId": room})["token"]
    together = Barrier(2)

    def bring(member: int) -> int:
        together.wait()
        return came_in(cluster.machines[member], room, token)

    with ThreadPoolExecutor() as pool:
        assert sorted(pool.map(bring, (0, 2))) == [101, 401]
    moved = cluster.primary.command("instances", "move", room, "--to", "nrt")
    assert moved.returncode == 0, moved.stderr
    assert [came_in(member, room, token) for member in cluster.machines] == [401, 401, 401]
    assert (
        came_in(cluster.machines[1], room, cluster.make(alice, "/api/ws-token", {"instanceId": room})["token"]) == 101
    )


def came_in(machine: Machine, room: str, token: str) -> int:
    """The status of a handshake with a ticket."""
    try:
        with dial(machine, room, token=token):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def test_the_lines_delay_is_paid_once_for_a_write(cluster: Cluster) -> None:
    alice = cluster.person()
    cluster.ask(1, alice, "POST", "/api/projects", {"name": "warm"})
    cluster.machines[0].line.delay = 0.2
    begun = time.monotonic()
    assert cluster.ask(1, alice, "POST", "/api/projects", {"name": "garden"}).status_code in (200, 201)
    assert 0.4 <= time.monotonic() - begun < 1.6


def test_the_peer_port_is_open_until_the_last_instance_is_closed(tmp_path: Path) -> None:
    """A machine that is busy with stopping does not refuse there: nobody may take what it still holds."""
    with running("standin", tmp_path) as cluster:
        member = cluster.primary
        assert not refuses(member.peer_port)
        with socket.create_connection(("127.0.0.1", member.port)) as half:
            half.sendall(b"POST /api/projects HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
            assert member.process is not None
            member.process.send_signal(signal.SIGTERM)
            until(lambda: refuses(member.port))
            # The public port is closed, and what was accepted is being finished.
            assert not refuses(member.peer_port)
        assert member.process.wait(STOP_SECONDS) == 0
        assert refuses(member.peer_port)


@pytest.mark.parametrize("replay", ["fly"], indirect=True)
def test_behind_flys_proxy_the_same_holds(cluster: Cluster) -> None:
    alice = cluster.person()
    for member in REPLICAS:
        cluster.machines[member].control(paused=True)
    assert cluster.ask(1, alice, "POST", "/api/projects", {"name": "garden"}).status_code in (200, 201)
    listed = cluster.ask(1, alice, "GET", "/api/projects")
    assert [project["name"] for project in listed.json()["projects"]] == ["garden"]
    project = listed.json()["projects"][0]["id"]
    assert cluster.ask(2, alice, "GET", f"/api/projects/{project}").status_code == 200
    assert cluster.proxy is not None
    assert len(cluster.proxy.replays) >= 3
    assert all(wish.startswith("region=fra;") for wish in cluster.proxy.replays)


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False
