"""`litehouse backup`: what it says of a backup, and what it brings back, beside a server and without one."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.edge import sqlite
from app.edge.clock import instant, now_ms
from app.instances.store import path_of
from tests.cli.conftest import refusal, run
from tests.cluster.backing import Backed
from tests.conftest import Server, rows_of
from tests.instances.conftest import dial, joined
from tests.waiting import is_alive, until


@pytest.fixture
def backed(tmp_path: Path) -> Iterator[Backed]:
    made = Backed(tmp_path, f"file://{tmp_path}/replica", "all")
    made.start()
    yield made
    made.close()


@pytest.fixture
def client(backed: Backed) -> Iterator[httpx.Client]:
    """Of a server that holds three events, and a room with one key."""
    with backed.server.client() as client:
        backed.make_room(client)
        for _ in range(3):
            assert backed.post_event(client).status_code == 200
        assert backed.put_key(client, "k", 1).status_code == 201
        yield client


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backed]:
    """The same for all that only ask, beside a server that runs on."""
    folder = tmp_path_factory.mktemp("lasting")
    made = Backed(folder, f"file://{folder}/replica", "all")
    made.start()
    with made.server.client() as client:
        made.make_room(client)
        assert made.post_event(client).status_code == 200
        assert made.put_key(client, "k", 1).status_code == 201
    yield made
    made.close()


def epoch_of_core(folder: Path) -> str:
    epoch: str = rows_of(folder / "core.db", "SELECT epoch FROM replication_token")[0][0]
    return epoch


def epochs_of_room(backed: Backed, folder: Path) -> list[tuple[Any, ...]]:
    path = path_of(folder / "instances", backed.room)
    return rows_of(path, "SELECT epoch, first_seq FROM epochs ORDER BY rowid")


def between(backed: Backed) -> str:
    """An instant after everything that was written, and before everything that will be."""
    then, mark = now_ms() + 1, backed.data.parent / "mark"

    def is_over() -> bool:
        # The clock of a file system lags behind the machine's.
        mark.touch()
        return mark.stat().st_mtime_ns // 1_000_000 > then

    until(is_over)
    return instant(then)


# -- status and verify ---------------------------------------------------------------------------------------


def test_status_shows_each_file_and_what_its_replica_lacks(lasting: Backed) -> None:
    found = {one["file"]: one for one in run(lasting.server, "backup", "status")}
    core, room = found["core"], found[lasting.room]
    assert (core["held"], core["behind"], core["epochs"]) == (True, 0, [])
    assert (room["held"], room["behind"]) == (True, 0)
    assert room["epochs"] == [epochs_of_room(lasting, lasting.data)[0][0]]
    assert core["replica"].endswith("/replica/core")
    assert abs(datetime.fromisoformat(core["lastSync"]).timestamp() - time.time()) < 60


def test_status_fails_where_nobody_holds_the_core(backed: Backed, client: httpx.Client) -> None:
    backed.server.stop()
    done = backed.server.command("backup", "status", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)[0]["held"] is False
    backed.server.environ |= {"REPLICATION": "litefs", "PRIMARY_REGION": "fra", "FLY_REGION": "ams"}
    assert backed.server.command("backup", "status").returncode == 0, "a replica's core is the primary's to hold"
    assert backed.server.command("backup", "status", "--instance", backed.room).returncode == 1


def test_without_a_backup_every_command_says_so(server: Server) -> None:
    for words in (("status",), ("verify",), ("restore", "--force")):
        assert refusal(server, "backup", *words) == "LITESTREAM_REPLICA_URL is not set: there is no backup."


def test_verify_finds_a_whole_backup_equal_to_what_is_in_use(backed: Backed, client: httpx.Client) -> None:
    verdicts = run(backed.server, "backup", "verify")
    assert [(one["file"], one["ok"], one["problems"]) for one in verdicts] == [
        ("core", True, []),
        (backed.room, True, []),
    ]
    assert verdicts[1]["live"] == "equal"
    backed.server.stop()
    assert [one["live"] for one in run(backed.server, "backup", "verify")] == ["equal", "equal"]


def test_verify_computes_the_counters_again(backed: Backed, client: httpx.Client) -> None:
    """A counter that was wrong in the file is wrong in its copy: the ledger tells."""
    raw = sqlite.connect(backed.data / "core.db")
    raw.execute("UPDATE usage_periods SET total_tokens = total_tokens + 1")
    raw.close()
    assert backed.post_event(client).status_code == 200
    done = backed.server.command("backup", "verify", "--json")
    assert done.returncode == 1
    assert "1 counters differ from the ledger" in json.loads(done.stdout)[0]["problems"][0]


def test_verify_finds_a_damaged_object(backed: Backed, client: httpx.Client, tmp_path: Path) -> None:
    backed.server.stop()
    for damaged in sorted((tmp_path / "replica" / "core" / "ltx").rglob("*.ltx")):
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 0xFF
        damaged.write_bytes(content)
    done = backed.server.command("backup", "verify", "--json")
    assert done.returncode == 1
    core, room = json.loads(done.stdout)
    assert (core["ok"], room["ok"]) == (False, True)
    assert core["problems"]


# -- restore -------------------------------------------------------------------------------------------------


def test_restore_is_refused_while_a_server_runs_and_where_files_are(backed: Backed, client: httpx.Client) -> None:
    said = refusal(backed.server, "backup", "restore", "--force")
    assert said.startswith("A server runs on ")
    assert client.get("/readyz").status_code == 200
    backed.server.stop()
    assert "With --force".lower() in refusal(backed.server, "backup", "restore").lower()
    assert len(backed.events()) == 3


def test_a_second_server_is_refused_while_one_is_backed_up(lasting: Backed) -> None:
    second = Server(lasting.data, **lasting.server.environ)
    second.log_path = lasting.data / "second.log"
    with pytest.raises(RuntimeError, match="Another server or a restore is at work"):
        second.start()


def test_restore_keeps_what_was_there_and_begins_new_epochs(backed: Backed, client: httpx.Client) -> None:
    before, before_room = epoch_of_core(backed.data), epochs_of_room(backed, backed.data)
    backed.server.stop()
    restored = run(backed.server, "backup", "restore", "--force")
    assert [one["file"] for one in restored] == ["core", backed.room]
    kept = Path(restored[0]["kept"])
    assert rows_of(kept, "SELECT count(*) FROM usage_logs") == [(3,)]
    assert epoch_of_core(backed.data) != before
    assert epochs_of_room(backed, backed.data)[:-1] == before_room
    assert epochs_of_room(backed, backed.data)[-1][1] == 2
    assert backed.events() == backed.acknowledged


def test_clients_of_a_restored_room_go_on_or_begin_anew(backed: Backed, client: httpx.Client) -> None:
    """Who had heard no more than was restored misses nothing; who had heard more is told to forget it."""
    with dial(backed.server, backed.room) as peer:
        epoch = peer.greeting()[0]["epoch"]
    then = between(backed)
    assert backed.put_key(client, "k", 2).status_code == 200
    backed.server.stop()
    backed.restore("--force", "--at", then)
    backed.start()
    with dial(backed.server, backed.room, since=1, epoch=epoch) as peer:
        greeted = peer.hear()
        assert (greeted["seq"], greeted["epoch"] != epoch) == (1, True)
        peer.say("set", key="k", value="new")
        assert peer.hear()["type"] == "key_updated"
    with dial(backed.server, backed.room, since=2, epoch=epoch) as peer:
        _, sync = peer.greeting()
        assert (sync["type"], sync["reason"]) == ("sync", "epoch")


def test_restore_gives_the_state_of_an_instant_and_goes_on_from_there(backed: Backed, client: httpx.Client) -> None:
    then = between(backed)
    early = list(backed.acknowledged)
    assert backed.post_event(client).status_code == 200
    assert backed.put_key(client, "k", 2).status_code == 200
    there = backed.data.parent / "there"
    run(backed.server, "backup", "restore", "--at", then, "--to", str(there))
    assert [row[0] for row in rows_of(there / "core.db", "SELECT response_id FROM usage_logs")] == early
    assert rows_of(path_of(there / "instances", backed.room), "SELECT value FROM entries") == [("1",)]

    backed.server.stop()
    backed.restore("--force", "--at", then)
    backed.start()
    with backed.server.client() as again:
        assert backed.post_event(again, "after the return").status_code == 200
        assert backed.put_key(again, "k", 5).status_code == 200
    backed.kill()
    backed.lose_disk()
    backed.restore()
    assert backed.events() == [*early, "after the return"]
    assert rows_of(path_of(backed.data / "instances", backed.room), "SELECT value FROM entries") == [("5",)]


def test_an_instant_after_the_last_write_is_the_newest_state(lasting: Backed, tmp_path: Path) -> None:
    there = tmp_path / "there"
    run(lasting.server, "backup", "restore", "--at", "2100-01-01T00:00:00Z", "--to", str(there))
    assert [row[0] for row in rows_of(there / "core.db", "SELECT response_id FROM usage_logs")] == lasting.acknowledged


def test_an_instant_before_the_backup_is_refused_and_nothing_is_moved(backed: Backed, client: httpx.Client) -> None:
    backed.server.stop()
    said = refusal(backed.server, "backup", "restore", "--force", "--at", "2020-01-01T00:00:00Z")
    assert "timestamp does not exist" in said
    assert backed.events() == backed.acknowledged
    assert backed.server.command("backup", "restore", "--at", "yesterday").returncode == 2


def test_one_instance_comes_back_alone(backed: Backed, client: httpx.Client) -> None:
    there = backed.data.parent / "there"
    (restored,) = run(backed.server, "backup", "restore", "--instance", backed.room, "--to", str(there))
    assert Path(restored["path"]) == path_of(there / "instances", backed.room)
    assert not (there / "core.db").exists()
    assert "no copy of instance nobody" in refusal(backed.server, "backup", "restore", "--instance", "nobody")

    backed.server.stop()
    path_of(backed.data / "instances", backed.room).unlink()
    run(backed.server, "backup", "restore", "--instance", backed.room)
    backed.start()
    with joined(backed.server, backed.room) as peer:
        peer.say("set", key="k", value="again")
        assert peer.hear()["seq"] == 2


def test_restore_ends_the_litestream_that_a_killed_server_left_behind(backed: Backed, client: httpx.Client) -> None:
    left = backed.litestream()
    backed.server.kill()
    assert is_alive(left)
    backed.restore("--force")
    assert not is_alive(left)
    assert backed.events() == backed.acknowledged


# -- the doctor, and deletion --------------------------------------------------------------------------------


def test_the_doctor_misses_a_litestream_that_does_not_answer(backed: Backed, client: httpx.Client) -> None:
    backed.server.stop()
    done = backed.server.command("doctor", "--json")
    assert done.returncode == 1
    assert "No Litestream answers" in next(one["detail"] for one in json.loads(done.stdout) if not one["ok"])


def test_the_doctor_asks_litestream_and_names_an_owner_that_shipped_after_the_next_had_begun(lasting: Backed) -> None:
    """What it shipped is in no instance: somebody has to look at it."""
    folder = lasting.data.parent / "replica" / "instances" / lasting.room
    first = next(folder.rglob("*1.ltx"))
    began = first.stat().st_mtime
    left = folder / "00fenced" / "ltx" / "0" / first.name
    left.parent.mkdir(parents=True)
    left.write_bytes(first.read_bytes())
    os.utime(left, (began - 60, began - 60))
    found = {one["check"]: one["detail"] for one in run(lasting.server, "doctor")}
    assert found["old epochs"] == "1 of past owners"
    assert re.match(r"holds \d+ files, last shipped \d+ s ago, nothing of the core is lacking", found["litestream"])
    late = left.with_name("0000000000000002-0000000000000002.ltx")
    late.write_bytes(first.read_bytes())
    os.utime(late, (began + 60, began + 60))
    done = lasting.server.command("doctor", "--json")
    assert done.returncode == 1
    wrong = next(one["detail"] for one in json.loads(done.stdout) if not one["ok"])
    assert lasting.room in wrong
    shutil.rmtree(folder / "00fenced")


def test_a_deleted_instance_is_held_no_longer_and_leaves_no_notes(backed: Backed, client: httpx.Client) -> None:
    path = path_of(backed.data / "instances", backed.room)
    assert path.exists()
    assert client.delete(f"/api/instances/{backed.room}").status_code in (200, 204)
    until(lambda: not path.exists())
    until(lambda: "litehouse_backup_files 1.0" in client.get("/metrics").text)
    until(lambda: not list(path.parent.iterdir()))


def test_a_clone_is_in_the_backup_before_anybody_opens_it(lasting: Backed, tmp_path: Path) -> None:
    with lasting.server.client() as client:
        body = {"name": "copy", "cloneFrom": lasting.room}
        made = client.post(f"/api/projects/{lasting.project}/instances", json=body)
    assert made.status_code in (200, 201), made.text
    there = tmp_path / "there"
    run(lasting.server, "backup", "restore", "--instance", made.json()["id"], "--to", str(there))
    assert rows_of(path_of(there / "instances", made.json()["id"]), "SELECT value FROM entries") == [("1",)]
