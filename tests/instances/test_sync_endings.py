"""Endings: an instance that is deleted, and access that is taken away while a socket is open."""

import time

from tests.instances.conftest import dial, joined, ticket, turned_away
from tests.projects.conftest import Cast, Person, delegate, grant
from tests.waiting import until

REVOKED_SECONDS = 1.0


def test_deletion_closes_the_sockets_and_the_id_stays_refused(strict: Cast, alice: Person, room: str) -> None:
    token = ticket(strict, alice, room)
    with joined(strict.server, room, alice.headers) as peer:
        peer.say("set", key="a", value=1)
        peer.settle()
        assert strict.call(alice, "DELETE", f"/api/instances/{room}").status_code == 200
        assert peer.closed() == (1000, "Instance deleted")
    assert turned_away(strict.server, room, alice.headers)[0] == 404
    assert turned_away(strict.server, room, token=token)[0] == 404
    with dial(strict.server, room) as later:
        later.say("auth", apiKey=strict.key(alice, "read").headers["X-API-Key"])
        assert later.hear()["code"] == "INSTANCE_NOT_FOUND"


def revoked_within(strict: Cast, room: str, headers: dict[str, str], revoke: object) -> tuple[int, str]:
    """How a socket is closed by `revoke`, which must happen within a second of its end."""
    assert callable(revoke)
    with joined(strict.server, room, headers) as peer:
        revoke()
        began = time.monotonic()
        closing = peer.closed()
        assert time.monotonic() - began < REVOKED_SECONDS
    assert turned_away(strict.server, room, headers)[0] in (401, 403)
    return closing


def test_a_deleted_share_closes_its_sockets(strict: Cast, alice: Person, bob: Person, room: str) -> None:
    share = strict.share(alice, f"instances/{room}", "write", bob)["id"]
    closing = revoked_within(
        strict, room, bob.headers, lambda: strict.call(alice, "DELETE", f"/api/shares/{share}").raise_for_status()
    )
    assert closing == (4403, "Access revoked")


def test_a_key_revoked_by_command_closes_its_sockets(strict: Cast, alice: Person, room: str) -> None:
    key = strict.key(alice, "read", "write")

    def revoke() -> None:
        assert strict.server.command("keys", "revoke", key.id).returncode == 0

    secret = key.headers["X-API-Key"]
    closing = revoked_within(strict, room, {"Authorization": f"Bearer {secret}"}, revoke)
    assert closing == (4403, "Access revoked")


def test_a_deleted_user_is_shut_out(strict: Cast, alice: Person, bob: Person, room: str) -> None:
    strict.share(alice, f"instances/{room}", "write", bob)
    assert revoked_within(strict, room, bob.headers, lambda: strict.delete(bob)) == (4403, "Access revoked")


def test_a_deleted_delegate_is_shut_out(strict: Cast, alice: Person, room: str) -> None:
    machine = delegate(strict, alice, can_read=True, can_write=True)
    grant(strict, alice, machine, room, "write")
    closing = revoked_within(
        strict,
        room,
        machine.headers,
        lambda: strict.call(alice, "DELETE", f"/api/delegates/{machine.id}").raise_for_status(),
    )
    assert closing == (4403, "Access revoked")


def test_a_socket_of_a_ticket_ends_with_the_grant_behind_it(
    strict: Cast, alice: Person, bob: Person, room: str
) -> None:
    share = strict.share(alice, f"instances/{room}", "write", bob)["id"]
    with joined(strict.server, room, token=ticket(strict, bob, room, "read")) as peer:
        strict.call(alice, "DELETE", f"/api/shares/{share}").raise_for_status()
        assert peer.closed() == (4403, "Access revoked")


def test_who_keeps_the_right_to_read_is_downgraded_in_place(
    strict: Cast, alice: Person, bob: Person, room: str
) -> None:
    strict.share(alice, f"instances/{room}", "read")
    share = strict.share(alice, f"instances/{room}", "write", bob)["id"]
    with joined(strict.server, room, bob.headers) as peer:
        peer.say("set", key="a", value=1)
        assert peer.settle()[0]["type"] == "key_updated"
        strict.call(alice, "DELETE", f"/api/shares/{share}").raise_for_status()

        def is_refused() -> bool:
            peer.say("set", key="a", value=time.monotonic_ns(), opId=str(time.monotonic_ns()))
            return bool(peer.settle()[-1].get("code") == "NO_PERMISSION")

        until(is_refused, REVOKED_SECONDS)
        peer.say("ping")
        assert peer.hear() == {"type": "pong"}
