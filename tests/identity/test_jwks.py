"""JWKS: fetched once however many ask, kept while the issuer is away, and asked little by those who invent names."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from app.edge.limiter import Rate
from app.edge.outbound import Outbound
from app.errors import Unavailable, Upstream
from app.identity import jwks
from app.identity.jwks import Jwks, jwks_source, read_keys
from app.settings import Clerk
from tests.fakes.clerk import SECRET, FakeClerk, Json, SigningKey

pytestmark = pytest.mark.anyio

PATH = "/.well-known/jwks.json"
FIRST, SECOND = "ins_first", "ins_second"
WAIT_SECONDS = 10


class Keys:
    """A `Jwks` of the fake with a clock that stands still, and how often a key was withdrawn."""

    def __init__(self, fake: FakeClerk, outbound: Outbound) -> None:
        self.now = 1_000.0
        self.withdrawn = 0
        self.jwks = Jwks(fake.url + PATH, None, outbound, self._withdraw, lambda: self.now)

    def _withdraw(self) -> None:
        self.withdrawn += 1

    async def find(self, kid: str) -> RSAPublicKey | None:
        return await self.jwks.find(kid)


@pytest.fixture
async def keys(clerk: FakeClerk, outbound: Outbound) -> AsyncIterator[Keys]:
    made = Keys(clerk, outbound)
    yield made
    await made.jwks.close()


async def arrival(clerk: FakeClerk) -> None:
    """Wait until one more request has reached the fake."""
    assert await asyncio.to_thread(clerk.arrived.acquire, timeout=WAIT_SECONDS)


async def test_a_hundred_at_once_are_one_flight(keys: Keys, clerk: FakeClerk, signing_key: SigningKey) -> None:
    found = await asyncio.gather(*(keys.find(FIRST) for _ in range(100)))
    assert found == [signing_key.private.public_key()] * 100
    assert clerk.requests == {PATH: 1}


async def test_a_held_key_asks_nobody(keys: Keys, clerk: FakeClerk) -> None:
    await keys.find(FIRST)
    keys.now += jwks.REFRESH_SECONDS
    assert await keys.find(FIRST) is not None
    assert clerk.requests == {PATH: 1}


async def test_older_keys_are_renewed_behind_the_answer(keys: Keys, clerk: FakeClerk, other_key: SigningKey) -> None:
    await keys.find(FIRST)
    await arrival(clerk)
    clerk.keys.append(other_key.jwk)
    keys.now += jwks.REFRESH_SECONDS + 1
    with clerk.slow():
        assert await asyncio.wait_for(keys.find(FIRST), WAIT_SECONDS) is not None
        await arrival(clerk)
        assert await keys.find(FIRST) is not None
    assert await keys.jwks.refresh()
    assert await keys.find(SECOND) is not None
    assert clerk.requests == {PATH: 2}


async def test_a_key_that_was_withdrawn_while_nobody_asked_opens_nothing(
    keys: Keys, clerk: FakeClerk, other_key: SigningKey
) -> None:
    await keys.find(FIRST)
    clerk.keys = [other_key.jwk]
    keys.now += jwks.KEYS_SECONDS + 1
    assert await keys.find(FIRST) is None
    assert keys.withdrawn == 1


async def test_a_key_that_joins_another_withdraws_nothing(keys: Keys, clerk: FakeClerk, other_key: SigningKey) -> None:
    await keys.find(FIRST)
    clerk.keys.append(other_key.jwk)
    assert await keys.find(SECOND) == other_key.private.public_key()
    assert await keys.find(FIRST) is not None
    assert keys.withdrawn == 0


async def test_a_name_that_stands_for_another_key_withdraws_the_old_one(
    keys: Keys, clerk: FakeClerk, other_key: SigningKey
) -> None:
    await keys.find(FIRST)
    clerk.keys = [other_key.jwk | {"kid": FIRST}]
    await keys.jwks.refresh()
    assert await keys.find(FIRST) == other_key.private.public_key()
    assert keys.withdrawn == 1


@pytest.mark.parametrize("answer", ["500", "not keys", "no keys"])
async def test_stale_keys_are_kept_while_the_issuer_is_away(keys: Keys, clerk: FakeClerk, answer: str) -> None:
    await keys.find(FIRST)
    if answer == "500":
        clerk.failing_with = 500
    clerk.keys = [] if answer == "no keys" else [{"kty": "unheard of"}]
    for _ in range(3):
        keys.now += jwks.KEYS_SECONDS + 1
        assert await keys.find(FIRST) is not None
    assert clerk.requests == {PATH: 4}
    assert keys.withdrawn == 0


async def test_an_issuer_that_is_away_is_asked_once_in_a_while(keys: Keys, clerk: FakeClerk) -> None:
    clerk.failing_with = 503
    for _ in range(5):
        with pytest.raises(Unavailable) as refused:
            await keys.find(FIRST)
        assert refused.value.headers == {"Retry-After": "1"}
    assert clerk.requests == {PATH: 1}
    clerk.failing_with = None
    keys.now += jwks.RETRY_SECONDS
    assert await keys.find(FIRST) is not None


async def test_a_slow_issuer_is_not_waited_for_without_end(
    keys: Keys, clerk: FakeClerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.05)
    with clerk.slow(), pytest.raises(Unavailable):
        await keys.find(FIRST)


async def test_whether_a_name_is_known_cannot_be_said_while_the_issuer_is_away(keys: Keys, clerk: FakeClerk) -> None:
    await keys.find(FIRST)
    clerk.failing_with = 500
    with pytest.raises(Unavailable):
        await keys.find("ins_new")


async def test_an_unknown_name_is_remembered_for_a_while(keys: Keys, clerk: FakeClerk, other_key: SigningKey) -> None:
    for _ in range(5):
        assert await keys.find(SECOND) is None
    assert clerk.requests == {PATH: 1}
    clerk.keys.append(other_key.jwk)
    keys.now += jwks.UNKNOWN_SECONDS
    assert await keys.find(SECOND) is not None
    assert clerk.requests == {PATH: 2}


async def test_invented_names_cause_no_storm(keys: Keys, clerk: FakeClerk) -> None:
    await keys.find(FIRST)
    for number in range(200):
        assert await keys.find(f"ins_{number}") is None
    assert clerk.requests == {PATH: 1 + jwks.UNKNOWN_FETCHES.burst}
    keys.now += 60 / jwks.UNKNOWN_FETCHES.per_minute
    assert await keys.find("ins_later") is None
    assert clerk.requests == {PATH: 2 + jwks.UNKNOWN_FETCHES.burst}


async def test_unknown_names_are_remembered_up_to_a_number(
    keys: Keys, clerk: FakeClerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "UNKNOWN_KIDS", 2)
    monkeypatch.setattr(jwks, "UNKNOWN_FETCHES", Rate(60, 100))
    for name in ("a", "b", "c", "b", "c", "a"):
        assert await keys.find(name) is None
    assert clerk.requests == {PATH: 4}


async def test_one_who_leaves_does_not_end_the_flight_of_the_others(keys: Keys, clerk: FakeClerk) -> None:
    with clerk.slow():
        leaver, stayer = (asyncio.create_task(keys.find(FIRST)) for _ in range(2))
        await arrival(clerk)
        leaver.cancel()
        await asyncio.wait([leaver])
    assert await stayer is not None
    assert clerk.requests == {PATH: 1}


async def test_closing_ends_the_flight(clerk: FakeClerk, outbound: Outbound) -> None:
    keys = Keys(clerk, outbound)
    with clerk.slow():
        waiting = asyncio.create_task(keys.find(FIRST))
        await arrival(clerk)
        await asyncio.wait_for(keys.jwks.close(), WAIT_SECONDS)
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        assert waiting.cancelled()


async def test_the_backend_api_is_asked_with_the_secret(clerk: FakeClerk, outbound: Outbound) -> None:
    source = jwks_source(Clerk(secret_key=SECRET, api_url=clerk.url))
    assert await Jwks(*source, outbound, lambda: None).find(FIRST) is not None
    assert clerk.requests == {"/v1/jwks": 1}


async def test_the_backend_api_without_the_right_secret_gives_no_keys(clerk: FakeClerk, outbound: Outbound) -> None:
    source = jwks_source(Clerk(secret_key="sk_test_wrong", api_url=clerk.url))
    with pytest.raises(Unavailable):
        await Jwks(*source, outbound, lambda: None).find(FIRST)


SOURCES = {
    "JWKS_URL before all": (
        Clerk(jwks_url="https://keys.test/jwks", issuer="https://iss.test", secret_key=SECRET),
        ("https://keys.test/jwks", None),
    ),
    "the issuer's": (
        Clerk(issuer="https://iss.test", publishable_key="pk_test_cGsudGVzdCQ=", secret_key=SECRET),
        ("https://iss.test/.well-known/jwks.json", None),
    ),
    "an issuer with a slash": (Clerk(issuer="https://iss.test/"), ("https://iss.test/.well-known/jwks.json", None)),
    "the publishable key's host": (
        Clerk(publishable_key="pk_test_cGsudGVzdCQ=", secret_key=SECRET),
        ("https://pk.test/.well-known/jwks.json", None),
    ),
    "the secret alone": (Clerk(secret_key=SECRET), ("https://api.clerk.com/v1/jwks", SECRET)),
    "the Backend API by name": (
        Clerk(jwks_url="https://api.clerk.com/v1/jwks", secret_key=SECRET),
        ("https://api.clerk.com/v1/jwks", SECRET),
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_source_of_keys_is_the_first_that_is_set(name: str) -> None:
    settings, source = SOURCES[name]
    assert jwks_source(settings) == source


def test_only_rsa_keys_for_signatures_are_read(signing_key: SigningKey, other_key: SigningKey) -> None:
    good = other_key.jwk
    strange: list[object] = [
        good | {"kid": "encrypts", "use": "enc"},
        good | {"kid": "hashes", "alg": "RS512"},
        good | {"kid": "elliptic", "kty": "EC"},
        good | {"kid": "garbled", "n": "?"},
        good | {"kid": "even", "e": "AA"},
        good | {"kid": 7},
        SigningKey("short", bits=1024).jwk,
        {"kid": "empty"},
        "text",
        None,
    ]
    bare = {name: value for name, value in good.items() if name not in ("use", "alg")}
    body = json.dumps({"keys": [*strange, signing_key.jwk, bare]}).encode()
    assert read_keys(body) == {
        FIRST: signing_key.private.public_key(),
        SECOND: other_key.private.public_key(),
    }


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"keys":{}}', b'{"keys":[]}', b'{"keys":["\xff"]}', b'{"keys":' + b"[" * 100_000]
)
def test_an_answer_without_keys_is_a_failure(body: bytes) -> None:
    with pytest.raises(Upstream):
        read_keys(body)


def test_no_more_than_a_number_of_keys_is_read(signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "KEYS", 2)
    many: list[Json] = [signing_key.jwk | {"kid": str(number)} for number in range(5)]
    assert list(read_keys(json.dumps({"keys": many}).encode())) == ["0", "1"]
