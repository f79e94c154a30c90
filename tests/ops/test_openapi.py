"""GET /openapi.json: every route is described, and the description is OpenAPI 3.1."""

import inspect
import re
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from app.edge.openapi import operation, operation_of
from app.edge.placement import anywhere, at_primary
from app.edge.router import Route
from app.errors import CODES
from app.ops import document
from app.routes import ROUTES
from tests.conftest import Server

EVERY_ROUTE = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return document.build(ROUTES)


@EVERY_ROUTE
def test_an_endpoint_says_what_it_takes_and_gives(route: Route) -> None:
    assert operation_of(route.endpoint) is not None
    assert inspect.getdoc(route.endpoint)


@EVERY_ROUTE
def test_a_mark_names_the_refusals_that_follow_from_it(route: Route) -> None:
    mark = operation_of(route.endpoint)
    assert mark is not None
    refusals = {*mark.errors, *mark.also}
    if mark.credentials:
        assert 401 in refusals
    if mark.body is not None:
        assert {400, 413} <= refusals
    assert set(mark.errors) <= set(CODES.values())


def test_every_route_stands_in_the_document_with_its_room_and_placement(described: dict[str, Any]) -> None:
    # An upgrade is a GET too, and stands in place of the GET that only asks for one.
    for route in {(route.path, route.verb): route for route in ROUTES}.values():
        found = described["paths"][re.sub(r":\w+}", "}", route.path)][route.verb.lower()]
        assert found["tags"] == [route.endpoint.__module__.split(".")[1]]
        assert found["x-placement"] == route.placement.value
    assert len(ROUTES) == sum(map(len, described["paths"].values()))


def test_an_address_of_sockets_says_what_it_tells_whoever_only_gets_it(described: dict[str, Any]) -> None:
    assert {"101", "400"} <= described["paths"]["/sync/{id}"]["get"]["responses"].keys()


def test_a_tag_says_what_its_room_says(described: dict[str, Any]) -> None:
    assert {tag["name"] for tag in described["tags"]} >= {"usage", "ops"}
    ops = next(tag for tag in described["tags"] if tag["name"] == "ops")
    assert ops["description"].startswith("What operators look at")


def test_the_document_follows_the_meta_schema(described: dict[str, Any]) -> None:
    found = [error.message for error in jsonschema_rs.Draft202012Validator(OPENAPI_31).iter_errors(described)]
    assert found == []


def test_every_schema_is_json_schema_and_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    for schema in described["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    references = re.findall(r'"\$ref":"#/([^"]+)"', msgspec.json.encode(described).decode())
    assert references
    for reference in references:
        node = described
        for step in reference.split("/"):
            node = node[step]


def test_operation_ids_are_unique(described: dict[str, Any]) -> None:
    ids = [node["operationId"] for methods in described["paths"].values() for node in methods.values()]
    assert len(ids) == len(set(ids))


def test_an_endpoint_of_two_routes_has_two_ids() -> None:
    @operation()
    async def answer(request: Any) -> Any:
        """Anything."""

    answer.__module__ = "app.usage.routes"
    described = document.build([Route("GET", "/a", anywhere, answer), Route("GET", "/b", anywhere, answer)])
    ids = [described["paths"][path]["get"]["operationId"] for path in ("/a", "/b")]
    assert ids == ["usage_answer", "usage_answer_2"]


def test_a_route_without_a_mark_is_named() -> None:
    async def silent(request: Any) -> Any:
        """Nothing is said of it."""

    with pytest.raises(LookupError, match="POST /silent"):
        document.build([Route("POST", "/silent", at_primary, silent)])


def test_the_document_knows_a_body_in_each_media_type_and_a_parameter_of_a_path(described: dict[str, Any]) -> None:
    ingest = described["paths"]["/api/usage/events"]["post"]
    assert set(ingest["requestBody"]["content"]) >= {"application/json", "application/x-ndjson"}
    assert {"$ref": "#/components/parameters/IdempotencyKey"} in ingest["parameters"]
    assert ingest["responses"]["200"]["headers"]["X-Txid"] == {"$ref": "#/components/headers/X-Txid"}
    settle = described["paths"]["/api/usage/reservations/{id}/settle"]["post"]
    assert settle["parameters"][0] == {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
    }


def test_examples_have_the_shape_that_they_are_examples_of(described: dict[str, Any]) -> None:
    shown = [
        content
        for methods in described["paths"].values()
        for node in methods.values()
        for content in node.get("requestBody", {}).get("content", {}).values()
        if "example" in content
    ]
    assert shown
    for content in shown:
        whole = {**content["schema"], "components": described["components"]}
        jsonschema_rs.Draft202012Validator(whole).validate(content["example"])


def test_a_refusal_has_the_shape_that_is_described(server: Server, described: dict[str, Any]) -> None:
    with server.client(Authorization="Bearer mc_live_wrong") as client:
        refused = client.get("/api/usage/quota")
    assert refused.status_code == 401
    reference = described["paths"]["/api/usage/quota"]["get"]["responses"]["401"]["$ref"].rpartition("/")[2]
    schema = described["components"]["responses"][reference]["content"]["application/json"]["schema"]
    jsonschema_rs.Draft202012Validator({**schema, "components": described["components"]}).validate(refused.json())


def test_the_document_is_served_with_a_strong_etag(server: Server, described: dict[str, Any]) -> None:
    with server.client() as client:
        first = client.get("/openapi.json")
        held = client.get("/openapi.json", headers={"If-None-Match": first.headers["etag"]})
        other = client.get("/openapi.json", headers={"If-None-Match": '"other"'})
    assert first.headers["content-type"] == "application/json"
    assert first.content == msgspec.json.encode(described)
    assert not first.headers["etag"].startswith("W/")
    assert (held.status_code, held.content) == (304, b"")
    assert other.content == first.content
