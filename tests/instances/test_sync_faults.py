"""Faults with counts: kills under writers, a reader that stops, rubbish, a full disk, a crowd."""

import resource
import threading
from contextlib import ExitStack
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from app.edge import sqlite
from tests.conftest import Server, serving
from tests.instances.conftest import Peer, fresh, in_background, joined

KILLS = 20
WRITERS = 3
ACKS_A_KILL = 30
CROWD = 200
MIB = 1 << 20
MEMORY_BYTES = 200 * MIB
DISK_BYTES = MIB

_KINDS = st.sampled_from(["set", "delete", "clear", "batch", "presence", "ping", "auth", "later", ""])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_FIELDS = ["key", "value", "attributes", "opId", "ifSeq", "expiresAt", "ops", "state", "apiKey"]
_FRAMES = st.builds(lambda kind, said: {**said, "type": kind}, _KINDS, st.dictionaries(st.sampled_from(_FIELDS), _JSON))


class Writer:
    """Sets a key of its own for each operation; one that was not acknowledged is sent again after a kill."""

    def __init__(self, server: Server, name: str, number: int) -> None:
        self.server = server
        self.name = name
        self.number = number
        self.next = 0
        self.acked: dict[str, int] = {}
        self.told: dict[int, tuple[str, int]] = {}

    def run(self, enough: threading.Semaphore) -> None:
        """Write until the server dies."""
        try:
            with joined(self.server, self.name) as peer:
                while True:
                    operation = f"w{self.number}-{self.next}"
                    peer.say("set", key=f"k{self.next % 50}", value=self.next * WRITERS + self.number, opId=operation)
                    for frame in peer.until("ack"):
                        if frame["type"] == "key_updated":
                            self.told[frame["seq"]] = frame["key"], frame["value"]
                    self.acked[operation] = frame["seq"]
                    self.next += 1
                    enough.release()
        except (WebSocketException, OSError, EOFError):
            return


def test_kills_under_writers_lose_nothing_that_was_told(tmp_path: Path) -> None:
    name = fresh()
    server = Server(tmp_path / "data")
    writers = [Writer(server, name, number) for number in range(WRITERS)]
    for _ in range(KILLS):
        server.start()
        enough = threading.Semaphore(0)
        threads = [in_background(writer.run, enough) for writer in writers]
        for _ in range(ACKS_A_KILL):
            assert enough.acquire(timeout=20)
        server.kill()
        for thread in threads:
            thread.join(20)
    raw = sqlite.connect(next((tmp_path / "data").glob(f"instances/*/{name}.db")))
    rows = raw.execute("SELECT seq, key, CAST(value AS INTEGER), op_id FROM history ORDER BY seq").fetchall()
    raw.close()
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    operations = {row[3]: row[0] for row in rows}
    assert len(operations) == len(rows)
    held = {row[0]: (row[1], row[2]) for row in rows}
    for writer in writers:
        assert {operation: operations.get(operation) for operation in writer.acked} == writer.acked
        assert {seq: held.get(seq) for seq in writer.told} == writer.told
    assert sum(len(writer.acked) for writer in writers) >= KILLS * ACKS_A_KILL


def memory_of(server: Server) -> int:
    assert server.process is not None
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def stalled(stack: ExitStack, server: Server, name: str) -> Peer:
    """A peer whose client takes one frame and then leaves the rest in the kernel."""
    address = f"{server.url.replace('http', 'ws')}/sync/{name}"
    dialled = connect(
        address, proxy=None, max_queue=1, max_size=64 * MIB, compression=None, close_timeout=0.1, ping_interval=None
    )
    return Peer(stack.enter_context(dialled))


def test_a_reader_that_falls_behind_hears_the_last_change_of_each_key(open_server: Server) -> None:
    name, value = fresh(), "x" * (MIB // 2)
    with ExitStack() as stack:
        slow = stalled(stack, open_server, name)
        writer = stack.enter_context(joined(open_server, name))
        for number in range(60):
            writer.say("set", key=f"k{number % 3}", value=f"{number}{value}")
            writer.until("key_updated")
        slow.greeting()
        heard = [slow.hear()]
        while heard[-1]["seq"] < 60:
            heard.append(slow.hear())
    seqs = [frame["seq"] for frame in heard]
    assert seqs == sorted(set(seqs))
    assert len(seqs) < 60
    assert seqs[-3:] == [58, 59, 60]


def test_a_reader_that_stops_is_closed_and_costs_bounded_memory(tmp_path: Path) -> None:
    name, value = fresh(), "x" * MIB
    with serving(tmp_path / "data") as server, ExitStack() as stack:
        slow = stalled(stack, server, name)
        writer = stack.enter_context(joined(server, name))
        other = stack.enter_context(joined(server, name))
        before = memory_of(server)
        for number in range(40):
            writer.say("set", key=f"k{number % 20}", value=f"{number}{value}")
            assert writer.until("key_updated")[-1]["seq"] == number + 1
            assert other.hear()["seq"] == number + 1
        assert slow.closed() == (4408, "Too slow")
        assert memory_of(server) - before < MEMORY_BYTES


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text() | st.binary(max_size=200) | _FRAMES, min_size=1, max_size=5))
def test_no_frame_harms_the_hub(open_server: Server, frames: list[object]) -> None:
    with joined(open_server, "rubbish") as peer, joined(open_server, "rubbish") as other:
        for frame in frames:
            if isinstance(frame, dict):
                peer.say(**{"kind": frame.pop("type"), **frame})
            elif isinstance(frame, (str, bytes)):
                peer.socket.send(frame.encode("utf-8", "replace").decode() if isinstance(frame, str) else frame)
        peer.settle()
        other.settle()
    log = open_server.log()
    assert "Traceback" not in log
    assert "commit_failed" not in log


def test_a_full_disk_refuses_and_the_hub_recovers(tmp_path: Path) -> None:
    name, value = fresh(), "x" * (MIB // 4)
    with serving(tmp_path / "data") as server, ExitStack() as stack:
        assert server.process is not None
        writer = stack.enter_context(joined(server, name))
        other = stack.enter_context(joined(server, name))
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (DISK_BYTES, hard))
        stored = 0
        while (frame := _set(writer, f"k{stored}", value))["type"] == "key_updated":
            stored += 1
        assert 0 < stored < 10
        assert (frame["type"], frame["key"]) == ("key_deleted", f"k{stored}")
        assert writer.hear()["code"] == "UNAVAILABLE"
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
        assert _set(writer, "after", value)["seq"] == stored + 1
        told = [other.hear() for _ in range(stored + 1)]
        assert [frame["seq"] for frame in told] == list(range(1, stored + 2))
        assert told[-1]["key"] == "after"


def _set(writer: Peer, key: str, value: str) -> dict[str, object]:
    writer.say("set", key=key, value=value)
    return writer.hear()


def test_a_crowd_hears_every_change_once_and_in_order(open_server: Server) -> None:
    name = fresh()
    with ExitStack() as stack:
        crowd = [stack.enter_context(joined(open_server, name)) for _ in range(CROWD)]
        for number, peer in enumerate(crowd[:50]):
            peer.say("set", key=f"k{number}", value=number)
        for peer in crowd:
            assert [peer.hear()["seq"] for _ in range(50)] == list(range(1, 51))
