"""The front: what every request gets. An id, CORS, one place for errors, a log line, a measurement."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.edge.cors import Cors, Headers
from app.edge.database import written_position
from app.edge.http import json_response
from app.edge.request_log import RequestLog
from app.edge.upgrade import WEBSOCKET
from app.errors import AppError, Unavailable, body

HANDSHAKE_SECONDS = 8.0

log = structlog.get_logger("http")

# Told (route path or None, method, status, seconds) of each answer.
Observer = Callable[[str | None, str, int, float], None]
# Turns a refusal into an answer; a room with another error shape hands in its own.
Renderer = Callable[[Scope, AppError], Response]


def render_error(scope: Scope, error: AppError) -> Response:
    # Who asks and when decides what is refused, and a 404 without a word on it may be kept (RFC 9111, 4.2.2).
    headers = {"Cache-Control": "no-store", **error.headers}
    return json_response(body(error, scope["request_id"]), error.status, headers)


class Front:
    """Wraps the router. Nothing that happens behind it reaches a client but as an answer."""

    def __init__(
        self,
        app: ASGIApp,
        cors: Cors,
        requests: RequestLog,
        observe: Observer,
        render: Renderer = render_error,
    ) -> None:
        self._app = app
        self._cors = cors
        self._log = requests
        self._observe = observe
        self._render = render
        self._boot = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            scope["method"] = WEBSOCKET
        begun = time.perf_counter()
        if "request_id" not in scope:
            scope["request_id"] = f"{self._boot}-{next(self._numbers):x}"
        written_position.set(None)
        origin = _header(scope, b"origin")
        answer = _Answer(scope, send, self._cors.headers(_text(origin), scope["path"]))
        try:
            if scope["method"] == "OPTIONS":
                await self._preflight(_text(origin), scope, receive, send)
            elif scope["method"] == WEBSOCKET:
                await self._shake_hands(scope, receive, answer.send)
            else:
                await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            answer.status = 499
        except AppError as error:
            await answer.fail(self._render(scope, error), receive)
        except Exception:
            log.exception("unexpected", request_id=scope["request_id"], path=scope["path"])
            await answer.fail(self._render(scope, AppError("Internal server error")), receive)
        self._tell(scope, answer.status, time.perf_counter() - begun)

    async def _shake_hands(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS) as limit:
                await self._app(scope, receive, send)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise Unavailable(f"The handshake took more than {HANDSHAKE_SECONDS:g} s") from error

    async def _preflight(self, origin: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        response = Response(None, 204)
        asked = _header(scope, b"access-control-request-headers")
        response.raw_headers.extend(self._cors.preflight(origin, scope["path"], asked))
        await response(scope, receive, send)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        self._observe(route.path if route else None, scope["method"], status, seconds)
        self._log.note(scope["method"], scope["path"], status, seconds, scope["request_id"])


class _Answer:
    """One answer on its way out: adds the headers that all answers carry, remembers the status."""

    __slots__ = ("_cors", "_scope", "_send", "started", "status")

    def __init__(self, scope: Scope, send: Send, cors: Headers) -> None:
        self._scope = scope
        self._send = send
        self._cors = cors
        self.status = 204
        self.started = False

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            message["headers"].append((b"x-request-id", self._scope["request_id"].encode()))
            # It may be refused still, and an answer goes out then.
            await self._send(message)
            self.started = True
            self.status = 101
            return
        if kind == "http.response.start" or kind == "websocket.http.response.start":
            self.started = True
            self.status = message["status"]
            headers = message["headers"]
            headers += self._cors
            headers += self._scope.get("rate_headers", ())
            headers.append((b"x-request-id", self._scope["request_id"].encode()))
            position = written_position.get()
            if position is not None:
                headers.append((b"x-txid", str(position).encode()))
        await self._send(message)

    async def fail(self, response: Response, receive: Receive) -> None:
        """Answer with a refusal, unless an answer is on its way already: then the connection just ends."""
        if not self.started:
            await response(self._scope, receive, self.send)


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            held: bytes = value
            return held
    return None


def _text(header: bytes | None) -> str | None:
    return header.decode("latin-1") if header else None
