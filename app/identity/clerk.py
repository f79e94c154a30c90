"""Clerk's session tokens: RS256, verified against the issuer's keys, remembered until they expire."""

import asyncio
import importlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from app.edge.outbound import Outbound
from app.identity.jwks import Jwks, jwks_source
from app.identity.pem import Pem
from app.settings import Clerk

if TYPE_CHECKING:
    import jwt
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

ALGORITHM = "RS256"
LEEWAY_SECONDS = 5
REMEMBERED = 10_000
TOKEN_CHARACTERS = 16_384
CLAIM_CHARACTERS = 255
# What Clerk writes into the header of tokens that speak for a machine.
MACHINE_CATEGORY = "cl_B7d4PD333AAA"


class Claims(NamedTuple):
    sub: str
    sid: str
    exp: int


class BadToken(Exception):
    """The token is not accepted; `expired` when only its time is over."""

    def __init__(self, reason: str, *, expired: bool = False) -> None:
        super().__init__(reason)
        self.expired = expired


class Keys(Protocol):
    """Where a token's key comes from: a `Pem` or a `Jwks`."""

    async def find(self, kid: str | None) -> "RSAPublicKey | None": ...

    async def warm(self) -> None: ...

    async def close(self) -> None: ...


class ClerkTokens:
    """One for the process. `now` is the wall clock in seconds."""

    def __init__(self, clerk: Clerk, outbound: Outbound, now: Callable[[], float] = time.time) -> None:
        self._clerk = clerk
        self._issuer = clerk.issuer or clerk.frontend_url
        self._now = now
        self._verified: OrderedDict[str, Claims] = OrderedDict()
        # A token may outlive the key that signed it.
        self._keys: Keys = (
            Pem(clerk.jwt_key) if clerk.jwt_key else Jwks(*jwks_source(clerk), outbound, self._verified.clear)
        )
        self._jws: jwt.PyJWS | None = None

    async def verify(self, token: str) -> Claims:
        """Who the token speaks for. BadToken, or Unavailable when its key cannot be had."""
        claims = self._verified.get(token)
        if claims is None:
            return await self._verify_first_seen(token)
        if self._now() < claims.exp + LEEWAY_SECONDS:
            return claims
        del self._verified[token]
        raise BadToken("The token has expired", expired=True)

    async def warm(self) -> None:
        """Load and fetch what the first token would wait for; what cannot be had is asked for again then."""
        if self._clerk.configured:
            await self._load()
            await self._keys.warm()

    async def close(self) -> None:
        await self._keys.close()

    async def _verify_first_seen(self, token: str) -> Claims:
        if not self._clerk.configured:
            raise BadToken("Clerk is not configured")
        if len(token) > TOKEN_CHARACTERS or not token.isascii():
            raise BadToken("The token is too long, or is not ASCII")
        jws = self._jws or await self._load()
        kid = _read_kid(jws, token)
        key = await self._keys.find(kid)
        if key is None:
            raise BadToken("The token is signed with a key that the issuer does not have")
        claims = self._check(_read_payload(jws, token, key))
        if len(self._verified) >= REMEMBERED:
            self._verified.popitem(last=False)
        self._verified[token] = claims
        return claims

    async def _load(self) -> "jwt.PyJWS":
        module = await asyncio.to_thread(importlib.import_module, "jwt")
        jws: jwt.PyJWS = module.PyJWS([ALGORITHM])
        self._jws = jws
        return jws

    def _check(self, payload: "_Payload") -> Claims:
        self._check_time(payload)
        self._check_party(payload.azp)
        if self._issuer and payload.iss != self._issuer:
            raise BadToken("iss: not the issuer")
        if payload.sts == "pending":
            raise BadToken("sts: the session is pending")
        for claim in (payload.sub, payload.sid):
            # Lone surrogates have not come past the JSON decoder.
            if not 0 < len(claim) <= CLAIM_CHARACTERS or "\0" in claim:
                raise BadToken("sub, sid: empty, too long or with NUL")
        return Claims(payload.sub, payload.sid, int(payload.exp))

    def _check_time(self, payload: "_Payload") -> None:
        now = self._now()
        if int(payload.exp) + LEEWAY_SECONDS <= now:
            raise BadToken("The token has expired", expired=True)
        if max(payload.nbf, payload.iat) > now + LEEWAY_SECONDS:
            raise BadToken("nbf, iat: not yet")

    def _check_party(self, azp: Any) -> None:
        parties = self._clerk.parties
        if not parties or azp in parties:
            return
        if azp is not None or not self._clerk.allow_missing_azp:
            raise BadToken("azp: not a party that may call")


class _Payload(msgspec.Struct):
    """What we read of the claims; others, such as `aud`, are not ours to judge."""

    sub: str
    sid: str
    exp: int | float
    nbf: int | float = 0
    iat: int | float = 0
    iss: Any = None
    azp: Any = None
    sts: Any = None


_payloads = msgspec.json.Decoder(_Payload)


def _read_kid(jws: "jwt.PyJWS", token: str) -> str | None:
    """The name of the key, from a header that is worth a look-up."""
    from jwt.exceptions import PyJWTError

    try:
        header = jws.get_unverified_header(token)
    except PyJWTError as error:
        raise BadToken("The token is malformed") from error
    if header.get("alg") != ALGORITHM or header.get("typ", "JWT") != "JWT" or header.get("cat") == MACHINE_CATEGORY:
        raise BadToken("alg, typ, cat: not those of a session token")
    kid: str | None = header.get("kid")
    if kid is not None and len(kid) > CLAIM_CHARACTERS:
        raise BadToken("kid: too long")
    return kid


def _read_payload(jws: "jwt.PyJWS", token: str, key: "RSAPublicKey") -> _Payload:
    from jwt.exceptions import PyJWTError

    try:
        return _payloads.decode(jws.decode(token, key, algorithms=[ALGORITHM]))
    except PyJWTError as error:
        raise BadToken("The signature does not verify") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadToken("A claim is missing or has the wrong type") from error
