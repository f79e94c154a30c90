"""JWKS: the issuer's public keys, fetched by one flight at a time and kept while it cannot be reached."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import structlog

from app.edge.limiter import Buckets, Rate
from app.edge.outbound import Outbound
from app.errors import Unavailable, Upstream
from app.settings import Clerk

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

# Older keys are renewed behind the answer; beyond KEYS_SECONDS the answer waits for them, so that a key
# which was withdrawn while nobody asked opens nothing.
REFRESH_SECONDS = 300.0
KEYS_SECONDS = 3_600.0
FETCH_SECONDS = 3.0
RETRY_SECONDS = 1.0
UNKNOWN_SECONDS = 30.0
UNKNOWN_KIDS = 1_000
# Remembering names does not help against one who invents a new name each time; this does.
UNKNOWN_FETCHES = Rate(per_minute=6, burst=3)
KEYS = 64
KEY_BITS = 2_048

log = structlog.get_logger("identity")


class Jwks:
    """`withdrawn` is called when a key that was held is no longer published. `now` is a monotonic clock."""

    def __init__(
        self,
        url: str,
        secret: str | None,
        outbound: Outbound,
        withdrawn: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._outbound = outbound
        self._withdrawn = withdrawn
        self._now = now
        self._keys: dict[str, RSAPublicKey] = {}
        self._fetched_at = 0.0
        self._rests_until = 0.0
        self._flight: asyncio.Task[bool] | None = None
        self._unknown: dict[str, float] = {}
        self._asked = Buckets()

    async def find(self, kid: str | None) -> "RSAPublicKey | None":
        """The key of that name, None when the issuer has none. Unavailable when that cannot be known."""
        key = self._keys.get(kid) if kid else None
        if key is None:
            return await self._find_unheld(kid) if kid else None
        age = self._now() - self._fetched_at
        if age > KEYS_SECONDS:
            await self.refresh()
            return self._keys.get(kid or "")
        if age > REFRESH_SECONDS:
            self._take_off()
        return key

    async def warm(self) -> None:
        """Fetch the keys unless a token has done so already."""
        if not self._keys:
            await self.refresh()

    async def refresh(self) -> bool:
        """Fetch the keys, or wait for the flight that does; whether they were had."""
        flight = self._take_off()
        return flight is not None and await asyncio.shield(flight)

    async def close(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait([self._flight])

    async def _find_unheld(self, kid: str) -> "RSAPublicKey | None":
        if self._now() < self._unknown.get(kid, 0.0) or not self._may_ask():
            return None
        if not await self.refresh():
            raise Unavailable("The keys of the sign-in service cannot be reached")
        key = self._keys.get(kid)
        if key is None:
            self._remember_unknown(kid)
        return key

    def _may_ask(self) -> bool:
        """Whether one more unknown name may wait for a flight, or cause one."""
        if self._flying or not self._keys:
            return True
        return self._asked.take("unknown", UNKNOWN_FETCHES, self._now()).allowed

    def _remember_unknown(self, kid: str) -> None:
        self._unknown.pop(kid, None)
        if len(self._unknown) >= UNKNOWN_KIDS:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[kid] = self._now() + UNKNOWN_SECONDS

    @property
    def _flying(self) -> bool:
        return self._flight is not None and not self._flight.done()

    def _take_off(self) -> "asyncio.Task[bool] | None":
        """The flight under way, or a new one; None while the last failure is too recent."""
        if not self._flying:
            if self._now() < self._rests_until:
                return None
            self._flight = asyncio.create_task(self._fetch())
        return self._flight

    async def _fetch(self) -> bool:
        try:
            keys = await self._ask()
        except Upstream as error:
            self._rests_until = self._now() + RETRY_SECONDS
            cause = type(error.__cause__).__name__ if error.__cause__ else None
            log.warning("jwks_not_fetched", url=self._url, error=error.message, cause=cause)
            return False
        gone = any(keys.get(kid) != key for kid, key in self._keys.items())
        self._keys, self._fetched_at = keys, self._now()
        if gone:
            self._withdrawn()
        return True

    async def _ask(self) -> "dict[str, RSAPublicKey]":
        reply = await self._outbound.fetch("GET", self._url, headers=self._headers, trusted=True, seconds=FETCH_SECONDS)
        if reply.status != 200:
            raise Upstream(f"The other service answered {reply.status}")
        # On a thread, because the first call loads cryptography.
        return await asyncio.to_thread(read_keys, reply.body)


def jwks_source(clerk: Clerk) -> tuple[str, str | None]:
    """Where the keys are, and the secret that goes there: only Clerk's own Backend API is told it."""
    backend = f"{clerk.api_url}/v1/jwks"
    public = clerk.issuer or clerk.frontend_url
    url = clerk.jwks_url or (f"{public.rstrip('/')}/.well-known/jwks.json" if public else backend)
    return url, clerk.secret_key if url == backend else None


class _Document(msgspec.Struct):
    keys: list[msgspec.Raw]


class _Key(msgspec.Struct):
    """An RSA key of RFC 7517 and 7518; `n` and `e` are base64url."""

    kty: str
    kid: str
    n: str
    e: str
    use: str = "sig"
    alg: str = "RS256"


def read_keys(body: bytes) -> "dict[str, RSAPublicKey]":
    """The keys of a JWKS that can verify RS256, by name. Upstream when there is none."""
    try:
        listed = msgspec.json.decode(body, type=_Document).keys[:KEYS]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Upstream("The answer is not a JWKS") from error
    keys = {}
    for raw in listed:
        read = _read_key(raw)
        if read is not None:
            keys[read[0]] = read[1]
    if not keys:
        raise Upstream("The JWKS holds no RSA key for signatures")
    return keys


def _read_key(raw: msgspec.Raw) -> "tuple[str, RSAPublicKey] | None":
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from jwt.algorithms import RSAAlgorithm
    from jwt.exceptions import InvalidKeyError

    try:
        key = msgspec.json.decode(raw, type=_Key)
        if key.kty != "RSA" or key.use != "sig" or key.alg != "RS256":
            return None
        public = RSAAlgorithm.from_jwk({"kty": "RSA", "n": key.n, "e": key.e})
    except (msgspec.DecodeError, InvalidKeyError, ValueError):
        # A kind of key that is none of ours must not cost us those beside it.
        return None
    return (key.kid, public) if isinstance(public, RSAPublicKey) and public.key_size >= KEY_BITS else None
