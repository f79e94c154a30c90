"""Clerk's events: what each kind changes, and what it leaves alone."""

import itertools
import json
from typing import Any

import pytest

from app.accounts import queries
from app.accounts.clerk_events import effect_of, read_event, subject_of
from app.accounts.queries import UserRow
from app.edge.database import Database
from app.identity.queries import find_user_id_by_subject, has_tombstone
from app.webhooks.log import Outcome, process_once
from app.webhooks.queries import Delivery
from tests.fakes.clerk import user

NOW = 1_764_600_000_000
ADA = "user_2abc"

pytestmark = pytest.mark.anyio

_numbers = itertools.count(1)


async def happen(db: Database, kind: str, data: dict[str, Any]) -> Outcome:
    body = json.dumps({"type": kind, "data": data})
    event = read_event(body.encode())
    delivery = Delivery(f"msg_{next(_numbers)}", event.type, subject_of(event), body)
    outcome = await db.write(process_once, delivery, effect_of(event, NOW), NOW)
    assert outcome is not None
    return outcome


async def find(db: Database, clerk_id: str = ADA) -> UserRow | None:
    user_id = await db.read(find_user_id_by_subject, "clerk", clerk_id)
    return await db.read(queries.find_user, user_id) if user_id else None


async def get(db: Database, clerk_id: str = ADA) -> UserRow:
    row = await find(db, clerk_id)
    assert row is not None
    return row


def item(slug: str, **changed: Any) -> dict[str, Any]:
    """A subscription item of Ada's, as Clerk's billing sends it."""
    return {
        "id": "csub_item_1",
        "status": "active",
        "payer": {"user_id": ADA},
        "plan": {"slug": slug},
        "updated_at": 100,
    } | changed


# -- users


async def test_a_new_user_has_the_primary_address_and_not_the_first(db: Database) -> None:
    told = user(ADA, "first@example.com", "second@example.com")
    told["primary_email_address_id"] = told["email_addresses"][1]["id"]
    await happen(db, "user.created", told)
    row = await get(db)
    assert (row.email, row.first_name, row.last_name, row.plan) == ("second@example.com", "Ada", "Lovelace", "free")


async def test_a_user_without_a_primary_address_has_none(db: Database) -> None:
    await happen(db, "user.created", user(ADA, "first@example.com", primary_email_address_id=None))
    assert (await get(db)).email is None


async def test_an_address_that_another_user_has_is_no_obstacle(db: Database) -> None:
    await happen(db, "user.created", user(ADA, "shared@example.com"))
    await happen(db, "user.created", user("user_other", "shared@example.com"))
    assert (await get(db, "user_other")).email == "shared@example.com"


async def test_an_older_event_never_overwrites_a_newer_one(db: Database) -> None:
    await happen(db, "user.updated", user(ADA, first_name="New", updated_at=200))
    await happen(db, "user.created", user(ADA, first_name="Old", updated_at=100))
    assert (await get(db)).first_name == "New"
    await happen(db, "user.updated", user(ADA, first_name="Newer", updated_at=201))
    assert (await get(db)).first_name == "Newer"


async def test_a_user_is_never_compared_with_a_subscription(db: Database) -> None:
    await happen(db, "user.created", user(ADA, updated_at=900))
    await happen(db, "subscriptionItem.active", item("premium_plan", updated_at=100))
    assert (await get(db)).plan == "premium"
    await happen(db, "user.updated", user(ADA, first_name="Grace", updated_at=901))
    assert (await get(db)).first_name == "Grace"


async def test_a_missing_subscription_in_the_metadata_leaves_the_plan(db: Database) -> None:
    await happen(db, "user.created", user(ADA, public_metadata={"subscription": "basic_plan"}))
    assert (await get(db)).plan == "basic"
    await happen(db, "user.updated", user(ADA, public_metadata={}))
    assert (await get(db)).plan == "basic"


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"tokenQuota": 5_000}, 5_000),
        ({"tokenQuota": -1}, -1),
        ({"tokenQuota": 0}, None),
        ({"tokenQuota": None}, None),
        ({}, None),
        (None, None),
        ({"tokenQuota": "5000"}, 777),
        ({"tokenQuota": True}, 777),
        ({"tokenQuota": -2}, 777),
        ({"tokenQuota": 1 << 60}, 777),
        ({"tokenQuota": 10**40}, 777),
    ],
)
async def test_a_quota_in_the_metadata_goes_before_the_plans(db: Database, told: Any, kept: int | None) -> None:
    await happen(db, "user.created", user(ADA, public_metadata={"tokenQuota": 777}))
    await happen(db, "user.updated", user(ADA, public_metadata=told))
    assert (await get(db)).token_quota == kept


async def test_a_ban_suspends_and_its_end_lifts_it(db: Database) -> None:
    await happen(db, "user.updated", user(ADA, banned=True))
    assert (await get(db)).suspended
    partial = user(ADA)
    del partial["banned"]
    await happen(db, "user.updated", partial)
    assert (await get(db)).suspended
    await happen(db, "user.updated", user(ADA, banned=False))
    assert not (await get(db)).suspended


async def test_a_deleted_user_does_not_come_back(db: Database) -> None:
    await happen(db, "user.created", user(ADA))
    await happen(db, "user.deleted", {"id": ADA, "object": "user", "deleted": True})
    for kind, data in (
        ("user.updated", user(ADA, updated_at=NOW)),
        ("session.created", {"id": "sess_1", "user_id": ADA}),
        ("subscriptionItem.active", item("premium")),
        ("subscription.deleted", {"id": "csub_1", "payer": {"user_id": ADA}}),
    ):
        await happen(db, kind, data)
        assert await find(db) is None


async def test_a_deletion_that_arrives_first_is_remembered(db: Database) -> None:
    await happen(db, "user.deleted", {"id": ADA, "deleted": True})
    assert await db.read(has_tombstone, "clerk", ADA)
    await happen(db, "user.created", user(ADA))
    assert await find(db) is None


async def test_a_deletion_leaves_nothing_that_names_the_user(db: Database) -> None:
    await happen(db, "user.created", user(ADA, "ada@example.com"))
    await happen(db, "paymentAttempt.created", {"id": "pay_1", "payer": {"user_id": ADA}})
    await happen(db, "user.deleted", {"id": ADA, "deleted": True})
    await happen(db, "paymentAttempt.updated", {"id": "pay_1", "payer": {"user_id": ADA}})
    await happen(db, "user.updated", user(ADA, "ada@example.com"))
    tables = await db.read(lambda c: c.fetch("SELECT name FROM sqlite_schema WHERE type = 'table'"))
    for (table,) in tables:
        rows = repr(await db.read(lambda c, table=table: c.fetch(f"SELECT * FROM {table}")))
        assert ADA not in rows and "ada@example.com" not in rows, table


# -- subscriptions


@pytest.mark.parametrize("kind", ["subscription.created", "subscription.updated", "subscription.active"])
async def test_a_subscription_gives_the_plan_of_its_active_item(db: Database, kind: str) -> None:
    ended, active = item("basic_plan", status="ended"), item("premium_plan")
    await happen(db, kind, {"id": "csub_1", "status": "active", "payer": {"user_id": ADA}, "items": [ended, active]})
    assert (await get(db)).plan == "premium"


async def test_a_subscription_without_an_active_item_gives_its_metadatas_plan(db: Database) -> None:
    data = {
        "id": "csub_1",
        "user_id": ADA,
        "metadata": {"plan": "basic"},
        "items": [item("premium", status="upcoming")],
    }
    await happen(db, "subscription.updated", data)
    assert (await get(db)).plan == "basic"


@pytest.mark.parametrize("kind", ["subscriptionItem.created", "subscriptionItem.updated", "subscriptionItem.active"])
@pytest.mark.parametrize(
    "told",
    [
        {},
        {"plan": None, "price": {"metadata": {"plan": "premium_plan"}}},
        {"plan": {"slug": ""}, "price": 5, "metadata": {"plan": "premium"}},
    ],
)
async def test_an_active_item_gives_its_plan(db: Database, kind: str, told: dict[str, Any]) -> None:
    await happen(db, kind, item("premium_plan", **told))
    assert (await get(db)).plan == "premium"


@pytest.mark.parametrize("kind", ["subscription.deleted", "subscriptionItem.deleted"])
async def test_what_ends_puts_its_user_on_the_free_plan(db: Database, kind: str) -> None:
    await happen(db, "subscriptionItem.active", item("premium_plan", id="csub_1"))
    ended = {"id": "csub_1", "payer": {"user_id": ADA}}
    await happen(db, kind, ended)
    assert (await get(db)).plan == "free"
    await happen(db, "subscriptionItem.updated", item("premium_plan", id="csub_1", updated_at=NOW))
    assert (await get(db)).plan == "free"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("subscriptionItem.updated", item("premium", status="canceled")),
        ("subscriptionItem.updated", item("premium", status="past_due")),
        ("subscriptionItem.updated", item("premium", status=None)),
        ("subscriptionItem.upcoming", item("premium")),
        ("subscriptionItem.ended", item("premium")),
        ("subscription.pastDue", {"id": "csub_1", "status": "past_due", "user_id": ADA, "items": [item("premium")]}),
        ("subscription.updated", {"id": "csub_1", "status": "past_due", "user_id": ADA, "items": [item("premium")]}),
        ("subscription.updated", {"id": "csub_1", "status": "ended", "user_id": ADA, "metadata": {"plan": "premium"}}),
        ("subscription.updated", {"id": "csub_1", "user_id": ADA, "items": "premium", "metadata": ["plan"]}),
        ("paymentAttempt.updated", item("premium")),
        ("organization.created", item("premium")),
        ("session.created", item("premium")),
    ],
)
async def test_every_other_status_or_kind_leaves_the_plan(db: Database, kind: str, data: dict[str, Any]) -> None:
    await happen(db, "user.created", user(ADA, public_metadata={"subscription": "basic"}))
    await happen(db, kind, data)
    assert (await get(db)).plan == "basic"


async def test_an_unknown_slug_keeps_the_plan_and_says_so(db: Database) -> None:
    await happen(db, "subscriptionItem.active", item("basic_plan"))
    outcome = await happen(db, "subscriptionItem.active", item("platinum_plan", id="csub_item_2"))
    assert (await get(db)).plan == "basic"
    assert "platinum" in outcome.text and "kept" in outcome.text


async def test_an_older_state_of_an_item_does_not_come_back(db: Database) -> None:
    await happen(db, "subscriptionItem.active", item("premium_plan", updated_at=200))
    await happen(db, "subscriptionItem.active", item("basic_plan", updated_at=100))
    assert (await get(db)).plan == "premium"
    await happen(db, "subscriptionItem.deleted", item("premium_plan", updated_at=150))
    assert (await get(db)).plan == "premium"


@pytest.mark.parametrize(
    "whose",
    [
        {"user_id": "user_new"},
        {"payer": {"user_id": "user_new"}},
        {"subscription": {"user_id": "user_new"}, "payer": {"organization_id": "org_1"}},
        {"metadata": {"user_id": "user_new"}, "subscription": "csub_1"},
    ],
)
async def test_a_subscription_of_an_unknown_user_makes_a_stub(db: Database, whose: dict[str, Any]) -> None:
    data = {"id": "csub_item_1", "status": "active", "plan": {"slug": "premium"}}
    await happen(db, "subscriptionItem.active", data | whose)
    row = await get(db, "user_new")
    assert (row.plan, row.email) == ("premium", None)
    await happen(db, "user.created", user("user_new", "new@example.com"))
    assert (await get(db, "user_new"))[:2] == ("new@example.com", "Ada")
    assert (await get(db, "user_new")).plan == "premium"


async def test_an_event_that_names_nobody_changes_nothing(db: Database) -> None:
    before = await db.read(lambda c: c.fetch("SELECT * FROM users"))
    outcome = await happen(db, "subscription.active", {"id": "csub_1", "payer": {"organization_id": "org_1"}})
    assert outcome.text == "ignored: names no user"
    assert await db.read(lambda c: c.fetch("SELECT * FROM users")) == before


# -- sessions


async def test_a_session_only_tells_when_its_user_was_seen(db: Database) -> None:
    await happen(db, "user.created", user(ADA))
    before = await get(db)
    await happen(db, "session.created", {"id": "sess_1", "user_id": ADA, "status": "active", "last_active_at": 1_000})
    assert await get(db) == before
    assert await db.read(lambda c: c.fetch("SELECT seen_at_ms FROM users WHERE seen_at_ms IS NOT NULL")) == [(1_000,)]
