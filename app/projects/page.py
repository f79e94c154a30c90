"""A page: how much of a list is asked for, and where the next one begins.

Without a `limit` a list is whole, up to ROWS: clients look an id up in one answer.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from app.edge.http import cached_response, find_query, query_int
from app.edge.openapi import Query
from app.errors import Invalid

ROWS = 1_000
# Where a list begins that nothing was read of: behind whatever SQLite can number.
_BEGINNING = (1 << 63) - 1
_CURSOR = re.compile(r"(\d{1,18})-(\d{1,18})")
PARAMETERS = (
    Query("limit", {"type": "integer", "minimum": 1, "maximum": ROWS, "default": ROWS}),
    Query("cursor", {"type": "string"}, "From the `Link` of the page before."),
)


class Listed(Protocol):
    """A row of a list, newest first; its position is where the list goes on behind it."""

    @property
    def position(self) -> int: ...

    @property
    def sorted_by(self) -> int: ...


class Page(NamedTuple):
    """`limit` rows whose `(sorted_by, position)` is below the cursor's; lists by position alone are sorted by 0."""

    limit: int
    sorted_by: int
    position: int


def read_page(request: Request) -> Page:
    limit = query_int(request, "limit", ROWS, least=1, most=ROWS)
    text = find_query(request, "cursor")
    if text is None:
        return Page(limit, _BEGINNING, _BEGINNING)
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise Invalid("cursor: expected the one of an earlier answer")
    return Page(limit, int(match[1]), int(match[2]))


def page_response(request: Request, page: Page, rows: Sequence[Listed], answer: Any) -> Response:
    """`answer` holds at most `limit` of `rows`; where there are more, `Link` leads to the next page."""
    response = cached_response(request, answer)
    if len(rows) > page.limit:
        last = rows[page.limit - 1]
        kept = {name: value for name, value in request.query_params.items() if name not in ("limit", "cursor")}
        query = urlencode(kept | {"limit": page.limit, "cursor": f"{last.sorted_by}-{last.position}"})
        response.raw_headers.append((b"link", f'<{request.url.path}?{query}>; rel="next"'.encode()))
    return response
