"""The document: OpenAPI 3.1 of every route, made of what is said beside its endpoint."""

import inspect
import re
import sys
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

import app
from app.edge.openapi import ADMIN, API_KEY, BEARER, DELEGATE, Operation, Query, operation_of
from app.edge.placement import Place, at_primary
from app.edge.router import Route
from app.errors import CODES

# A JSON object, where its keys are OpenAPI's.
Node = dict[str, Any]

OPENAPI = "3.1.0"
SCHEMAS = "#/components/schemas/"
TITLE = "litehouse"
SUMMARY = "The backend of an AI app in one process."
DESCRIPTION = """\
JSON in, JSON out, UTF-8. Every answer carries `X-Request-Id`; name it when you report a fault.

A write answers after its commit, with `X-Txid`: send it back and you read your own write in any region. \
A read runs anywhere, a write at the primary; you need not care which machine you reached.

Calls are limited by plan: `RateLimit`, `RateLimit-Policy` and the legacy `X-RateLimit-*` headers say how \
much is left, and a 429 says when to come back."""

SECURITY: Node = {
    BEARER: {
        "type": "http",
        "scheme": "bearer",
        "description": "A Clerk session token, or an API key.",
    },
    API_KEY: {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key, narrowed by its scopes. It may come as a Bearer too.",
    },
    ADMIN: {
        "type": "apiKey",
        "in": "header",
        "name": "X-Admin-Token",
        "description": "The operator's token. `X-Admin-Key` takes it too.",
    },
    DELEGATE: {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "A delegate's, written `ApiKey del_…:sec_…`. It opens the instances that were granted to it.",
    },
}
ERROR: Node = {
    "title": "Error",
    "description": "Why a request was refused. A code may add fields of its own.",
    "type": "object",
    "properties": {
        "error": {"type": "string", "description": "A sentence, always the same for the same refusal."},
        "message": {"type": "string"},
        "code": {"type": "string", "enum": sorted(CODES)},
        "requestId": {"type": "string", "description": "The same as `X-Request-Id`."},
        "retryAfter": {"type": "integer", "minimum": 0, "description": "Seconds, with 429 and 503."},
        "limit": {"type": "integer", "description": "The limit that was passed."},
        "actual": {"type": "integer", "description": "What was there instead."},
    },
    "required": ["error", "message", "code", "requestId"],
}
HEADERS: Node = {
    "X-Txid": {"description": "The position of this write, opaque.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
    "ETag": {"description": "Strong; send it back as `If-None-Match`.", "schema": {"type": "string"}},
}
IDEMPOTENCY: Node = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The first answer to a key is given again for 24 hours; with another body it is a 422.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
RETRIED = (429, 503)

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Said(NamedTuple):
    """A route with its mark, and the schemas of its shapes."""

    route: Route
    operation: Operation
    body: Node
    answers: dict[int, Node]


def build(routes: Iterable[Route]) -> Node:
    """The whole document. LookupError names a route whose endpoint has no `operation` mark."""
    said, schemas = _read(list(routes))
    return {
        "openapi": OPENAPI,
        "info": {"title": TITLE, "version": app.__version__, "summary": SUMMARY, "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": [_tag(room) for room in dict.fromkeys(room_of(one.route) for one in said)],
        "paths": _paths(said),
        "components": {
            "schemas": {"Error": ERROR, **schemas},
            "responses": {_name(code): _error_response(code, status) for code, status in CODES.items()},
            "parameters": {"IdempotencyKey": IDEMPOTENCY},
            "headers": HEADERS,
            "securitySchemes": SECURITY,
        },
    }


def room_of(route: Route) -> str:
    """The room that answers a route: `usage` for an endpoint in `app.usage.routes`."""
    return route.endpoint.__module__.split(".")[1]


def _read(routes: list[Route]) -> tuple[list[Said], Node]:
    marked = [(route, _mark(route)) for route in routes]
    shapes = [shape for _, mark in marked for shape in (mark.body, mark.answer, *mark.also.values())]
    found, components = msgspec.json.schema_components(shapes, ref_template=SCHEMAS + "{name}", schema_hook=_schema_of)
    schemas = iter(found)
    said = []
    for route, mark in marked:
        body = next(schemas)
        said.append(Said(route, mark, body, {status: next(schemas) for status in (mark.status, *mark.also)}))
    return said, components


def _schema_of(kind: type) -> Node:
    """Of what is passed on as it came."""
    if kind not in (msgspec.Raw, object):
        raise NotImplementedError
    return {"description": "Any JSON."}


def _mark(route: Route) -> Operation:
    mark = operation_of(route.endpoint)
    if mark is None:
        raise LookupError(f"{route.method} {route.path} has no operation mark")
    return mark


def _tag(room: str) -> Node:
    return {"name": room, "description": inspect.getdoc(sys.modules[f"app.{room}"]) or ""}


def _paths(said: list[Said]) -> Node:
    paths: Node = {}
    taken: set[str] = set()
    for one in said:
        path = _PARAMETER.sub(r"{\1}", one.route.path)
        paths.setdefault(path, {})[one.route.verb.lower()] = _operation(one, _operation_id(one.route, taken))
    return paths


def _operation_id(route: Route, taken: set[str]) -> str:
    """Room, noun and function; an endpoint of several routes is numbered from the second on."""
    noun = route.endpoint.__module__.rpartition(".")[2].removesuffix("routes").removesuffix("_")
    name = first = "_".join(part for part in (room_of(route), noun, route.endpoint.__name__) if part)
    number = 2
    while name in taken:
        name, number = f"{first}_{number}", number + 1
    taken.add(name)
    return name


def _operation(said: Said, operation_id: str) -> Node:
    mark = said.operation
    summary, description = _docstring(said.route)
    node: Node = {
        "operationId": operation_id,
        "tags": [room_of(said.route)],
        "summary": summary,
        "description": description,
        "parameters": _parameters(said),
        "requestBody": _request_body(said) if mark.body is not None else None,
        "responses": _responses(said),
        "security": [{scheme: []} for scheme in mark.credentials],
        "x-placement": said.route.placement.value,
    }
    return {name: value for name, value in node.items() if value or name == "responses"}


def _docstring(route: Route) -> tuple[str, str]:
    """The first sentence, and what follows it."""
    parts = _SENTENCE.split(inspect.getdoc(route.endpoint) or "", maxsplit=1)
    return " ".join(parts[0].split()).removesuffix("."), parts[1] if len(parts) > 1 else ""


def _parameters(said: Said) -> list[Node]:
    path: list[Node] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(said.route.path)
    ]
    keyed = [{"$ref": "#/components/parameters/IdempotencyKey"}] if said.operation.idempotent else []
    return path + [_query(parameter) for parameter in said.operation.query] + keyed


def _query(parameter: Query) -> Node:
    node: Node = {"name": parameter.name, "in": "query", "schema": parameter.schema}
    if parameter.required:
        node["required"] = True
    if parameter.description:
        node["description"] = parameter.description
    return node


def _request_body(said: Said) -> Node:
    return {
        "required": True,
        "content": {media: _content(media, said.body, said.operation.example) for media in said.operation.body_media},
    }


def _content(media: str, schema: Node, example: Any = None) -> Node:
    """A shape where the media type is JSON; text where it is not."""
    if media != "application/json" and not media.endswith("+json"):
        return {"schema": {"type": "string"}}
    # A body without an example of its own media type (a CloudEvent) would be shown a wrong one.
    shown = example if media == "application/json" else None
    return {"schema": schema} if shown is None else {"schema": schema, "example": shown}


def _responses(said: Said) -> Node:
    mark = said.operation
    responses: Node = {}
    for status, schema in said.answers.items():
        responses[str(status)] = {"description": HTTPStatus(status).phrase}
        if schema != {"type": "null"}:
            responses[str(status)]["content"] = {mark.answer_media: _content(mark.answer_media, schema)}
    headers = [*(["ETag"] if mark.cached else []), *(["X-Txid"] if _writes(said.route) else [])]
    if headers:
        responses[str(mark.status)]["headers"] = {name: _header(name) for name in headers}
    if mark.cached:
        responses["304"] = {"description": HTTPStatus(304).phrase}
    codes = {status: code for code, status in CODES.items()}
    for status in mark.errors:
        responses.setdefault(str(status), {"$ref": f"#/components/responses/{_name(codes[status])}"})
    return dict(sorted(responses.items()))


def _writes(route: Route) -> bool:
    return route.placement == at_primary or (route.placement.place is Place.AT_HOME and route.verb != "GET")


def _error_response(code: str, status: int) -> Node:
    narrowed = {"allOf": [{"$ref": f"{SCHEMAS}Error"}, {"properties": {"code": {"const": code}}}]}
    response: Node = {
        "description": HTTPStatus(status).phrase,
        "content": {"application/json": {"schema": narrowed}},
    }
    if status in RETRIED:
        response["headers"] = {"Retry-After": _header("Retry-After")}
    return response


def _header(name: str) -> Node:
    return {"$ref": f"#/components/headers/{name}"}


def _name(code: str) -> str:
    return code.title().replace("_", "")
