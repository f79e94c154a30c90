"""A rolling deploy: machines are replaced one by one under load, the primary last, and nobody loses anything."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.edge import migrate, sqlite
from app.identity.demo import DEMO_USER
from tests.cluster.cast import ENGINE_NAMES, Cluster, Machine, running
from tests.cluster.visitors import EVENT_TOKENS, Listener, Reader, Relay, Visitor, Writer, until_all
from tests.conftest import ADMIN_TOKEN
from tests.waiting import until

ROOM = "drill"
# Between two replacements each relay gets so many accepted.
EVENTS = 10
ADDED = "CREATE TABLE added (id INTEGER PRIMARY KEY, note TEXT NOT NULL DEFAULT '') STRICT;\n"


@pytest.fixture(params=ENGINE_NAMES)
def deployed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """Machines of this release, in development: whoever comes may write."""
    with running(request.param, tmp_path / "machines") as made:
        yield made


def make_next_release(folder: Path) -> int:
    """This release's migrations and one more; its version."""
    shutil.copytree(migrate.MIGRATIONS, folder)
    version = migrate.newest("core") + 1
    (folder / "core" / f"{version:04}_added.sql").write_text(ADDED)
    return version


def replace(cluster: Cluster, member: Machine, migrations: Path) -> None:
    """SIGTERM, and the next release in its place; what brings the core to the machine goes and comes along."""
    assert member.stop() == 0, member.log()
    cluster.engine.stop(member.name)
    member.module = "tests.cluster.next_release"
    member.environ["NEXT_MIGRATIONS"] = str(migrations)
    cluster.engine.start(member.name)
    member.start()


def version_at(member: Machine) -> int:
    raw = sqlite.connect(member.database, read_only=True)
    try:
        return migrate.read_version(raw)[0]
    finally:
        raw.close()


def test_machines_are_replaced_under_load_and_nobody_loses_anything(deployed: Cluster, tmp_path: Path) -> None:
    migrations = tmp_path / "migrations"
    version = make_next_release(migrations)
    key = (deployed.primary.data_dir / "demo-key").read_text().strip()
    relays = [Relay(deployed, first, key, DEMO_USER) for first in range(3)]
    readers = [Reader(deployed, first, relays[first]) for first in range(3)]
    writer = Writer(deployed, 1, ROOM)
    listeners = [Listener(deployed, first, ROOM) for first in range(3)]
    visitors: list[Visitor] = [*relays, *readers, writer, *listeners]

    def all_went_on() -> None:
        """Everybody has got on since."""
        wanted = [len(relay.accepted) + EVENTS for relay in relays]
        reads, kept = [reader.reads for reader in readers], len(writer.kept)
        until_all(
            visitors,
            lambda: (
                all(len(relay.accepted) >= least for relay, least in zip(relays, wanted, strict=True))
                and all(reader.reads > least for reader, least in zip(readers, reads, strict=True))
                and len(writer.kept) > kept
            ),
        )

    for listener in listeners:
        listener.start()
    until_all(visitors, lambda: all(listener.seq is not None for listener in listeners))
    for visitor in (*relays, *readers, writer):
        visitor.start()
    try:
        all_went_on()
        for member in reversed(deployed.machines):
            replace(deployed, member, migrations)
            all_went_on()
            assert version_at(deployed.primary) == (version if member is deployed.primary else version - 1)
        until_all(visitors, lambda: all(listener.heard.items() >= writer.kept.items() for listener in listeners))
    finally:
        for visitor in visitors:
            visitor.leave()

    assert [visitor.wrong for visitor in visitors] == [[] for _ in visitors]
    accepted = {name for relay in relays for name in relay.accepted}
    raw = sqlite.connect(deployed.primary.database, read_only=True)
    try:
        rows = raw.execute("SELECT response_id, total_tokens FROM usage_logs").fetchall()
    finally:
        raw.close()
    assert len(rows) == len({name for name, _ in rows})
    assert accepted <= {name for name, _ in rows}
    assert all(listener.resumed >= 1 for listener in listeners)
    assert all(listener.heard.items() >= writer.kept.items() for listener in listeners)
    # Each of them met a machine that was being replaced.
    assert all(relay.turned_away for relay in relays)
    for member in deployed.machines:
        until(lambda member=member: version_at(member) == version)  # type: ignore[misc]
        assert member.get("/readyz").status_code == 200
        quota = member.get(f"/api/usage/quota?userId={DEMO_USER}", **{"X-Admin-Token": ADMIN_TOKEN}).json()
        assert quota["used"] >= EVENT_TOKENS * len(accepted)
