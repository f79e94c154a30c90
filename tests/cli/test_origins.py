"""litehouse origins, beside a running server."""

from tests.cli.conftest import follows, refusal, run
from tests.conftest import Server

ORIGIN = "https://app.example.com"


def is_allowed(server: Server, origin: str = ORIGIN) -> bool:
    with server.client(origin=origin) as client:
        return client.get("/health").headers.get("access-control-allow-origin") == origin


def test_an_origin_is_allowed_and_taken_back_within_300_ms(server: Server) -> None:
    assert not is_allowed(server)
    assert run(server, "origins", "add", ORIGIN) == {"origin": ORIGIN, "added": True}
    assert follows(lambda: is_allowed(server))
    assert run(server, "origins", "add", ORIGIN) == {"origin": ORIGIN, "added": False}
    assert run(server, "origins", "list") == [{"origin": ORIGIN}]
    run(server, "origins", "remove", ORIGIN)
    assert follows(lambda: not is_allowed(server))
    assert refusal(server, "origins", "remove", ORIGIN) == f"{ORIGIN} is not listed."


def test_a_star_stands_only_for_whole_labels(server: Server) -> None:
    run(server, "origins", "add", "https://*.example.com")
    assert follows(lambda: is_allowed(server))
    assert not is_allowed(server, "https://evilexample.com")


def test_what_would_allow_everybody_or_nobody_is_refused(server: Server) -> None:
    for origin in (
        "*",
        "https://*",
        "https://*.com",
        "chrome-extension://*",
        "app.example.com",
        f"{ORIGIN}/",
        "https://a.b:*",
    ):
        assert "is not an origin such as" in refusal(server, "origins", "add", origin)
    assert run(server, "origins", "list") == []
