"""The map of the machines on /admin, and the same of one machine in /api/health and /metrics."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.edge import homes, migrate
from app.edge.database import Database, Transaction
from app.edge.lease import LEASE_SECONDS
from app.edge.metrics import Metrics
from app.edge.node import Node
from app.edge.peers import Peers
from app.edge.spool import Item, Spool
from app.errors import Unavailable
from app.instances.hubs import Hubs
from app.instances.store import Retention
from app.ops import gauges
from app.ops.admin_machines import HEADS, draw_machines
from app.ops.machines import ASK_SECONDS, Kept, Machines, Seen, Status
from app.regions import Regions
from tests.cluster.cast import AMS, NRT, PRIMARY, Cluster, Machine, running
from tests.conftest import ADMIN_TOKEN, Server
from tests.instances.conftest import joined
from tests.ops.test_metrics import samples
from tests.waiting import comes, until

SECRET = "p" * 32


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with running("standin", folder, LITESTREAM_REPLICA_URL=f"file://{folder}/replica") as made:
        yield made


def rows_of(page: str) -> dict[str, str]:
    """The lines of the map, by machine."""
    section = page.partition('<section id="machines">')[2].partition("</section>")[0]
    lines = section.partition("<tbody>")[2].split("<tr>")[1:]
    return {line.partition("<code>")[2].partition("</code>")[0]: line for line in lines}


def map_of(machine: Machine) -> dict[str, str]:
    shown = machine.get("/admin", **{"X-Admin-Token": ADMIN_TOKEN})
    assert shown.status_code == 200, shown.text
    return rows_of(shown.text)


def test_a_machine_alone_is_one_line(server: Server) -> None:
    with server.client(**{"X-Admin-Token": ADMIN_TOKEN}) as client:
        rows = rows_of(client.get("/admin").text)
        health = client.get("/api/health").json()
    assert list(rows) == [health["machine"]]
    assert "primary" in rows[health["machine"]]
    assert "this one" in rows[health["machine"]]


def test_open_instances_and_their_connections_are_counted(server: Server) -> None:
    with server.client() as client:
        before = client.get("/api/health").json()
        assert (before["instances"], before["connections"]) == (0, 0)
        with joined(server, "playground"), joined(server, "playground"), joined(server, "other"):
            during = client.get("/api/health").json()
            measured = samples(client.get("/metrics").text)
    assert (during["instances"], during["connections"]) == (2, 3)
    assert measured[("litehouse_instances_open",)] == 2
    assert measured[("litehouse_connections",)] == 3
    assert measured[("litehouse_primary",)] == 1
    assert measured[("litehouse_lag_seconds",)] == 0
    assert measured[("litehouse_position_sequence",)] == int(during["position"].partition("-")[2])


@pytest.mark.parametrize("asked", [PRIMARY, AMS])
def test_every_machine_is_shown_by_any(cluster: Cluster, asked: str) -> None:
    machine = next(one for one in cluster.machines if one.name == asked)
    rows = map_of(machine)
    assert list(rows) == [PRIMARY, AMS, NRT]
    assert [name for name, line in rows.items() if "this one" in line] == [asked]
    assert "primary" in rows[PRIMARY]
    assert all("replica" in rows[name] and " ms<" in rows[name] for name in (AMS, NRT))


def test_what_is_open_anywhere_is_counted_everywhere(cluster: Cluster) -> None:
    with joined(cluster.primary, "playground"):
        page = cluster.replicas[0].get("/admin", **{"X-Admin-Token": ADMIN_TOKEN}).text
    assert "<dt>Open now</dt><dd>1</dd>" in page
    assert "<dt>Connections</dt><dd>1</dd>" in page


def test_a_replica_says_what_it_is_and_that_it_owes_nothing(cluster: Cluster) -> None:
    replica = cluster.replicas[0]
    health = until(lambda: (told := replica.health())["spoolItems"] is not None and told)
    text = replica.get("/metrics").text
    measured = samples(text)
    assert 'litehouse_machine_info{machine="m-ams",region="ams"} 1.0' in text
    assert measured[("litehouse_primary",)] == 0
    assert 0 <= measured[("litehouse_lag_seconds",)] < 90
    for name, field in (("spool_items", "spoolItems"), ("spool_refused", "spoolRefused"), ("homes", "homes")):
        assert (health[field], measured[(f"litehouse_{name}",)]) == (0, 0)
    assert (health["spoolAgeMs"], measured[("litehouse_spool_age_seconds",)]) == (None, 0)
    # Of the core the primary's Litestream holds the file.
    until(lambda: replica.health()["backup"] == {})
    assert 'litehouse_backup_shipped{of="core"} 1.0' in replica.get("/metrics").text


def test_an_owner_says_what_lives_on_it_its_lease_and_its_backup(cluster: Cluster) -> None:
    primary = cluster.primary
    with joined(primary, "playground") as peer:
        peer.say("set", key="k", value="1")
        kinds = until(lambda: (told := primary.health()["backup"]) and set(told) == {"core", "instances"} and told)
        health = until(lambda: (told := primary.health())["homes"] and told)
        text = primary.get("/metrics").text
    measured = samples(text)
    assert {kind: one["files"] for kind, one in kinds.items()} == {"core": 1, "instances": 1}
    assert (health["homes"], measured[("litehouse_homes",)]) == (1, 1)
    assert 0 < health["leaseMs"] <= 1000 * LEASE_SECONDS
    assert 0 < measured[("litehouse_lease_seconds",)] <= LEASE_SECONDS
    assert health["spoolItems"] is None
    assert "litehouse_spool" not in text
    until(lambda: all(one["shipped"] for one in primary.health()["backup"].values()))
    text = primary.get("/metrics").text
    for kind in ("core", "ledger", "instances"):
        assert f'litehouse_backup_shipped{{of="{kind}"}} 1.0' in text
        assert f'litehouse_backup_file_age_seconds{{of="{kind}"}}' in text
    assert 'file_age_seconds{of="ledger"} 0.0' in text
    rows = map_of(cluster.replicas[0])
    assert '<td data-head="Homes"><div>1</div>' in rows[PRIMARY]
    assert '<td data-head="Homes"><div>0</div>' in rows[NRT]


def test_a_machine_that_says_nothing_is_shown_as_such_and_holds_nobody_up(cluster: Cluster) -> None:
    silent = cluster.replicas[1].process
    assert silent is not None
    os.kill(silent.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        rows = map_of(cluster.primary)
        took = time.monotonic() - began
    finally:
        os.kill(silent.pid, signal.SIGCONT)
    assert "does not answer" in rows[NRT]
    assert "does not answer" not in rows[AMS]
    assert took < ASK_SECONDS + 1.0
    assert until(lambda: "replica" in map_of(cluster.primary)[NRT])


def test_only_machines_that_know_the_secret_are_told(cluster: Cluster) -> None:
    url = cluster.primary.environ["PEERS"].split(",")[0].partition("=")[2]
    assert httpx.post(f"{url}/peer/status", trust_env=False).status_code == 401
    assert cluster.primary.post("/peer/status", {}).status_code == 404


def test_on_fly_the_names_of_the_app_say_where_the_machines_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Fly's own resolver says cannot be asked here; what it was asked can."""
    asked = []

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0)) for address in ("fdaa::1", "::1")]

    migrate.migrate(tmp_path / "core.db", "core")

    async def look() -> list[Seen]:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
            port = taken.getsockname()[1]
        regions = Regions(
            region="fra",
            machine="m-1",
            app_name="ours",
            private_address="fdaa::1",
            peer_port=port,
            peer_secrets=(SECRET,),
        )
        db = Database(tmp_path / "core.db")
        db.open()
        peers = Peers(regions, "m-1")
        machines = Machines(regions, Node("fra", "m-1"), Hubs(db, tmp_path, Retention(1, 1)), db, peers=peers)
        try:
            await db.write(give_homes, ("m-1", "fra", 2), ("m-gone", "nrt", 1))
            return await machines.ask_all()
        finally:
            await peers.close()
            await db.close()

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    seen = asyncio.run(look())
    assert asked[0] == "ours.internal"
    # Of a machine that has ended no name tells; what lives on it does.
    assert [(one.machine, one.status is None, one.homes) for one in seen] == [
        ("m-1", False, 2),
        ("::1", True, 0),
        ("m-gone", True, 1),
    ]


def give_homes(tx: Transaction, *owners: tuple[str, str, int]) -> None:
    for machine, region, count in owners:
        for number in range(count):
            homes.claim(tx, f"{machine}-{number}", homes.Machine(machine, region), None, "mark", 1)


def test_what_a_machine_owes_is_counted_and_its_age_told(tmp_path: Path) -> None:
    """Read every few seconds, and told from memory: a file system that hangs must hold up no collector."""
    for name, kind in (("core.db", "core"), ("machine.db", "machine")):
        migrate.migrate(tmp_path / name, kind)

    async def away(kind: str, items: Sequence[Item]) -> Mapping[str, str]:
        raise Unavailable("The primary is away")

    async def look() -> None:
        core, own = Database(tmp_path / "core.db"), Database(tmp_path / "machine.db")
        core.open()
        own.open()
        spool, metrics = Spool(own, away), Metrics()
        node, hubs = Node("ams", "m-2", is_primary=False), Hubs(core, tmp_path, Retention(1, 1))
        machines = Machines(Regions(region="ams", machine="m-2"), node, hubs, core, spool=spool)
        gauges.measure(metrics, machines)
        assert samples(metrics.text().decode())[("litehouse_spool_items",)] == -1
        await spool.put("usage", [Item("a", b""), Item("b", b"")])
        running = asyncio.create_task(machines.run())
        await comes(lambda: machines.here.spool_items is not None)
        running.cancel()
        await own.close()
        told = samples(metrics.text().decode())
        assert (told[("litehouse_spool_items",)], told[("litehouse_spool_refused",)]) == (2, 0)
        assert 0 <= told[("litehouse_spool_age_seconds",)] < 10
        assert told[("litehouse_lag_seconds",)] == 0
        # Nobody can read it any more: it is not known, and what is known is told on.
        await machines.look()
        told = samples(metrics.text().decode())
        assert (told[("litehouse_spool_items",)], told[("litehouse_spool_age_seconds",)]) == (-1, -1)
        await core.close()

    asyncio.run(look())


def status(machine: str, **changed: Any) -> Seen:
    told: dict[str, Any] = {
        "region": "fra",
        "machine": machine,
        "is_primary": False,
        "lag_ms": 4,
        "epoch": "e1",
        "sequence": 1_234,
        "instances": 0,
        "connections": 0,
        "backed_up": True,
        "backup_age_ms": 2_000,
    }
    made = Status(**(told | changed))
    return Seen(made.region, made.machine, made, 0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lag_ms": None}, "not known"),
        ({"lag_ms": 95_000}, "95 s"),
        ({"epoch": "e0"}, "of another epoch"),
        ({"sequence": None}, "none"),
        ({"backup_age_ms": 600_000}, "10 min ago"),
        ({"backup_age_ms": None}, "not known"),
        ({"backup": {"core": Kept(1, 5, True), "ledger": Kept(1, 5, False)}}, "2 s ago, not all of ledger"),
        ({"lease_ms": 0}, "no lease"),
        ({"spool_items": 3, "spool_age_ms": 300_000}, "3, 5 min"),
        ({"spool_items": 0, "spool_refused": 4}, "4 refused"),
    ],
)
def test_what_is_wrong_with_a_machine_is_marked(changed: dict[str, Any], said: str) -> None:
    primary = status("m-1", is_primary=True, lag_ms=0)
    assert "problem" not in draw_machines([primary, status("m-2")], "m-1")
    assert f'<span class="problem">{said}</span>' in draw_machines([primary, status("m-2", **changed)], "m-1")


def test_a_machine_that_is_gone_still_says_what_lives_on_it() -> None:
    drawn = draw_machines([status("m-1", is_primary=True, lag_ms=0), Seen("nrt", "m-3", None, 1_200)], "m-1")
    gone = rows_of(drawn)["m-3"]
    assert '<span class="problem">does not answer</span>' in gone
    assert '<td data-head="Homes"><div>1,200</div>' in gone
    # A line that ends early is drawn without its right half.
    assert {line.count("<td") for line in rows_of(drawn).values()} == {len(HEADS)}


def test_what_a_machine_is_called_is_escaped() -> None:
    drawn = draw_machines([status("<b>m"), Seen("<i>fra", "m-3", None, 0)], "m-1")
    assert "<b>" not in drawn
    assert "<i>" not in drawn
