"""Idempotency-Key: the first answer is stored with its effect, in one transaction, and given again."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.edge import expiring
from app.edge.clock import now_ms
from app.edge.database import Transaction
from app.edge.http import JsonResponse, db_of, encode_json, find_header, json_response
from app.errors import Conflict, Invalid, Unprocessable

KIND = "idempotency"
KEPT_MS = 24 * 3_600_000
KEY_CHARACTERS = 255
ANSWER_BYTES = 256 << 10
# Instead of a status: the answer is not kept, but its effect must not be had twice.
NOT_KEPT = 0


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """A status and a JSON body, and the hash of the request that they answer."""

    status: int
    body: bytes
    request_hash: bytes


class Running:
    """The keys whose first request is still being answered, on the machine that placement names."""

    def __init__(self) -> None:
        self._keys: set[str] = set()

    @asynccontextmanager
    async def only(self, key: str) -> AsyncIterator[None]:
        if key in self._keys:
            raise Conflict("A request with this Idempotency-Key is still running")
        self._keys.add(key)
        try:
            yield
        finally:
            self._keys.discard(key)


class Once(NamedTuple):
    """An answer, and the value that the job has just given; None when the answer is an earlier one."""

    response: Response
    value: Any


async def write_once(
    request: Request,
    principal: str,
    body: bytes,
    status: int,
    job: Callable[..., Any],
    *args: Any,
    secret: bool = False,
) -> Once:
    """Run `job(tx, *args)` as a write and answer its value as JSON with `status`.

    With an `Idempotency-Key`, a second request of this principal, method and path gets the first's answer;
    Unprocessable with another body, Conflict while the first is running. A `secret` answer is not kept: its
    repeat has no effect and is a Conflict.
    """
    key = find_name(request, principal)
    if key is None:
        value = await db_of(request).write(job, *args)
        return Once(json_response(value, status), value)
    running: Running = request.scope["state"]["running"]
    async with running.only(key):
        answer, value = await db_of(request).write(_run_once, key, hash_of(body), status, job, args, now_ms(), secret)
    return Once(JsonResponse(answer.body, answer.status), value)


def find_name(request: Request, principal: str) -> str | None:
    """What a request with an `Idempotency-Key` is remembered under: its principal, method, path and key. Invalid."""
    held = find_header(request, b"idempotency-key")
    if held is None:
        return None
    header = held.decode("latin-1")
    if not 1 <= len(header) <= KEY_CHARACTERS:
        raise Invalid(f"Idempotency-Key: expected 1 to {KEY_CHARACTERS} characters, got {len(header)}")
    return hash_of("\0".join((principal, request.method, request.url.path, header)).encode()).hex()


def hash_of(*parts: bytes) -> bytes:
    """What requests are told apart by."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(part)
    return hashed.digest()


def keep(answer: Answer, *, secret: bool = False) -> bytes:
    """An answer as it is stored: its body only where it is neither secret nor too large."""
    kept = not secret and len(answer.body) <= ANSWER_BYTES
    return msgspec.msgpack.encode(answer if kept else Answer(NOT_KEPT, b"", answer.request_hash))


def recall(stored: bytes, asked: bytes) -> Answer:
    """The first answer. Unprocessable for another request, Conflict where it was not kept."""
    answer = msgspec.msgpack.decode(stored, type=Answer)
    if answer.request_hash != asked:
        raise Unprocessable("This Idempotency-Key was used with another body")
    if answer.status == NOT_KEPT:
        raise Conflict("This Idempotency-Key was answered before, with what is not kept (a secret, or too large)")
    return answer


def _run_once(
    tx: Transaction,
    key: str,
    asked: bytes,
    status: int,
    job: Callable[..., Any],
    args: tuple[Any, ...],
    now: int,
    secret: bool,
) -> tuple[Answer, Any]:
    stored = expiring.find(tx, KIND, key, now_ms=now)
    if stored is not None:
        return recall(stored, asked), None
    value = job(tx, *args)
    answer = Answer(status, encode_json(value), asked)
    expiring.put(tx, KIND, key, keep(answer, secret=secret), until_ms=now + KEPT_MS)
    return answer, value
