"""Reading Clerk's events: what is none is refused, and says why."""

import pytest

from app.accounts.clerk_events import effect_of, read_event
from app.errors import Invalid

NOW = 1_764_600_000_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"type":"user.created"}',
        b'{"type":"user.created","data":null}',
        b'{"type":5,"data":{}}',
        b'{"type":"","data":{}}',
        b'{"type":"user.created","data":{"id":"user_\\u0000"}}',
        b'{"type":"user.created","data":{"id":"user_1","first_name":"\\\\\\u0000"}}',
        b'{"type":"user.created","data":{"id":"user_1","unknown":"\\ud800"}}',
        b'{"type":"user.created","data":{"id":"user_\xff"}}',
        b'{"type":"user.created","data":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
        b'{"type":"user.created","data":{"id":"%s"}}' % (b"u" * 300),
    ],
)
def test_a_body_that_is_no_event_is_invalid(body: bytes) -> None:
    with pytest.raises(Invalid):
        read_event(body)


def test_a_backslash_before_u0000_is_a_text_like_any_other() -> None:
    event = read_event(b'{"type":"user.created","data":{"id":"user_1","first_name":"\\\\u0000"}}')
    assert event.data["first_name"] == "\\u0000"


def test_a_user_of_another_shape_is_invalid_and_says_where() -> None:
    event = read_event(b'{"type":"user.created","data":{"id":"user_1","first_name":5}}')
    with pytest.raises(Invalid, match=r"data\.first_name"):
        effect_of(event, NOW)
