"""Subscriptions: addresses and secrets that receivers can use."""

import base64

import pytest

from app.edge.database import Database
from app.errors import Conflict, Invalid
from app.webhooks import subscriptions
from app.webhooks.subscriptions import check_secret, check_url, new_secret
from tests.webhooks.conftest import SECRET, listen


def test_a_made_secret_is_one_that_could_be_given() -> None:
    assert check_secret(new_secret()) != new_secret()
    assert check_secret(SECRET) == SECRET


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "hunter2",
        SECRET.removeprefix("whsec_"),
        "whsec_%%%",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_é",
    ],
)
def test_a_secret_that_no_library_could_use_is_refused(secret: str) -> None:
    with pytest.raises(Invalid, match="secret"):
        check_secret(secret)


@pytest.mark.parametrize(
    "url", ["https://example.com", "http://example.com:8080/a?b=c#d", "https://[2606:4700::1111]/"]
)
def test_an_address_of_the_web_is_taken(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://example.com:99999/",
        "https://[::1",
        "https://a b.com/",
        "https://example.com/\r\nX: y",
        "https://user:secret@example.com/",
        "https://exämple.com/",
        "javascript:alert(1)",
    ],
)
def test_what_is_no_address_of_the_web_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="url"):
        check_url(url)


@pytest.mark.anyio
async def test_a_user_has_a_bounded_number_of_them(places: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "WEBHOOKS_PER_USER", 2)
    for _ in range(2):
        await listen(places, "https://example.com/")
    with pytest.raises(Conflict, match="2 \\(max: 2\\)"):
        await listen(places, "https://example.com/")
