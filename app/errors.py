"""Errors: a closed set of codes, raised where the fact is known and turned into HTTP once."""

from typing import Any, ClassVar

RETRY_SECONDS = 1


class AppError(Exception):
    """A refusal that a caller may read: a sentence, and the fields that its code defines.

    It is `certain` when no row could change it: a signature, a shape, a rate. Codes that mostly rest on rows are
    not, unless the raise says so; such a refusal is the primary's to give (`edge/placer.py`).
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    rests_on_rows: ClassVar[bool] = False

    def __init__(
        self, message: str, *, headers: dict[str, str] | None = None, certain: bool | None = None, **fields: Any
    ) -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers or {}
        self.certain = not self.rests_on_rows if certain is None else certain
        self.fields = fields


class Invalid(AppError):
    code, status = "invalid", 400


class Unauthenticated(AppError):
    code, status = "unauthenticated", 401
    rests_on_rows = True


class QuotaExceeded(AppError):
    code, status = "quota_exceeded", 402
    rests_on_rows = True


class Forbidden(AppError):
    code, status = "forbidden", 403
    rests_on_rows = True


class NotFound(AppError):
    code, status = "not_found", 404
    rests_on_rows = True


class MethodNotAllowed(AppError):
    code, status = "method_not_allowed", 405


class TimedOut(AppError):
    """The client took too long to send what it had begun."""

    code, status = "timeout", 408


class Conflict(AppError):
    code, status = "conflict", 409
    rests_on_rows = True


class Gone(AppError):
    """It was here, and is kept no longer."""

    code, status = "gone", 410
    rests_on_rows = True


class PreconditionFailed(AppError):
    code, status = "precondition_failed", 412
    rests_on_rows = True


class TooLarge(AppError):
    code, status = "too_large", 413


class Unprocessable(AppError):
    code, status = "unprocessable", 422
    rests_on_rows = True


class RateLimited(AppError):
    code, status = "rate_limited", 429


class Internal(AppError):
    """Something that was to be had is wrong on our side; the sentence says which step, never why."""


class Upstream(AppError):
    code, status = "upstream", 502


class Unavailable(AppError):
    """This machine cannot answer now; the same request may succeed after `Retry-After`."""

    code, status = "unavailable", 503

    def __init__(self, message: str, *, retry_after: int = RETRY_SECONDS, **fields: Any) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)}, retryAfter=retry_after, **fields)


CODES: dict[str, int] = {
    "invalid": 400,
    "unauthenticated": 401,
    "quota_exceeded": 402,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "conflict": 409,
    "gone": 410,
    "precondition_failed": 412,
    "too_large": 413,
    "unprocessable": 422,
    "rate_limited": 429,
    "internal": 500,
    "upstream": 502,
    "unavailable": 503,
}


# The statuses whose refusals rest on rows unless they are marked as certain.
RESTING_ON_ROWS = frozenset(kind.status for kind in AppError.__subclasses__() if kind.rests_on_rows)


def body(error: AppError, request_id: str) -> dict[str, Any]:
    """What a client reads: `{error, message, code, requestId}` and the fields of that code."""
    return {
        "error": error.message,
        "message": error.message,
        "code": error.code,
        "requestId": request_id,
        **error.fields,
    }
