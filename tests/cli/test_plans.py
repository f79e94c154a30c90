"""litehouse plans and prices, beside a running server."""

from tests.cli.conftest import follows, refusal, run
from tests.conftest import Server


def test_the_plans_are_listed_with_who_is_on_them(server: Server) -> None:
    plans = {plan["name"]: plan for plan in run(server, "plans", "list")}
    assert plans["basic"] == {
        "name": "basic",
        "tokens": 10_000_000,
        "rpm": 60,
        "burst": 100,
        "priceCents": 999,
        "users": 1,
    }
    assert (plans["enterprise"]["tokens"], plans["enterprise"]["rpm"], plans["enterprise"]["priceCents"]) == (
        -1,
        0,
        None,
    )


def test_a_new_plan_can_be_lived_on_at_once(server: Server) -> None:
    run(server, "plans", "set", "gold", "--tokens", "5", "--rpm", "7", "--burst", "7", "--price-cents", "100")
    run(server, "users", "plan", "dev-user", "gold")
    with server.client() as client:
        assert follows(lambda: client.get("/api/usage/quota").json().get("total") == 5)


def test_a_change_keeps_what_it_does_not_name(server: Server) -> None:
    changed = run(server, "plans", "set", "basic", "--tokens", "-1")
    assert changed == {"name": "basic", "tokens": -1, "rpm": 60, "burst": 100, "priceCents": 999}
    with server.client() as client:
        run(server, "users", "plan", "dev-user", "basic")
        assert follows(lambda: client.get("/api/usage/quota").json()["total"] == -1)


def test_a_changed_rate_is_the_servers_within_300_ms(server: Server) -> None:
    with server.client() as client:
        assert client.get("/api/usage/quota").headers["x-ratelimit-limit"] == "300"
        run(server, "plans", "set", "premium", "--rpm", "0", "--burst", "0")
        assert follows(lambda: "x-ratelimit-limit" not in client.get("/api/usage/quota").headers)


def test_a_plan_that_nobody_could_use_is_refused(server: Server) -> None:
    assert "slugs are read without _plan" in refusal(
        server, "plans", "set", "gold_plan", "--tokens", "1", "--rpm", "0", "--burst", "0"
    )
    assert "is not a plan's name" in refusal(server, "plans", "set", "Gold!", "--tokens", "1", "--rpm", "0")
    assert refusal(server, "plans", "set", "gold", "--tokens", "1", "--rpm", "5").startswith("--burst: at least 1")
    assert "a new one needs" in refusal(server, "plans", "set", "gold", "--tokens", "1")
    assert server.command("plans", "set", "gold", "--tokens", "-2").returncode == 2


def test_a_price_is_what_events_cost_from_then_on(server: Server) -> None:
    price = run(
        server,
        *("prices", "set", "openai", "gpt-realtime", "--prompt", "4000000", "--completion", "16000000"),
        *("--from", "2026-01-01"),
    )
    assert price["validFrom"] == "2026-01-01T00:00:00.000Z"
    assert run(server, "prices", "list") == [price]
    key = (server.data_dir / "demo-key").read_text().strip()
    event = {
        "userId": "dev-user",
        "id": "resp_1",
        "model": "gpt-realtime",
        "provider": "openai",
        "inputTokens": 1_000,
        "outputTokens": 500,
    }
    with server.client(authorization=f"Bearer {key}") as relay:
        assert relay.post("/api/usage/events", json=event).json()["accepted"] == 1
    with server.client() as client:
        (day,) = client.get("/api/usage/history").json()["history"]
    assert day["costMicros"] == 1_000 * 4 + 500 * 16


def test_a_price_from_no_instant_is_refused(server: Server) -> None:
    words = ("prices", "set", "openai", "gpt-realtime", "--prompt", "1", "--completion", "1")
    assert refusal(server, *words, "--from", "soon").startswith("--from: expected an ISO-8601 instant")
