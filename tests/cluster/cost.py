"""What it costs to move a request: `python -m tests.cluster.cost` prints added milliseconds on loopback.

The same read is asked of the primary, of a replica that forwards it, and through the stand-in for Fly's proxy at
either of them, in turns, so that what the machine does meanwhile hits all alike.
"""

import http.client
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.conftest import Cluster
from tests.cluster.fly_proxy import Backend, FlyProxy
from tests.projects.conftest import Person

ROUNDS = 400
PATH = "/"


def kept(port: int, who: Person) -> Callable[[], float]:
    """Asks on one connection that stays open."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask() -> float:
        begun = time.perf_counter()
        connection.request("GET", PATH, headers=who.headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        return time.perf_counter() - begun

    return ask


def fresh(port: int, near: str, who: Person) -> Callable[[], float]:
    """Asks on a connection of its own, as the stand-in for the proxy takes them."""

    def ask() -> float:
        begun = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", PATH, headers={**who.headers, "x-near": near})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        assert answer.status == 200
        return time.perf_counter() - begun

    return ask


def compare(name: str, here: Callable[[], float], moved: Callable[[], float]) -> None:
    pairs = [(here(), moved()) for _ in range(ROUNDS)][ROUNDS // 10 :]
    added = sorted(1000 * (there - direct) for direct, there in pairs)
    direct = 1000 * statistics.median(pair[0] for pair in pairs)
    p99 = added[int(len(added) * 0.99)]
    print(f"{name}: direct {direct:.2f} ms, added p50 {statistics.median(added):.2f} ms, p99 {p99:.2f} ms")  # noqa: T201


def measure(folder: Path, replay: str) -> None:
    cluster = Cluster(folder, replay)
    proxy = FlyProxy([Backend(member.region, member.machine, member.port) for member in cluster.members])
    try:
        # Without a line between them.
        for member in cluster.members:
            for other in cluster.members:
                member.environ["PEERS"] = member.environ["PEERS"].replace(str(other.line.port), str(other.peer_port))
        cluster.start()
        who = cluster.person()
        cluster.members[1].control(lag_ms=None)
        time.sleep(0.5)
        if replay == "forward":
            compare("forward", kept(cluster.members[0].port, who), kept(cluster.members[1].port, who))
        else:
            compare("replay", fresh(proxy.port, "fra", who), fresh(proxy.port, "ams", who))
    finally:
        proxy.close()
        cluster.close()


if __name__ == "__main__":
    for replay in ("forward", "fly"):
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder) / "machines", replay)
