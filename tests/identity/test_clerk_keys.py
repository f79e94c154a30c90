"""Where a token's key comes from, and how long a verified token is remembered without it."""

import time
from pathlib import Path

import pytest

from app.edge.outbound import Outbound
from app.errors import Unavailable
from app.identity import clerk as clerk_tokens
from app.settings import SettingsError, read_settings
from tests.conftest import serving
from tests.fakes.clerk import SECRET, FakeClerk, SigningKey, session_claims
from tests.identity.conftest import NOW, Verifier

pytestmark = pytest.mark.anyio

PATH = "/.well-known/jwks.json"


async def test_a_remembered_token_ends_with_its_time(verifier: Verifier) -> None:
    token = verifier.key.sign(session_claims(NOW))
    claims = await verifier.verify(token)
    verifier.now = NOW + 64.9
    assert await verifier.verify(token) is claims
    for verifier.now in (NOW + 65.0, NOW + 66.0):
        assert (await verifier.refusal(token)).expired


async def test_no_more_than_a_number_of_tokens_is_remembered(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clerk_tokens, "REMEMBERED", 2)
    signed = [verifier.key.sign(session_claims(NOW, sid=f"sess_{number}")) for number in range(3)]
    first, second, third = [await verifier.verify(token) for token in signed]
    assert await verifier.verify(signed[1]) is second
    assert await verifier.verify(signed[2]) is third
    again = await verifier.verify(signed[0])
    assert again == first
    assert again is not first


async def test_a_pem_needs_no_network(signing_key: SigningKey, clerk: FakeClerk, outbound: Outbound) -> None:
    verifier = Verifier(signing_key, outbound, jwks_url=clerk.url + PATH, secret_key=SECRET, api_url=clerk.url)
    await verifier.tokens.warm()
    for kid in ("ins_first", "ins_other", None):
        await verifier.verify(signing_key.sign(session_claims(NOW), {"kid": kid}))
    assert not clerk.requests


@pytest.mark.parametrize("folding", ["\n", " ", "", "\r\n"])
async def test_a_pem_may_come_folded(signing_key: SigningKey, outbound: Outbound, folding: str) -> None:
    await Verifier(signing_key, outbound, jwt_key=signing_key.pem.replace("\n", folding)).verify()


@pytest.mark.parametrize("pem", ["no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "short"])
async def test_a_pem_that_is_no_key_is_our_fault_not_the_callers(
    signing_key: SigningKey, outbound: Outbound, pem: str
) -> None:
    text = SigningKey(bits=1024).pem if pem == "short" else pem
    verifier = Verifier(signing_key, outbound, jwt_key=text)
    await verifier.tokens.warm()
    with pytest.raises(Unavailable):
        await verifier.verify()


async def test_a_token_must_name_its_key_among_several(
    signing_key: SigningKey, other_key: SigningKey, clerk: FakeClerk, outbound: Outbound
) -> None:
    clerk.keys.append(other_key.jwk)
    verifier = Verifier(signing_key, outbound, jwt_key=None, jwks_url=clerk.url + PATH)
    await verifier.verify()
    await verifier.verify(other_key.sign(session_claims(NOW)))
    claims = session_claims(NOW)
    await verifier.refusal(signing_key.sign(claims, {"kid": None}))
    await verifier.refusal(signing_key.sign(claims, {"kid": ""}))
    await verifier.refusal(signing_key.sign(claims, {"kid": other_key.kid}))
    await verifier.refusal(signing_key.sign(claims, {"kid": "k" * 256}))
    assert clerk.requests == {PATH: 1}


async def test_a_remembered_token_does_not_outlive_its_key(
    signing_key: SigningKey, other_key: SigningKey, clerk: FakeClerk, outbound: Outbound
) -> None:
    verifier = Verifier(signing_key, outbound, jwt_key=None, jwks_url=clerk.url + PATH)
    token = signing_key.sign(session_claims(NOW))
    await verifier.verify(token)
    clerk.keys = [other_key.jwk]
    await verifier.verify(other_key.sign(session_claims(NOW)))
    await verifier.refusal(token)


async def test_a_warm_verifier_asks_nobody_for_its_first_token(
    signing_key: SigningKey, clerk: FakeClerk, outbound: Outbound
) -> None:
    verifier = Verifier(signing_key, outbound, jwt_key=None, issuer=clerk.url)
    await verifier.tokens.warm()
    clerk.failing_with = 500
    await verifier.verify(iss=clerk.url)
    assert clerk.requests == {PATH: 1}


async def test_warming_survives_an_issuer_that_is_away(
    signing_key: SigningKey, clerk: FakeClerk, outbound: Outbound
) -> None:
    clerk.failing_with = 500
    verifier = Verifier(signing_key, outbound, jwt_key=None, issuer=clerk.url)
    await verifier.tokens.warm()
    assert clerk.requests == {PATH: 1}


async def test_without_clerk_no_token_is_good(signing_key: SigningKey, outbound: Outbound) -> None:
    verifier = Verifier(signing_key, outbound, jwt_key=None)
    await verifier.tokens.warm()
    await verifier.refusal()


@pytest.mark.parametrize("key", ["pk_prod_Y2xlcmsk", "pk_test_", "pk_test_Y2xlcms=", "pk_live_ÿ", "pk_test_Li4vIw=="])
def test_a_publishable_key_that_names_no_host_stops_the_start(key: str) -> None:
    with pytest.raises(SettingsError, match="CLERK_PUBLISHABLE_KEY"):
        read_settings({"CLERK_PUBLISHABLE_KEY": key})


def bearer(key: SigningKey, now: float) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.sign(session_claims(now))}"}


def test_a_server_reads_tokens_by_the_secret_alone(tmp_path: Path, clerk: FakeClerk, signing_key: SigningKey) -> None:
    environ = {"CLERK_SECRET_KEY": SECRET, "CLERK_API_URL": clerk.url}
    with serving(tmp_path / "data", **environ) as server, server.client() as client:
        accepted = client.get("/api/usage/quota", headers=bearer(signing_key, time.time()))
        assert (accepted.status_code, accepted.json()["plan"]) == (200, "free")
        refused = client.get("/api/usage/quota", headers=bearer(signing_key, time.time() - 100))
        assert (refused.status_code, refused.json()["error"]) == (401, "Invalid token")
    assert clerk.requests["/v1/jwks"] == 1


def test_a_server_without_any_key_is_unavailable(tmp_path: Path, clerk: FakeClerk, signing_key: SigningKey) -> None:
    clerk.failing_with = 500
    with serving(tmp_path / "data", CLERK_ISSUER=clerk.url) as server, server.client() as client:
        answer = client.get("/api/usage/quota", headers=bearer(signing_key, time.time()))
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "unavailable", "1")
