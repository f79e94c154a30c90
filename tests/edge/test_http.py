"""HTTP: bodies bounded while they are read, and refusals that name the field."""

import asyncio
import gzip
import time
import tracemalloc
from collections.abc import AsyncIterator

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response

from app.edge import http
from app.edge.http import cached_response, decode_json, gunzip, json_response, query_instant, query_int, read_json
from app.edge.placement import anywhere, at_primary
from app.edge.router import Route
from app.errors import Invalid, TooLarge
from tests.edge.conftest import site

LIMIT = 1000


class Inner(msgspec.Struct):
    count: int


class Form(msgspec.Struct):
    name: str
    inner: Inner | None = None
    many: list[Inner] = []


async def take(request: Request) -> Response:
    form = await read_json(request, Form, LIMIT)
    return json_response({"name": form.name})


async def give(request: Request) -> Response:
    page = query_int(request, "limit", 20, least=1, most=100)
    return cached_response(request, {"limit": page, "from": query_instant(request, "from", 0)})


ROUTES = (Route("POST", "/take", at_primary, take), Route("GET", "/give", anywhere, give))


@pytest.mark.anyio
async def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_413() -> None:
    empty = len(b'{"name":""}')
    async with site(ROUTES) as (client, _):
        fits = await client.post("/take", content=b'{"name":"%s"}' % (b"a" * (LIMIT - empty)))
        exceeds = await client.post("/take", content=b'{"name":"%s"}' % (b"a" * (LIMIT - empty + 1)))
    assert fits.status_code == 200
    assert exceeds.status_code == 413
    assert exceeds.json()["code"] == "too_large"
    assert (exceeds.json()["limit"], exceeds.json()["actual"]) == (LIMIT, LIMIT + 1)


@pytest.mark.anyio
async def test_a_chunked_body_is_413_before_it_ends() -> None:
    """Without a Content-Length, and with a client that would go on for ever."""
    async with site(ROUTES) as (_, served):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST /take HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(4):
            writer.write(b"12c\r\n" + b"a" * 300 + b"\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()
        await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 413 ")


@pytest.mark.anyio
async def test_an_announced_length_beyond_the_limit_is_413_before_the_body_arrives() -> None:
    async with site(ROUTES) as (_, served):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 10485760\r\n\r\n")
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 5)
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"actual":10485760' in answer


@pytest.mark.anyio
async def test_a_body_that_stops_arriving_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_SECONDS", 0.1)
    async with site(ROUTES) as (_, served):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()
        await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 408 ")


@pytest.mark.anyio
async def test_a_chunked_body_within_the_limit_is_read_whole() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for part in (b'{"na', b'me":', b'"x"}'):
            yield part

    async with site(ROUTES) as (client, _):
        assert (await client.post("/take", content=chunks())).json() == {"name": "x"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Invalid JSON: Input data was truncated"),
        (b"{", "Invalid JSON: Input data was truncated"),
        (b'{"name": x}', "Invalid JSON: JSON is malformed: invalid character (byte 9)"),
        (b'{"name": "\xff"}', "Invalid JSON: byte 0 is not UTF-8"),
        (b'{"name": 1}', "name: Expected str, got int"),
        (b"[]", "Expected object, got array"),
        (b"{}", "Object missing required field name"),
        (b'{"name": "x", "inner": {"count": "1"}}', "inner.count: Expected int, got str"),
        (b'{"name": "x", "many": [{"count": 1}, {"count": 1.5}]}', "many[1].count: Expected int, got float"),
    ],
)
async def test_bad_json_is_400_and_says_where(body: bytes, message: str) -> None:
    async with site(ROUTES) as (client, _):
        refused = await client.post("/take", content=body)
    assert refused.status_code == 400
    assert refused.json()["code"] == "invalid"
    assert refused.json()["error"].replace("`", "") == message


@pytest.mark.parametrize("body", [b"[" * 900_000, b'{"inner":' * 100_000, b'{"name":' + b"[" * 500_000])
def test_json_nested_deeply_is_400(body: bytes) -> None:
    with pytest.raises(Invalid):
        decode_json(body, Form)
    with pytest.raises(Invalid, match="nested too deeply"):
        decode_json(body, dict if body[:1] == b"{" else list)


@pytest.mark.parametrize("text", [rb"\ud800", rb"\udfff", rb"\ud800\u0041", rb"\ud800 and more", b"\xed\xa0\x80"])
def test_a_lone_surrogate_is_400(text: bytes) -> None:
    with pytest.raises(Invalid, match="Invalid JSON"):
        decode_json(b'{"name": "%s"}' % text, Form)


def test_a_nul_is_an_ordinary_character() -> None:
    assert decode_json(rb'{"name": "a\u0000b"}', Form).name == "a\0b"


def test_unknown_fields_are_ignored() -> None:
    assert decode_json(b'{"name": "x", "unknown": [1, {}]}', Form).name == "x"


def test_gzip_is_decompressed_up_to_the_limit_and_no_further() -> None:
    assert gunzip(gzip.compress(b"a" * LIMIT), LIMIT) == b"a" * LIMIT
    with pytest.raises(TooLarge) as refusal:
        gunzip(gzip.compress(b"a" * (LIMIT + 1)), LIMIT)
    assert refusal.value.fields == {"limit": LIMIT, "actual": LIMIT + 1}


def test_a_gzip_bomb_costs_neither_memory_nor_time() -> None:
    bomb = gzip.compress(bytes(200 << 20), compresslevel=9)
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    begun = time.process_time()
    with pytest.raises(TooLarge):
        gunzip(bomb, 1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
    assert time.process_time() - begun < 1.0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "ends too early"),
        (b"not gzip", "not valid gzip"),
        (gzip.compress(b"text")[:-4], "ends too early"),
        (gzip.compress(b"text")[:-4] + b"\0\0\0\0", "not valid gzip"),
        # Read as one, the second member's events would be dropped in silence.
        (gzip.compress(b"one") + gzip.compress(b"two"), "more than one member"),
    ],
    ids=["empty", "plain", "no sum", "another sum", "two members"],
)
def test_broken_gzip_is_400(body: bytes, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        gunzip(body, LIMIT)


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["abc", "-1", "0", "1.5", "", "1e3", "９", "²", "000", "1 "])
async def test_a_limit_that_is_no_positive_whole_number_is_400(text: str) -> None:
    async with site(ROUTES) as (client, _):
        refused = await client.get("/give", params={"limit": text})
    assert refused.status_code == 400
    assert refused.json()["error"].startswith("limit: expected a whole number of at least 1")


@pytest.mark.anyio
async def test_a_larger_limit_is_lowered_to_the_page() -> None:
    async with site(ROUTES) as (client, _):
        for text in ("101", "5000", "9" * 16, "9" * 5_000, "0" * 20 + "100"):
            assert (await client.get("/give", params={"limit": text})).json()["limit"] == 100
        assert (await client.get("/give")).json()["limit"] == 20


@pytest.mark.anyio
async def test_an_instant_is_read_as_utc_and_nonsense_is_400() -> None:
    async with site(ROUTES) as (client, _):
        for text in ("2026-12-01T00:00:00Z", "2026-12-01", "2026-12-01T01:00:00+01:00"):
            assert (await client.get("/give", params={"from": text})).json()["from"] == 1_796_083_200_000
        refused = await client.get("/give", params={"from": "yesterday"})
    assert refused.status_code == 400
    assert refused.json()["error"] == "from: expected an ISO-8601 instant, got 'yesterday'"


@pytest.mark.anyio
async def test_an_answer_that_is_held_already_is_304_and_private() -> None:
    async with site(ROUTES) as (client, _):
        first = await client.get("/give")
        etag = first.headers["etag"]
        again = [
            await client.get("/give", headers={"If-None-Match": held})
            for held in (etag, f"W/{etag}", f'"other", {etag}', "*")
        ]
        other = await client.get("/give", params={"limit": "7"}, headers={"If-None-Match": etag})
    assert etag.startswith('"')
    assert first.headers["cache-control"] == "private, no-cache"
    assert {name.strip() for name in first.headers["vary"].split(",")} == {"Authorization", "Origin"}
    for answer in again:
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert other.status_code == 200
