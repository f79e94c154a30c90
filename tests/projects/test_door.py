"""How these routes are entered: from any origin, at a rate of their own, in development without a credential."""

import time

import pytest

from tests.projects.conftest import Cast, Person, delegate, refused

PATHS = (
    "/api/projects",
    "/api/projects/prj_1/instances",
    "/api/instances/ins_1",
    "/api/shares/shr_1",
    "/api/groups",
    "/api/delegates/del_1/secrets",
    "/api/ws-token",
    "/api/keys",
)


@pytest.mark.parametrize("path", PATHS)
def test_any_origin_may_call_without_cookies(cast: Cast, path: str) -> None:
    origin = {"Origin": "https://customer.example"}
    preflight = cast.client.options(path, headers=origin | {"Access-Control-Request-Headers": "X-Theirs"})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-headers"] == "X-Theirs"
    for answer in (preflight, cast.client.request("PUT", path, headers=origin)):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


def test_a_user_has_a_bucket_of_600_a_minute_and_a_burst_of_200(cast: Cast, alice: Person, bob: Person) -> None:
    """On a plan of 10 a minute: a page that lists what it has must not use up what models may be asked."""
    begun, let_in = time.monotonic(), 0
    while (answer := cast.call(alice, "GET", "/api/groups")).status_code == 200:
        assert answer.headers["ratelimit-policy"] == '"default";q=600;w=60;burst=200'
        let_in += 1
    # Ten a second come back while it asks, however slowly it does.
    assert 200 <= let_in <= 201 + 10 * (time.monotonic() - begun)
    assert refused(answer) == (429, "Too many requests")
    assert int(answer.headers["retry-after"]) >= 1
    assert cast.call(bob, "GET", "/api/groups").status_code == 200
    assert cast.call(alice, "GET", "/api/user/profile").status_code == 200


def test_a_delegate_counts_for_its_user(cast: Cast, alice: Person) -> None:
    sensor = delegate(cast, alice)
    first = int(cast.call(alice, "GET", "/api/groups").headers["x-ratelimit-remaining"])
    for _ in range(50):
        cast.call(sensor, "GET", "/api/projects")
    assert int(cast.call(alice, "GET", "/api/groups").headers["x-ratelimit-remaining"]) < first


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("Bearer mc_live_wrong", "Invalid API key"),
        ("Bearer ak_wrong", "Invalid API key format"),
        ("Bearer ey.a.b", "Invalid token"),
        ("Bearer nothing", "Invalid token"),
        ("Basic eDp5", "Invalid token"),
        ("ApiKey del_x:sec_y", "Invalid delegate credentials"),
    ],
)
def test_a_wrong_credential_is_told_what_is_wrong(cast: Cast, header: str, sentence: str) -> None:
    with cast.server.client(Authorization=header) as client:
        for path in ("/api/projects", "/api/groups", "/api/instances/ins_1"):
            assert refused(client.get(path)) == (401, sentence)
