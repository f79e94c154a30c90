"""Signing: which headers are believed for which bytes."""

import base64
import time
from datetime import UTC, datetime

import pytest
from svix.webhooks import Webhook

from app.errors import Unavailable
from app.webhooks.signing import BadSignature, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_" + base64.b64encode(b"another secret of 24 byte").decode()
BODY = '{"type":"user.created","data":{"id":"user_1","first_name":"Zoë"}}'

pytestmark = pytest.mark.anyio


def signed(body: str = BODY, *, seconds_ago: float = 0, secret: str = SECRET) -> dict[str, str]:
    at = int(time.time() - seconds_ago)
    signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), body)
    return {"svix-id": "msg_1", "svix-timestamp": str(at), "svix-signature": signature}


async def test_what_svix_signs_is_believed() -> None:
    assert await verify(SECRET, BODY.encode(), signed()) == "msg_1"


@pytest.mark.parametrize("seconds_ago", [295, -295])
async def test_a_clock_may_differ_by_five_minutes(seconds_ago: float) -> None:
    assert await verify(SECRET, BODY.encode(), signed(seconds_ago=seconds_ago)) == "msg_1"


@pytest.mark.parametrize("seconds_ago", [305, -305])
async def test_a_clock_may_not_differ_by_more(seconds_ago: float) -> None:
    with pytest.raises(BadSignature):
        await verify(SECRET, BODY.encode(), signed(seconds_ago=seconds_ago))


async def test_one_right_signature_among_several_is_enough() -> None:
    headers = signed()
    wrong = signed(secret=OTHER_SECRET)["svix-signature"]
    headers["svix-signature"] = f"v1a,xyz v1,short= , nonsense {wrong} {headers['svix-signature']}"
    assert await verify(SECRET, BODY.encode(), headers) == "msg_1"


async def test_another_secret_is_refused() -> None:
    with pytest.raises(BadSignature):
        await verify(SECRET, BODY.encode(), signed(secret=OTHER_SECRET))


async def test_a_changed_byte_is_refused() -> None:
    with pytest.raises(BadSignature):
        await verify(SECRET, BODY.replace("user_1", "user_2").encode(), signed())


async def test_a_body_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(BadSignature):
        await verify(SECRET, b"\xff" + BODY.encode(), signed())


@pytest.mark.parametrize("name", ["svix-id", "svix-timestamp", "svix-signature"])
@pytest.mark.parametrize(
    "value", [None, "", " ", "0", "NaN", "-1", "1e400", "9" * 400, "v1", "v1,", "v1,***", "é", ","]
)
async def test_malformed_headers_are_refused(name: str, value: str | None) -> None:
    headers = signed()
    if value is None:
        del headers[name]
    else:
        headers[name] = value
    with pytest.raises(BadSignature):
        await verify(SECRET, BODY.encode(), headers)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_%%%", "whsec_a"])
async def test_a_secret_that_is_none_is_our_fault_not_the_senders(secret: str) -> None:
    with pytest.raises(Unavailable):
        await verify(secret, BODY.encode(), signed())
