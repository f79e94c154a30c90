"""Clerk's own verifier beside ours: one table of tokens, two verdicts, and every difference a deliberate one."""

import hashlib
import hmac
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from app.edge.outbound import Outbound
from app.identity.clerk import TOKEN_CHARACTERS, BadToken, ClerkTokens
from app.settings import Clerk
from tests.fakes.clerk import Json, SigningKey, encode_part, session_claims
from tests.identity.conftest import NOW

pytestmark = pytest.mark.anyio

PARTY = "https://app.example.com"
PARTIES = (PARTY, "chrome-extension://abcdefghijklmnopabcdefghijklmnop")
ISSUER = "https://clerk.example.com"
NODE_SECONDS = 60


class Case(NamedTuple):
    """A token and whether both accept it; `stricter` says why only Clerk's verifier does."""

    name: str
    sign: Callable[[SigningKey], str]
    accepted: bool
    parties: tuple[str, ...] = PARTIES
    stricter: str | None = None


def claims(**changed: object) -> Callable[[SigningKey], str]:
    return lambda key: key.sign(session_claims(NOW, **changed))


def header(**changed: object) -> Callable[[SigningKey], str]:
    return lambda key: key.sign(session_claims(NOW), changed)


def payload(text: bytes) -> Callable[[SigningKey], str]:
    return lambda key: key.sign_bytes(text)


def parts(rebuild: Callable[[str, str, str], str]) -> Callable[[SigningKey], str]:
    return lambda key: rebuild(*key.sign(session_claims(NOW)).split("."))


def unsigned(key: SigningKey) -> str:
    return key.sign(session_claims(NOW), {"alg": "none"}).rpartition(".")[0] + "."


def signed_with_the_pem(key: SigningKey) -> str:
    text = key.sign(session_claims(NOW), {"alg": "HS256"}).rpartition(".")[0]
    return f"{text}.{encode_part(hmac.digest(key.pem.encode(), text.encode(), hashlib.sha256))}"


def signed_by_another(key: SigningKey) -> str:
    return SigningKey(key.kid).sign(session_claims(NOW))


def with_other_claims(head: str, _: str, signature: str) -> str:
    return f"{head}.{encode_part(json.dumps(session_claims(NOW, sub='user_other')).encode())}.{signature}"


TABLE = [
    Case("as Clerk signs it", claims(), True),
    Case("another listed party", claims(azp=PARTIES[1]), True),
    Case("a party that is not listed", claims(azp="https://evil.example.com"), False),
    Case("a party with a slash", claims(azp=f"{PARTY}/"), False),
    Case("a party with an evil suffix", claims(azp=f"{PARTY}.evil.org"), False),
    Case("a list of parties", claims(azp=[PARTY]), False),
    Case("an empty party", claims(azp=""), False),
    Case("no party", claims(azp=None), False),
    Case("no party where none are configured", claims(azp=None), True, parties=()),
    Case("any party where none are configured", claims(azp="https://evil.example.com"), True, parties=()),
    Case("expired 3 s ago", claims(exp=NOW - 3), True),
    Case("expired 5 s ago", claims(exp=NOW - 5), False),
    Case("expired 6 s ago", claims(exp=NOW - 6), False),
    Case("expired an hour ago", claims(exp=NOW - 3_600), False),
    Case("no exp", claims(exp=None), False),
    Case("exp as text", claims(exp=str(NOW + 60)), False),
    Case("exp with a fraction, which is dropped", claims(exp=NOW - 4.5), False),
    Case("exp with a fraction that leaves enough", claims(exp=NOW - 3.5), True),
    Case("exp in a thousand years", claims(exp=NOW + 31_556_952_000), True),
    Case("valid in 3 s", claims(nbf=NOW + 3), True),
    Case("valid in 5 s", claims(nbf=NOW + 5), True),
    Case("valid in 10 s", claims(nbf=NOW + 10), False),
    Case("no nbf", claims(nbf=None), True),
    Case("nbf as text", claims(nbf="now"), False),
    Case("issued in 3 s", claims(iat=NOW + 3), True),
    Case("issued in 10 s", claims(iat=NOW + 10), False),
    Case("no iat", claims(iat=None), True),
    Case("iat as text", claims(iat="now"), False),
    Case("nbf null", payload(json.dumps(session_claims(NOW) | {"nbf": None}).encode()), False),
    Case("no sub", claims(sub=None), False),
    Case("sub as a number", claims(sub=7), False),
    Case("an audience", claims(aud="https://api.example.com"), True),
    Case("several audiences", claims(aud=["a", "b"]), True),
    Case("claims of a template", claims(role="admin", email="ada@example.com"), True),
    Case("an active session", claims(sts="active"), True),
    Case("no typ", header(typ=None), True),
    Case("typ of an OAuth token", header(typ="at+jwt"), False),
    Case("typ in lower case", header(typ="jwt"), False),
    Case("no category", header(cat=None), True),
    Case("the category of machines", header(cat="cl_B7d4PD333AAA"), False),
    Case("another kid beside the PEM", header(kid="ins_other"), True),
    Case("no alg", header(alg=None), False),
    Case("alg none", unsigned, False),
    Case("HS256 with the PEM", signed_with_the_pem, False),
    Case("RS512", lambda key: key.sign(session_claims(NOW), algorithm="RS512"), False),
    Case("PS256", lambda key: key.sign(session_claims(NOW), algorithm="PS256"), False),
    Case("signed by another key", signed_by_another, False),
    Case("other claims under the signature", parts(with_other_claims), False),
    Case("a signature cut short", parts(lambda head, body, signature: f"{head}.{body}.{signature[:-4]}"), False),
    Case("no signature", parts(lambda head, body, _: f"{head}.{body}."), False),
    Case("two parts", parts(lambda head, body, _: f"{head}.{body}"), False),
    Case("four parts", parts(lambda head, body, signature: f"{head}.{body}.{signature}.{signature}"), False),
    Case("a signature with padding", parts(lambda head, body, signature: f"{head}.{body}.{signature}=="), True),
    Case("a space in the signature", parts(lambda head, body, signature: f"{head}.{body}.{signature} "), False),
    Case("a payload that is no JSON", payload(b"{"), False),
    Case("a payload that is a list", payload(b"[]"), False),
    Case("nothing", lambda _: "", False),
    Case("garbage", lambda _: "ey.ey.ey", False),
    Case("no sid", claims(sid=None), False, stricter="a session token has a session"),
    Case("an empty sub", claims(sub=""), False, stricter="an empty id names nobody"),
    Case("a long sub", claims(sub="u" * 256), False, stricter="ids are bounded"),
    Case("a NUL in sub", claims(sub="user\0"), False, stricter="it would end the text in C code behind us"),
    Case(
        "a lone surrogate in sub",
        payload(json.dumps(session_claims(NOW, sub="user\ud800")).encode()),
        False,
        stricter="it cannot be stored as UTF-8",
    ),
    Case(
        "bytes that are not UTF-8 in sub",
        payload(json.dumps(session_claims(NOW, sub="user?")).encode().replace(b"user?", b"user\xff")),
        False,
        stricter="two subjects would be read as one",
    ),
    Case("a pending session", claims(sts="pending"), False, stricter="verifyToken leaves that to its caller"),
    Case("another issuer", claims(iss="https://evil.example.com"), False, stricter="verifyToken reads no issuer"),
    Case("no issuer", claims(iss=None), False, stricter="verifyToken reads no issuer"),
    Case(
        "exp beyond all numbers",
        payload(json.dumps(session_claims(NOW)).encode().replace(str(NOW + 60).encode(), b"1e999")),
        False,
        stricter="it would never end",
    ),
    Case(
        "a critical extension",
        header(crit=["x"], x=1),
        False,
        stricter="RFC 7515 4.1.11: what is critical and not understood is refused",
    ),
    Case("a very long token", claims(pad="x" * TOKEN_CHARACTERS), False, stricter="tokens are bounded"),
]


@pytest.fixture(scope="module")
def verdicts(node_modules: Path, signing_key: SigningKey) -> dict[str, Json]:
    """What @clerk/backend says of each token of the table."""
    cases = [
        {"token": case.sign(signing_key), "jwtKey": signing_key.pem, "authorizedParties": case.parties}
        for case in TABLE
    ]
    done = subprocess.run(
        ["node", "verify_tokens.mjs"],
        cwd=node_modules.parent,
        input=json.dumps({"now": NOW, "cases": cases}),
        capture_output=True,
        text=True,
        timeout=NODE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip([case.name for case in TABLE], json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", TABLE, ids=[case.name for case in TABLE])
async def test_both_verifiers_say_the_same(
    case: Case, verdicts: dict[str, Json], signing_key: SigningKey, outbound: Outbound
) -> None:
    settings = Clerk(jwt_key=signing_key.pem, parties=case.parties, issuer=ISSUER)
    tokens = ClerkTokens(settings, outbound, lambda: NOW)
    assert await accepts(tokens, case.sign(signing_key)) is case.accepted
    theirs = verdicts[case.name]
    assert theirs["accepted"] is (case.accepted or case.stricter is not None), theirs["reason"]


async def accepts(tokens: ClerkTokens, token: str) -> bool:
    try:
        await tokens.verify(token)
    except BadToken:
        return False
    return True
