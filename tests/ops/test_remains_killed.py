"""Remains of deleted instances, removed by a server that is killed half way."""

import os
import time
from pathlib import Path

from app.edge import sqlite
from app.instances.remains import KEPT_MS
from tests.cluster.backing import Backed
from tests.instances.test_remains import Replica
from tests.waiting import SOON_SECONDS, until

# So many in one folder that a kill meets their removal half done.
MANY = 8_000


def test_a_server_removes_them_and_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    backed = Backed(tmp_path, f"file://{tmp_path}/replica")
    store = Replica("", tmp_path / "replica")
    backed.start()
    try:
        with backed.server.client() as client:
            kept, gone = backed.make_room(client), backed.make_room(client)
            for backed.room in (kept, gone):
                assert backed.put_key(client, "k", 1).status_code == 201
            until(lambda: store.count(kept) > 0 and store.count(gone) > 0)
            assert client.delete(f"/api/instances/{gone}").status_code == 200
        backed.kill()
        assert store.count(gone) > 0, "an instant of before the deletion can be restored"
        raw = sqlite.connect(backed.data / "core.db")
        raw.execute("UPDATE instance_tombstones SET deleted_at_ms = deleted_at_ms - ?", (KEPT_MS,))
        raw.close()
        full = store.folder / "instances" / gone / "0-full"
        full.mkdir()
        (full / "first").touch()
        for number in range(MANY):
            os.link(full / "first", full / str(number))
        backed.start()
        deadline = time.monotonic() + SOON_SECONDS
        while len(os.listdir(full)) > MANY:
            assert time.monotonic() < deadline
        backed.server.kill()
        assert 0 < len(os.listdir(full)) <= MANY
        backed.start()
        until(lambda: not (store.folder / "instances" / gone).exists())
        assert store.count(kept) > 0
        backed.restore("--to", str(tmp_path / "there"), "--instance", kept)
    finally:
        backed.close()
