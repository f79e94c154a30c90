"""Clerk's session tokens: what is accepted, how far clocks may differ, and what no key opens."""

import base64
import hashlib
import hmac
import json

import pytest

from app.edge.outbound import Outbound
from app.identity import clerk as clerk_tokens
from app.identity.clerk import BadToken, Claims
from tests.fakes.clerk import Json, SigningKey, encode_part, session_claims
from tests.identity.conftest import NOW, Verifier

pytestmark = pytest.mark.anyio

PARTY = "https://app.example.com"
ISSUER = "https://clerk.example.com"


async def test_a_session_token_says_who_and_until_when(verifier: Verifier) -> None:
    assert await verifier.verify() == Claims("user_2abc", "sess_2abc", NOW + 60)


@pytest.mark.parametrize("claim", ["sub", "exp", "sid"])
async def test_a_required_claim_is_missed(verifier: Verifier, claim: str) -> None:
    await verifier.refusal(**{claim: None})


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("sub", 7),
        ("sub", ""),
        ("sub", "user\0"),
        ("sub", "u" * 256),
        ("sid", ["sess"]),
        ("sid", ""),
        ("exp", str(NOW + 60)),
        ("exp", True),
        ("nbf", "soon"),
        ("iat", {}),
    ],
)
async def test_a_claim_of_the_wrong_kind_is_refused(verifier: Verifier, claim: str, value: object) -> None:
    assert not (await verifier.refusal(**{claim: value})).expired


async def test_a_subject_of_255_characters_is_accepted(verifier: Verifier) -> None:
    assert (await verifier.verify(sub="ü" * 255)).sub == "ü" * 255


@pytest.mark.parametrize(
    "payload",
    [
        b'{"sub":"\\ud800","sid":"s","exp":9999999999}',
        b'{"sub":"\xed\xa0\x80","sid":"s","exp":9999999999}',
        b'{"sub":"u","sid":"s","exp":1e999}',
        b'{"sub":"u","sid":"s","exp":NaN}',
        b'{"sub":"u","sid":"s","exp":9999999999,"x":' + b"[" * 4_000 + b"]" * 4_000 + b"}",
        b'["sub"]',
        b"",
    ],
    ids=["lone surrogate", "surrogate bytes", "infinite", "not a number", "deep", "list", "empty"],
)
async def test_a_payload_that_is_no_claims_is_refused(verifier: Verifier, payload: bytes) -> None:
    await verifier.refusal(verifier.key.sign_bytes(payload))


@pytest.mark.parametrize(
    ("claim", "seconds", "accepted"),
    [
        ("exp", -3, True),
        ("exp", -4.999, True),
        ("exp", -5, False),
        ("exp", -6, False),
        ("nbf", 3, True),
        ("nbf", 5, True),
        ("nbf", 10, False),
        ("iat", 3, True),
        ("iat", 10, False),
    ],
)
async def test_clocks_may_differ_by_five_seconds(
    verifier: Verifier, claim: str, seconds: float, accepted: bool
) -> None:
    verifier.now = NOW + 1_000 - seconds
    token = verifier.key.sign(session_claims(NOW, exp=NOW + 5_000) | {claim: NOW + 1_000})
    if accepted:
        await verifier.verify(token)
    else:
        assert (await verifier.refusal(token)).expired == (claim == "exp")


async def test_a_fraction_of_a_second_is_not_counted(verifier: Verifier) -> None:
    assert (await verifier.verify(exp=NOW + 60.9)).exp == NOW + 60


async def test_an_issuer_must_be_the_one_in_the_settings(signing_key: SigningKey, outbound: Outbound) -> None:
    verifier = Verifier(signing_key, outbound, issuer=ISSUER)
    await verifier.verify()
    for issuer in (f"{ISSUER}/", "https://evil.example.com", None, [ISSUER]):
        await verifier.refusal(iss=issuer)


async def test_a_publishable_key_names_the_issuer(signing_key: SigningKey, outbound: Outbound) -> None:
    for key in ("pk_live_Y2xlcmsuZXhhbXBsZS5jb20k", "pk_test_Y2xlcmsuZXhhbXBsZS5jb20k"):
        verifier = Verifier(signing_key, outbound, publishable_key=key)
        await verifier.verify()
        await verifier.refusal(iss="https://evil.example.com")


async def test_without_an_issuer_in_the_settings_any_will_do(verifier: Verifier) -> None:
    await verifier.verify(iss="https://other.example.com")
    await verifier.verify(iss=None)


async def test_only_listed_parties_may_call(signing_key: SigningKey, outbound: Outbound) -> None:
    verifier = Verifier(signing_key, outbound, parties=("chrome-extension://abc", PARTY))
    await verifier.verify()
    await verifier.verify(azp="chrome-extension://abc")
    for party in (None, "", f"{PARTY}/", f"{PARTY}.evil.org", "https://evil.example.com", [PARTY]):
        await verifier.refusal(azp=party)


async def test_a_missing_party_can_be_forgiven_but_not_a_wrong_one(signing_key: SigningKey, outbound: Outbound) -> None:
    verifier = Verifier(signing_key, outbound, parties=(PARTY,), allow_missing_azp=True)
    await verifier.verify(azp=None)
    for party in ("", "https://evil.example.com"):
        await verifier.refusal(azp=party)


async def test_without_parties_in_the_settings_any_may_call(verifier: Verifier) -> None:
    for party in (None, "https://any.example.com", 7):
        await verifier.verify(azp=party)


async def test_a_pending_session_is_refused(verifier: Verifier) -> None:
    await verifier.refusal(sts="pending")


async def test_claims_of_others_do_not_matter(verifier: Verifier) -> None:
    await verifier.verify(aud=["somebody", "else"], role="admin", email="a@example.com")


@pytest.mark.parametrize(
    "header",
    [{"typ": "at+jwt"}, {"typ": "jwt"}, {"cat": "cl_B7d4PD333AAA"}, {"crit": ["x"], "x": 1}, {"kid": 7}],
    ids=str,
)
async def test_a_header_of_another_kind_of_token_is_refused(verifier: Verifier, header: Json) -> None:
    await verifier.refusal(verifier.key.sign(session_claims(NOW), header))


async def test_a_header_need_not_say_its_type(verifier: Verifier) -> None:
    await verifier.verify(verifier.key.sign(session_claims(NOW), {"typ": None, "cat": None}))


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
async def test_only_rs256_is_taken(verifier: Verifier, algorithm: str) -> None:
    await verifier.refusal(verifier.key.sign(session_claims(NOW), algorithm=algorithm))


@pytest.mark.parametrize("signature", ["", "c2ln"])
async def test_a_token_without_an_algorithm_is_refused(verifier: Verifier, signature: str) -> None:
    head, payload, _ = verifier.key.sign(session_claims(NOW), {"alg": "none"}).split(".")
    await verifier.refusal(f"{head}.{payload}.{signature}")


async def test_the_public_key_is_no_secret_to_sign_with(verifier: Verifier) -> None:
    head, payload, _ = verifier.key.sign(session_claims(NOW), {"alg": "HS256"}).split(".")
    signature = hmac.digest(verifier.key.pem.encode(), f"{head}.{payload}".encode(), hashlib.sha256)
    await verifier.refusal(f"{head}.{payload}.{encode_part(signature)}")


async def test_a_changed_token_is_refused_also_after_the_true_one(verifier: Verifier) -> None:
    token = verifier.key.sign(session_claims(NOW))
    await verifier.verify(token)
    head, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "==")) | {"sub": "user_other"}
    await verifier.refusal(f"{head}.{encode_part(json.dumps(claims).encode())}.{signature}")
    await verifier.refusal(f"{head}.{payload}.{signature[:-8]}{'A' * 8}")


async def test_a_forged_token_is_not_called_expired(verifier: Verifier, other_key: SigningKey) -> None:
    verifier.now += 3_600
    assert not (await verifier.refusal(other_key.sign(session_claims(NOW)))).expired


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "eyJhbGciOiJSUzI1NiJ9..", "ey.ü.ey", "ey\ud800.e.y"])
async def test_garbage_is_refused(verifier: Verifier, token: str) -> None:
    with pytest.raises(BadToken):
        await verifier.tokens.verify(token)


async def test_a_token_that_is_too_long_is_refused(verifier: Verifier) -> None:
    await verifier.verify(pad="x" * 8_000)
    await verifier.refusal(pad="x" * clerk_tokens.TOKEN_CHARACTERS)
