"""GET /api/usage/quota: what is allowed, spent, left and reserved."""

from datetime import UTC, datetime

import pytest

from app.identity import queries as identity
from app.usage.plan_queries import Plan
from tests.conftest import ADMIN_TOKEN
from tests.usage.conftest import ADMIN, QUOTA, SEEN_SECONDS, Person, Relay, add_plan, bearer, native
from tests.waiting import until


def this_month() -> tuple[str, str]:
    now = datetime.now(UTC)
    year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
    return f"{now.year}-{now.month:02d}-01T00:00:00.000Z", f"{year}-{month:02d}-01T00:00:00.000Z"


def test_a_new_user_has_all_of_the_plan(relay: Relay) -> None:
    start, end = this_month()
    assert relay.quota(relay.alice) == {
        "total": 1_000_000,
        "used": 0,
        "remaining": 1_000_000,
        "resetDate": end,
        "plan": "free",
        "period": {"start": start, "end": end, "timezone": "UTC"},
        "reserved": 0,
    }


@pytest.mark.parametrize(
    ("plan", "total"),
    [
        ("free", 1_000_000),
        ("basic", 10_000_000),
        ("premium", 50_000_000),
        ("enterprise", -1),
        ("starter", 10_000_000),
        ("essentials", 50_000_000),
        ("professional", 100_000_000),
        ("business", 500_000_000),
        ("fallback", 0),
        ("unlimited", -1),
    ],
)
def test_each_plan_has_its_tokens_under_its_own_name(relay: Relay, plan: str, total: int) -> None:
    found = relay.quota(relay.person(plan))
    assert (found["plan"], found["total"], found["remaining"]) == (plan, total, total)


def test_what_was_posted_is_used_at_once(relay: Relay, person: Person) -> None:
    for used in range(10, 60, 10):
        relay.accept(native(person, 10))
        found = relay.quota(person)
        assert (found["used"], found["remaining"]) == (used, 1_000_000 - used)


def test_remaining_never_falls_below_nothing(relay: Relay, person: Person) -> None:
    relay.accept(native(person, 1_000_001))
    found = relay.quota(person)
    assert (found["total"], found["used"], found["remaining"]) == (1_000_000, 1_000_001, 0)


def test_unlimited_is_minus_one_and_still_counts(relay: Relay) -> None:
    rich = relay.person("enterprise")
    relay.accept(native(rich, 70))
    found = relay.quota(rich)
    assert (found["total"], found["used"], found["remaining"]) == (-1, 70, -1)


def test_holds_show_only_in_reserved(relay: Relay, person: Person) -> None:
    relay.accept(native(person, 10))
    assert relay.reserve(person, 400).status_code == 201
    found = relay.quota(person)
    assert (found["used"], found["remaining"], found["reserved"]) == (10, 999_990, 400)


@pytest.mark.parametrize(("override", "total"), [(5_000, 5_000), (-1, -1), (None, 1_000_000)])
def test_a_users_own_quota_goes_before_the_plans(
    relay: Relay, person: Person, override: int | None, total: int
) -> None:
    relay.beside(identity.update_token_quota, person.id, override, 0)
    found = relay.quota(person)
    assert (found["total"], found["plan"]) == (total, "roomy")


def test_another_plan_keeps_what_was_used(relay: Relay, person: Person) -> None:
    relay.accept(native(person, 10))
    relay.change_plan(person, "basic")
    found = relay.quota(person)
    assert (found["plan"], found["total"], found["used"]) == ("basic", 10_000_000, 10)


# -- who asks ----------------------------------------------------------------------------------------------


def test_a_signed_in_user_reads_the_quota_of_that_user(relay: Relay, person: Person) -> None:
    relay.accept(native(person, 10))
    answer = relay.get(QUOTA, relay.token(person.clerk_id))
    assert (answer.status_code, answer.json()["used"]) == (200, 10)


def test_a_user_whom_nobody_announced_has_the_free_plan(relay: Relay) -> None:
    answer = relay.get(QUOTA, relay.token("user_first_seen"))
    assert (answer.status_code, answer.json()["plan"], answer.json()["used"]) == (200, "free", 0)


@pytest.mark.parametrize(
    ("headers", "text"), [({}, "No token provided"), ({"Authorization": "Bearer nothing"}, "Invalid token")]
)
def test_without_a_good_credential_it_is_401(relay: Relay, headers: dict[str, str], text: str) -> None:
    answer = relay.client.get(QUOTA, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (401, text)


def test_a_key_needs_the_scope_to_read(relay: Relay, person: Person) -> None:
    writer = relay.new_key(person.id, ("write:usage",), by_operator=False)
    for key in (writer, relay.bare_key):
        answer = relay.get(QUOTA, key)
        assert answer.status_code == 403
        assert "read:usage" in answer.json()["error"]


def test_an_operator_reads_anybodys_quota_by_either_id(relay: Relay, person: Person) -> None:
    relay.accept(native(person, 10))
    admin = {"X-Admin-Token": ADMIN_TOKEN}
    for headers in (admin, bearer(relay.key), bearer(relay.token(ADMIN))):
        for named in (person.id, person.clerk_id):
            answer = relay.client.get(QUOTA, params={"userId": named}, headers=headers)
            assert (answer.status_code, answer.json()["used"]) == (200, 10)


def test_only_an_operator_is_told_that_there_is_no_such_user(relay: Relay, person: Person) -> None:
    answer = relay.get(QUOTA, relay.key, userId="user_nobody")
    assert (answer.status_code, answer.json()["error"], answer.json()["code"]) == (404, "User not found", "not_found")
    for named in (relay.bob.id, "user_nobody"):
        answer = relay.get(QUOTA, person.key, userId=named)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


# -- polling -----------------------------------------------------------------------------------------------


def test_an_unchanged_quota_is_304_and_a_changed_one_is_not(relay: Relay, person: Person) -> None:
    answer = relay.get(QUOTA, person.key)
    etag = answer.headers["etag"]
    assert etag.startswith('"')
    held = {**bearer(person.key), "If-None-Match": etag}
    again = relay.client.get(QUOTA, headers=held)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    relay.accept(native(person, 10))
    changed = relay.client.get(QUOTA, headers=held)
    assert (changed.status_code, changed.json()["used"]) == (200, 10)
    assert changed.headers["etag"] != etag


def test_a_quota_is_the_callers_own_to_cache(relay: Relay, person: Person) -> None:
    headers = relay.get(QUOTA, person.key).headers
    assert headers["cache-control"] in ("private, no-cache", "private, no-store", "no-store")
    assert "authorization" in headers["vary"].lower()


# -- beside another process --------------------------------------------------------------------------------


def test_a_users_new_plan_is_seen_at_once(relay: Relay, person: Person) -> None:
    relay.quota(person)
    relay.change_plan(person, "premium")
    until(lambda: relay.quota(person)["total"] == 50_000_000, SEEN_SECONDS)


def test_a_plans_new_tokens_are_seen_at_once(relay: Relay) -> None:
    plan = Plan("growing", 100, 0, 0, None)
    relay.beside(add_plan, plan)
    person = relay.person("growing")
    assert relay.quota(person)["total"] == 100
    relay.beside(add_plan, plan._replace(monthly_tokens=200))
    until(lambda: relay.quota(person)["total"] == 200, SEEN_SECONDS)
