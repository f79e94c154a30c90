"""The SQL of plans and prices."""

from typing import NamedTuple

from app.edge.clock import sql_text
from app.edge.database import Connection, Transaction


class Plan(NamedTuple):
    """-1 tokens is unlimited, 0 requests a minute is no limit; a price of None is by agreement."""

    name: str
    monthly_tokens: int
    requests_per_minute: int
    burst: int
    price_cents: int | None


class Price(NamedTuple):
    """What a million tokens cost, in millionths of the currency, from an instant on."""

    provider: str
    model: str
    valid_from_ms: int
    prompt_micros_per_million: int
    completion_micros_per_million: int


def find_plan(connection: Connection, name: str) -> Plan | None:
    row = connection.fetch_one(
        "SELECT name, monthly_tokens, requests_per_minute, burst, price_cents FROM plans WHERE name = ?", name
    )
    return Plan(*row) if row else None


def list_plans(connection: Connection, limit: int) -> list[tuple[Plan, int]]:
    """Each plan and how many users are on it."""
    rows = connection.fetch(
        """SELECT name, monthly_tokens, requests_per_minute, burst, price_cents,
                  (SELECT count(*) FROM users u WHERE u.plan = p.name)
           FROM plans p ORDER BY price_cents IS NULL, price_cents, name LIMIT ?""",
        limit,
    )
    return [(Plan(*row[:-1]), row[-1]) for row in rows]


def upsert_plan(tx: Transaction, plan: Plan, now: int) -> None:
    tx.execute(
        """INSERT INTO plans (name, monthly_tokens, requests_per_minute, burst, price_cents, created_at, updated_at)
           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
           ON CONFLICT (name) DO UPDATE SET
               monthly_tokens = excluded.monthly_tokens, requests_per_minute = excluded.requests_per_minute,
               burst = excluded.burst, price_cents = excluded.price_cents, updated_at = excluded.updated_at""",
        *plan,
        sql_text(now),
    )


def list_prices(connection: Connection, limit: int) -> list[Price]:
    """The newest first for each model."""
    rows = connection.fetch(
        """SELECT provider, model, valid_from_ms, prompt_micros_per_million, completion_micros_per_million
           FROM prices ORDER BY provider, model, valid_from_ms DESC LIMIT ?""",
        limit,
    )
    return [Price(*row) for row in rows]


def upsert_price(tx: Transaction, price: Price) -> None:
    tx.execute(
        """INSERT INTO prices (
               provider, model, valid_from_ms, prompt_micros_per_million, completion_micros_per_million)
           VALUES (?, ?, ?, ?, ?)
           ON CONFLICT (provider, model, valid_from_ms) DO UPDATE SET
               prompt_micros_per_million = excluded.prompt_micros_per_million,
               completion_micros_per_million = excluded.completion_micros_per_million""",
        *price,
    )
