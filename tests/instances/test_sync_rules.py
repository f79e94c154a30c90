"""What the shipped SDKs force: they send every key again on every event, and again on every error."""

from tests.conftest import Server
from tests.instances.conftest import Peer, dial, fresh, joined, ticket
from tests.projects.conftest import Cast, Json, Person

PAIRS = 50
IMAGE = {"type": "image", "contentType": "image/png", "zIndex": 2, "contentTags": ["face"], "colour": "blue"}


def push(peer: Peer, held: dict[str, Json]) -> None:
    """Every key with its attributes as they were heard, as an SDK does on any event."""
    for key, entry in held.items():
        peer.say("set", key=key, value=entry["value"], attributes=entry["attributes"], timestamp=1)


def test_auth_success_comes_before_sync(open_server: Server) -> None:
    with dial(open_server, fresh()) as peer:
        first, second = peer.greeting()
    assert (first["type"], second["type"]) == ("auth_success", "sync")
    assert (first["userId"], first["permission"], first["seq"]) == ("dev-user", "write", 0)


def test_pushing_every_key_again_is_told_to_nobody(two: tuple[Peer, Peer]) -> None:
    one, other = two
    one.say("set", key="title", value={"a": [1, 2]})
    one.say("set", key="face", value="aGk=", attributes=IMAGE)
    held = {frame["key"]: frame for frame in one.settle()}
    assert [frame["key"] for frame in other.settle()] == ["title", "face"]
    for _ in range(5):
        push(one, held)
        push(other, held)
    assert one.settle() == []
    assert other.settle() == []


def test_an_sdk_that_pushes_on_every_error_is_quiet_after_two_refused_writes(
    strict: Cast, alice: Person, bob: Person, room: str
) -> None:
    server = strict.server
    strict.share(alice, f"instances/{room}", "read", bob)
    with joined(server, room, alice.headers) as writer, dial(server, room, bob.headers) as reader:
        for number in range(20):
            writer.say("set", key=f"k{number}", value=number)
        writer.settle()
        held = dict(reader.greeting()[1]["data"])
        for frame in reader.settle():
            held[frame["key"]] = frame
        assert len(held) == 20
        held["k1"] = {**held["k1"], "value": "mine"}
        held["new"] = {"value": "mine", "attributes": {}}
        reader.say("set", key="k1", value="mine")
        reader.say("set", key="new", value="mine")
        heard = 0
        while batch := reader.settle():
            heard += len(batch)
            for frame in batch:
                match frame["type"]:
                    case "key_updated":
                        held[frame["key"]] = frame
                    case "key_deleted":
                        held.pop(frame["key"], None)
                    case "error":
                        push(reader, held)
        assert 3 <= heard <= 10
        assert held["k1"]["value"] == 1
        assert "new" not in held
        assert writer.settle() == []


def test_a_refused_write_shows_what_holds_before_the_error(strict: Cast, alice: Person, bob: Person, room: str) -> None:
    strict.share(alice, f"instances/{room}", "read", bob)
    with joined(strict.server, room, alice.headers) as writer, joined(strict.server, room, bob.headers) as reader:
        writer.say("set", key="held", value=1)
        reader.until("key_updated")
        reader.say("set", key="held", value=2)
        shown, error = reader.settle()
        assert (shown["type"], shown["key"], shown["value"]) == ("key_updated", "held", 1)
        assert (error["type"], error["code"], error["error"]) == ("error", "NO_PERMISSION", "Write permission required")


def test_attributes_come_back_whole(open_server: Server) -> None:
    name = fresh()
    with joined(open_server, name) as peer:
        peer.say("set", key="face", value="aGk=", attributes=IMAGE)
        heard = peer.hear()["attributes"]
    with dial(open_server, name) as later:
        kept = later.greeting()[1]["data"]["face"]["attributes"]
    assert heard == kept
    assert kept == {
        "type": "image",
        "contentType": "image/png",
        "contentTags": ["face"],
        "systemTags": ["SystemPrompt", "prompt", "LLMWrite"],
        "zIndex": 2,
        "readonly": False,
        "visible": True,
        "hardcoded": False,
        "template": False,
        "tags": ["face"],
        "colour": "blue",
    }


def test_the_sender_hears_its_own_change_unless_it_does_not_want_to(open_server: Server) -> None:
    name = fresh()
    with joined(open_server, name) as loud, joined(open_server, name, echo=0) as quiet:
        loud.say("set", key="a", value=1)
        quiet.settle()
        quiet.say("set", key="b", value=2)
        assert quiet.settle() == []
        assert [frame["key"] for frame in loud.settle()] == ["a", "b"]


def test_keys_come_by_z_index_and_then_by_name(open_server: Server) -> None:
    name = fresh()
    with joined(open_server, name) as peer:
        for key, z_index in (("d", 1), ("b", 0), ("c", -1), ("a", 1)):
            peer.say("set", key=key, value=0, attributes={"zIndex": z_index})
        peer.settle()
    with dial(open_server, name) as later:
        assert list(later.greeting()[1]["data"]) == ["c", "b", "a", "d"]


def test_a_client_with_write_changes_a_readonly_key(two: tuple[Peer, Peer]) -> None:
    one, _ = two
    one.say("set", key="note", value="first", attributes={"readonly": True})
    one.say("set", key="note", value="second")
    assert [(frame["value"], frame["attributes"]["readonly"]) for frame in one.settle()] == [
        ("first", True),
        ("second", True),
    ]


def test_a_hardcoded_key_is_kept_from_those_below_admin(strict: Cast, alice: Person, room: str) -> None:
    token = ticket(strict, alice, room, "write")
    with joined(strict.server, room, token=token) as writer, joined(strict.server, room, alice.headers) as admin:
        writer.say("set", key="law", value=1, attributes={"hardcoded": True})
        writer.settle()
        writer.say("set", key="law", value=2, attributes={"hardcoded": False, "systemTags": ["LLMWrite"]})
        (changed,) = writer.settle()
        assert (changed["value"], changed["attributes"]["hardcoded"]) == (2, True)
        writer.say("delete", key="law")
        shown, error = writer.settle()
        assert (shown["type"], shown["value"]) == ("key_updated", 2)
        assert (error["code"], error["error"]) == ("NO_PERMISSION", "Admin permission required")
        admin.settle()
        admin.say("delete", key="law")
        assert [frame["type"] for frame in admin.settle()] == ["key_deleted"]


def test_a_readonly_instance_is_changed_by_an_admin_only(strict: Cast, alice: Person, room: str) -> None:
    answer = strict.call(alice, "PATCH", f"/api/instances/{room}", {"is_readonly": True})
    assert answer.status_code == 200
    token = ticket(strict, alice, room, "write")
    with joined(strict.server, room, token=token) as writer, joined(strict.server, room, alice.headers) as admin:
        writer.say("set", key="a", value=1)
        assert [frame["type"] for frame in writer.settle()] == ["key_deleted", "error"]
        admin.say("set", key="a", value=1)
        assert [frame["type"] for frame in admin.settle()] == ["key_updated"]


def test_clear_needs_admin(strict: Cast, alice: Person, room: str) -> None:
    token = ticket(strict, alice, room, "write")
    with joined(strict.server, room, token=token) as writer, joined(strict.server, room, alice.headers) as admin:
        writer.say("set", key="a", value=1)
        writer.say("clear")
        assert [frame.get("error") for frame in writer.settle()] == [None, "Admin permission required"]
        admin.settle()
        admin.say("clear")
        (cleared,) = admin.settle()
        assert (cleared["type"], cleared["seq"]) == ("cleared", 2)
        assert [frame["type"] for frame in writer.settle()] == ["cleared"]


def test_a_delete_of_a_missing_key_is_told_to_its_sender_only(two: tuple[Peer, Peer]) -> None:
    one, other = two
    one.say("delete", key="nothing")
    assert [(frame["type"], frame["key"], frame["seq"]) for frame in one.settle()] == [("key_deleted", "nothing", 0)]
    assert other.settle() == []


def test_a_delete_of_a_missing_key_with_a_name_is_told_before_it_is_acknowledged(two: tuple[Peer, Peer]) -> None:
    one, other = two
    one.say("delete", key="nothing", opId="once")
    assert [(frame["type"], frame["seq"]) for frame in one.settle()] == [("key_deleted", 0), ("ack", 0)]
    assert other.settle() == []


def test_who_deletes_a_missing_key_is_left_with_what_was_set_right_after(two: tuple[Peer, Peer]) -> None:
    one, other = two
    for number in range(PAIRS):
        one.say("delete", key=f"k{number}", **({"opId": f"once-{number}"} if number % 2 else {}))
        one.say("set", key=f"k{number}", value=number)
    other.settle()
    shown = {frame["key"]: frame.get("value") for frame in one.settle() if "key" in frame}
    assert shown == {f"k{number}": number for number in range(PAIRS)}


def test_what_is_no_frame_is_said_once_and_what_is_unknown_is_ignored(two: tuple[Peer, Peer]) -> None:
    peer, _ = two
    for ignored in ("7", '"text"', "true", '{"type":"later"}', "{}", "[]"):
        peer.socket.send(ignored)
    peer.say("set", key="$date", value="today")
    assert peer.settle() == []
    for broken in ("null", "{", '{"type":"set"}', b"\x00\x01", "nan"):
        peer.socket.send(broken)
    (error,) = peer.settle()
    assert (error["code"], error["error"]) == ("PARSE_ERROR", "Invalid message format")
    peer.say("ping")
    assert peer.hear() == {"type": "pong"}
