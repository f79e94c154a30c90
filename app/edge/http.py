"""HTTP: bodies read within a limit, shapes that name the wrong field, answers with an ETag."""

import asyncio
import hashlib
import ipaddress
import re
import zlib
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import unquote_plus

import msgspec
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope

from app.edge.clock import parse_instant
from app.edge.database import Database
from app.errors import Invalid, TimedOut, TooLarge
from app.settings import Settings

T = TypeVar("T")
Choice = TypeVar("Choice", bound=str)
Headers = Sequence[tuple[bytes, bytes]]

BODY_BYTES = 1 << 20
BODY_SECONDS = 30.0
QUERY_INT_DIGITS = 15
READING = frozenset(("GET", "HEAD"))
# In a scope: the name of the machine that forwarded this request. It moves no further.
MOVED = "litehouse.moved"
# And the region in which it landed, where another machine had it first.
LANDED = "litehouse.landed"

_encoder = msgspec.json.Encoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_TYPE_ERROR = re.compile(r"(?P<problem>.*?)(?: - at `(?P<path>[^`]+)`)?", re.DOTALL)

encode_json = _encoder.encode


def db_of(request: Request) -> Database:
    db: Database = request.scope["state"]["db"]
    return db


def settings_of(request: HTTPConnection) -> Settings:
    settings: Settings = request.scope["state"]["settings"]
    return settings


def client_address(request: HTTPConnection) -> str:
    """The caller's address: Fly's word for it behind Fly, else the socket's, never a header of the client's.

    The machine that forwards a request has judged it already.
    """
    if settings_of(request).behind_fly and MOVED not in request.scope:
        told = (find_header(request, b"fly-client-ip") or b"").decode("latin-1")
        try:
            return str(ipaddress.ip_address(told))
        except ValueError:
            pass
    return request.client.host if request.client else "unknown"


def method_of(scope: Scope) -> str:
    """What stands in the first line of a request: an upgrade is asked for with GET."""
    method: str = "GET" if scope["type"] == "websocket" else scope["method"]
    return method


def target_of(scope: Scope) -> bytes:
    """The path and the query as they came."""
    query: bytes = scope["query_string"]
    raw: bytes = scope["raw_path"]
    return raw + b"?" + query if query else raw


async def read_body(request: Request, limit: int = BODY_BYTES) -> bytes:
    """The whole body; TooLarge as soon as more than `limit` bytes were announced or have arrived."""
    announced = find_header(request, b"content-length") or b""
    if announced.isdigit() and len(announced) < QUERY_INT_DIGITS and int(announced) > limit:
        raise too_large(int(announced), limit)
    body, more = await _receive(request)
    if len(body) > limit:
        raise too_large(len(body), limit)
    return body + await _read_rest(request, len(body), limit) if more else body


async def _read_rest(request: Request, size: int, limit: int) -> bytes:
    chunks: list[bytes] = []
    more = True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                chunk, more = await _receive(request)
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise too_large(size, limit)
    except TimeoutError as error:
        raise TimedOut(f"The request body did not arrive within {BODY_SECONDS:g} s") from error
    return b"".join(chunks)


async def _receive(request: Request) -> tuple[bytes, bool]:
    """The next piece of a body, and whether more will come."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def find_header(request: HTTPConnection, name: bytes) -> bytes | None:
    """One header, without the views that a hot path has no use for. `name` is in lower case."""
    for key, value in request.scope["headers"]:
        if key == name:
            held: bytes = value
            return held
    return None


def find_query(request: Request, name: str) -> str | None:
    """One parameter of the query; the first, where it is given more than once."""
    wanted = name.encode()
    for part in request.scope["query_string"].split(b"&"):
        key, _, value = part.partition(b"=")
        if key == wanted:
            return unquote_plus(value.decode("latin-1"))
    return None


def too_large(size: int, limit: int) -> TooLarge:
    return TooLarge(f"Request body too large: {size} bytes (max: {limit})", limit=limit, actual=size)


def gunzip(body: bytes, limit: int) -> bytes:
    """Decompress, but never to more than `limit` bytes: a small body may hide a large one."""
    stream = zlib.decompressobj(wbits=31)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise Invalid("The body is not valid gzip") from error
    if len(plain) > limit:
        raise too_large(len(plain), limit)
    if not stream.eof:
        raise Invalid("The gzip body ends too early")
    if stream.unused_data:
        raise Invalid("The gzip body holds more than one member")
    return plain


async def read_json(request: Request, shape: type[T], limit: int = BODY_BYTES) -> T:
    """The body as a `shape`. Invalid says where the JSON breaks, or which field has the wrong type."""
    return decode_json(await read_body(request, limit), shape)


def decode_json(body: bytes | msgspec.Raw, shape: type[T]) -> T:
    decoder = _decoders.get(shape)
    if decoder is None:
        decoder = _decoders[shape] = msgspec.json.Decoder(shape)
    try:
        value: T = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Invalid(describe_mismatch(error)) from error
    except msgspec.DecodeError as error:
        raise Invalid(f"Invalid JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"Invalid JSON: byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise Invalid("Invalid JSON: nested too deeply") from error
    return value


def describe_mismatch(error: msgspec.ValidationError) -> str:
    """`field: expected …, got …` from msgspec's words."""
    match = _TYPE_ERROR.fullmatch(str(error))
    if match is None or match["path"] is None:
        return str(error)
    field = match["path"].removeprefix("$").removeprefix(".") or "body"
    return f"{field}: {match['problem'].replace('`', '')}"


class JsonResponse(Response):
    """A body that is JSON already, with its headers as they go out."""

    def __init__(self, body: bytes, status: int = 200, headers: Headers = ()) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers]


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    given = [(name.lower().encode(), text.encode("latin-1")) for name, text in headers.items()] if headers else ()
    return JsonResponse(_encoder.encode(value), status, given)


def cached_response(request: Request, value: Any, vary: str = "Authorization") -> Response:
    """A private answer that browsers must ask for again; 304 where they hold it already."""
    body = _encoder.encode(value)
    etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = [(b"etag", etag.encode()), (b"cache-control", b"private, no-cache"), (b"vary", vary.encode())]
    held = find_header(request, b"if-none-match")
    if held is not None and matches_etag(held.decode("latin-1"), etag):
        response = Response(None, 304)
        response.raw_headers.extend(headers)
        return response
    return JsonResponse(body, 200, headers)


def matches_etag(header: str, etag: str) -> bool:
    """If-None-Match's weak comparison (RFC 9110, 13.1.2)."""
    return header.strip() == "*" or etag in (item.strip().removeprefix("W/") for item in header.split(","))


def query_int(request: Request, name: str, default: int, *, least: int = 0, most: int) -> int:
    """A whole number from the query, lowered to `most`; Invalid for anything that is not one."""
    text = find_query(request, name)
    if text is None:
        return default
    digits = text.lstrip("0") or "0"
    if not (text and text.isascii() and text.isdigit()) or (len(digits) <= QUERY_INT_DIGITS and int(digits) < least):
        raise Invalid(f"{name}: expected a whole number of at least {least}, got {text[:40]!r}")
    return min(int(digits), most) if len(digits) <= QUERY_INT_DIGITS else most


def query_choice(request: Request, name: str, choices: tuple[Choice, ...]) -> Choice:
    """One of `choices` from the query, the first unless given; Invalid for another word."""
    text = find_query(request, name)
    if text is None:
        return choices[0]
    for choice in choices:
        if choice == text:
            return choice
    raise Invalid(f"{name}: expected one of {', '.join(choices)}, got {text[:40]!r}")


def query_instant(request: Request, name: str, default: int) -> int:
    """Milliseconds from an ISO-8601 instant or a day in the query; a zone-less one is UTC."""
    text = find_query(request, name)
    if text is None:
        return default
    try:
        return parse_instant(text)
    except ValueError as error:
        raise Invalid(f"{name}: expected an ISO-8601 instant, got {text[:40]!r}") from error
