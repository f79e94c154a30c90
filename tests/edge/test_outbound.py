"""Outbound: whatever form an internal address takes, no request reaches it."""

import gzip
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse

from app.edge import outbound
from app.edge.outbound import Forbidden, Outbound, is_internal
from app.edge.placement import anywhere
from app.edge.router import Route
from app.errors import Upstream
from tests.edge.conftest import Site, site

pytestmark = pytest.mark.anyio

INTERNAL = (
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fdaa::1",
    "fdaa:0:1::3",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
)

PUBLIC = (
    "8.8.8.8",
    "93.184.216.34",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
)


@pytest.mark.parametrize("address", INTERNAL)
def test_an_internal_address_is_known_in_every_form(address: str) -> None:
    assert is_internal(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_not_internal(address: str) -> None:
    assert not is_internal(address)


async def hello(request: Request) -> Response:
    return PlainTextResponse(request.headers.get("cookie", "hello"), headers={"Set-Cookie": "who=somebody"})


async def elsewhere(request: Request) -> Response:
    return RedirectResponse("/hello")


async def huge(request: Request) -> Response:
    async def zeros() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield bytes(100_000)

    return StreamingResponse(zeros())


async def bomb(request: Request) -> Response:
    return Response(gzip.compress(bytes(50 << 20)), headers={"Content-Encoding": "gzip"})


ROUTES = tuple(Route("GET", f"/{endpoint.__name__}", anywhere, endpoint) for endpoint in (hello, elsewhere, huge, bomb))


@asynccontextmanager
async def reaching(*allowed: str) -> AsyncIterator[tuple[Outbound, Site]]:
    async with site(ROUTES) as (_, served):
        client = Outbound(allowed)
        try:
            yield client, served
        finally:
            await client.close()


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "127.1",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::1]",
    ],
)
async def test_no_spelling_of_loopback_is_reached(host: str) -> None:
    async with reaching() as (client, served):
        with pytest.raises(Upstream) as refusal:
            await client.fetch("GET", f"http://{host}:{served.port}/hello")
        assert served.observed == []
    assert any(isinstance(cause, Forbidden) for cause in causes(refusal.value)) or host not in (
        "127.0.0.1",
        "localhost",
    )
    assert refusal.value.message == "The other service did not answer"


@pytest.mark.parametrize("host", ["[fdaa::3]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "169.254.169.254", "10.0.0.1"])
async def test_an_internal_address_is_refused_before_a_packet_leaves(host: str) -> None:
    async with reaching() as (client, _):
        with pytest.raises(Upstream) as refusal:
            await client.fetch("GET", f"http://{host}/")
    assert any(isinstance(cause, Forbidden) for cause in causes(refusal.value))


async def test_a_name_is_judged_by_what_it_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: object, *arguments: object, **named: object) -> object:
        return real("127.0.0.1" if host == "innocent.example.com" else host, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with reaching() as (client, served):
        with pytest.raises(Upstream) as refusal:
            await client.fetch("GET", f"http://innocent.example.com:{served.port}/hello")
        assert served.observed == []
    assert any(isinstance(cause, Forbidden) for cause in causes(refusal.value))


async def test_the_allow_list_and_trusted_addresses_open_loopback() -> None:
    async with reaching("127.0.0.0/8") as (client, served):
        url = f"http://127.0.0.1:{served.port}/hello"
        assert await client.fetch("GET", url) == (200, b"hello")
    async with reaching() as (client, served):
        url = f"http://127.0.0.1:{served.port}/hello"
        assert await client.fetch("GET", url, trusted=True) == (200, b"hello")
        with pytest.raises(Upstream):
            await client.fetch("GET", url)


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async with reaching("127.0.0.0/8") as (client, served):
        reply = await client.fetch("GET", f"http://127.0.0.1:{served.port}/elsewhere")
    assert reply.status == 307
    assert [path for path, _, _ in served.observed] == ["/elsewhere"]


@pytest.mark.parametrize("path", ["/huge", "/bomb"])
async def test_an_answer_is_never_read_beyond_its_bound(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "ANSWER_BYTES", 300_000)
    async with reaching("127.0.0.0/8") as (client, served):
        with pytest.raises(Upstream, match="larger than 300000 bytes"):
            await client.fetch("GET", f"http://127.0.0.1:{served.port}{path}", seconds=10)


async def test_where_only_the_status_is_asked_for_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "ANSWER_BYTES", 1)
    async with reaching("127.0.0.0/8") as (client, served):
        url = f"http://127.0.0.1:{served.port}/hello"
        assert await client.fetch("GET", url, status_only=True) == (200, b"")


async def test_a_service_that_does_not_answer_in_time_is_upstream() -> None:
    client = Outbound(["127.0.0.0/8"])
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(Upstream) as refusal:
            await client.fetch("GET", f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.1)
    await client.close()
    assert isinstance(refusal.value.__cause__, TimeoutError)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/", "http://", "nonsense", "http://[", ""])
async def test_what_is_no_web_address_is_upstream(url: str) -> None:
    async with reaching() as (client, _):
        with pytest.raises(Upstream):
            await client.fetch("GET", url)


async def test_one_answers_cookies_do_not_travel_with_the_next_request() -> None:
    async with reaching("127.0.0.0/8") as (client, served):
        url = f"http://localhost:{served.port}/hello"
        assert [await client.fetch("GET", url) for _ in range(2)] == [(200, b"hello")] * 2
