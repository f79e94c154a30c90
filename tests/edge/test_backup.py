"""The backup: a real Litestream beside a database, ended, killed, left behind and found again."""

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.edge import litestream, migrate, sqlite
from app.edge.backup import Backup, list_sources
from app.edge.control import Control
from app.edge.database import Database, Transaction
from app.edge.litestream import replica_of
from app.settings import Settings, read_settings
from tests.waiting import comes, is_alive

pytestmark = pytest.mark.anyio
FILES = 200
# Of our own processor time: what a loaded machine adds to the waits says nothing.
HOLD_CPU_SECONDS = 3.0
LEFT_BEHIND = """
import asyncio, os, sys
from pathlib import Path
import app
from tests.edge.test_backup import settings_of, backed_up, add
async def main():
    async with backed_up(settings_of(Path(sys.argv[1]))) as (db, backup):
        await db.write(add, "before the kill")
        print(backup.pid, flush=True)
        await db.write(add, "after it was told")
        os.kill(os.getpid(), 9)
asyncio.run(main())
"""


def settings_of(folder: Path, durable: str = "core") -> Settings:
    url = f"file://{folder}/replica"
    return read_settings({"DATA_DIR": str(folder / "data"), "LITESTREAM_REPLICA_URL": url, "DURABLE_ACK": durable})


@asynccontextmanager
async def backed_up(settings: Settings) -> AsyncIterator[tuple[Database, Backup]]:
    assert settings.backup_url is not None
    migrate.migrate(settings.database_path, "core")
    backup = Backup(settings, settings.backup_url)
    backup.start()
    db = Database(settings.database_path)
    backup.guard(db)
    db.open()
    try:
        yield db, backup
    finally:
        await db.close()
        await backup.close()


def add(tx: Transaction, name: str) -> None:
    tx.execute("INSERT INTO origins (origin, created_at) VALUES (?, '2026-01-01 00:00:00')", name)


def restored(url: str, scratch: Path, table: str = "origins", column: str = "origin") -> list[str]:
    """What the replica holds of a table."""
    path = scratch / f"restored-{time.monotonic_ns()}.db"
    litestream.restore(url, path)
    raw = sqlite.connect(path, read_only=True)
    try:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [row[0] for row in raw.execute(f"SELECT {column} FROM {table} ORDER BY rowid")]
    finally:
        raw.close()


async def test_an_answer_comes_after_the_replica_has_the_commit(tmp_path: Path) -> None:
    """A write that was answered too early would be missing from what the replica gives at that moment."""
    settings = settings_of(tmp_path)
    core = replica_of(f"file://{tmp_path}/replica", "core")
    async with backed_up(settings) as (db, _):
        for number in range(5):
            await db.write(add, f"o{number}")
            held = await asyncio.to_thread(restored, core, tmp_path)
            assert held == [f"o{n}" for n in range(number + 1)]


async def test_without_durable_acknowledgement_the_rest_is_shipped_at_the_end(tmp_path: Path) -> None:
    async with backed_up(settings_of(tmp_path, "off")) as (db, backup):
        await comes(lambda: backup.age_ms is not None)
        for number in range(50):
            await db.write(add, f"o{number}")
    assert restored(f"file://{tmp_path}/replica/core", tmp_path) == [f"o{number}" for number in range(50)]


async def test_the_log_of_a_file_that_litestream_holds_is_checkpointed_by_litestream_alone(tmp_path: Path) -> None:
    async with backed_up(settings_of(tmp_path)) as (db, _):
        assert await db.write(lambda tx: tx.fetch_one("PRAGMA wal_autocheckpoint")) == (0,)


async def test_a_litestream_that_was_killed_comes_back_and_holds_what_it_held(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "all")
    room, room_url = tmp_path / "room.db", f"file://{tmp_path}/replica/instances/room/e1"
    migrate.migrate(room, "instance")
    async with backed_up(settings) as (db, backup):
        await backup.hold(room, room_url)
        await db.write(add, "before")
        first = backup.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await db.write(add, "while it was away")
        await backup.ship(room)
        assert backup.pid not in (None, first)
        assert restored(f"file://{tmp_path}/replica/core", tmp_path) == ["before", "while it was away"]
        assert restored(room_url, tmp_path, "schema", "version") == [migrate.list_migrations("instance")[-1].version]
        await backup.release(room)


async def test_one_that_a_killed_server_left_behind_is_ended_before_another_begins(tmp_path: Path) -> None:
    """Two on one file would each ship what the other has not."""
    command = [sys.executable, "-c", LEFT_BEHIND, str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, timeout=60)
    left = int(done.stdout)
    assert done.returncode == -signal.SIGKILL
    assert is_alive(left)
    async with backed_up(settings_of(tmp_path)) as (db, backup):
        await db.write(add, "of the next server")
        assert not is_alive(left)
        assert backup.pid not in (None, left)
        expected = ["before the kill", "after it was told", "of the next server"]
        assert await asyncio.to_thread(restored, f"file://{tmp_path}/replica/core", tmp_path) == expected


async def test_closing_leaves_no_litestream(tmp_path: Path) -> None:
    async with backed_up(settings_of(tmp_path)) as (db, backup):
        await db.write(add, "one")
        pid = backup.pid
        assert pid is not None and is_alive(pid)
    assert not is_alive(pid)


async def test_hundreds_of_files_are_taken_and_given_back_cheaply(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    paths = [tmp_path / "instances" / f"{number}.db" for number in range(FILES)]
    for path in paths:
        migrate.migrate(path, "instance")
    urls = [f"file://{tmp_path}/replica/instances/{path.stem}/e1" for path in paths]
    async with backed_up(settings) as (db, backup):
        await db.write(add, "it runs")
        began = time.process_time()
        for path, url in zip(paths, urls, strict=True):
            await backup.hold(path, url)
        assert backup.files == FILES + 1
        for path in paths:
            await backup.release(path)
        spent = time.process_time() - began
        assert spent < HOLD_CPU_SECONDS
        await comes(lambda: backup.files == 1)
        control = Control(settings.backup_socket)
        listed = await control.list_files()
        await control.close()
        assert [one.path for one in listed] == [str(settings.database_path)]
    newest = migrate.list_migrations("instance")[-1].version
    assert restored(urls[0], tmp_path, "schema", "version") == [newest]
    assert restored(urls[-1], tmp_path, "schema", "version") == [newest]


async def test_a_file_that_is_taken_twice_is_held_until_both_have_given_it_back(tmp_path: Path) -> None:
    """A hub that closes while the next one opens must not stop what ships the next one's commits."""
    room, url = tmp_path / "room.db", f"file://{tmp_path}/replica/instances/room/e1"
    migrate.migrate(room, "instance")
    async with backed_up(settings_of(tmp_path)) as (db, backup):
        await db.write(add, "it runs")
        await backup.hold(room, url)
        await asyncio.gather(backup.release(room), backup.hold(room, url))
        await backup.ship(room)
        await backup.release(room)
        assert backup.files == 1


async def test_a_file_goes_to_another_replica_whole_whatever_is_noted_of_the_first(tmp_path: Path) -> None:
    """Its first transactions are no longer noted, and the other replica has never seen them."""
    room, urls = tmp_path / "room.db", [f"file://{tmp_path}/replica/instances/room/e{number}" for number in (1, 2)]
    migrate.migrate(room, "instance")
    async with backed_up(settings_of(tmp_path)) as (db, backup):
        await db.write(add, "it runs")
        for url in urls:
            await backup.hold(room, url)
            await backup.ship(room)
            await backup.release(room)
            await comes(lambda: backup.files == 1)
            forget_first(litestream.notes_of(room))
        assert await asyncio.to_thread(restored, urls[1], tmp_path, "schema", "version")
    forget_first(tmp_path / "data" / "litestream" / "core")
    moved = dataclasses.replace(settings_of(tmp_path), backup_url=f"file://{tmp_path}/moved")
    async with backed_up(moved) as (db, _):
        await db.write(add, "elsewhere")
    assert restored(f"file://{tmp_path}/moved/core", tmp_path) == ["it runs", "elsewhere"]


def forget_first(notes: Path) -> None:
    """As Litestream itself does once it is old enough."""
    (notes / "ltx" / "0" / "0000000000000001-0000000000000001.ltx").unlink()


async def test_a_ledger_that_begins_while_we_serve_is_shipped_too(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    async with backed_up(settings) as (db, backup):
        await db.write(add, "it runs")
        migrate.migrate(settings.ledger_path, "instance")
        await comes(lambda: backup.files == 2)
        await backup.ship(settings.ledger_path)
        ledger = f"file://{tmp_path}/replica/ledger"
        assert await asyncio.to_thread(restored, ledger, tmp_path, "schema", "version")


async def test_a_replica_of_the_core_ships_its_instances_alone(tmp_path: Path) -> None:
    """The core's replica has one writer: the primary's Litestream."""
    environ = {
        "DATA_DIR": str(tmp_path / "data"),
        "LITESTREAM_REPLICA_URL": f"file://{tmp_path}/replica",
        "REPLICATION": "litefs",
        "FLY_REGION": "ams",
        "FLY_MACHINE_ID": "m2",
        "PRIMARY_REGION": "fra",
        "PEERS": "fra/m1=http://127.0.0.1:1,ams/m2=http://127.0.0.1:2",
        "PEER_SECRET": "p" * 32,
        "JWT_SECRET": "j" * 32,
        "DATABASE_PATH": str(tmp_path / "mount/core.db"),
    }
    room, url = tmp_path / "room.db", f"file://{tmp_path}/replica/instances/room/e1"
    migrate.migrate(room, "instance")
    async with backed_up(read_settings(environ)) as (_, backup):
        await backup.hold(room, url)
        await backup.ship(room)
        assert backup.files == 1
        await backup.release(room)
    assert [path.name for path in (tmp_path / "replica").iterdir()] == ["instances"]


@pytest.mark.parametrize(("mounted", "pages"), [(True, 1_000), (False, 8_000)])
def test_a_mounts_log_is_kept_short_and_litestreams_notes_are_outside_it(
    tmp_path: Path, mounted: bool, pages: int
) -> None:
    environ = {"DATA_DIR": str(tmp_path), "DATABASE_PATH": "/litefs/core.db"}
    source, *_ = list_sources(read_settings(environ), "s3://bucket/prod?region=auto")
    config = json.loads(litestream.encode_config(tmp_path / "socket", [source], mounted=mounted))
    (core,) = config["dbs"]
    assert core["min-checkpoint-page-count"] == pages
    assert (core["path"], core["meta-path"]) == ("/litefs/core.db", f"{tmp_path}/litestream/core")
    assert core["replica"]["url"] == "s3://bucket/prod/core?region=auto"


def test_the_path_of_a_file_goes_before_the_query_of_the_replica() -> None:
    url = "s3://bucket/prefix/?endpoint=http://127.0.0.1:9000&region=auto"
    expected = "s3://bucket/prefix/instances/a/b?endpoint=http://127.0.0.1:9000&region=auto"
    assert replica_of(url, "instances", "a", "b") == expected


def test_litestream_does_not_see_what_breaks_its_s3_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    monkeypatch.setenv("AWS_REGION", "auto")
    assert "AWS_CA_BUNDLE" not in litestream.environment()
    assert litestream.environment()["AWS_REGION"] == "auto"
