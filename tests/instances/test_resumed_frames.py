"""Resumed frames: byte for byte what was heard live, whoever made the change."""

import json
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from app.edge import migrate, sqlite
from app.edge.clock import now_ms
from app.identity.principal import Kind, Principal
from app.instances import protocol, queries
from app.instances.allowance import Allowance
from app.instances.draft import AI, SYSTEM, Caller, Change, Draft, State
from app.instances.member import Member
from app.instances.queries import Actor
from app.instances.resume import RESUMED_BYTES, retell
from app.instances.store import Commit, Retention, Store
from app.projects.access import Level
from tests.instances.conftest import Peer, dial, joined, ticket
from tests.projects.conftest import Cast, Json, Person, delegate, grant

EXPIRES_MS = 50
OPERATOR = Principal(Kind.OPERATOR, None)


def raw_until(peer: Peer, kind: str) -> list[str]:
    """Frames as they came, up to the first of a type."""
    heard = [str(peer.socket.recv(timeout=10))]
    while json.loads(heard[-1])["type"] != kind:
        heard.append(str(peer.socket.recv(timeout=10)))
    return heard


@pytest.mark.parametrize("filters", [{}, {"tag": "red"}], ids=["all", "filtered"])
def test_a_resumed_frame_is_the_live_one(strict: Cast, alice: Person, bob: Person, room: str, filters: Json) -> None:
    place = f"/api/instances/{room}"
    strict.share(alice, place.removeprefix("/api/"), "write", bob)
    key = strict.key(alice, "read", "write")
    machine = delegate(strict, alice, can_read=True, can_write=True)
    grant(strict, alice, machine, room, "write")
    red = {"attributes": {"contentTags": ["red"], "zIndex": 1.5, "own": [1, {"b": None}]}}
    with joined(strict.server, room, alice.headers, **filters) as live:
        for who in (alice, bob, key, machine):
            path = f"{place}/keys/{who.id}"
            strict.call(who, "PUT", path, {"value": {"n": [1.0, "ü"]}, **red})
            strict.call(who, "PUT", path, {"value": 2, "attributes": {"contentTags": []}})
            strict.call(who, "PUT", path, {"value": 3, **red})
            strict.call(who, "DELETE", path)
        soon = now_ms() + EXPIRES_MS
        strict.call(key, "PUT", f"{place}/keys/soon", {"value": 4, **red, "expiresAt": soon})
        heard = raw_until(live, "key_deleted")
        while json.loads(heard[-1])["key"] != "soon":
            heard += raw_until(live, "key_deleted")
        strict.call(machine, "PUT", f"{place}/keys/last", {"value": 5, **red})
        with joined(strict.server, room, token=ticket(strict, alice, room)) as admin:
            admin.say("clear")
            heard += raw_until(live, "cleared")
    with dial(strict.server, room, alice.headers, since=0, **filters) as later:
        later.hear()
        assert raw_until(later, "cleared") == heard
    told = [json.loads(frame) for frame in heard]
    assert [frame["seq"] for frame in told] == list(range(1, 4 * 4 + 4 + 1))
    by = [frame.get("updatedBy") or frame.get("deletedBy") or frame.get("clearedBy") for frame in told]
    assert by[::4] == [alice.clerk_id, bob.clerk_id, alice.clerk_id, machine.id, alice.clerk_id]
    assert by[-4:] == [alice.clerk_id, SYSTEM, machine.id, alice.clerk_id]


CHANGES: tuple[Change, ...] = (
    protocol.Set("a", msgspec.Raw(b'{"n":1e2}'), {"contentTags": ["red"]}),
    protocol.Set("a", msgspec.Raw(b"2")),
    protocol.Set("b", msgspec.Raw(b'"\xc3\xbc"'), expires_at=now_ms() * 2),
    protocol.Delete("a"),
    protocol.Clear(),
)
ACTORS = (
    Actor("user", "user_1"),
    Actor("key", "key_1"),
    Actor("delegate", "del_1", "sensor"),
    Actor(AI, "user_1", "openai/gpt"),
    Actor(AI, "user_1"),
    Actor(SYSTEM, "expiry"),
)
# Nothing is sent to it, so it needs no socket.
READER = Member(cast(Any, None), Caller(ACTORS[0], "reader", OPERATOR, Level.READ), Level.READ, Allowance())


@pytest.mark.parametrize("actor", ACTORS, ids=lambda actor: f"{actor.kind} {actor.name}")
def test_a_frame_is_told_again_from_what_is_stored(tmp_path: Path, actor: Actor) -> None:
    store = Store(tmp_path / "instance.db", Retention())
    loaded = store.open(now_ms())
    draft = Draft(State(loaded.entries, loaded.seq, 0), now_ms(), read_only=False, tells=False)
    draft.apply(CHANGES, Caller(actor, "user_1", OPERATOR, Level.OWNER), turn_id="turn_1")
    store.write(Commit([told.record for told in draft.told], [], [], draft.seq, draft.now))
    lines = store.read(queries.list_told_since, 0, len(CHANGES), RESUMED_BYTES)
    store.close()
    assert [retell(line, READER) for line in lines] == [told.frame for told in draft.told]
    assert [line.turn_id for line in lines] == ["turn_1"] * len(CHANGES)
    first = json.loads(draft.told[0].frame)
    assert first["updatedBy"] == (SYSTEM if actor.kind in (AI, SYSTEM) else "user_1")
    assert ("actor" in first) == (actor.kind == AI)


def test_what_was_changed_before_the_names_were_kept_is_told_with_the_actor(tmp_path: Path) -> None:
    path = tmp_path / "instance.db"
    first = migrate.list_migrations("instance")[0]
    raw = sqlite.connect(path)
    for statement in migrate.split_statements(first.sql):
        raw.execute(statement)
    raw.execute("UPDATE schema SET version = 1")
    raw.execute(
        """INSERT INTO history (seq, at_ms, op, key, previous_value, previous_attributes, actor_kind, actor_id)
           VALUES (1, 1, 'delete', 'a', '1', '{}', 'delegate', 'del_1')"""
    )
    raw.execute("UPDATE instance SET seq = 1")
    raw.execute("INSERT INTO operations (principal, op_id, seq, at_ms) VALUES ('del_1', 'op_1', 1, 1)")
    raw.close()
    store = Store(path, Retention())
    assert store.open(now_ms()).seq == 1
    (line,) = store.read(queries.list_told_since, 0, 1, RESUMED_BYTES)
    assert store.read(queries.find_answer, "del_1", "op_1", 0) is None
    store.close()
    told = retell(line, READER)
    assert told is not None
    assert json.loads(told) == {"type": "key_deleted", "key": "a", "deletedBy": "del_1", "timestamp": 1, "seq": 1}
