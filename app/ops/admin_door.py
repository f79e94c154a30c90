"""The door of the operator's page: the admin token once, then a signed cookie that ends by itself."""

import hashlib
import hmac

from starlette.requests import Request
from starlette.responses import Response

from app.edge.clock import now_ms
from app.edge.http import settings_of
from app.errors import Forbidden, Unauthenticated
from app.identity.authenticator import authenticator_of
from app.identity.credential import is_same
from app.identity.door import WITHOUT_CREDENTIAL, Door

COOKIE, PATH = "admin", "/admin"
SESSION_SECONDS = 12 * 3_600
DIGITS = 15
# Its rate is what slows down who guesses.
ADMIN_PAGE = Door("admin page", "Unauthorized", "Unauthorized", "Unauthorized", WITHOUT_CREDENTIAL, dev_user=False)


def open_door(request: Request, token: str) -> bool:
    """Whether `token` is the admin token. Forbidden from another site's form, RateLimited."""
    authenticator_of(request).limit_address(request, ADMIN_PAGE)
    if "origin" in request.headers:
        require_own_origin(request)
    return is_same(token, settings_of(request).admin_token)


def is_inside(request: Request) -> bool:
    """Whether the cookie, or an admin header, lets this request read."""
    return _is_signed(request) or authenticator_of(request).is_operator(request)


def require_inside(request: Request) -> None:
    """Unauthenticated without either; Forbidden when a cookie acts for a page of another origin."""
    if authenticator_of(request).is_operator(request):
        return
    if not _is_signed(request):
        raise Unauthenticated("Unauthorized", certain=True)
    require_own_origin(request)


def require_own_origin(request: Request) -> None:
    # A proxy may have ended TLS in front, so the scheme says nothing.
    origin = request.headers.get("origin", "")
    if not origin or origin.partition("://")[2] != request.headers.get("host"):
        raise Forbidden("Only this page may ask that", certain=True)


def remember(request: Request, response: Response) -> None:
    """Set the cookie: an end, signed with the admin token, so that another token ends it too."""
    until = str(now_ms() + SESSION_SECONDS * 1000)
    _set(request, response, f"{until}.{_sign(request, until)}", SESSION_SECONDS)


def forget(request: Request, response: Response) -> None:
    _set(request, response, "", 0)


def _set(request: Request, response: Response, value: str, seconds: int) -> None:
    secure = settings_of(request).production
    response.set_cookie(COOKIE, value, max_age=seconds, path=PATH, secure=secure, httponly=True, samesite="strict")


def _is_signed(request: Request) -> bool:
    until, _, signature = request.cookies.get(COOKIE, "").partition(".")
    if not (until.isascii() and until.isdigit() and len(until) <= DIGITS) or int(until) <= now_ms():
        return False
    return settings_of(request).admin_token is not None and is_same(signature, _sign(request, until))


def _sign(request: Request, until: str) -> str:
    key = (settings_of(request).admin_token or "").encode()
    return hmac.new(key, b"admin page\0" + until.encode(), hashlib.sha256).hexdigest()
