"""The description of the interface: a document for programs, and a page for people."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.edge.http import encode_json
from app.edge.openapi import operation
from app.edge.router import Route
from app.ops import document, reference
from app.ops.asset import Asset, make_asset, read_asset

PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


class Description:
    """Of these routes; each part is made when it is first asked for, and once."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)

    @cached_property
    def document(self) -> dict[str, Any]:
        return document.build(self._routes)

    @cached_property
    def json(self) -> Asset:
        return make_asset(encode_json(self.document), "application/json")

    @cached_property
    def page(self) -> Asset:
        return make_asset(reference.render(self.document).encode(), "text/html")


def description_of(request: Request) -> Description:
    description: Description = request.scope["state"]["description"]
    return description


@operation(cached=True)
async def show_document(request: Request) -> Response:
    """This interface as an OpenAPI 3.1 document."""
    return description_of(request).json.answer(request)


@operation(answer=str, answer_media="text/html", cached=True)
async def show_page(request: Request) -> Response:
    """This interface as a page to read. It needs nothing from another host."""
    return description_of(request).page.answer(request, PAGE_HEADERS)


@operation(answer=str, answer_media="text/css", cached=True)
async def show_style(request: Request) -> Response:
    """The style sheet of the page."""
    return read_asset("docs.css", "text/css").answer(request)


@operation(answer=str, answer_media="text/javascript", cached=True)
async def show_script(request: Request) -> Response:
    """The script of the page: a filter, and buttons that copy."""
    return read_asset("docs.js", "text/javascript").answer(request)
