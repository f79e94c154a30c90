"""The demo: the users and the key that a first start in development finds, made once."""

import asyncio
from pathlib import Path
from typing import NamedTuple

from app.edge import folder
from app.edge.database import Connection, Database, Transaction, at_start
from app.edge.node import Node
from app.identity import api_keys, queries, users
from app.identity.ids import AK_PREFIX, Secret, hash_secret, new_ak_key, new_id
from app.identity.principal import Account
from app.identity.queries import CLERK, KeyRow

KEY_FILE = "demo-key"
DEMO_USER = "user_2demoAdaLovelace1815London"
DEMO_EMAIL = "ada@example.com"
DEMO_PLAN = "basic"
RELAY_USER = "demo-relay"
RELAY_EMAIL = "relay@example.com"
DEV_USER_SECONDS, LOOK_SECONDS = 10.0, 0.5


class Demo(NamedTuple):
    """`key` is None once it was revoked or its file has gone: a secret cannot be shown twice."""

    key: str | None
    key_path: Path
    user: str = DEMO_USER
    plan: str = DEMO_PLAN


async def prepare(db: Database, data_dir: Path, now: int) -> Demo:
    """Seed what is missing. What an operator deleted or revoked stays so; only `dev-user` comes back."""
    path = data_dir / KEY_FILE
    if await db.read(is_seeded):
        text = folder.find_secret(path)
    else:
        # The file comes first: a start that is killed between the two finds the same key and stores its hash.
        text = folder.keep_secret(path, lambda: new_ak_key().text)
        await db.write(seed, text, new_id("key"), now)
    if await db.read(queries.find_account, users.DEV_USER) is None:
        await db.write(users.ensure_dev_user, now)
    usable = text is not None and await db.read(_is_usable, text, now)
    return Demo(text if usable else None, path)


def is_seeded(connection: Connection) -> bool:
    """Whether the demo's user is there, or was and has been deleted."""
    found = queries.find_user_id_by_subject(connection, CLERK, DEMO_USER)
    return found is not None or queries.has_tombstone(connection, CLERK, DEMO_USER)


def seed(tx: Transaction, key_text: str, key_id: str, now: int) -> None:
    """`dev-user`; a user as Clerk would announce one; a relay and its key."""
    users.ensure_dev_user(tx, now)
    if is_seeded(tx):
        return
    user_id = new_id("usr")
    queries.insert_user(tx, user_id, email=DEMO_EMAIL, plan=DEMO_PLAN, now=now)
    queries.insert_identity(tx, CLERK, DEMO_USER, user_id)
    if queries.find_account(tx, RELAY_USER) is None:
        queries.insert_user(tx, RELAY_USER, email=RELAY_EMAIL, now=now)
    if queries.find_key_by_hash(tx, hash_secret(key_text)) is None:
        secret = Secret(key_text, key_text[:AK_PREFIX], hash_secret(key_text))
        api_keys.issue(tx, secret, _relay_key(key_id, secret, now))


def _relay_key(key_id: str, secret: Secret, now: int) -> KeyRow:
    return api_keys.operator_key(key_id, secret, RELAY_USER, "demo relay", ("write:usage",), now)


def _is_usable(connection: Connection, text: str, now: int) -> bool:
    key = queries.find_key_by_hash(connection, hash_secret(text))
    return key is not None and key.status == "active" and (key.expires_at_ms is None or key.expires_at_ms > now)


async def find_dev_user(db: Database, node: Node) -> Account | None:
    """`dev-user`, which a replica's first start may have to wait for: the primary makes it after the tables."""
    try:
        async with asyncio.timeout(DEV_USER_SECONDS):
            while True:
                account: Account | None = await at_start(db.read, queries.find_account, users.DEV_USER)
                if account is not None or node.is_primary:
                    return account
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        return None
