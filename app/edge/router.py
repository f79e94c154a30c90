"""The router: a table of routes, found by one dictionary look-up where the path holds no parameter."""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from app.edge.placement import Placement
from app.edge.upgrade import WEBSOCKET, Handshake
from app.errors import Invalid, MethodNotAllowed, NotFound

if TYPE_CHECKING:
    from app.edge.placer import Placer

Endpoint = Callable[[Request], Awaitable[Response]]


class Route(NamedTuple):
    """One line of the contents page. The method of a route that answers upgrades is WEBSOCKET."""

    method: str
    path: str
    placement: Placement
    endpoint: Endpoint

    @property
    def verb(self) -> str:
        """The method that a client sends: an upgrade is asked for with GET."""
        return "GET" if self.method == WEBSOCKET else self.method


def respond(scope: Scope, receive: Receive, send: Send) -> Awaitable[Response]:
    """What the endpoint of the route that was found says."""
    request_type = Handshake if scope["type"] == "websocket" else Request
    route: Route = scope["route"]
    return route.endpoint(request_type(scope, receive, send))


class Router:
    """Answers with the endpoint of a path and method; NotFound and MethodNotAllowed otherwise."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[str, dict[str, Route]] = {}
        patterns: dict[str, dict[str, Route]] = {}
        for route in routes:
            table = patterns if "{" in route.path else self._fixed
            table.setdefault(route.path, {})[route.method] = route
        self._patterns = [(_pattern(path), methods) for path, methods in patterns.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._find(scope)
        scope["route"] = route
        placer: Placer | None = scope["state"].get("placer")
        if placer is None:
            await (await respond(scope, receive, send))(scope, receive, send)
        else:
            await placer.place(route.placement, respond, scope, receive, send)

    def _find(self, scope: Scope) -> Route:
        path = scope["path"]
        methods = self._fixed.get(path)
        if methods is None:
            methods = self._match_pattern(scope, path)
        method = scope["method"]
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            if method == WEBSOCKET or (method in ("GET", "HEAD") and WEBSOCKET in methods):
                raise Invalid("WebSocket required or invalid endpoint")
            verbs = {known.verb for known in methods.values()}
            allowed = sorted(verbs | ({"HEAD"} if "GET" in verbs else set()) | {"OPTIONS"})
            raise MethodNotAllowed("Method not allowed", headers={"Allow": ", ".join(allowed)})
        return route

    def _match_pattern(self, scope: Scope, path: str) -> dict[str, Route]:
        for pattern, methods in self._patterns:
            match = pattern.match(path)
            if match is not None:
                scope["path_params"] = match.groupdict()
                return methods
        raise NotFound("Not found", certain=True)


def _pattern(path: str) -> re.Pattern[str]:
    # A key is any text, so the rest of a path may hold line ends too.
    return re.compile(compile_path(path)[0].pattern, re.DOTALL)
