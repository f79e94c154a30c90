"""CORS: which origins may read our answers, from settings and from rows."""

import re
from collections.abc import Iterable
from functools import lru_cache

Headers = list[tuple[bytes, bytes]]

METHODS = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-API-Key, X-Admin-Key, "
    "X-Admin-Token, X-OpenRouter-Key, X-Chat-Key, X-Device-Id, X-Platform, X-Txid"
)
EXPOSED = (
    "ETag, Link, Retry-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, "
    "X-RateLimit-Reset, X-Chat-Key, X-Request-Id, X-Txid"
)
MAX_AGE_SECONDS = 86_400
ORIGINS_REMEMBERED = 1_024

VARY: Headers = [(b"vary", b"Origin")]
ANY: Headers = [
    (b"vary", b"Origin"),
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", EXPOSED.encode()),
]

_LABELS = r"(?:[A-Za-z0-9-]+\.)+"
_PORT = r"(?::\d{1,5})?"


def pattern(origin: str) -> re.Pattern[str]:
    """What a listed origin matches. A star stands for whole labels, or for any port; nothing else."""
    if origin == "chrome-extension://*":
        return re.compile(r"chrome-extension://[a-p]{32}")
    text = re.escape(origin.rstrip("/") if origin != "file://" else origin)
    text = text.replace(r"://\*\.", f"://{_LABELS}").replace(r":\*", _PORT)
    return re.compile(text)


class Cors:
    """The headers of an answer to `origin`. `set_rows` replaces the origins that rows list.

    Under `open_paths` any origin may call, without credentials: SDKs do from their customers' pages.
    """

    def __init__(self, listed: Iterable[str], open_paths: Iterable[str] = ()) -> None:
        self._settings = list(listed)
        self._open = tuple(open_paths)
        self._remembered = lru_cache(ORIGINS_REMEMBERED)(self._headers)
        self.set_rows([])

    def set_rows(self, origins: Iterable[str]) -> None:
        self._patterns = [pattern(origin) for origin in dict.fromkeys([*self._settings, *origins])]
        self._remembered.cache_clear()

    def headers(self, origin: str | None, path: str) -> Headers:
        """What an answer carries: `Vary` always, the rest for listed origins, or for any on an open path."""
        if origin is None:
            return VARY
        return ANY if path.startswith(self._open) else self._remembered(origin)

    def preflight(self, origin: str | None, path: str, asked: bytes | None) -> Headers:
        """The same for a preflight; an open path allows whatever headers were `asked` for."""
        allowed = self.headers(origin, path)
        if allowed is VARY:
            return VARY
        headers = asked if asked and allowed is ANY else REQUEST_HEADERS.encode()
        return [
            *allowed,
            (b"access-control-allow-methods", METHODS.encode()),
            (b"access-control-allow-headers", headers),
            (b"access-control-max-age", str(MAX_AGE_SECONDS).encode()),
        ]

    def _headers(self, origin: str) -> Headers:
        if not any(listed.fullmatch(origin) for listed in self._patterns):
            return VARY
        headers = [
            (b"vary", b"Origin"),
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", EXPOSED.encode()),
        ]
        # A packaged page shares its origin with every other file, so it never gets cookies.
        if origin != "file://":
            headers.append((b"access-control-allow-credentials", b"true"))
        return headers
