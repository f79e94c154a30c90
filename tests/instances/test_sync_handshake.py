"""Who is let in: every credential, and every refusal before and after the upgrade."""

import concurrent.futures
import json
import threading
import time
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from app.edge.clock import now_ms
from app.edge.limiter import Rate
from app.errors import Unauthenticated
from app.identity.door import WITH_CREDENTIAL
from app.identity.principal import Account, Kind, Principal
from app.instances.tickets import TICKET_SECONDS, Tickets
from app.projects.access import Level
from app.projects.door import NOBODY
from tests.conftest import Server
from tests.instances.conftest import TICKET_SECRET, dial, fresh, joined, ticket, turned_away
from tests.projects.conftest import OPERATOR, Cast, Json, Person, delegate, grant, refused

AUTH_SECONDS = 5.0
SOCKETS = 8
ROUNDS = 20


def test_each_credential_lets_its_owner_in(strict: Cast, alice: Person, room: str) -> None:
    key = strict.key(alice, "read", "write")
    secret = key.headers["X-API-Key"]
    machine = delegate(strict, alice, can_read=True)
    grant(strict, alice, machine, room, "read")
    ways: list[tuple[dict[str, str], dict[str, str], str]] = [
        (alice.headers, {}, "admin"),
        ({"Authorization": f"Bearer {secret}"}, {}, "write"),
        ({}, {"apiKey": secret}, "write"),
        ({}, {"token": ticket(strict, alice, room)}, "admin"),
        (machine.headers, {}, "read"),
    ]
    for headers, query, permission in ways:
        with dial(strict.server, room, headers, **query) as peer:
            first, second = peer.greeting()
            assert (first["permission"], second["type"]) == (permission, "sync")


def test_a_refused_handshake_is_plain_http(strict: Cast, alice: Person, bob: Person, room: str) -> None:
    server = strict.server
    assert turned_away(server, room, token="rubbish") == (401, "Invalid token")
    assert turned_away(server, room, apiKey="mc_live_" + "x" * 32)[0] == 401
    other = strict.instance(alice, strict.project(alice))["id"]
    assert turned_away(server, room, token=ticket(strict, alice, other)) == (
        403,
        "Token not valid for this instance",
    )
    assert turned_away(server, room, bob.headers) == (403, "Instance not found or access denied")
    assert turned_away(server, fresh(), alice.headers)[0] == 404
    assert turned_away(server, "no%2Fid", alice.headers)[0] == 404


def test_a_plain_get_is_told_that_a_websocket_is_required(strict: Cast, room: str) -> None:
    plain = strict.client.get(f"/sync/{room}")
    assert (plain.status_code, plain.json()["error"]) == (400, "WebSocket required or invalid endpoint")


@pytest.mark.parametrize("path", ["/sync", "/sync/", "/sync/?token=rubbish"])
def test_a_handshake_that_names_no_instance_is_refused(strict: Cast, alice: Person, path: str) -> None:
    address = strict.server.url.replace("http", "ws") + path
    with pytest.raises(InvalidStatus) as refused, connect(address, additional_headers=alice.headers, proxy=None):
        pass
    response = refused.value.response
    assert (response.status_code, json.loads(response.body)["error"]) == (400, "Instance ID required")
    plain = strict.client.get(path)
    assert (plain.status_code, plain.json()["error"]) == (400, "WebSocket required or invalid endpoint")


@pytest.mark.parametrize("body", [{}, {"instanceId": ""}, {"instanceId": None}])
def test_a_ticket_is_for_an_instance(strict: Cast, alice: Person, body: Json) -> None:
    assert refused(strict.call(alice, "POST", "/api/ws-token", body)) == (400, "instanceId required")


def test_an_operator_who_names_no_instance_is_told_so(strict: Cast) -> None:
    assert refused(strict.client.get("/admin/do/")) == (401, "Unauthorized")
    assert refused(strict.client.get("/admin/do/", headers=OPERATOR)) == (400, "Object ID required")


def test_a_first_frame_may_bring_the_key(strict: Cast, alice: Person, room: str) -> None:
    secret = strict.key(alice, "read", "write").headers["X-API-Key"]
    with dial(strict.server, room) as peer:
        peer.socket.send('{"type":"later"}')
        peer.say("auth", apiKey=secret)
        assert [frame["type"] for frame in peer.greeting()] == ["auth_success", "sync"]


@pytest.mark.parametrize("known", [True, False])
def test_nothing_tells_whether_an_instance_exists_before_the_key(strict: Cast, room: str, known: bool) -> None:
    with dial(strict.server, room if known else fresh()) as peer:
        peer.say("auth", apiKey="mc_live_" + "x" * 32)
        error = peer.hear()
        assert (error["type"], error["code"]) == ("auth_error", "INVALID_KEY")
        assert peer.closed()[0] == 4401


def test_a_good_key_learns_what_is_wrong_with_the_instance(strict: Cast, alice: Person, bob: Person, room: str) -> None:
    secret = strict.key(bob, "read", "write").headers["X-API-Key"]
    for name, code in ((room, "NO_ACCESS"), (fresh(), "INSTANCE_NOT_FOUND")):
        with dial(strict.server, name) as peer:
            peer.say("auth", apiKey=secret)
            assert peer.hear()["code"] == code
            assert peer.closed()[0] == 4401


def test_a_first_frame_of_another_kind_ends_the_socket(strict: Cast, room: str) -> None:
    with dial(strict.server, room) as peer:
        peer.say("set", key="a", value=1)
        assert peer.hear()["type"] == "auth_error"
        assert peer.closed()[0] == 4401


def test_what_comes_behind_a_refused_credential_is_not_said_by_whoever_was_let_in_before(
    strict: Cast, alice: Person, room: str
) -> None:
    with joined(strict.server, room, alice.headers) as peer:
        peer.say("set", key="before", value=1)
        peer.say("auth", apiKey="mc_live_" + "x" * 32)
        # The first arrive while the key is looked up, the others at a socket that is closed.
        with suppress(ConnectionClosed):
            for number in range(SOCKETS):
                peer.say("set", key=f"behind-{number}", value=1)
        assert peer.closed() == (4401, "Authentication required")
    assert list(strict.get(alice, f"/api/instances/{room}/keys")["keys"]) == ["before"]


def test_who_says_nothing_is_closed_after_five_seconds(strict: Cast, room: str) -> None:
    with dial(strict.server, room) as peer:
        began = time.monotonic()
        assert peer.closed()[0] == 4401
        assert AUTH_SECONDS - 0.5 < time.monotonic() - began < AUTH_SECONDS + 2


def test_in_development_an_unknown_key_is_dev_user(open_server: Server) -> None:
    with joined(open_server, fresh()) as peer:
        peer.say("auth", apiKey="whatever")
        first, second = peer.greeting()
        assert (first["userId"], first["permission"], second["type"]) == ("dev-user", "write", "sync")
        peer.say("set", key="a", value=1)
        assert [frame["type"] for frame in peer.settle()] == ["key_updated"]


def test_of_sockets_that_redeem_one_ticket_one_is_let_in(strict: Cast, alice: Person, room: str) -> None:
    for sockets in (SOCKETS, *[2] * ROUNDS):
        token = ticket(strict, alice, room)
        together = threading.Barrier(sockets)

        def enter(_: int, token: str = token, together: threading.Barrier = together) -> int:
            together.wait(10)
            try:
                with joined(strict.server, room, token=token):
                    return 101
            except InvalidStatus as refused:
                return refused.response.status_code

        with concurrent.futures.ThreadPoolExecutor(sockets) as pool:
            assert sorted(pool.map(enter, range(sockets))) == [101, *[401] * (sockets - 1)]
        assert turned_away(strict.server, room, token=token) == (401, "Invalid token")


def test_a_ticket_that_is_past_its_minute_is_refused_at_the_handshake(strict: Cast, alice: Person, room: str) -> None:
    """The same ticket a little younger is let in, so that it is its age that is refused."""
    account = Account(alice.id, alice.clerk_id, False, Rate(0, 0))
    for age_ms, answer in ((TICKET_SECONDS * 1000 - 10_000, 101), (TICKET_SECONDS * 1000, 401)):
        issued = Tickets((TICKET_SECRET,)).issue(room, Level.WRITE, Principal(Kind.USER, account), now_ms() - age_ms)
        if answer == 101:
            with dial(strict.server, room, token=issued.token) as peer:
                assert peer.greeting()[0]["permission"] == "write"
        else:
            assert turned_away(strict.server, room, token=issued.token) == (401, "Token expired")


def test_handshakes_are_not_counted(strict: Cast, alice: Person) -> None:
    """An SDK whose instance was deleted comes back for ever, which must not stop its user's other requests."""
    for _ in range(WITH_CREDENTIAL.burst + 1):
        assert turned_away(strict.server, "nowhere", alice.headers)[0] == 404


def test_a_ticket_is_capped_to_what_was_asked_and_to_the_grant(
    strict: Cast, alice: Person, bob: Person, room: str
) -> None:
    strict.share(alice, f"instances/{room}", "write", bob)
    for asked, given in (("read", "read"), ("admin", "write"), (None, "write")):
        with dial(strict.server, room, token=ticket(strict, bob, room, asked)) as peer:
            assert peer.greeting()[0]["permission"] == given


def test_a_ticket_ends_after_a_minute() -> None:
    tickets, now = Tickets(("secret",)), now_ms()
    token = tickets.issue("room", Level.WRITE, NOBODY, now).token
    assert tickets.read(token, "room", now + TICKET_SECONDS * 1000 - 1).level == Level.WRITE
    with pytest.raises(Unauthenticated, match="Token expired"):
        tickets.read(token, "room", now + TICKET_SECONDS * 1000)


def test_a_ticket_that_was_signed_elsewhere_is_refused() -> None:
    token = Tickets(("other",)).issue("room", Level.WRITE, NOBODY, now_ms()).token
    with pytest.raises(Unauthenticated, match="Invalid token"):
        Tickets(("secret",)).read(token, "room", now_ms())
