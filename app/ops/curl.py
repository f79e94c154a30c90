"""A curl line: an operation as one can try it in a shell, secrets and ids in variables."""

import json
import shlex
from typing import Any

from app.edge.openapi import ADMIN, API_KEY, BEARER, DELEGATE

Node = dict[str, Any]

# Where a development server listens; the page's script puts its own address in its place.
ORIGIN = "http://localhost:8787"
HEADERS = {
    BEARER: '-H "Authorization: Bearer $TOKEN"',
    API_KEY: '-H "X-API-Key: $KEY"',
    ADMIN: '-H "X-Admin-Token: $ADMIN_TOKEN"',
    DELEGATE: '-H "Authorization: ApiKey $DELEGATE:$SECRET"',
}
DEPTH = 3


def render(method: str, path: str, operation: Node, schemas: Node) -> str:
    """The line, broken where it grows long."""
    parts = ["curl" if method == "GET" else f"curl -X {method}", f'"{ORIGIN}{_target(path, operation)}"']
    schemes = [scheme for alternative in operation.get("security", ()) for scheme in alternative]
    parts += [HEADERS[schemes[0]]] if schemes else []
    content = operation.get("requestBody", {}).get("content", {})
    if content:
        media = next(iter(content))
        body = content[media].get("example") or sample(content[media]["schema"], schemas)
        parts += [f"-H 'Content-Type: {media}'", f"-d {_quote(body)}"]
    return parts[0] + " " + " \\\n  ".join(parts[1:])


def _target(path: str, operation: Node) -> str:
    target = path.replace("{", "$").replace("}", "")
    needed = [
        parameter["name"]
        for parameter in operation.get("parameters", ())
        if parameter.get("in") == "query" and parameter.get("required")
    ]
    return target + ("?" + "&".join(f"{name}=${name}" for name in needed) if needed else "")


def sample(schema: Node, schemas: Node, depth: int = DEPTH) -> Any:
    """A value of this shape, as short as it may be."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    for known in ("example", "const", "default"):
        if schema.get(known) is not None:
            return schema[known]
    if "enum" in schema:
        return schema["enum"][0]
    options = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if options:
        return sample(options[0], schemas, depth)
    return _sample_of_type(schema, schemas, depth)


def _sample_of_type(schema: Node, schemas: Node, depth: int) -> Any:
    kind = schema.get("type")
    if kind == "object":
        fields = schema.get("properties", {})
        return {name: sample(fields[name], schemas, depth - 1) for name in schema.get("required", ())} if depth else {}
    if kind == "array":
        return [sample(schema["items"], schemas, depth - 1)] if depth and schema.get("minItems") else []
    if kind in ("integer", "number"):
        return schema.get("minimum", 1) or 1
    return {"string": "…", "boolean": True}.get(str(kind))


def _quote(body: Any) -> str:
    return shlex.quote(body if isinstance(body, str) else json.dumps(body, ensure_ascii=False))
