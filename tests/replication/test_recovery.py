"""The steps of docs/operations.md on real mounts: a core restored into LiteFS, a replica that becomes the primary.

What would be lost: the core, where the steps leave an empty or an older one in charge.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster import machines
from cluster.engines import LiteFS, find_litefs, why_not_litefs
from tests.cluster.cast import AMS, NRT, PRIMARY, Cluster, Machine
from tests.conftest import rows_of
from tests.homes.spooling import owe_usage
from tests.waiting import until

missing = why_not_litefs()
pytestmark = [pytest.mark.litefs, pytest.mark.skipif(missing is not None, reason=str(missing))]

KEPT = "https://kept.example.com"
LATER = "https://later.example.com"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three machines with a backup, and one origin that all of them have."""
    made = Cluster(LiteFS(tmp_path, [PRIMARY, AMS, NRT]), tmp_path)
    for machine in made.machines:
        machine.environ["LITESTREAM_REPLICA_URL"] = f"file://{tmp_path / 'replica'}"
    try:
        made.start()
        assert made.primary.command("origins", "add", KEPT).returncode == 0
        for machine in made.machines:
            until(lambda machine=machine: KEPT in origins_of(machine))
        yield made
    finally:
        made.close()


def origins_of(machine: Machine) -> str:
    return machine.command("origins", "list").stdout


def epoch_of(machine: Machine) -> str:
    return str(machine.health()["position"]).partition("-")[0]


def lose_volume(cluster: Cluster, folder: Path) -> None:
    """The primary's: LiteFS's files and the app's."""
    cluster.engine.stop(PRIMARY)
    shutil.rmtree(folder / PRIMARY / "litefs")
    shutil.rmtree(folder / PRIMARY / "data")
    cluster.primary.data_dir.mkdir()


def litefs_import(engine: LiteFS, machine: str, file: Path) -> None:
    """`litefs import -name core.db FILE`, where LiteFS listens on its own port."""
    config = json.loads((engine.folder / machine / "litefs.yml").read_text())
    url = f"http://{config['http']['addr']}"
    subprocess.run(
        [str(find_litefs()), "import", "-name", "core.db", "-url", url, str(file)],
        check=True,
        capture_output=True,
        timeout=60,
    )


def test_a_core_is_restored_into_litefs_while_no_app_runs(cluster: Cluster, tmp_path: Path) -> None:
    before = epoch_of(cluster.primary)
    for machine in reversed(cluster.machines):
        machine.stop()
    lose_volume(cluster, tmp_path)
    cluster.engine.start(PRIMARY)
    target = tmp_path / "restored"
    restored = cluster.primary.command("backup", "restore", "--to", str(target))
    assert restored.returncode == 0, restored.stderr
    assert isinstance(cluster.engine, LiteFS)
    litefs_import(cluster.engine, PRIMARY, target / "core.db")
    # A new volume is another cluster to LiteFS: who has the old one takes nothing of it, and loses nothing to it.
    until(lambda: "different cluster id" in cluster.engine.log(AMS))
    assert KEPT in origins_of(cluster.replicas[0])
    for name in (AMS, NRT):
        cluster.engine.stop(name)
        shutil.rmtree(tmp_path / name / "litefs")
        cluster.engine.start(name)
    for machine in cluster.machines:
        machine.start()
    for machine in cluster.machines:
        until(lambda machine=machine: epoch_of(machine) not in (before, "None"))
        assert KEPT in origins_of(machine)
    assert cluster.primary.command("origins", "add", LATER).returncode == 0
    until(lambda: LATER in origins_of(cluster.replicas[0]))
    until(lambda: cluster.primary.command("backup", "status").returncode == 0)
    for machine in cluster.machines:
        said = machine.command("doctor")
        assert said.returncode == 0, said.stdout
    assert cluster.primary.command("backup", "verify").returncode == 0


def test_a_replica_becomes_the_primary_with_all_that_it_has(cluster: Cluster, tmp_path: Path) -> None:
    for machine in cluster.machines:
        assert machine.process is not None
        machine.kill()
    for name in (PRIMARY, AMS, NRT):
        cluster.engine.stop(name)
    owed = owe_usage(cluster.replicas[0].data_dir / "machine.db", 1)
    shutil.rmtree(tmp_path / PRIMARY)
    engine = LiteFS(tmp_path, [AMS, NRT])
    ams, nrt = (Machine(engine, tmp_path, name) for name in (AMS, NRT))
    peers = machines.peers({machine.name: machine.peer_port for machine in (ams, nrt)})
    for machine in (ams, nrt):
        backup = {"LITESTREAM_REPLICA_URL": cluster.primary.environ["LITESTREAM_REPLICA_URL"]}
        machine.tell(peers, PRIMARY_REGION="ams", **backup)
    with ExitStack() as stack:
        stack.callback(engine.close)
        for machine in (ams, nrt):
            engine.start(machine.name)
        for machine in (ams, nrt):
            stack.callback(machine.close)
            machine.start()
        assert ams.health()["primary"] is True
        assert KEPT in origins_of(ams)
        assert ams.command("origins", "add", LATER).returncode == 0
        until(lambda: LATER in origins_of(nrt))
        assert KEPT in origins_of(nrt)
        until(lambda: rows_of(ams.database, "SELECT event_id FROM usage_logs") == [(owed,)])
        until(lambda: ams.command("backup", "status").returncode == 0)
        assert ams.command("backup", "verify").returncode == 0
