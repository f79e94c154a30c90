"""Resuming: a client that was away hears exactly what it missed, or everything and why."""

import json
import threading

import pytest

from app.edge import sqlite
from app.instances.resume import RESUMED_BYTES
from tests.conftest import Server, serving
from tests.instances.conftest import Peer, dial, fresh, in_background, joined
from tests.projects.conftest import Cast, Json, Person

CHANGES = 10
MIB = 1 << 20
RACES = 20
BURSTS = 8
BURST = 50


def write(peer: Peer, *values: int) -> list[Json]:
    for value in values:
        peer.say("set", key=f"k{value % 3}", value=value)
    return peer.settle()


def test_a_client_resumes_with_exactly_the_frames_that_it_missed(open_server: Server) -> None:
    name = fresh()
    with joined(open_server, name) as writer:
        told = write(writer, *range(CHANGES))
        writer.say("delete", key="k1")
        told += writer.settle()
        with dial(open_server, name, since=4) as later:
            epoch = later.hear()["epoch"]
            assert later.settle() == told[4:]
        with dial(open_server, name, since=CHANGES + 1, epoch=epoch) as later:
            assert later.hear()["type"] == "auth_success"
            assert later.settle() == []


@pytest.mark.parametrize(
    ("query", "reason"), [({"since": 99}, "ahead"), ({"since": 1, "epoch": "another"}, "epoch"), ({"since": "x"}, None)]
)
def test_who_cannot_resume_gets_everything_and_why(open_server: Server, query: Json, reason: str | None) -> None:
    name = fresh()
    with joined(open_server, name) as writer:
        write(writer, 1, 2)
    with dial(open_server, name, **query) as later:
        sync = later.greeting()[1]
    assert (sync["type"], sync.get("reason"), len(sync["data"])) == ("sync", reason, 2)


def test_what_history_no_longer_tells_is_synced_as_a_whole(tmp_path_factory: pytest.TempPathFactory) -> None:
    data_dir, name = tmp_path_factory.mktemp("retention") / "data", fresh()
    with serving(data_dir) as server:
        with joined(server, name) as writer:
            write(writer, *range(CHANGES))
        server.stop()
        raw = sqlite.connect(next(data_dir.glob(f"instances/*/{name}.db")))
        raw.execute("DELETE FROM history WHERE seq < 6")
        raw.execute("UPDATE instance SET told_from = 6")
        raw.close()
        server.start()
        with dial(server, name, since=4) as later:
            assert later.greeting()[1]["reason"] == "retention"
        with dial(server, name, since=5) as later:
            later.hear()
            assert [frame["seq"] for frame in later.settle()] == [6, 7, 8, 9, 10]


def test_who_resumes_while_others_write_misses_nothing_and_hears_nothing_twice(open_server: Server) -> None:
    name = fresh()
    # However slow who resumes is, it never misses more than history keeps.
    bursts = threading.Semaphore(0)
    with joined(open_server, name) as first:
        write(first, 1)

    def write_bursts() -> None:
        with joined(open_server, name, echo=0) as writer:
            for burst in range(RACES * BURSTS):
                bursts.acquire()
                for number in range(BURST):
                    writer.say("set", key=f"k{number % 7}", value=burst * BURST + number)
                writer.settle()

    thread = in_background(write_bursts)
    since = 1
    try:
        for _ in range(RACES):
            bursts.release(BURSTS)
            with dial(open_server, name, since=since) as later:
                assert later.hear()["type"] == "auth_success"
                heard = [frame["seq"] for frame in later.settle()]
            assert heard == list(range(since + 1, since + 1 + len(heard)))
            since += len(heard)
    finally:
        bursts.release(RACES * BURSTS)
        thread.join()
    assert since > RACES


def test_who_says_anew_who_it_is_gets_everything_and_nothing_of_long_ago(
    strict: Cast, alice: Person, room: str
) -> None:
    secret = strict.key(alice, "read", "write").headers["X-API-Key"]
    with joined(strict.server, room, alice.headers) as writer:
        write(writer, *range(CHANGES))
    with dial(strict.server, room, alice.headers, since=4) as later:
        assert later.hear()["permission"] == "admin"
        assert [frame["seq"] for frame in later.settle()] == list(range(5, CHANGES + 1))
        later.say("auth", apiKey=secret)
        first, second = later.greeting()
        assert (first["type"], first["permission"], second["type"]) == ("auth_success", "write", "sync")
        assert (second["seq"], len(second["data"]), "reason" in second) == (CHANGES, 3, False)
        assert [frame["seq"] for frame in write(later, 100)] == [CHANGES + 1]


def test_a_first_frame_that_brings_the_key_resumes(strict: Cast, alice: Person, room: str) -> None:
    secret = strict.key(alice, "read", "write").headers["X-API-Key"]
    with joined(strict.server, room, alice.headers) as writer:
        write(writer, *range(CHANGES))
    with dial(strict.server, room, since=8) as later:
        later.say("auth", apiKey=secret)
        assert later.hear()["type"] == "auth_success"
        assert [frame["seq"] for frame in later.settle()] == [9, 10]


def test_a_filtered_client_is_not_told_of_what_it_never_had(open_server: Server) -> None:
    name = fresh()
    with joined(open_server, name) as writer:
        for key in ("a/1", "b/1"):
            writer.say("set", key=key, value=1)
            writer.say("delete", key=key)
        writer.settle()
    with dial(open_server, name, since=0, prefix="a/") as later:
        later.hear()
        assert [frame["seq"] for frame in later.settle()] == [1, 2]


def test_a_stop_says_that_it_goes_away_and_nothing_is_missed(tmp_path_factory: pytest.TempPathFactory) -> None:
    data_dir, name = tmp_path_factory.mktemp("away") / "data", fresh()
    with serving(data_dir) as server:
        with joined(server, name) as reader, joined(server, name) as writer:
            seq = write(writer, *range(CHANGES))[-1]["seq"]
            assert len(reader.settle()) == CHANGES
            writer.say("set", key="last", value=1, opId="last")
            writer.until("ack")
            stopping = in_background(server.stop)
            away = reader.until("going_away")[-1]
            assert 0 < away["retryAfterMs"] <= 2_000
            assert reader.closed()[0] == 1012
            stopping.join()
        server.start()
        with dial(server, name, since=seq) as later:
            assert later.hear()["seq"] == CHANGES + 1
            (missed,) = later.settle()
            assert (missed["key"], missed["seq"]) == ("last", CHANGES + 1)
            later.socket.send(json.dumps({"type": "set", "key": "last", "value": 2, "opId": "last"}))
            assert later.settle() == [{"type": "ack", "opId": "last", "seq": CHANGES + 1}]


def test_who_missed_too_many_bytes_is_synced_as_a_whole(open_server: Server) -> None:
    name, value = fresh(), "x" * MIB
    with joined(open_server, name) as writer:
        for number in range(RESUMED_BYTES // MIB + 2):
            writer.say("set", key="k", value=f"{number}{value}")
            writer.until("key_updated")
        with dial(open_server, name, since=1) as later:
            assert later.greeting()[1]["reason"] == "retention"
        with dial(open_server, name, since=number - 1) as later:
            later.hear()
            assert [frame["seq"] for frame in later.settle()] == [number, number + 1]
