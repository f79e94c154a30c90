"""Plans: rows that an operator may add to; a slug's `_plan` is dropped, names are never merged."""

import pytest

from app.edge import sqlite
from app.usage import plans
from app.usage.plan_queries import Plan
from tests.usage.conftest import Person, Relay, add_plan

PLANS = {
    "free": (1_000_000, 10, 20, 0),
    "basic": (10_000_000, 60, 100, 999),
    "premium": (50_000_000, 300, 500, 2_999),
    "enterprise": (-1, 0, 0, None),
    "starter": (10_000_000, 60, 100, None),
    "essentials": (50_000_000, 300, 500, None),
    "professional": (100_000_000, 300, 500, None),
    "business": (500_000_000, 300, 500, None),
    "fallback": (0, 10, 20, None),
    "unlimited": (-1, 0, 0, None),
}


def test_a_new_database_has_the_plans_of_the_price_list(relay: Relay) -> None:
    rows = relay.rows("SELECT name, monthly_tokens, requests_per_minute, burst, price_cents FROM plans")
    assert {row[0]: row[1:] for row in rows if row[0] in PLANS} == PLANS


@pytest.mark.parametrize(
    ("slug", "name"),
    [
        ("starter_plan", "starter"),
        ("starter", "starter"),
        ("free_plan", "free"),
        ("plan", "plan"),
        ("my_plan_plan", "my_plan"),
        ("planet", "planet"),
        ("Starter_plan", "Starter"),
    ],
)
def test_a_trailing_plan_of_a_slug_is_dropped(slug: str, name: str) -> None:
    assert plans.read_slug(slug) == name


def test_names_are_never_merged(relay: Relay) -> None:
    assert [relay.quota(relay.person(name))["plan"] for name in ("starter", "basic")] == ["starter", "basic"]


def test_an_operator_adds_a_plan_without_a_deploy(relay: Relay) -> None:
    relay.beside(add_plan, Plan("festival", 12_345, 0, 0, None))
    found = relay.quota(relay.person("festival"))
    assert (found["plan"], found["total"]) == ("festival", 12_345)


def test_the_command_adds_a_plan_and_puts_a_user_on_it(relay: Relay, person: Person) -> None:
    words = ("plans", "set", "club", "--tokens", "777", "--rpm", "0", "--burst", "0", "--json")
    assert relay.server.command(*words).returncode == 0
    assert relay.server.command("users", "plan", person.clerk_id, "club", "--json").returncode == 0
    found = relay.quota(person)
    assert (found["plan"], found["total"]) == ("club", 777)


@pytest.mark.parametrize(
    "values", ["-2, 0, 0, NULL", "1, -1, 0, NULL", "1, 10, 0, NULL", "1, 0, 0, -1", "1, 0, 0, 'x'"]
)
def test_a_plan_that_makes_no_sense_is_refused_by_the_database(relay: Relay, values: str) -> None:
    raw = sqlite.connect(relay.path)
    try:
        with pytest.raises(sqlite.IntegrityError):
            raw.execute(
                "INSERT INTO plans (name, monthly_tokens, requests_per_minute, burst, price_cents)"
                f" VALUES ('odd', {values})"
            )
    finally:
        raw.close()


def test_a_plan_that_somebody_is_on_cannot_vanish(relay: Relay) -> None:
    raw = sqlite.connect(relay.path)
    try:
        with pytest.raises(sqlite.IntegrityError):
            raw.execute("DELETE FROM plans WHERE name = 'basic'")
    finally:
        raw.close()
