"""Remains of deleted instances in the replica: they go once no instant that can be restored has the instance."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.edge import bucket, replica
from app.edge.clock import now_ms
from app.edge.database import Database, Transaction
from app.errors import Unavailable
from app.instances.remains import KEPT_MS, Remains
from tests.cluster.s3 import BUCKET, S3, serving_s3

pytestmark = pytest.mark.anyio

EPOCHS = ("1-aaaa", "2-bbbb")
# More than a bucket lists, or deletes, in one request.
OBJECTS = bucket.KEYS_AT_ONCE + 200


class Replica:
    """`url` is what it is asked by; its objects are files below `folder`."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder

    def put(self, name: str, objects: int = 3) -> None:
        for epoch in EPOCHS:
            level = self.folder / "instances" / name / epoch / "ltx" / "0"
            level.mkdir(parents=True, exist_ok=True)
            for number in range(objects):
                (level / f"{number:016x}.ltx").write_bytes(b"ltx")

    def count(self, name: str) -> int:
        return sum(1 for _ in (self.folder / "instances" / name).rglob("*.ltx"))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with serving_s3(tmp_path_factory.mktemp("store")) as serving:
        yield serving


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replica:
    if request.param == "file":
        return Replica(f"file://{tmp_path}/replica", tmp_path / "replica")
    s3: S3 = request.getfixturevalue("s3")
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    return Replica(s3.url(tmp_path.name), s3.folder / BUCKET / tmp_path.name)


def bury(tx: Transaction, name: str, at_ms: int) -> None:
    tx.execute("INSERT INTO instance_tombstones (instance_id, region, deleted_at_ms) VALUES (?, 'fra', ?)", name, at_ms)


async def test_all_epochs_go_of_what_was_deleted_long_ago_and_of_nothing_else(db: Database, store: Replica) -> None:
    now = now_ms()
    for name in ("old", "fresh", "living", "old-2", "ol"):
        store.put(name)
    await db.write(bury, "old", now - KEPT_MS - 1)
    await db.write(bury, "fresh", now - KEPT_MS + 60_000)
    assert await Remains(db, store.url).remove(now) == 1
    left = {name: store.count(name) for name in ("old", "fresh", "living", "old-2", "ol")}
    assert left == {"old": 0, "fresh": 6, "living": 6, "old-2": 6, "ol": 6}


async def test_an_id_that_is_in_use_again_keeps_its_objects(db: Database, store: Replica) -> None:
    """A row that an operator put back by hand is an instance, whatever its tombstone says."""

    def insert(tx: Transaction) -> None:
        bury(tx, "back", 0)
        tx.execute("INSERT INTO users (id, created_at, updated_at) VALUES ('u', '', '')")
        tx.execute(
            """INSERT INTO projects (id, owner_id, name, updated_at_ms, created_at, updated_at)
               VALUES ('p', 'u', 'p', 0, '', '')"""
        )
        tx.execute(
            """INSERT INTO instances (id, project_id, name, region, created_at, updated_at)
               VALUES ('back', 'p', 'a', 'fra', '', '')"""
        )

    await db.write(insert)
    store.put("back")
    assert await Remains(db, store.url).remove(now_ms()) == 0
    assert store.count("back") == 6


async def test_what_is_shipped_late_is_found_by_the_next_look(db: Database, store: Replica) -> None:
    await db.write(bury, "old", 0)
    remains = Remains(db, store.url)
    store.put("old")
    await remains.remove(now_ms())
    store.put("old", 1)
    assert store.count("old") == 2
    await remains.remove(now_ms())
    assert store.count("old") == 0


async def test_more_objects_go_than_one_request_may_name(db: Database, store: Replica) -> None:
    await db.write(bury, "old", 0)
    store.put("old", OBJECTS // 2)
    assert await Remains(db, store.url).remove(now_ms()) == 1
    assert store.count("old") == 0


async def test_a_replica_that_is_away_is_unavailable_and_loses_nothing(db: Database, tmp_path: Path) -> None:
    await db.write(bury, "old", 0)
    away = S3(tmp_path)
    with pytest.raises(Unavailable, match="does not answer"):
        await Remains(db, away.url("prod")).remove(now_ms())


def test_what_is_deleted_has_a_name(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one it would be all of the bucket, and the replica may not be the only thing there."""
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    beside = Replica(s3.url(tmp_path.name), s3.folder / BUCKET / tmp_path.name)
    beside.put("living")
    for whole in (s3.url(""), s3.url("/")):
        with pytest.raises(ValueError, match="all of a bucket"):
            replica.remove_folder(whole)
    assert beside.count("living") == 6
