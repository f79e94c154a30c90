"""Random writes and reads over machines that lag: nobody misses its own write, and lag never looks like a refusal."""

import itertools
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.edge.freshness import REMEMBERED_SECONDS
from tests.cluster.cast import Cluster
from tests.projects.conftest import Key, Person
from tests.waiting import until

pytestmark = pytest.mark.parametrize("replay", ["forward", "fly"], indirect=True)

MACHINES = st.integers(0, 2)
REPLICAS = st.integers(1, 2)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pause"), REPLICAS),
        st.tuples(st.just("follow"), REPLICAS),
        st.tuples(st.just("lag"), REPLICAS),
        st.tuples(st.just("far"), MACHINES),
        st.tuples(st.just("write"), MACHINES),
        st.tuples(st.just("read"), MACHINES),
        st.tuples(st.just("rename"), MACHINES),
        st.tuples(st.just("tell"), MACHINES),
        st.tuples(st.just("new key"), MACHINES),
    ),
    min_size=3,
    max_size=10,
)
EXAMPLES = 6
REVOKED_SECONDS = 1.0
_numbers = itertools.count(1)


class Caller:
    """Somebody who knows what it has written, and must find it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.person: Person = cluster.person()
        self.credential: Person | Key = self.person
        self.friend = cluster.person()
        self.projects: dict[str, str] = {}
        self.token: dict[str, str] = {}
        self.wrote = 0.0

    def ask(self, member: int, method: str, path: str, body: Any = None) -> Any:
        answer = self.cluster.ask(member, self.credential, method, path, body, **self.token)
        assert answer.status_code in (200, 201), f"{method} {path} at {member}: {answer.status_code} {answer.text}"
        if method != "GET":
            self.wrote = time.monotonic()
            self.remember(answer.headers["x-txid"])
        return answer.json()

    def remember(self, token: str) -> None:
        """Say with the next request how far this one has come."""
        self.token = {"X-Txid": token}

    def write(self, member: int) -> None:
        name = f"project {next(_numbers)}"
        made = self.ask(member, "POST", "/api/projects", {"name": name})["id"]
        let_in = {"targetType": "user", "targetId": self.friend.id, "permission": "read"}
        self.ask(member, "POST", f"/api/projects/{made}/shares", let_in)
        self.projects[made] = name

    def rename(self, member: int) -> None:
        for project in list(self.projects)[-1:]:
            name = f"project {next(_numbers)}"
            self.ask(member, "PUT", f"/api/projects/{project}", {"name": name})
            self.projects[project] = name

    def read(self, member: int) -> None:
        listed = self.ask(member, "GET", "/api/projects")["projects"]
        assert {project["id"]: project["name"] for project in listed} == self.projects
        for project, name in list(self.projects.items())[-1:]:
            assert self.ask(member, "GET", f"/api/projects/{project}")["name"] == name

    def tell(self, member: int) -> None:
        """Somebody who knows nothing of positions comes with what it was told: that is never refused."""
        for project in list(self.projects)[-1:]:
            for who in (self.friend, self.credential):
                answer = self.cluster.ask(member, who, "GET", f"/api/projects/{project}")
                assert answer.status_code == 200, f"{member}: {answer.status_code} {answer.text}"

    def take_new_key(self, member: int) -> None:
        """Go on with a key that no copy has heard of."""
        asked = {"name": "k", "permissions": ["read", "write", "admin"]}
        self.credential = self.person
        made = self.ask(member, "POST", "/api/keys", asked)
        self.credential = Key(made["id"], {"X-API-Key": made["key"]})


class Silent(Caller):
    """One that never says how far it has come, stays with one machine and keeps its credential."""

    def __init__(self, cluster: Cluster, member: int) -> None:
        super().__init__(cluster)
        self.member = member

    def remember(self, token: str) -> None: ...

    def read_soon(self) -> None:
        if time.monotonic() - self.wrote < REMEMBERED_SECONDS / 2:
            self.read(self.member)


def _apply(cluster: Cluster, caller: Caller, step: tuple[str, int]) -> None:
    what, member = step
    if what == "pause":
        cluster.machines[member].control(paused=True)
    elif what == "follow":
        cluster.machines[member].control()
    elif what == "lag":
        cluster.machines[member].control(delay=0.05)
    elif what == "far":
        cluster.machines[member].line.delay = 0.02
    elif what == "write":
        caller.write(member)
    elif what == "rename":
        caller.rename(member)
    elif what == "tell":
        caller.tell(member)
    elif what == "new key":
        caller.take_new_key(member)
    else:
        caller.read(member)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_who_says_how_far_it_has_come_finds_it_everywhere(cluster: Cluster, steps: list[tuple[str, int]]) -> None:
    cluster.calm()
    caller = Caller(cluster)
    for step in steps:
        _apply(cluster, caller, step)
    for member in range(3):
        caller.tell(member)
        caller.read(member)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(member=MACHINES, steps=STEPS)
def test_who_says_nothing_finds_it_where_it_stays(cluster: Cluster, member: int, steps: list[tuple[str, int]]) -> None:
    cluster.calm()
    caller = Silent(cluster, member)
    for what, where in steps:
        if what == "read":
            caller.read_soon()
        elif what != "new key":
            _apply(cluster, caller, (what, member if what in ("write", "rename") else where))
    caller.write(member)
    caller.read_soon()


@pytest.mark.parametrize("asked", range(3))
def test_a_key_that_is_revoked_is_refused_everywhere_within_a_second(cluster: Cluster, asked: int) -> None:
    alice = cluster.person()
    made = cluster.ask(asked, alice, "POST", "/api/keys", {"name": "k", "permissions": ["read"]}).json()
    key = Key(made["id"], {"X-API-Key": made["key"]})
    for member in range(3):
        assert cluster.ask(member, key, "GET", "/api/projects").status_code == 200
    assert cluster.ask(asked, alice, "DELETE", f"/api/keys/{made['id']}").status_code == 200

    def is_refused_at(member: int) -> bool:
        return cluster.ask(member, key, "GET", "/api/projects").status_code == 401

    until(lambda: all(map(is_refused_at, range(3))), REVOKED_SECONDS)
