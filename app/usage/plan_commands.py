"""The commands of what usage may cost: `plans` and `prices`."""

import re

import click

from app.edge import console
from app.edge.changes import announce
from app.edge.clock import now_ms, parse_instant
from app.edge.console import Console, Record
from app.edge.database import Transaction
from app.errors import Invalid
from app.usage import plan_queries, plans
from app.usage.plan_queries import Plan, Price
from app.usage.wire import LARGEST_COUNT, TEXT_CHARACTERS

LARGEST_RATE = 1_000_000
LARGEST_PRICE = 1_000_000_000
PRICE_TOPIC = "price"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

PLAN_COLUMNS = ("name", "tokens", "rpm", "burst", "priceCents", "users")
PRICE_COLUMNS = ("provider", "model", "validFrom", "promptMicros", "completionMicros")

Amount = click.IntRange(0, LARGEST_PRICE)
Rate = click.IntRange(0, LARGEST_RATE)


@click.group("plans")
def plans_group() -> None:
    """What each plan allows. Tokens: -1 is unlimited, 0 is nothing. Requests a minute: 0 is no limit."""


@plans_group.command("list")
@console.options
def list_plans(out: Console) -> None:
    """Show the plans, and how many users are on each."""
    listed = out.read(plan_queries.list_plans, console.MOST_ROWS)
    out.show_all(({**_plan_record(plan), "users": users} for plan, users in listed), PLAN_COLUMNS)


@plans_group.command("set")
@click.argument("name")
@click.option("--tokens", type=click.IntRange(-1, LARGEST_COUNT), help="A month; -1 is unlimited, 0 nothing.")
@click.option("--rpm", type=Rate, help="Requests a minute; 0 is no limit.")
@click.option("--burst", type=Rate, help="How many requests may come at once.")
@click.option("--price-cents", type=Amount)
@console.options
def set_plan(
    out: Console, name: str, tokens: int | None, rpm: int | None, burst: int | None, price_cents: int | None
) -> None:
    """Add a plan, or change what is given of one. A running server follows within 300 ms."""
    _check_name(name)
    plan = out.write(_set_plan, name, tokens, rpm, burst, price_cents, now_ms())
    out.show(_plan_record(plan))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Invalid(f"{name[:70]!r} is not a plan's name: lower-case letters, digits, - and _, at most 64")
    if plans.read_slug(name) != name:
        raise Invalid(f"A plan cannot be named {name}: slugs are read without _plan, so nobody could be put on it")


def _set_plan(
    tx: Transaction,
    name: str,
    tokens: int | None,
    rpm: int | None,
    burst: int | None,
    price_cents: int | None,
    now: int,
) -> Plan:
    old = plan_queries.find_plan(tx, name)
    if old is None and (tokens is None or rpm is None):
        raise Invalid(f"There is no plan {name} yet: a new one needs --tokens, --rpm and --burst")
    old = old or Plan(name, 0, 0, 0, None)
    plan = Plan(
        name,
        old.monthly_tokens if tokens is None else tokens,
        old.requests_per_minute if rpm is None else rpm,
        old.burst if burst is None else burst,
        old.price_cents if price_cents is None else price_cents,
    )
    if plan.requests_per_minute and not plan.burst:
        raise Invalid("--burst: at least 1 with a rate, or no request would ever pass")
    announce(tx, plans.TOPIC, name)
    plan_queries.upsert_plan(tx, plan, now)
    return plan


@click.group("prices")
def prices_group() -> None:
    """What a million tokens of a model cost.

    In micros, millionths of the currency.
    """


@prices_group.command("list")
@console.options
def list_prices(out: Console) -> None:
    """Show the prices, the newest first for each model."""
    out.show_all(map(_price_record, out.read(plan_queries.list_prices, console.MOST_ROWS)), PRICE_COLUMNS)


@prices_group.command("set")
@click.argument("provider")
@click.argument("model")
@click.option("--prompt", type=Amount, required=True, metavar="MICROS", help="A million input tokens.")
@click.option("--completion", type=Amount, required=True, metavar="MICROS", help="A million output tokens.")
@click.option("--from", "since", metavar="INSTANT", help="ISO-8601, UTC unless it says otherwise; now unless given.")
@console.options
def set_price(out: Console, provider: str, model: str, prompt: int, completion: int, since: str | None) -> None:
    """Set a model's price from an instant on. What is in the ledger keeps the price it was written with."""
    for text in (provider, model):
        if not 1 <= len(text) <= TEXT_CHARACTERS or not text.isprintable():
            raise Invalid(f"Expected 1 to {TEXT_CHARACTERS} printable characters, got {text[:40]!r}")
    price = Price(provider, model, now_ms() if since is None else _instant(since), prompt, completion)
    out.write(_set_price, price)
    out.show(_price_record(price))


def _set_price(tx: Transaction, price: Price) -> None:
    announce(tx, PRICE_TOPIC, f"{price.provider} {price.model}")
    plan_queries.upsert_price(tx, price)


def _instant(text: str) -> int:
    try:
        return parse_instant(text)
    except ValueError as error:
        raise Invalid(f"--from: expected an ISO-8601 instant, got {text[:40]!r}") from error


def _plan_record(plan: Plan) -> Record:
    return {
        "name": plan.name,
        "tokens": plan.monthly_tokens,
        "rpm": plan.requests_per_minute,
        "burst": plan.burst,
        "priceCents": plan.price_cents,
    }


def _price_record(price: Price) -> Record:
    return {
        "provider": price.provider,
        "model": price.model,
        "validFrom": console.instant_or_none(price.valid_from_ms),
        "promptMicros": price.prompt_micros_per_million,
        "completionMicros": price.completion_micros_per_million,
    }
