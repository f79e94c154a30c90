"""Freshness: a caller finds what it has written, on whichever machine it reads.

It says how far it has come in `X-Txid`, or in a cookie. Who says nothing is remembered for REMEMBERED_SECONDS by
the machine that its write passed through.
"""

import hashlib
import time
from collections import OrderedDict
from typing import NamedTuple

from starlette.types import Message, Scope, Send

from app.edge.database import written_position
from app.edge.transaction import Position

WAIT_SECONDS = 1.0
REMEMBERED_SECONDS = 5.0
CALLERS = 100_000
COOKIE = "__Host-txid"
COOKIE_SECONDS = 300
EPOCH_CHARACTERS = 64
SEQUENCE_DIGITS = 15

# By which of these a caller is known, the first that it sends.
_CREDENTIALS = (b"authorization", b"x-api-key", b"x-admin-token", b"x-admin-key", b"x-chat-key", b"cookie")
_TXID, _COOKIE_HEADER = b"x-txid", b"cookie"
# What only these say of how far somebody has come.
_SAYING = frozenset((_TXID, _COOKIE_HEADER))


class Wish(NamedTuple):
    """What a read must not miss: a position, or, where none is known, whatever the primary holds."""

    position: Position | None


class Freshness:
    """What this machine knows of those whose writes passed through it; the longest ago is forgotten first."""

    def __init__(self) -> None:
        self._callers: OrderedDict[bytes, tuple[float, Wish]] = OrderedDict()

    def wish_of(self, scope: Scope) -> Wish | None:
        """What this request has to find; None when any state will do."""
        if not self._callers and _SAYING.isdisjoint([name for name, _ in scope["headers"]]):
            return None
        headers = dict(scope["headers"])
        told = parse_position(headers.get(_TXID))
        if told is not None:
            return Wish(told)
        remembered, held = self._remembered(headers), parse_position(_cookie(headers.get(_COOKIE_HEADER)))
        # A browser may have refused the cookie of the last write.
        if held is None or (remembered is not None and remembered.position is None):
            return remembered
        return Wish(_later(held, remembered))

    def note(self, scope: Scope, position: Position | None) -> None:
        """This caller's write was answered with `position`, or with one that was not seen."""
        caller = _caller(dict(scope["headers"]))
        if caller is None:
            return
        self._callers.pop(caller, None)
        self._callers[caller] = (time.monotonic() + REMEMBERED_SECONDS, Wish(position))
        while len(self._callers) > CALLERS:
            self._callers.popitem(last=False)

    def _remembered(self, headers: dict[bytes, bytes]) -> Wish | None:
        caller = _caller(headers)
        until, wish = self._callers.get(caller, (0.0, None)) if caller is not None else (0.0, None)
        if wish is None or caller is None:
            return None
        if until > time.monotonic():
            return wish
        del self._callers[caller]
        return None


def handing_out(scope: Scope, send: Send) -> Send:
    """Where the caller uses cookies, its writes are answered with one that says how far it has come."""
    if not any(name == _COOKIE_HEADER for name, _ in scope["headers"]):
        return send

    async def with_cookie(message: Message) -> None:
        position = written_position.get()
        if message["type"] == "http.response.start" and position is not None:
            cookie = f"{COOKIE}={position}; Path=/; Max-Age={COOKIE_SECONDS}; Secure; HttpOnly; SameSite=None"
            message["headers"] = [*message["headers"], (b"set-cookie", cookie.encode())]
        await send(message)

    return with_cookie


def parse_position(text: bytes | None) -> Position | None:
    """The position in a token; None for what is none."""
    epoch, _, sequence = (text or b"").decode("latin-1").rpartition("-")
    if not (epoch.isalnum() and epoch.isascii() and len(epoch) <= EPOCH_CHARACTERS):
        return None
    if not (sequence.isascii() and sequence.isdigit() and len(sequence) <= SEQUENCE_DIGITS):
        return None
    return Position(epoch, int(sequence))


def _later(held: Position, remembered: Wish | None) -> Position:
    known = remembered.position if remembered is not None else None
    if known is None:
        return held
    return known if known.epoch != held.epoch else max(held, known)


def _caller(headers: dict[bytes, bytes]) -> bytes | None:
    for name in _CREDENTIALS:
        if name in headers:
            return hashlib.blake2b(name + b"\0" + headers[name], digest_size=16).digest()
    return None


def _cookie(header: bytes | None) -> bytes | None:
    for part in (header or b"").split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name == COOKIE.encode():
            return value
    return None
