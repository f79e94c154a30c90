"""GET /docs: a page for people that needs nothing from another host."""

import re
from html.parser import HTMLParser

import pytest

from app.ops import curl, document, reference
from app.ops.shape import Shapes, prose
from app.routes import ROUTES
from tests.conftest import Server

VOID = {"meta", "link", "input", "wbr"}


class Page(HTMLParser):
    """What a browser would see: ids, links, what is loaded; complains of tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a":
            self.links.append(given["href"])
        elif "src" in given or "href" in given:
            self.loaded.append(given.get("src") or given["href"])
        self.inline += [name for name in given if name.startswith("on") or name == "style"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(reference.render(document.build(ROUTES)))


def test_every_tag_is_closed_and_every_id_is_one(page: Page) -> None:
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def test_every_operation_has_its_place_and_every_link_leads_to_one(page: Page) -> None:
    described = document.build(ROUTES)
    operations = [node["operationId"] for methods in described["paths"].values() for node in methods.values()]
    assert set(operations) <= set(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_inline(page: Page) -> None:
    assert page.loaded
    assert all(re.match(r"/docs/|data:,$", source) for source in page.loaded)
    assert page.inline == []


def test_the_page_and_what_it_loads_are_served_with_a_strict_policy(server: Server, page: Page) -> None:
    with server.client() as client:
        answer = client.get("/docs")
        held = client.get("/docs", headers={"If-None-Match": answer.headers["etag"]})
        parts = [client.get(source) for source in page.loaded if source.startswith("/")]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self';")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert held.status_code == 304
    assert [part.status_code for part in parts] == [200, 200]
    assert {part.headers["content-type"].partition(";")[0] for part in parts} == {"text/css", "text/javascript"}
    assert all("http" not in part.text for part in parts)


def test_a_curl_line_carries_credential_body_and_parameters() -> None:
    described = document.build(ROUTES)
    path = "/api/usage/reservations/{id}/settle"
    line = curl.render("POST", path, described["paths"][path]["post"], described["components"]["schemas"])
    assert line.startswith('curl -X POST "http://localhost:8787/api/usage/reservations/$id/settle" \\\n')
    assert '-H "X-API-Key: $KEY"' in line
    assert '-d \'{"totalTokens": 1200' in line


def test_a_curl_line_without_an_example_makes_up_what_is_required() -> None:
    schemas = {"Hold": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 3}}}}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Hold"}}}}
    line = curl.render("PUT", "/holds", {"requestBody": body, "parameters": []}, schemas)
    assert line.endswith("-d '{\"n\": 3}'")


def test_a_field_says_its_type_and_its_limits() -> None:
    schemas = {
        "Item": {
            "title": "Item",
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "minLength": 3, "maxLength": 100, "description": "As `shown`, <b>."},
                "size": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "default": None},
                "inner": {"$ref": "#/components/schemas/Item"},
            },
        }
    }
    text = Shapes(schemas).fields({"type": "array", "items": {"$ref": "#/components/schemas/Item"}})
    assert '<span class="required">required</span><span class="fact">3 to 100 characters</span>' in text
    assert "As <code>shown</code>, &lt;b&gt;." in text
    assert '<span class="type">integer</span><span class="fact">at least 1</span>' in text
    assert text.count("<details>") == 3  # a shape that holds itself ends


def test_prose_is_escaped() -> None:
    assert prose("a < `b > c`") == "a &lt; <code>b &gt; c</code>"
