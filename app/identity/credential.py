"""Credentials: what a request presents, found in its headers in one pass."""

import hmac
from typing import NamedTuple

from starlette.requests import Request

KEY_PREFIXES = ("mc_", "ak_")
DELEGATE_PREFIX = "del_"

_AUTHORIZATION, _API_KEY = b"authorization", b"x-api-key"
_ADMIN_TOKEN, _ADMIN_KEY = b"x-admin-token", b"x-admin-key"
_NAMES = frozenset((_AUTHORIZATION, _API_KEY, _ADMIN_TOKEN, _ADMIN_KEY))


class Presented(NamedTuple):
    """`bearer` is the Bearer or the X-API-Key; an Authorization of another kind counts as a wrong one.

    `delegate` is what follows `ApiKey` in an Authorization; beside it `bearer` is the whole header.
    """

    bearer: str | None
    admin_token: str | None
    admin_key: str | None
    delegate: str | None = None

    @property
    def claims_admin(self) -> bool:
        """Whether there is an admin header, right or wrong."""
        return self.admin_token is not None or self.admin_key is not None

    @property
    def is_empty(self) -> bool:
        return self.bearer is None and not self.claims_admin


def read_presented(request: Request) -> Presented:
    found = {name: value for name, value in request.scope["headers"] if name in _NAMES}
    header = _text(found.get(_AUTHORIZATION))
    bearer = _text(found.get(_API_KEY)) if header is None else _bearer(header)
    delegate = None if header is None else _delegate(header)
    return Presented(bearer, _text(found.get(_ADMIN_TOKEN)), _text(found.get(_ADMIN_KEY)), delegate)


def is_key(credential: str) -> bool:
    return credential.startswith(KEY_PREFIXES)


def is_delegate(credential: str) -> bool:
    """A delegate's, or an Authorization that says so of itself."""
    return credential.startswith(DELEGATE_PREFIX) or _delegate(credential) is not None


def is_jwt(credential: str) -> bool:
    return credential.startswith("ey") and credential.count(".") == 2


def is_same(given: str | None, secret: str | None) -> bool:
    """Compared in constant time; what is not set matches nothing."""
    if not given or not secret:
        return False
    return hmac.compare_digest(given.encode(), secret.encode())


def _bearer(header: str) -> str:
    kind, _, value = header.partition(" ")
    return value.strip() or header if kind.lower() == "bearer" else header


def _delegate(header: str) -> str | None:
    kind, _, value = header.partition(" ")
    return value.strip() if kind.lower() == "apikey" else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
