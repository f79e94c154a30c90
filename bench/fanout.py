"""Fan-out: one change told to many clients, and many clients who all write; beside npm's socket.io and ws."""

from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

from bench import hubs
from bench.crowd import Crowd, Heard
from bench.dialects import SOCKET_IO, WS
from bench.figure import Figure, compared
from bench.hubs import Hub
from bench.process import ServerProcess
from bench.rounds import interleave
from bench.stage import Stage

# Many runs of little each: what is waited for most is that everybody comes in.
PART_OF_A_ROUND = 0.5
MICROSECONDS = 1_000_000


class Scene(NamedTuple):
    """Who listens and who writes; `aim` is the least ratio to socket.io."""

    name: str
    clients: int
    in_flight: int = 1
    writers: int = 1
    aim: float | None = None

    @property
    def instance_id(self) -> str:
        return f"fan-out-{self.clients}-{self.in_flight}-{self.writers}"


LARGEST = Scene("fan-out to 1,000, 16 in flight", 1_000, 16, aim=8.0)
LARGEST_ONE = Scene("fan-out to 1,000, one in flight", 1_000, aim=1.2)
SENDERS = Scene("100 senders among 100", 100, 1, 100)
SCENES = (
    Scene("fan-out to 1, one in flight", 1),
    Scene("fan-out to 1, 16 in flight", 1, 16),
    Scene("fan-out to 10, one in flight", 10),
    Scene("fan-out to 10, 16 in flight", 10, 16),
    Scene("fan-out to 100, one in flight", 100),
    Scene("fan-out to 100, 16 in flight", 100, 16),
    LARGEST_ONE,
    LARGEST,
    SENDERS,
)


def measure_fan_out(stage: Stage) -> Iterator[Figure]:
    """Deliveries a second: changes times clients. Each was heard by every client, whole and once."""
    data = stage.folder / "fan-out"
    hubs.make(data, [scene.instance_id for scene in SCENES])
    with hubs.peers(stage.folder) as peers:
        server = stage.serve(data)
        for scene in SCENES:
            ours = hubs.litehouse(stage, server, scene.instance_id)
            yield from _beside(stage, scene, {"litehouse": ours} | peers)


def measure_crowd(stage: Stage) -> Figure:
    """What a crowd can listen to, so that no figure of a hub is the crowd's."""
    with hubs.canned(stage.folder) as server:
        heard = _Runs(stage, Hub(server, WS), LARGEST)
        given = interleave(stage.extent.rounds, {"canned": heard})
    note = f"the crowd took {heard.busy():.0%} of a core"
    return Figure(f"crowd, canned, {LARGEST.name}", median(given["canned"]), "deliveries/s", note=note)


class _Runs:
    """One hub in one scene, again and again."""

    def __init__(self, stage: Stage, hub: Hub, scene: Scene) -> None:
        self._stage = stage
        self._hub = hub
        self._scene = scene
        self._heard: list[Heard] = []

    def __call__(self) -> float:
        self._heard.append(run(self._stage, self._hub, self._scene))
        return self._heard[-1].rate

    def cost(self) -> float:
        """Microseconds of the server's processor for each delivery: what a busy machine blurs least."""
        return median(MICROSECONDS * one.cpu_seconds / one.deliveries for one in self._heard)

    def busy(self) -> float:
        """The share of a core that listening took."""
        return median(one.busy for one in self._heard)


def run(stage: Stage, hub: Hub, scene: Scene) -> Heard:
    """One run of a scene."""
    seconds = stage.extent.seconds * PART_OF_A_ROUND
    crowd = Crowd(hub.server.port, hub.server.pid, hub.dialect, scene.clients, seconds, scene.in_flight, scene.writers)
    return stage.listen(crowd)


def changes_rate(stage: Stage, server: ServerProcess, scene: Scene) -> float:
    """Changes a second of a litehouse in one run of a scene."""
    heard = run(stage, hubs.litehouse(stage, server, scene.instance_id), scene)
    return heard.changes / heard.seconds


def _beside(stage: Stage, scene: Scene, hubs_by_name: dict[str, Hub]) -> Iterator[Figure]:
    runs = {name: _Runs(stage, hub, scene) for name, hub in hubs_by_name.items()}
    subjects: dict[str, Callable[[], float]] = dict(runs)
    given = interleave(stage.extent.rounds, subjects)
    ours = runs["litehouse"]
    for name, aim in ((SOCKET_IO.name, scene.aim), (WS.name, None)):
        cost = f"{ours.cost():.1f} µs of processor, {name} {runs[name].cost():.1f}"
        busy = f"crowd {ours.busy():.0%} busy, {name}'s {runs[name].busy():.0%}"
        note = f"{cost}; {busy}"
        yield compared(scene.name, "deliveries/s", given["litehouse"], name, given[name], aim, note)
