"""The seal: what machines say to each other is believed for a minute, by those who know the secret."""

from collections.abc import Callable

import httpx
import msgspec
import pytest
import time_machine
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.edge import desk, peer_port
from app.edge.clock import now_ms
from app.edge.desk import Distant
from app.edge.homes import Machine
from app.edge.peers import PING, SIGNATURE, Peers
from app.edge.placement import Destination, at_primary
from app.edge.router import Route
from app.edge.seal import SEALED_SECONDS, Seal, Sealed
from app.edge.upgrade import WEBSOCKET
from app.errors import Unauthenticated, Unavailable
from app.regions import Peer, Regions
from tests.cluster.pair import SECRET, client, pair
from tests.cluster.test_forward import take
from tests.edge.echoing import echo

pytestmark = pytest.mark.anyio

NEXT = "the-secret-that-comes-after-this-one"
AT = 1_800_000_000.0
ROUTES = (Route("POST", "/take", at_primary, take),)


def test_a_passport_is_read_by_whoever_knows_the_secret() -> None:
    text = Seal((SECRET,), "m1").passport("POST", b"/a?b", "203.0.113.7", "id-1")
    passport = Seal((NEXT, SECRET), "m2").read_passport(text, "POST", b"/a?b")
    assert (passport.machine, passport.client, passport.request_id) == ("m1", "203.0.113.7", "id-1")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: "not base64!",
        lambda text: text[:-2],
        lambda text: ("A" if text[0] != "A" else "B") + text[1:],
        lambda text: text + "A" * 5_000,
        lambda text: Seal((NEXT,), "m1").passport("POST", b"/a", "203.0.113.7", "id-1"),
        lambda text: Seal((SECRET,), "m1").passport("PUT", b"/a", "203.0.113.7", "id-1"),
        lambda text: Seal((SECRET,), "m1").passport("POST", b"/b", "203.0.113.7", "id-1"),
        lambda text: Seal((SECRET,), "m1").signature("POST", b"/a", b""),
    ],
)
def test_a_forged_passport_is_refused(spoil: Callable[[str], str]) -> None:
    seal = Seal((SECRET,), "m1")
    text = seal.passport("POST", b"/a", "203.0.113.7", "id-1")
    seal.read_passport(text, "POST", b"/a")
    with pytest.raises(Unauthenticated):
        seal.read_passport(spoil(text), "POST", b"/a")


@pytest.mark.parametrize(("later", "good"), [(59, True), (-59, True), (61, False), (-61, False)])
def test_a_passport_is_good_for_a_minute_of_clocks_that_differ(later: int, good: bool) -> None:
    seal = Seal((SECRET,), "m1")
    with time_machine.travel(AT, tick=False):
        text = seal.passport("POST", b"/a", "203.0.113.7", "id-1")
    with time_machine.travel(AT + later, tick=False):
        if good:
            seal.read_passport(text, "POST", b"/a")
        else:
            with pytest.raises(Unauthenticated):
                seal.read_passport(text, "POST", b"/a")


def test_a_signature_is_good_once_and_for_its_body() -> None:
    seal = Seal((SECRET,), "m1")
    text = seal.signature("POST", b"/peer/a", b"question")
    signature = seal.read_signature(text, "POST", b"/peer/a")
    with pytest.raises(Unauthenticated):
        seal.use_up(signature, b"another")
    seal.use_up(signature, b"question")
    with pytest.raises(Unauthenticated):
        seal.use_up(signature, b"question")


def test_signatures_are_remembered_for_as_long_as_they_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.edge.seal.NONCES", 2)
    seal = Seal((SECRET,), "m1")
    now = [0.0]
    monkeypatch.setattr("app.edge.seal.time.monotonic", lambda: now[0])

    def use() -> None:
        seal.use_up(seal.read_signature(seal.signature("POST", b"/a", b""), "POST", b"/a"), b"")

    use()
    use()
    with pytest.raises(Unavailable):
        use()
    now[0] = 2 * SEALED_SECONDS + 1
    use()


def test_what_a_request_has_waited_goes_with_it_and_grows_on_the_way() -> None:
    seal = Seal((SECRET,), "m1")
    with time_machine.travel(AT, tick=False):
        text = seal.passport("POST", b"/a", "203.0.113.7", "id-1", 800)
    for later, waited in ((0, 0.8), (1, 1.8), (-30, 0.8), (30, 6.8)):
        with time_machine.travel(AT + later, tick=False):
            assert seal.read_passport(text, "POST", b"/a").waited_seconds == waited


def test_a_passport_of_a_release_that_says_less_is_refused_like_one_of_a_stranger() -> None:
    """Machines are replaced one by one, and what their clients hear meanwhile is 503."""

    class Passport(Sealed, frozen=True, array_like=True):
        """As an earlier release has it."""

    seal = Seal((SECRET,), "m1")
    text = seal._make(Passport("m1", now_ms(), "POST", b"target"))
    with pytest.raises(Unauthenticated):
        seal.read_passport(text, "POST", b"/a")


def test_without_a_secret_nothing_is_signed() -> None:
    with pytest.raises(Unavailable):
        Seal((), "m1").passport("GET", b"/", "203.0.113.7", "id")


async def test_a_question_is_answered_with_what_the_other_machine_says() -> None:
    async with pair(ROUTES) as both:

        async def answer(question: bytes, machine: str) -> bytes:
            return machine.encode() + b" asked " + question

        both.primary.peers.answers["/peer/echo"] = answer
        asked = await both.replica.peers.ask(both.primary.peer, "/peer/echo", b"something")
        assert asked == b"m2 asked something"
        await both.replica.peers.ping(both.primary.peer)
        with pytest.raises(Unavailable):
            await both.replica.peers.ask(both.primary.peer, "/peer/unknown")


async def test_a_peer_that_is_gone_or_fails_is_unavailable() -> None:
    async with pair(ROUTES) as both:

        async def fail(question: bytes, machine: str) -> bytes:
            raise Unavailable("not now")

        both.primary.peers.answers["/peer/fail"] = fail
        with pytest.raises(Unavailable):
            await both.replica.peers.ask(both.primary.peer, "/peer/fail")
        await both.primary.close()
        with pytest.raises(Unavailable):
            await both.replica.peers.ping(both.primary.peer)


@pytest.mark.parametrize("said", [b"", b"pong", msgspec.msgpack.encode((1, None)), msgspec.msgpack.encode(([], None))])
async def test_an_answer_of_another_release_is_unavailable(said: bytes) -> None:
    """Machines are replaced one by one; a heart that died of that would not beat again."""
    async with pair(ROUTES) as both:

        async def answer(question: bytes, machine: str) -> bytes:
            return said

        both.primary.peers.answers[desk.BEGIN] = answer
        asked = Distant(both.replica.peers, lambda: both.replica.peers.primary)
        with pytest.raises(Unavailable, match="release"):
            await asked.begin(Machine("m2", "ams"), "session")


async def test_the_peer_port_hears_nobody_without_a_good_signature() -> None:
    async with pair(ROUTES) as both, httpx.AsyncClient(base_url=both.primary.peer.url, trust_env=False) as asking:
        stranger, seal = Seal((NEXT,), "m2"), both.replica.peers.seal
        for headers in (
            {},
            {SIGNATURE: "x"},
            {SIGNATURE: stranger.signature("POST", PING.encode(), b"")},
            {SIGNATURE: seal.signature("POST", b"/peer/other", b"")},
            {SIGNATURE: seal.signature("POST", PING.encode(), b"other")},
        ):
            assert (await asking.post(PING, headers=headers)).status_code == 401
        good = {SIGNATURE: seal.signature("POST", PING.encode(), b"")}
        assert (await asking.post(PING, headers=good)).content == b"pong"
        assert (await asking.post(PING, headers=good)).status_code == 401
        for headers in ({}, {peer_port.PASSPORT: stranger.passport("POST", b"/take", "203.0.113.7", "id")}):
            assert (await asking.post("/take", headers=headers)).status_code == 401
        known = {peer_port.PASSPORT: seal.passport("POST", b"/take", "203.0.113.7", "id-9")}
        said = (await asking.post("/take", headers=known)).json()
        assert (said["client"], said["id"]) == ("203.0.113.7", "id-9")


async def test_machines_with_different_secrets_say_503_to_their_clients_and_never_401() -> None:
    routes = (*ROUTES, Route(WEBSOCKET, "/echo", at_primary, echo))
    async with pair(routes) as both, client(both.replica) as asking:
        both.replica.peers.seal = Seal((NEXT,), "m2")
        answer = await asking.post("/take", content=b"x")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        for port, status in ((both.replica.port, 503), (both.primary.peer_port, 401)):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{port}/echo", proxy=None)
            assert refused.value.response.status_code == status


async def test_the_public_port_knows_neither_questions_nor_passports() -> None:
    async with pair(ROUTES) as both, client(both.primary) as asking:
        seal = both.replica.peers.seal
        signed = {SIGNATURE: seal.signature("POST", PING.encode(), b"")}
        assert (await asking.post(PING, headers=signed)).status_code == 404
        known = {peer_port.PASSPORT: seal.passport("POST", b"/take", "203.0.113.7", "id-9")}
        said = (await asking.post("/take", headers=known)).json()
        assert said["client"] == "127.0.0.1"
        assert said["id"] != "id-9"


def test_on_fly_the_platforms_names_find_a_machine() -> None:
    peers = Peers(Regions("ams", "m2", "fra", app_name="house", peer_port=9), "m2")
    assert peers.at(peers.primary).url == "http://fra.house.internal:9"
    assert peers.at(Destination("ord", "m7")).url == "http://m7.vm.house.internal:9"


def test_elsewhere_machines_are_listed() -> None:
    listed = (Peer("fra", "m1", "http://a:1"), Peer("ams", "m2", "http://b:2"), Peer("ams", "m3", "http://c:3"))
    peers = Peers(Regions("ams", "m2", "fra", peers=listed), "m2")
    assert peers.at(peers.primary) == listed[0]
    assert peers.at(Destination("ams", "m3")) == listed[2]
    for unknown in (Destination("ams", "m9"), Destination("ord")):
        with pytest.raises(Unavailable):
            peers.at(unknown)
