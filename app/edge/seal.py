"""The seal: what machines say to each other, signed with their common secret and good for a minute.

A passport goes with a request that was forwarded: whose it is, and that it was moved once. A signature goes with a
question of a machine's own, and is good once.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from typing import TypeVar

import msgspec

from app.edge.clock import now_ms
from app.errors import Unauthenticated, Unavailable

T = TypeVar("T", bound="Sealed")

SEALED_SECONDS = 60
NONCE_BYTES = 12
MAC_BYTES = 32
TEXT_CHARACTERS = 4_096
NONCES = 200_000
# Nobody waits longer on the way; what is more is the difference of two clocks.
MOST_WAITED_MS = 6_000


class Sealed(msgspec.Struct, frozen=True, array_like=True):
    """Who says it, when, and of which request."""

    machine: str
    at_ms: int
    method: str
    target: bytes


class Passport(Sealed, frozen=True, array_like=True):
    """The client's address and the request's id, as the machine knew them that forwards, how long it waited, and the
    region in which it landed; "" from a machine that does not say so yet."""

    client: str
    request_id: str
    waited_ms: int
    region: str = ""

    @property
    def waited_seconds(self) -> float:
        """Until now, as far as the two clocks agree."""
        return (self.waited_ms + min(MOST_WAITED_MS, max(0, now_ms() - self.at_ms))) / 1000


class Signature(Sealed, frozen=True, array_like=True):
    """The hash of the body, and a number that is used once."""

    digest: bytes
    nonce: bytes


class Seal:
    """Signs with the first of `keys` and accepts any. Without keys nothing can be signed, and nothing is accepted."""

    def __init__(self, keys: tuple[str, ...], machine: str, region: str = "") -> None:
        self._keys = [key.encode() for key in keys]
        self._machine = machine
        self._region = region
        self._seen: dict[bytes, float] = {}

    def passport(self, method: str, target: bytes, client: str, request_id: str, waited_ms: int = 0) -> str:
        said = (self._machine, now_ms(), method, _digest(target), client, request_id, waited_ms, self._region)
        return self._make(Passport(*said))

    def signature(self, method: str, target: bytes, body: bytes) -> str:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return self._make(Signature(self._machine, now_ms(), method, _digest(target), _digest(body), nonce))

    def read_passport(self, text: str, method: str, target: bytes) -> Passport:
        """Unauthenticated when it is forged, of another request, or not of this minute."""
        return self._read(text, Passport, method, target)

    def read_signature(self, text: str, method: str, target: bytes) -> Signature:
        """The same. What it says of the body is for `use_up` to judge, once that has been read."""
        return self._read(text, Signature, method, target)

    def use_up(self, signature: Signature, body: bytes) -> None:
        """Unauthenticated for another body, and for a signature that comes a second time."""
        if not hmac.compare_digest(signature.digest, _digest(body)):
            raise _refused()
        self._remember(signature.nonce)

    def _make(self, sealed: Sealed) -> str:
        if not self._keys:
            raise Unavailable("PEER_SECRET is not set: no other machine would believe this one")
        payload = msgspec.msgpack.encode(sealed)
        signed = payload + _mac(self._keys[0], type(sealed), payload)
        return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()

    def _read(self, text: str, kind: type[T], method: str, target: bytes) -> T:
        payload = self._verify(text, kind)
        try:
            sealed = msgspec.msgpack.decode(payload, type=kind)
        except msgspec.MsgspecError as error:
            # A machine of another release, whose clients are told to come again.
            raise _refused() from error
        fresh = abs(now_ms() - sealed.at_ms) <= SEALED_SECONDS * 1000
        if not fresh or sealed.method != method or not hmac.compare_digest(sealed.target, _digest(target)):
            raise _refused()
        return sealed

    def _verify(self, text: str, kind: type[Sealed]) -> bytes:
        try:
            signed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            signed = b""
        payload, mac = signed[:-MAC_BYTES], signed[-MAC_BYTES:]
        known = any(hmac.compare_digest(_mac(key, kind, payload), mac) for key in self._keys)
        if len(text) > TEXT_CHARACTERS or not known:
            raise _refused()
        return payload

    def _remember(self, nonce: bytes) -> None:
        now = time.monotonic()
        while self._seen and (oldest := next(iter(self._seen))) and self._seen[oldest] <= now:
            del self._seen[oldest]
        if nonce in self._seen:
            raise _refused()
        if len(self._seen) >= NONCES:
            raise Unavailable(f"Too many questions in a minute: {NONCES}")
        # A clock ahead of ours makes a signature good for two minutes of our time.
        self._seen[nonce] = now + 2 * SEALED_SECONDS


def _refused() -> Unauthenticated:
    return Unauthenticated("The signature of a peer is missing, wrong or too old", certain=True)


def _mac(key: bytes, kind: type[Sealed], payload: bytes) -> bytes:
    return hmac.new(key, kind.__name__.encode() + b"\0" + payload, hashlib.sha256).digest()


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
