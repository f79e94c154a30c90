"""An asset: bytes that stay the same while the process runs, answered with a strong ETag."""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from app.edge.http import matches_etag

FOLDER = Path(__file__).with_name("assets")


class Asset(NamedTuple):
    """Asked for again each time it is shown, so that a deploy is seen at once."""

    body: bytes
    media: str
    etag: str

    def answer(self, request: Request, more: Mapping[str, str] | None = None) -> Response:
        """The bytes, or 304 where the caller holds them already."""
        headers = {
            "ETag": self.etag,
            "Cache-Control": "public, no-cache",
            "X-Content-Type-Options": "nosniff",
            **(more or {}),
        }
        held = request.headers.get("if-none-match")
        if held is not None and matches_etag(held, self.etag):
            return Response(None, 304, headers)
        return Response(self.body, 200, headers, self.media)


def make_asset(body: bytes, media: str) -> Asset:
    return Asset(body, media, f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"')


@cache
def read_asset(name: str, media: str) -> Asset:
    """A file of the assets folder, read once."""
    return make_asset((FOLDER / name).read_bytes(), media)
