"""litehouse doctor on a machine that is one of several, and what can go wrong with one."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from app.edge import sqlite
from app.errors import Unavailable
from app.ops import machine_checks
from app.ops.metrics import is_private
from app.regions import Peer, Regions
from app.settings import Settings, read_unchecked
from tests.cluster.cast import Cluster, Machine, running
from tests.conftest import serving
from tests.waiting import until

REPLICATED = {"REPLICATION": "litefs", "PRIMARY_REGION": "fra", "FLY_REGION": "fra", "FLY_MACHINE_ID": "m-fra"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running("standin", tmp_path_factory.mktemp("cluster")) as made:
        yield made


def found(machine: Machine, **environ: str) -> dict[str, tuple[bool, str]]:
    """Each check of the doctor on a machine, with the environment changed."""
    before = dict(machine.environ)
    machine.environ.update(environ)
    try:
        said = json.loads(machine.command("doctor", "--json").stdout)
    finally:
        machine.environ = before
    return {one["check"]: (one["ok"], one["detail"]) for one in said}


def replicated(tmp_path: Path, **environ: str) -> Settings:
    """The settings of a machine with a mount, whose core is `tmp_path/mount/core.db`."""
    return read_unchecked(REPLICATED | environ, data_dir=str(tmp_path / "volume"))


def a_core(tmp_path: Path, mode: str = "WAL") -> Path:
    database = tmp_path / "mount" / "core.db"
    database.parent.mkdir()
    raw = sqlite.connect(database)
    raw.execute(f"PRAGMA journal_mode = {mode}")
    raw.execute("CREATE TABLE t (id INTEGER)")
    raw.close()
    database.with_name("core.db-pos").write_text("0000000000000001/0000000000000000\n")
    return database


def test_every_machine_of_a_cluster_is_well(cluster: Cluster) -> None:
    primary, replica = found(cluster.primary), found(cluster.replicas[0])
    assert [name for name, (ok, _) in (primary | replica).items() if not ok] == []
    assert primary["role"] == (True, "the primary, fra has one machine")
    assert replica["role"] == (True, "a replica, fra has one machine")
    assert primary["lag"] == (True, "none: this is the primary")
    assert replica["lag"][1].endswith(" ms")
    assert primary["mount"][1].endswith(", wal")


def test_a_second_machine_in_the_primary_region_is_found(cluster: Cluster) -> None:
    peers = cluster.primary.environ["PEERS"] + ",fra/m-fra2=http://127.0.0.1:1"
    said = found(cluster.primary, PEERS=peers)["role"]
    assert said == (False, "2 machines are in fra: exactly one may be the primary")


def test_a_primary_in_another_region_than_the_settings_say_is_found(cluster: Cluster) -> None:
    said = found(cluster.primary, PRIMARY_REGION="ams")["role"]
    assert said == (False, "LiteFS calls this machine in fra the primary, PRIMARY_REGION=ams")


@pytest.mark.parametrize(("said", "problem"), [("+000095000", "95 s behind"), ("2147483647", "has not heard")])
def test_a_lag_that_is_too_long_is_found(tmp_path: Path, said: str, problem: str) -> None:
    (tmp_path / ".lag").write_text(f"{said}\n")
    regions = Regions(region="ams", primary_region="fra", replication="litefs")
    with pytest.raises(Unavailable, match=problem):
        machine_checks.check_lag(regions, tmp_path / "core.db")


def test_a_lag_that_nobody_knows_is_found(tmp_path: Path) -> None:
    regions = Regions(region="ams", primary_region="fra", replication="litefs")
    with pytest.raises(Unavailable, match="has not heard"):
        machine_checks.check_lag(regions, tmp_path / "core.db")


def test_litefs_that_is_not_there_is_found(cluster: Cluster) -> None:
    ok, said = found(cluster.primary, LITEFS_HTTP="http://127.0.0.1:9")["role"]
    assert (ok, said) == (False, "LiteFS does not answer at http://127.0.0.1:9")


def test_a_core_that_nothing_replicates_is_found(tmp_path: Path) -> None:
    database = a_core(tmp_path)
    database.with_name("core.db-pos").unlink()
    with pytest.raises(Unavailable, match="LiteFS does not replicate"):
        machine_checks.check_mount(replicated(tmp_path), database)


def test_a_core_that_left_wal_is_found(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="journal mode is delete"):
        machine_checks.check_mount(replicated(tmp_path), a_core(tmp_path, "DELETE"))


def test_what_belongs_on_the_volume_is_found_on_the_mount(tmp_path: Path) -> None:
    database = a_core(tmp_path)
    assert machine_checks.check_mount(replicated(tmp_path), database) == f"{tmp_path / 'mount'}, wal"
    inside = replicated(tmp_path, INSTANCES_DIR=str(tmp_path / "mount" / "instances"))
    with pytest.raises(Unavailable, match="this belongs on the volume"):
        machine_checks.check_mount(inside, database)
    with pytest.raises(Unavailable, match="is on the mount"):
        machine_checks.check_ledger_place(replicated(tmp_path), database, tmp_path / "mount" / "ledger.db")
    outside = tmp_path / "ledger.db"
    assert machine_checks.check_ledger_place(replicated(tmp_path), database, outside) == str(outside)


def test_an_open_port_of_litefs_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        regions = Regions(replication="litefs", litefs_url=f"http://127.0.0.1:{port}")
        assert machine_checks.check_closed(regions, []) == f"port {port} is private"
        with pytest.raises(Unavailable, match=f"at 127.0.0.1 port {port}"):
            machine_checks.check_closed(regions, ["127.0.0.1"])
    assert machine_checks.check_closed(regions, ["127.0.0.1"]) == f"port {port} is private"


def test_an_address_of_a_private_network_is_not_public() -> None:
    """Whatever networks this machine has."""
    assert [address for address in machine_checks.public_addresses() if is_private(address)] == []


def test_candidates_are_counted_where_somebody_lists_them() -> None:
    peers = (Peer("fra", "m-1", "http://a"), Peer("fra", "m-2", "http://b"), Peer("ams", "m-3", "http://c"))
    assert machine_checks.count_candidates(Regions(primary_region="fra", peers=peers)) == 2
    assert machine_checks.count_candidates(Regions(primary_region="fra")) is None


def test_candidates_are_counted_by_fly_s_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Fly's own resolver says cannot be asked here; what it was asked can."""

    def resolve(host: str, *_: Any) -> list[Any]:
        if host != "fra.ours.internal":
            raise OSError("Name or service not known")
        # Each address once for each kind of socket.
        return [(0, kind, 0, "", (address, 0, 0, 0)) for address in ("fdaa::1", "fdaa::2") for kind in (1, 2)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    on_fly = Regions(machine="m-1", app_name="ours", primary_region="fra")
    assert machine_checks.count_candidates(on_fly) == 2
    with pytest.raises(Unavailable, match="cannot be looked up"):
        machine_checks.count_candidates(Regions(machine="m-1", app_name="theirs", primary_region="fra"))


def test_a_bundle_of_certificates_is_found_where_there_is_a_bucket() -> None:
    environ = {"AWS_CA_BUNDLE": "/etc/ssl/ours.pem"}
    with pytest.raises(Unavailable, match="AWS_CA_BUNDLE is set"):
        machine_checks.check_bundle(Settings(backup_url="s3://bucket/prod"), environ)
    machine_checks.check_bundle(Settings(backup_url="file:///backup"), environ)
    machine_checks.check_bundle(Settings(backup_url="s3://bucket/prod"), {})


def test_a_litestream_without_its_server_is_found(tmp_path: Path) -> None:
    with serving(tmp_path / "data", LITESTREAM_REPLICA_URL=f"file://{tmp_path / 'replica'}") as server:
        until((server.data_dir / "litestream.sock").exists)
        assert machine_checks.check_left_behind(server.data_dir) == "none"
        server.kill()
        with pytest.raises(Unavailable, match="without its server"):
            machine_checks.check_left_behind(server.data_dir)
        server.start()
        assert machine_checks.check_left_behind(server.data_dir) == "none"
