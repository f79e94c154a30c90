"""The commands of identity: `keys`, `users` and `seed`."""

import asyncio
import re
import sys

import click
import msgspec

from app.edge import beginning, console, migrate
from app.edge.clock import now_ms
from app.edge.console import Console, Record, instant_of, instant_or_none
from app.edge.database import Connection, Transaction
from app.errors import Invalid, NotFound
from app.identity import api_keys, demo, queries, users
from app.identity.ids import Secret, new_ak_key, new_id
from app.identity.queries import KeyRow, UserRow
from app.settings import DEVELOPMENT, read_unchecked

DAY_MS = 86_400_000
NAME_CHARACTERS = 100
ID_CHARACTERS = 255
MOST_DAYS = 36_500
MOST_SECONDS = 31_536_000
MOST_CALLS = 1_000_000
LARGEST_QUOTA = (1 << 53) - 1
_ID = re.compile(r"[\x21-\x7e]+")
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+")

KEY_COLUMNS = ("id", "name", "keyPrefix", "user", "scopes", "status", "rateLimit", "expiresAt", "lastUsedAt")
USER_COLUMNS = ("id", "clerkId", "email", "plan", "tokenQuota", "suspended", "createdAt")


@click.group("keys")
def keys_group() -> None:
    """API keys: make, list, revoke, rotate."""


@keys_group.command("create")
@click.option("--user", "any_id", metavar="ID", required=True, help="Whose key it is: our id or Clerk's.")
@click.option("--scope", "scopes", multiple=True, required=True, help="Such as write:usage; may be given again.")
@click.option("--name", required=True, help="What an operator will know it by.")
@click.option("--rate-limit", type=click.IntRange(0, MOST_CALLS), default=0, help="Calls an hour; 0 is no limit.")
@click.option("--expires-in", "days", type=click.IntRange(1, MOST_DAYS), metavar="DAYS", help="Never unless given.")
@console.options
def create_key(
    out: Console, any_id: str, scopes: tuple[str, ...], name: str, rate_limit: int, days: int | None
) -> None:
    """Make a key. Its secret is in this answer and nowhere else.

    A key made here is an operator's: with write:usage it writes for anybody.
    """
    now, secret = now_ms(), new_ak_key()
    expires = None if days is None else now + days * DAY_MS
    key = api_keys.operator_key(
        new_id("key"), secret, any_id, _name(name), scopes, now, rate_limit=rate_limit, expires_at_ms=expires
    )
    out.show(_secret_record(secret, out.write(_issue, secret, key)))


def _issue(tx: Transaction, secret: Secret, key: KeyRow) -> KeyRow:
    user = users.get(tx, key.user_id)
    return api_keys.issue(tx, secret, key._replace(user_id=user.id))


@keys_group.command("list")
@click.option("--user", "any_id", metavar="ID", help="Only this user's.")
@click.option("--limit", type=click.IntRange(1, console.MOST_ROWS), default=console.ROWS, show_default=True)
@console.options
def list_keys(out: Console, any_id: str | None, limit: int) -> None:
    """Show keys, newest first; never a secret."""
    out.show_all(map(_key_record, out.read(_list_keys, any_id, limit)), KEY_COLUMNS)


def _list_keys(connection: Connection, any_id: str | None, limit: int) -> list[KeyRow]:
    user_id = users.get(connection, any_id).id if any_id else None
    return queries.list_keys(connection, user_id, limit)


@keys_group.command("revoke")
@click.argument("key_id", metavar="ID")
@console.options
def revoke_key(out: Console, key_id: str) -> None:
    """End a key for ever; a running server refuses it within 300 ms."""
    key = out.write(api_keys.revoke, key_id, now_ms())
    out.say(_key_record(key), f"{key.id} ({key.name}) is revoked.")


@keys_group.command("rotate")
@click.argument("key_id", metavar="ID")
@click.option(
    "--grace", type=click.IntRange(0, MOST_SECONDS), default=0, metavar="SECONDS", help="The old key lives on."
)
@console.options
def rotate_key(out: Console, key_id: str, grace: int) -> None:
    """Make a key like this one, which ends at once unless --grace is given."""
    secret = new_ak_key()
    key = out.write(api_keys.rotate, key_id, new_id("key"), secret, grace * 1000, now_ms())
    out.show(_secret_record(secret, key))


@click.group("users")
def users_group() -> None:
    """Users, found by our id or Clerk's."""


@users_group.command("list")
@click.option("--after", default="", metavar="ID", help="Go on behind this one of our ids.")
@click.option("--limit", type=click.IntRange(1, console.MOST_ROWS), default=console.ROWS, show_default=True)
@console.options
def list_users(out: Console, after: str, limit: int) -> None:
    """Show users in the order of their ids."""
    out.show_all(map(_user_record, out.read(queries.list_users, after, limit)), USER_COLUMNS)


@users_group.command("show")
@click.argument("any_id", metavar="ID")
@console.options
def show_user(out: Console, any_id: str) -> None:
    """Show a user. `litehouse usage show` knows what it has spent."""
    out.show(_user_record(out.read(users.get, any_id)))


@users_group.command("create")
@click.option("--clerk-id", metavar="ID", help="Its id at Clerk.")
@click.option("--email")
@console.options
def create_user(out: Console, clerk_id: str | None, email: str | None) -> None:
    """Make a user on plan free, before any sign-in has announced it."""
    if clerk_id is not None and not (_ID.fullmatch(clerk_id) and len(clerk_id) <= ID_CHARACTERS):
        raise Invalid(f"--clerk-id: expected 1 to {ID_CHARACTERS} visible ASCII characters, got {clerk_id[:40]!r}")
    if email is not None and not (_EMAIL.fullmatch(email) and len(email) <= ID_CHARACTERS):
        raise Invalid(f"--email: expected an address, got {email[:40]!r}")
    out.show(_user_record(out.write(users.create, clerk_id, email, now_ms())))


@users_group.command("plan")
@click.argument("any_id", metavar="ID")
@click.argument("plan", metavar="NAME")
@console.options
def change_plan(out: Console, any_id: str, plan: str) -> None:
    """Put a user on a plan; what it has used stays used."""
    user = out.write(users.change_plan, any_id, plan, now_ms())
    out.say(_user_record(user), f"{any_id} is on plan {user.plan}.")


# `-1` is a value here, not an option.
@users_group.command("quota", context_settings={"ignore_unknown_options": True})
@click.argument("any_id", metavar="ID")
@click.argument("tokens", metavar="N", type=click.IntRange(-1, LARGEST_QUOTA))
@console.options
def change_quota(out: Console, any_id: str, tokens: int) -> None:
    """Give a user N tokens a month instead of its plan's; -1 is unlimited, 0 is the plan's again."""
    user = out.write(users.change_quota, any_id, tokens or None, now_ms())
    said = {None: "what its plan says", -1: "no limit"}.get(user.token_quota, f"{tokens} tokens a month")
    out.say(_user_record(user), f"{any_id} has {said}.")


@users_group.command("suspend")
@click.argument("any_id", metavar="ID")
@console.options
def suspend(out: Console, any_id: str) -> None:
    """Refuse a user's tokens and keys."""
    out.say(_user_record(out.write(users.suspend, any_id, True, now_ms())), f"{any_id} is suspended.")


@users_group.command("restore")
@click.argument("any_id", metavar="ID")
@console.options
def restore(out: Console, any_id: str) -> None:
    """Lift a suspension."""
    out.say(_user_record(out.write(users.suspend, any_id, False, now_ms())), f"{any_id} is restored.")


@users_group.command("delete")
@click.argument("any_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask at a terminal.")
@console.options
def delete_user(out: Console, any_id: str, yes: bool) -> None:
    """Remove a user and what it owns, for ever: its sign-ins cannot come back. Its ledger rows name nobody."""
    if not yes and sys.stdin.isatty():
        click.confirm(f"Delete {any_id} for ever?", abort=True)
    user_id = out.write(_delete, any_id, now_ms())
    out.say({"id": user_id, "deleted": True}, f"{any_id} is deleted.")


def _delete(tx: Transaction, any_id: str, now: int) -> str:
    user_id = queries.find_user_id(tx, any_id)
    if user_id is None or not users.delete(tx, user_id, now):
        raise NotFound(f"User not found: {any_id}")
    return user_id


@click.command("seed")
@console.options
def seed_command(out: Console) -> None:
    """Make the demo's users and key.

    A first start in development does the same.
    """
    settings = read_unchecked()
    if settings.environment != DEVELOPMENT:
        raise Invalid(f"Only development is seeded; ENVIRONMENT is {settings.environment}")
    out.require_primary()
    beginning.require_free(out.database_path, settings.backup_url)
    migrate.migrate(out.database_path, "core")
    made = asyncio.run(out.use(lambda db: demo.prepare(db, out.data_dir, now_ms())))
    out.show({"key": made.key, "keyFile": str(made.key_path), "user": made.user, "plan": made.plan})


def _name(text: str) -> str:
    name = text.strip()
    if not 1 <= len(name) <= NAME_CHARACTERS or not name.isprintable():
        raise Invalid(f"--name: expected 1 to {NAME_CHARACTERS} printable characters, got {len(name)}")
    return name


def _secret_record(secret: Secret, key: KeyRow) -> Record:
    return {"key": secret.text, **_key_record(key)}


def _key_record(key: KeyRow) -> Record:
    return {
        "id": key.id,
        "name": key.name,
        "keyPrefix": key.key_prefix,
        "user": key.user_id,
        "scopes": msgspec.json.decode(key.scopes, type=list[str]),
        "byOperator": bool(key.by_operator),
        "rateLimit": key.rate_limit,
        "status": key.status,
        "expiresAt": instant_or_none(key.expires_at_ms),
        "lastUsedAt": instant_or_none(key.last_used_at_ms),
        "createdAt": instant_of(key.created_at),
    }


def _user_record(user: UserRow) -> Record:
    return {
        "id": user.id,
        "clerkId": user.clerk_id,
        "email": user.email,
        "plan": user.plan,
        "tokenQuota": user.token_quota,
        "suspended": user.suspended,
        "seenAt": instant_or_none(user.seen_at_ms),
        "createdAt": instant_of(user.created_at),
    }
