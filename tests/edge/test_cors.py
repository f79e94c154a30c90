"""CORS: every form that can be listed, and the names that only look like one."""

import pytest
from starlette.requests import Request
from starlette.responses import Response

from app.edge.cors import MAX_AGE_SECONDS, Cors
from app.edge.http import json_response
from app.edge.placement import anywhere, at_primary
from app.edge.router import Route
from app.errors import Conflict
from tests.edge.conftest import site

LISTED = (
    "https://app.example.com",
    "https://*.example.org",
    "http://localhost:*",
    "http://*.localhost:*",
    "file://",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
)

ALLOWED = (
    "https://app.example.com",
    "https://a.example.org",
    "https://a.b.example.org",
    "http://localhost",
    "http://localhost:3000",
    "http://localhost:65535",
    "http://tenant.localhost:5173",
    "http://a.b.localhost",
    "file://",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
)

REFUSED = (
    "https://example.org",
    "https://.example.org",
    "https://evilexample.org",
    "https://example.org.evil.com",
    "https://a.example.org.evil.com",
    "https://a.example.org:8443",
    "http://a.example.org",
    "https://evil.com/.example.org",
    "https://evil.com#.example.org",
    "https://evil.com?.example.org",
    "https://user@a.example.org",
    "https://a_b.example.org",
    "https://app.example.com:444",
    "https://app.example.com.evil.com",
    "https://appxexample.com",
    "http://app.example.com",
    "https://app.example.com/",
    "https://app.example.com\n",
    "https://localhost:3000",
    "http://localhost.evil.com",
    "http://localhost:3000.evil.com",
    "http://localhost:",
    "http://evil.com:3000",
    "http://notlocalhost:3000",
    "file:///etc/passwd",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnoo",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnopa",
    "null",
    "*",
    "",
)


def header(cors: Cors, origin: str | None, name: bytes) -> bytes | None:
    return dict(cors.headers(origin, "/api/usage/quota")).get(name)


@pytest.mark.parametrize("origin", ALLOWED)
def test_a_listed_origin_is_named_in_the_answer(origin: str) -> None:
    assert header(Cors(LISTED), origin, b"access-control-allow-origin") == origin.encode()


@pytest.mark.parametrize("origin", REFUSED)
def test_any_other_origin_gets_nothing_but_vary(origin: str) -> None:
    assert Cors(LISTED).headers(origin, "/") == [(b"vary", b"Origin")]
    assert Cors(LISTED).preflight(origin, "/", None) == [(b"vary", b"Origin")]


@pytest.mark.parametrize("origin", [*ALLOWED, *REFUSED, None])
def test_vary_is_always_there(origin: str | None) -> None:
    assert header(Cors(LISTED), origin, b"vary") == b"Origin"


def test_only_packaged_pages_go_without_credentials() -> None:
    cors = Cors(LISTED)
    with_credentials = [origin for origin in ALLOWED if header(cors, origin, b"access-control-allow-credentials")]
    assert with_credentials == [origin for origin in ALLOWED if origin != "file://"]


def test_any_extension_may_be_listed_for_development() -> None:
    cors = Cors(["chrome-extension://*"])
    assert header(cors, "chrome-extension://" + "a" * 32, b"access-control-allow-origin")
    assert not header(cors, "chrome-extension://" + "z" * 32, b"access-control-allow-origin")


def test_a_star_that_is_no_whole_label_matches_nothing() -> None:
    for listed in ("*", "https://*", "https://*example.com", "https://a.*.com", "https://app.*"):
        assert not header(Cors([listed]), "https://app.example.com", b"access-control-allow-origin")


def test_rows_are_added_to_the_settings_and_taken_away() -> None:
    cors = Cors(["https://app.example.com"])
    assert not header(cors, "https://row.example.com", b"access-control-allow-origin")
    cors.set_rows(["https://row.example.com"])
    assert header(cors, "https://row.example.com", b"access-control-allow-origin")
    cors.set_rows([])
    assert not header(cors, "https://row.example.com", b"access-control-allow-origin")
    assert header(cors, "https://app.example.com", b"access-control-allow-origin")


def test_an_open_path_answers_anybody_without_credentials_and_echoes_the_headers_asked_for() -> None:
    cors = Cors(LISTED, open_paths=("/open",))
    for origin in ("https://evil.com", LISTED[0]):
        headers = dict(cors.preflight(origin, "/open/door", b"X-Theirs"))
        assert headers[b"access-control-allow-origin"] == b"*"
        assert headers[b"access-control-allow-headers"] == b"X-Theirs"
        assert headers[b"vary"] == b"Origin"
        assert b"access-control-allow-credentials" not in headers
    assert dict(cors.preflight(LISTED[0], "/shut", b"X-Theirs"))[b"access-control-allow-headers"] != b"X-Theirs"


async def refuse(request: Request) -> Response:
    raise Conflict("No")


async def crash(request: Request) -> Response:
    raise LookupError("no")


async def answer(request: Request) -> Response:
    return json_response({})


ROUTES = (
    Route("GET", "/answer", anywhere, answer),
    Route("POST", "/refuse", at_primary, refuse),
    Route("GET", "/crash", anywhere, crash),
)


@pytest.mark.anyio
async def test_a_preflight_of_any_path_is_204_and_remembered_for_a_day() -> None:
    async with site(ROUTES, origins=LISTED) as (client, _):
        for path in ("/answer", "/refuse", "/unknown"):
            preflight = await client.options(
                path, headers={"Origin": LISTED[0], "Access-Control-Request-Method": "POST"}
            )
            assert preflight.status_code == 204
            assert preflight.content == b""
            headers = preflight.headers
            assert headers["access-control-max-age"] == str(MAX_AGE_SECONDS) == "86400"
            assert headers["access-control-allow-methods"] == "GET, POST, PUT, PATCH, DELETE, OPTIONS"
            allowed = {name.strip().lower() for name in headers["access-control-allow-headers"].split(",")}
            assert allowed >= {"authorization", "content-type", "idempotency-key", "x-api-key", "x-txid", "if-match"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/answer", 200),
        ("POST", "/refuse", 409),
        ("GET", "/crash", 500),
        ("GET", "/no", 404),
        ("PUT", "/answer", 405),
    ],
)
async def test_every_answer_can_be_read_by_a_listed_origin(method: str, path: str, status: int) -> None:
    async with site(ROUTES, origins=LISTED) as (client, _):
        listed = await client.request(method, path, headers={"Origin": LISTED[0]})
        stranger = await client.request(method, path, headers={"Origin": "https://evil.example"})
        no_browser = await client.request(method, path)
    assert listed.status_code == stranger.status_code == no_browser.status_code == status
    assert listed.headers["access-control-allow-origin"] == LISTED[0]
    exposed = {name.strip() for name in listed.headers["access-control-expose-headers"].split(",")}
    assert exposed >= {"ETag", "Link", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-Id", "X-Txid"}
    for other in (stranger, no_browser):
        assert not [name for name in other.headers if name.startswith("access-control")]
        assert other.headers["vary"] == "Origin"
