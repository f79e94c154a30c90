"""Replication as the machines see it: what the primary commits arrives, who is who, and how far behind."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.cluster.cast import AMS, NRT, PRIMARY, Cluster, Machine
from tests.conftest import STOP_SECONDS
from tests.waiting import until

REVOKED_SECONDS = 1.0
PROJECTS = "/api/projects"


def make_project(cluster: Cluster, name: str) -> str:
    """Commit at the primary; the position of that commit."""
    answer = cluster.primary.post(PROJECTS, {"name": name})
    assert answer.status_code == 201, answer.text
    txid: str = answer.headers["x-txid"]
    return txid


def project_names(machine: Machine) -> set[str]:
    answer = machine.get(PROJECTS)
    assert answer.status_code == 200, answer.text
    return {project["name"] for project in answer.json()["projects"]}


def is_let_in(machine: Machine, key: str) -> bool:
    status = machine.get(PROJECTS, Authorization=f"Bearer {key}").status_code
    assert status in (200, 401)
    return bool(status == 200)


def files_open_for_writing(machine: Machine) -> set[str]:
    """By the app's process, of what lies beside the database."""
    assert machine.process is not None
    process = Path("/proc", str(machine.process.pid))
    found = set()
    for held in (process / "fd").iterdir():
        target = Path(os.readlink(held))
        flags = re.search(r"flags:\s+(\d+)", (process / "fdinfo" / held.name).read_text())
        assert flags is not None
        if target.parent == machine.database.parent and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY:
            found.add(target.name)
    return found


def test_what_the_primary_commits_can_be_read_everywhere(cluster: Cluster) -> None:
    txid = make_project(cluster, "seen by all")
    for machine in cluster.machines:
        until(lambda machine=machine: machine.has(txid))
        assert "seen by all" in project_names(machine)


def test_each_machine_says_where_and_what_it_is(cluster: Cluster) -> None:
    said = [machine.health() for machine in cluster.machines]
    assert [(one["region"], one["machine"], one["primary"]) for one in said] == [
        ("fra", PRIMARY, True),
        ("ams", AMS, False),
        ("nrt", NRT, False),
    ]
    assert said[0]["lagMs"] == 0
    assert all(0 <= one["lagMs"] < 3_000 for one in said[1:])
    assert [machine.get("/readyz").status_code for machine in cluster.machines] == [200, 200, 200]


def test_a_replica_never_opens_the_database_for_writing(cluster: Cluster) -> None:
    for machine in cluster.machines:
        # Whatever it opens on first use is open then.
        project_names(machine)
    assert "core.db" in files_open_for_writing(cluster.primary)
    assert ["core.db" in files_open_for_writing(replica) for replica in cluster.replicas] == [False, False]


def test_a_key_that_is_revoked_at_the_primary_is_refused_everywhere_within_a_second(cluster: Cluster) -> None:
    key_id, key = cluster.make_key()
    for machine in cluster.machines:
        # It is remembered there from now on.
        until(lambda machine=machine: is_let_in(machine, key))
    assert cluster.primary.delete(f"/api/keys/{key_id}").status_code == 200
    revoked = time.monotonic()
    for machine in cluster.machines:
        until(lambda machine=machine: not is_let_in(machine, key), REVOKED_SECONDS)
    assert time.monotonic() - revoked < REVOKED_SECONDS


def test_what_is_remembered_has_been_forgotten_when_the_position_says_so(cluster: Cluster) -> None:
    """A client that sends its position back must not be let in by what a cache still holds."""
    for _ in range(5):
        key_id, key = cluster.make_key()
        replica = cluster.replicas[0]
        until(lambda replica=replica, key=key: is_let_in(replica, key))
        txid = cluster.primary.delete(f"/api/keys/{key_id}").headers["x-txid"]
        until(lambda replica=replica, txid=txid: replica.has(txid))
        assert not is_let_in(replica, key)


def test_news_are_heard_again_after_the_stream_was_cut_off(cluster: Cluster) -> None:
    replica = cluster.replicas[0]
    for number in range(3):
        cluster.engine.drop_events(replica.name)
        txid = make_project(cluster, f"after cut {number}")
        until(lambda txid=txid: replica.has(txid), 2)


def test_without_the_stream_a_replica_looks_for_itself(cluster: Cluster) -> None:
    replica = cluster.replicas[1]
    cluster.engine.refuse_events(replica.name)
    try:
        txid = make_project(cluster, "without news")
        until(lambda: replica.has(txid), 2)
        assert "without news" in project_names(replica)
    finally:
        cluster.engine.accept_events(replica.name)


def test_a_replica_that_is_held_says_how_far_behind_it_is_and_catches_up(cluster: Cluster) -> None:
    held, other = cluster.replicas
    cluster.engine.hold(held.name)
    try:
        txid = make_project(cluster, "while held")
        until(lambda: other.has(txid))
        until(lambda: held.health()["lagMs"] > 2_000)
        assert not held.has(txid)
        assert "while held" not in project_names(held)
    finally:
        cluster.engine.release(held.name)
    until(lambda: held.has(txid))
    until(lambda: held.health()["lagMs"] < 2_000)
    assert "while held" in project_names(held)


def late_ones(replica: Machine) -> int:
    """How many of them it has, which are the first."""
    names = project_names(replica)
    seen = [number for number in range(5) if f"late {number}" in names]
    assert seen == list(range(len(seen)))
    return len(seen)


def test_what_comes_late_comes_in_its_order(cluster: Cluster) -> None:
    replica = cluster.replicas[0]
    cluster.engine.delay(replica.name, 0.3)
    try:
        begun = time.monotonic()
        txids = [make_project(cluster, f"late {number}") for number in range(5)]
        until(lambda: late_ones(replica) == 5)
        assert time.monotonic() - begun > 0.3
        until(lambda: replica.has(txids[-1]))
    finally:
        cluster.engine.delay(replica.name, 0)


def test_a_primary_that_is_killed_loses_nothing_that_it_acknowledged(own_cluster: Cluster) -> None:
    names = {f"kept {number}" for number in range(20)}
    txid = [make_project(own_cluster, name) for name in sorted(names)][-1]
    own_cluster.primary.kill()
    for replica in own_cluster.replicas:
        until(lambda replica=replica: replica.has(txid))
        assert names <= project_names(replica)
    own_cluster.primary.start()
    assert names <= project_names(own_cluster.primary)
    later = make_project(own_cluster, "after the kill")
    for replica in own_cluster.replicas:
        until(lambda replica=replica: replica.has(later))


def test_a_machine_that_was_away_has_everything_when_it_is_back(own_cluster: Cluster) -> None:
    replica = own_cluster.replicas[0]
    replica.stop()
    own_cluster.engine.stop(replica.name)
    txid = make_project(own_cluster, "while away")
    own_cluster.engine.start(replica.name)
    replica.start()
    until(lambda: replica.has(txid))
    assert "while away" in project_names(replica)


def test_replicas_follow_a_primary_whose_engine_was_started_again(own_cluster: Cluster) -> None:
    make_project(own_cluster, "before")
    own_cluster.primary.stop()
    own_cluster.engine.stop(PRIMARY)
    own_cluster.engine.start(PRIMARY)
    own_cluster.primary.start()
    later = make_project(own_cluster, "after")
    for replica in own_cluster.replicas:
        until(lambda replica=replica: replica.has(later))
        assert {"before", "after"} <= project_names(replica)


def test_an_engine_that_is_gone_takes_its_machine_out_of_routing(own_cluster: Cluster) -> None:
    """A replica whose lag nobody knows is not ready, and whatever it answers is no 500."""
    replica = own_cluster.replicas[0]
    own_cluster.engine.kill(replica.name)
    until(
        lambda: tells(
            replica, "/readyz", lambda answer: (answer.status_code, "retry-after" in answer.headers) == (503, True)
        )
    )
    until(lambda: tells(replica, "/api/health", lambda answer: answer.json()["lagMs"] is None))
    assert own_cluster.replicas[1].get("/readyz").status_code == 200


def tells(machine: Machine, path: str, expected: Callable[[httpx.Response], bool]) -> bool:
    """Whether it answers so, or has ended by SIGBUS: SQLite maps a file of the mount, which is gone."""
    try:
        return expected(answer_of(machine, path))
    except httpx.TransportError:
        assert machine.process is not None
        assert machine.process.wait(STOP_SECONDS) == -signal.SIGBUS, machine.log()
        return True


def answer_of(machine: Machine, path: str) -> httpx.Response:
    answer: httpx.Response = machine.get(path)
    assert answer.status_code != 500, answer.text
    return answer


def test_commands_on_a_replica_read_and_leave_the_rest_to_the_primary(cluster: Cluster) -> None:
    replica = cluster.replicas[0]
    added = cluster.primary.command("origins", "add", "https://seen.example.com")
    assert added.returncode == 0, added.stderr
    until(lambda: "https://seen.example.com" in replica.command("origins", "list").stdout)
    for words in (
        ("origins", "add", "https://lost.example.com"),
        ("migrate",),
        ("verify-usage",),
    ):
        refused = replica.command(*words)
        assert refused.returncode == 1
        assert "replica" in refused.stderr.lower()
        assert "Traceback" not in refused.stderr
    assert "lost" not in cluster.primary.command("origins", "list").stdout
    assert "integrity" not in replica.command("doctor").stdout


def test_an_origin_that_is_listed_at_the_primary_is_allowed_everywhere(cluster: Cluster) -> None:
    origin = "https://new.example.com"
    assert cluster.primary.command("origins", "add", origin).returncode == 0
    for machine in cluster.machines:
        until(lambda machine=machine: allows(machine, origin))
    assert cluster.primary.command("origins", "remove", origin).returncode == 0
    for machine in cluster.machines:
        until(lambda machine=machine: not allows(machine, origin))


def allows(machine: Machine, origin: str) -> bool:
    return machine.get("/livez", Origin=origin).headers.get("access-control-allow-origin") == origin
