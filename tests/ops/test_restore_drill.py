"""The restore drill: the machine dies under its writers, its disk is gone, and the documented steps bring it back.

What would be lost: everything that was acknowledged, with it the trust in an acknowledgement.
"""

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.edge import integrity, sqlite
from app.edge.database import Connection
from app.instances.store import path_of
from app.usage import verify
from tests.cluster.backing import Backed
from tests.cluster.s3 import serving_s3
from tests.conftest import rows_of
from tests.waiting import until

ROUNDS = 2
WRITERS = 4
AT_LEAST = 30


@pytest.fixture(params=["folder", "s3"])
def drilled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backed]:
    """A server that acknowledges nothing before its replica has it."""
    if request.param == "folder":
        backed = Backed(tmp_path, f"file://{tmp_path}/replica", "all")
        yield backed
        backed.close()
        return
    with serving_s3(tmp_path / "store") as s3:
        backed = Backed(tmp_path, s3.url("prod"), "all", **s3.environ)
        yield backed
        backed.close()


def test_nothing_acknowledged_is_lost_with_the_disk(drilled: Backed) -> None:
    drilled.start()
    with drilled.server.client() as client:
        drilled.make_room(client)
    for _ in range(ROUNDS):
        write_until_killed(drilled)
        drilled.lose_disk()
        drilled.restore()
        check_core(drilled, drilled.acknowledged)
        check_room(drilled)
        drilled.start()
        with drilled.server.client() as client:
            found = client.get(f"/api/instances/{drilled.room}/keys").json()["keys"]
            assert {key: entry["value"] for key, entry in found.items()} == drilled.keys


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Backed]:
    """A server that does not wait for its replica."""
    backed = Backed(tmp_path, f"file://{tmp_path}/replica")
    backed.start()
    yield backed
    backed.close()


def test_without_durable_acknowledgement_a_restart_ships_what_the_kill_cut_off(quick: Backed) -> None:
    """The disk is there, the replica is behind: what comes back later must not lack the gap."""
    backed = quick
    with backed.server.client() as client:
        backed.make_room(client)
    for _ in range(ROUNDS):
        write_until_killed(backed)
        backed.start()
        assert set(backed.acknowledged) <= set(backed.events())
    counts = integrity.count_rows(backed.data / "core.db")
    with backed.server.client() as client:
        # Opened by the start, because the kill had left its log behind.
        until(lambda: client.get("/metrics").text.count("litehouse_backup_files 2.0") == 1)
    assert backed.server.stop() == 0
    backed.lose_disk()
    backed.restore()
    check_core(backed, backed.acknowledged)
    check_room(backed)
    after = integrity.count_rows(backed.data / "core.db")
    assert {name for name in counts if counts[name] > after[name]} == set()


def write_until_killed(backed: Backed) -> None:
    """Writers of events and one of keys, and a kill in the middle of them."""
    begun = len(backed.acknowledged)
    threads = [threading.Thread(target=post_events, args=(backed,)) for _ in range(WRITERS)]
    threads.append(threading.Thread(target=put_keys, args=(backed,)))
    for thread in threads:
        thread.start()
    wanted = begun + AT_LEAST + random.randrange(AT_LEAST)
    until(lambda: len(backed.acknowledged) >= wanted and len(backed.keys) > 0, seconds=30)
    backed.kill()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def post_events(backed: Backed) -> None:
    with backed.server.client() as client:
        try:
            while True:
                backed.post_event(client)
        except httpx.TransportError:
            return


def put_keys(backed: Backed) -> None:
    """Values that only grow, so that one that came back too old is seen."""
    with backed.server.client() as client:
        value = max(backed.keys.values(), default=0)
        try:
            while True:
                value += 1
                backed.put_key(client, f"k{value % 3}", value)
        except httpx.TransportError:
            return


def check_core(backed: Backed, acknowledged: list[str]) -> None:
    path = backed.data / "core.db"
    assert integrity.integrity_check(path) == []
    assert integrity.foreign_key_check(path) == []
    held = backed.events()
    assert len(held) == len(set(held))
    assert set(acknowledged) <= set(held)
    with sqlite.snapshot(path) as raw:
        assert verify.verify(Connection(raw)).clean


def check_room(backed: Backed) -> None:
    """Every acknowledged key is there, or what a writer set after it and never heard of."""
    path = path_of(backed.data / "instances", backed.room)
    assert integrity.integrity_check(path) == []
    held = {key: int(value) for key, value in rows_of(path, "SELECT key, value FROM entries")}
    assert held.keys() >= backed.keys.keys()
    assert all(held[key] >= value for key, value in backed.keys.items())
    backed.keys = held
