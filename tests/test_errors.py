"""Errors: a closed set of codes, each with one status and one shape."""

import pytest

from app import errors
from app.errors import CODES, AppError, Unavailable


def kinds(of: type[AppError] = AppError) -> set[type[AppError]]:
    return {of, *(deeper for kind in of.__subclasses__() for deeper in kinds(kind))}


def is_an_answer(kind: type[AppError]) -> bool:
    """Other rooms narrow these; what their codes mean for one item of a batch is theirs to say."""
    return kind.__module__ == errors.__name__


@pytest.mark.parametrize("kind", sorted(filter(is_an_answer, kinds()), key=lambda kind: kind.__name__))
def test_a_refusal_has_a_code_of_the_closed_set_and_its_status(kind: type[AppError]) -> None:
    assert CODES[kind.code] == kind.status


def test_every_code_has_a_status_of_its_own() -> None:
    assert len(CODES) == 16
    assert len(set(CODES.values())) == 16


def test_a_body_is_the_sentence_twice_the_code_the_id_and_the_fields() -> None:
    refusal = errors.RateLimited("Too many requests", headers={"Retry-After": "3"}, retryAfter=3)
    assert errors.body(refusal, "r-1") == {
        "error": "Too many requests",
        "message": "Too many requests",
        "code": "rate_limited",
        "requestId": "r-1",
        "retryAfter": 3,
    }


def test_what_may_pass_says_when_to_come_back() -> None:
    refusal = Unavailable("Not now", retry_after=5)
    assert refusal.headers == {"Retry-After": "5"}
    assert refusal.fields == {"retryAfter": 5}
