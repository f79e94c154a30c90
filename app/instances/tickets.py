"""Tickets: signed words that let one socket into one instance, once, within a minute.

They are signed, so that any machine can issue them without a row; used up in the instance's own file.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import NamedTuple

import msgspec

from app.errors import Forbidden, Unauthenticated
from app.identity.principal import Principal

TICKET_SECONDS = 60
ID_BYTES = 12
MAC_BYTES = 32
TOKEN_CHARACTERS = 2_048


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """Who may come in where, with at most `level`, until `expires_at_ms`."""

    id: str
    instance_id: str
    level: int
    principal: Principal
    expires_at_ms: int


class Issued(NamedTuple):
    token: str
    expires_at_ms: int


class Tickets:
    """Signs with the first of `keys` and accepts any. Without keys they last as long as this process."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = [key.encode() for key in keys] or [secrets.token_bytes(MAC_BYTES)]

    def issue(self, instance_id: str, level: int, principal: Principal, now: int) -> Issued:
        """A token of the characters A-Z a-z 0-9 _ and -, which clients put into a URL as it is."""
        expires = now + TICKET_SECONDS * 1000
        ticket = Ticket(secrets.token_hex(ID_BYTES), instance_id, level, principal, expires)
        payload = msgspec.msgpack.encode(ticket)
        signed = payload + _mac(self._keys[0], payload)
        return Issued(base64.urlsafe_b64encode(signed).rstrip(b"=").decode(), expires)

    def read(self, token: str, instance_id: str, now: int) -> Ticket:
        """The ticket in a token. Unauthenticated when it is forged or old, Forbidden for another instance."""
        payload = self._verify(token)
        ticket = msgspec.msgpack.decode(payload, type=Ticket)
        if ticket.expires_at_ms <= now:
            raise Unauthenticated("Token expired", certain=True)
        if ticket.instance_id != instance_id:
            raise Forbidden("Token not valid for this instance", certain=True)
        return ticket

    def _verify(self, token: str) -> bytes:
        try:
            signed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            signed = b""
        payload, mac = signed[:-MAC_BYTES], signed[-MAC_BYTES:]
        if len(token) > TOKEN_CHARACTERS or not any(hmac.compare_digest(_mac(key, payload), mac) for key in self._keys):
            raise Unauthenticated("Invalid token", certain=True)
        return payload


def _mac(key: bytes, payload: bytes) -> bytes:
    return hmac.new(key, b"ticket\0" + payload, hashlib.sha256).digest()
