"""Changes beyond the old protocol: conditions, named operations, batches, filters, expiry, presence, limits."""

import time

import pytest

from app.edge.clock import now_ms
from tests.conftest import Server
from tests.instances.conftest import Peer, dial, fresh, joined

EXPIRES_MS = 150
VALUE_BYTES = 2 << 20
FRAME_BYTES = 10 << 20
PRESENCE_BYTES = 2 << 10
BURST = 10_000


def test_a_stale_if_seq_is_a_conflict_with_what_holds(two: tuple[Peer, Peer]) -> None:
    peer, _ = two
    peer.say("set", key="a", value=1, ifSeq=0)
    assert peer.hear()["seq"] == 1
    peer.say("set", key="a", value=2, ifSeq=0)
    shown, error = peer.settle()
    assert (shown["value"], shown["seq"], error["code"]) == (1, 1, "CONFLICT")
    peer.say("set", key="a", value=2, ifSeq=1)
    assert peer.hear()["seq"] == 2
    peer.say("delete", key="a", ifSeq=1, opId="stale")
    assert [frame.get("code") for frame in peer.settle()] == [None, "CONFLICT"]


def test_a_repeated_operation_is_acknowledged_and_applied_once(two: tuple[Peer, Peer]) -> None:
    one, other = two
    for value in (1, 2):
        one.say("set", key="a", value=value, opId="once")
    frames = one.settle()
    assert [(frame["type"], frame["seq"]) for frame in frames] == [("key_updated", 1), ("ack", 1), ("ack", 1)]
    assert [frame["value"] for frame in other.settle()] == [1]
    one.say("set", key="a", value=1, opId="changes nothing")
    assert [(frame["type"], frame["opId"]) for frame in one.settle()] == [("ack", "changes nothing")]


def test_a_batch_is_made_whole_or_not_at_all(two: tuple[Peer, Peer]) -> None:
    one, other = two
    one.say("batch", opId="b1", ops=[{"type": "set", "key": key, "value": key} for key in "abc"])
    assert one.settle()[-1] == {"type": "ack", "opId": "b1", "seq": 3}
    assert [(frame["key"], frame["seq"]) for frame in other.settle()] == [("a", 1), ("b", 2), ("c", 3)]
    refused = [{"type": "set", "key": "d", "value": 1}, {"type": "set", "key": "a", "value": 1, "ifSeq": 9}]
    one.say("batch", opId="b2", ops=refused)
    shown, error = one.settle()
    assert (shown["key"], shown["value"], error["code"], error["opId"]) == ("a", "a", "CONFLICT", "b2")
    assert other.settle() == []
    one.say("set", key="e", value=1)
    assert one.hear()["seq"] == 4


def test_a_filter_hears_what_it_asked_for_and_of_its_leaving(open_server: Server) -> None:
    name = fresh()
    with (
        joined(open_server, name) as writer,
        joined(open_server, name, prefix="a/") as by_prefix,
        joined(open_server, name, tag="red") as by_tag,
    ):
        writer.say("set", key="a/1", value=1)
        writer.say("set", key="b/1", value=1, attributes={"contentTags": ["red"]})
        writer.say("set", key="b/1", value=1, attributes={"contentTags": ["blue"]})
        writer.say("delete", key="b/1")
        writer.settle()
        assert [(frame["type"], frame["key"]) for frame in by_prefix.settle()] == [("key_updated", "a/1")]
        assert [(frame["type"], frame["seq"]) for frame in by_tag.settle()] == [("key_updated", 2), ("key_deleted", 3)]
    with dial(open_server, name, prefix="b/") as later:
        assert later.greeting()[1]["data"] == {}


def test_an_entry_ends_when_it_was_said_to(two: tuple[Peer, Peer]) -> None:
    one, other = two
    one.say("set", key="brief", value=1, expiresAt=now_ms() + EXPIRES_MS)
    one.say("set", key="kept", value=1)
    heard = other.until("key_deleted")
    assert (heard[-1]["key"], heard[-1]["deletedBy"], heard[-1]["seq"]) == ("brief", "system", 3)
    assert heard[-1]["timestamp"] >= heard[0]["timestamp"] + EXPIRES_MS - 50


def test_a_set_over_what_has_expired_makes_it_anew(two: tuple[Peer, Peer]) -> None:
    one, _ = two
    one.say("set", key="brief", value=1, attributes={"zIndex": 3}, expiresAt=now_ms() - 1)
    heard = one.settle()
    one.say("set", key="brief", value=1)
    heard += one.settle()
    assert [(frame["type"], frame["seq"]) for frame in heard] == [
        ("key_updated", 1),
        ("key_deleted", 2),
        ("key_updated", 3),
    ]
    assert heard[-1]["attributes"]["zIndex"] == 0


def test_presence_reaches_those_that_are_present(two: tuple[Peer, Peer], open_server: Server) -> None:
    one, other = two
    one.say("presence", state={"cursor": 1})
    other.settle()
    other.say("presence", state={"cursor": 2})
    seen = other.until("presence")[-1]
    assert (seen["state"], seen["userId"]) == ({"cursor": 1}, "dev-user")
    assert one.until("presence")[-1]["state"] == {"cursor": 2}
    other.socket.close()
    assert one.until("presence")[-1]["state"] is None


def test_a_presence_above_the_limit_is_refused(two: tuple[Peer, Peer]) -> None:
    peer, _ = two
    peer.say("presence", state="x" * PRESENCE_BYTES)
    assert peer.hear()["code"] == "TOO_LARGE"


def test_a_value_above_the_limit_is_refused_with_limit_and_size(two: tuple[Peer, Peer]) -> None:
    peer, _ = two
    peer.say("set", key="big", value="x" * (VALUE_BYTES - 2))
    assert peer.hear()["type"] == "key_updated"
    peer.say("set", key="bigger", value="x" * (VALUE_BYTES - 1))
    shown, error = peer.settle()
    assert (shown["type"], shown["key"], error["code"]) == ("key_deleted", "bigger", "TOO_LARGE")
    assert str(VALUE_BYTES) in error["error"]
    assert str(VALUE_BYTES + 1) in error["error"]


def test_a_frame_above_the_limit_closes_with_1009(two: tuple[Peer, Peer]) -> None:
    peer, other = two
    peer.socket.send("x" * (FRAME_BYTES + 1))
    assert peer.closed()[0] == 1009
    other.say("set", key="a", value=1)
    assert other.hear()["type"] == "key_updated"


def test_keys_above_the_limit_are_refused(two: tuple[Peer, Peer]) -> None:
    peer, _ = two
    for start in range(0, 10_000, 1_000):
        ops = [{"type": "set", "key": f"k{start + at}", "value": 1} for at in range(1_000)]
        peer.say("batch", ops=ops, opId=str(start))
    for start in range(0, 10_000, 1_000):
        while peer.hear().get("opId") != str(start):
            continue
    peer.say("set", key="one too many", value=1)
    assert peer.settle()[-1]["code"] == "TOO_LARGE"


@pytest.mark.parametrize("free", [True, False])
def test_sets_that_change_nothing_do_not_count_towards_the_rate(open_server: Server, free: bool) -> None:
    with joined(open_server, fresh(), echo=0) as peer:
        peer.say("set", key="a", value=0)
        peer.settle()
        began = time.monotonic()
        for start in range(0, 13_000, 1_000):
            values = [0] * 1_000 if free else range(start + 1, start + 1_001)
            peer.say("batch", ops=[{"type": "set", "key": "a", "value": value} for value in values])
            peer.settle()
        seconds = time.monotonic() - began
    # 3 000 above the burst are three seconds of the rate, less what was filled up while they were made.
    assert seconds < 2.5 if free else seconds > 2.5
