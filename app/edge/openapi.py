"""OpenAPI: what an endpoint takes and gives, said beside it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

E = TypeVar("E", bound=Callable[..., Any])

BEARER, API_KEY, ADMIN, DELEGATE = "bearer", "apiKey", "admin", "delegate"


class Query(NamedTuple):
    """One parameter of a query string; `schema` is JSON Schema."""

    name: str
    schema: dict[str, Any]
    description: str = ""
    required: bool = False


class Operation(NamedTuple):
    """What is said of an endpoint: shapes are msgspec structs, `credentials` the schemes that it accepts."""

    answer: Any
    status: int
    body: Any
    body_media: tuple[str, ...]
    answer_media: str
    query: tuple[Query, ...]
    errors: tuple[int, ...]
    credentials: tuple[str, ...]
    also: Mapping[int, Any]
    example: Any
    idempotent: bool
    cached: bool


def operation(
    *,
    answer: Any = dict[str, Any],
    status: int = 200,
    body: Any = None,
    body_media: tuple[str, ...] = ("application/json",),
    answer_media: str = "application/json",
    query: tuple[Query, ...] = (),
    errors: tuple[int, ...] = (),
    credentials: tuple[str, ...] = (),
    also: Mapping[int, Any] | None = None,
    example: Any = None,
    idempotent: bool = False,
    cached: bool = False,
) -> Callable[[E], E]:
    """Say what an endpoint takes and gives. Its docstring is the description.

    `errors` are statuses that answer with the envelope, `also` other statuses with a shape of their own;
    `example` is a body that works, `idempotent` an endpoint that takes an Idempotency-Key, `cached` one whose
    answer carries an ETag and may be a 304.
    """

    def mark(endpoint: E) -> E:
        endpoint.operation = Operation(  # type: ignore[attr-defined]
            answer,
            status,
            body,
            body_media,
            answer_media,
            query,
            errors,
            credentials,
            also or {},
            example,
            idempotent,
            cached,
        )
        return endpoint

    return mark


def operation_of(endpoint: Callable[..., Any]) -> Operation | None:
    """What was said of an endpoint; None when nothing was."""
    said: Operation | None = getattr(endpoint, "operation", None)
    return said
