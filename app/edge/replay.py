"""Replay: an answer that asks Fly's proxy to take the request to another machine.

https://fly.io/docs/networking/dynamic-request-routing/: the proxy holds back up to 1 MB of a request, also an upgrade
that was not accepted, and hands it back with `fly-replay-failed` when nobody was reached in time.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import Scope

from app.edge.placement import Destination

REPLAYED_BYTES = 1 << 20
LENGTH_DIGITS = 15
REPLAY_SECONDS = 5.0

_STATE = re.compile(rb"(?:^|;)state=([A-Za-z0-9_-]{1,4096})(?:;|$)")
_SOURCE, _FAILED = b"fly-replay-src", b"fly-replay-failed"


def fits(scope: Scope) -> bool:
    """Whether the proxy can do it: the body's length is told, and it is small."""
    length = b"0"
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return False
        if name == b"content-length":
            length = value
    return length.isdigit() and len(length) <= LENGTH_DIGITS and int(length) <= REPLAYED_BYTES


def replay(to: Destination, seconds: float, state: str) -> Response:
    """Take the request there, with `state`; after at most `seconds` without reaching it, back to this machine."""
    target = f"instance={to.machine}" if to.machine else f"region={to.region}"
    seconds = min(REPLAY_SECONDS, max(0.001, seconds))
    wish = f"{target};state={state};timeout={round(seconds * 1000)}ms;fallback=force_self"
    return Response(None, HTTPStatus.CONFLICT, {"fly-replay": wish})


def state_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What the machine said with its wish that brought the request here."""
    for name, value in headers:
        if name == _SOURCE and (found := _STATE.search(value)):
            return found[1].decode()
    return None


def has_failed(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the proxy could not take the request where this machine wished it."""
    return any(name == _FAILED for name, _ in headers)


def was_replayed(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the proxy brought the request from another machine."""
    return any(name == _SOURCE for name, _ in headers)
