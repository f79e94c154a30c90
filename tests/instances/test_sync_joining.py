"""Joining: what a client is sent first, however large it is and however slowly it reads, and what comes after it."""

from contextlib import ExitStack
from pathlib import Path

from tests.conftest import ADMIN_TOKEN, Server, serving
from tests.instances.conftest import fresh, joined
from tests.instances.test_sync_faults import MIB, memory_of, stalled
from tests.waiting import until

JOINERS = 50
KEYS = 20
CHANGES = 60
GONE = 20
# A sweep, and the time that is given to answer a Close frame.
CUT_OFF_SECONDS = 20.0
# A buffer of the whole instance for each would be a thousand.
GROWTH_BYTES = 160 * MIB


def value_of(number: int) -> str:
    return f"{number} " + "x" * MIB


def fill(server: Server, name: str) -> None:
    with joined(server, name) as writer:
        for number in range(KEYS):
            writer.say("set", key=f"k{number}", value=value_of(number))
            writer.until("key_updated")


def test_a_crowd_of_slow_joiners_gets_one_whole_sync_and_all_that_came_after(tmp_path: Path) -> None:
    name, last = fresh(), dict[str, int]()
    with serving(tmp_path / "data") as server, ExitStack() as stack:
        fill(server, name)
        writer = stack.enter_context(joined(server, name))
        before = memory_of(server)
        slow = [stalled(stack, server, name) for _ in range(JOINERS)]
        for peer in slow:
            assert peer.hear()["seq"] == KEYS
        for number in range(CHANGES):
            last[f"n{number % 7}"] = number
            writer.say("set", key=f"n{number % 7}", value=number)
            writer.until("key_updated")
        writer.say("delete", key="k0", opId="gone")
        assert writer.until("ack")[-1]["seq"] == KEYS + CHANGES + 1
        assert memory_of(server) - before < GROWTH_BYTES
        for peer in slow:
            sync = peer.hear()
            assert sync["seq"] == KEYS
            assert {key: held["value"] for key, held in sync["data"].items()} == {
                f"k{number}": value_of(number) for number in range(KEYS)
            }
            heard = [peer.hear()]
            while heard[-1]["seq"] < KEYS + CHANGES + 1:
                heard.append(peer.hear())
            seqs = [frame["seq"] for frame in heard]
            assert seqs == sorted(set(seqs))
            assert (heard[-1]["type"], heard[-1]["key"]) == ("key_deleted", "k0")
            assert {frame["key"]: frame["value"] for frame in heard[:-1]} == last
            peer.socket.socket.close()
        assert memory_of(server) - before < GROWTH_BYTES


def test_joining_at_many_seqs_holds_the_instance_once_more_and_not_once_for_each(tmp_path: Path) -> None:
    name = fresh()
    with serving(tmp_path / "data") as server, ExitStack() as stack:
        fill(server, name)
        writer = stack.enter_context(joined(server, name))
        before = memory_of(server)
        for number in range(JOINERS):
            assert stalled(stack, server, name).hear()["seq"] == KEYS + number
            writer.say("set", key="n", value=number)
            writer.until("key_updated")
        assert memory_of(server) - before < GROWTH_BYTES


def test_what_a_joiner_is_answered_comes_after_its_sync(tmp_path: Path) -> None:
    name = fresh()
    with serving(tmp_path / "data") as server, ExitStack() as stack:
        fill(server, name)
        writer = stack.enter_context(joined(server, name))
        slow = stalled(stack, server, name)
        assert slow.hear()["type"] == "auth_success"
        slow.say("set", key="mine", value=1, opId="mine")
        assert writer.hear()["key"] == "mine"
        writer.say("set", key="theirs", value=2, opId="theirs")
        writer.until("ack")
        heard = [slow.hear() for _ in range(4)]
        assert [frame["type"] for frame in heard] == ["sync", "key_updated", "ack", "key_updated"]
        assert [frame["seq"] for frame in heard] == [KEYS, KEYS + 1, KEYS + 1, KEYS + 2]


def test_joiners_that_never_read_are_cut_off_and_what_was_kept_for_them_goes(tmp_path: Path) -> None:
    name = fresh()
    with serving(tmp_path / "data") as server, ExitStack() as stack:
        fill(server, name)
        client = stack.enter_context(server.client(**{"X-Admin-Token": ADMIN_TOKEN}))
        writer = stack.enter_context(joined(server, name, prefix="none"))
        before = memory_of(server)
        for _ in range(GONE):
            assert stalled(stack, server, name).hear()["type"] == "auth_success"
        for number in range(KEYS):
            writer.say("set", key=f"k{number}", value=value_of(-number), opId=f"o{number}")
            writer.until("ack")
        until(lambda: client.get(f"/admin/do/{name}").json()["connections"] <= 1, CUT_OFF_SECONDS)
        assert memory_of(server) - before < GROWTH_BYTES
        writer.say("ping")
        assert writer.hear() == {"type": "pong"}
