"""Users: one row each, however many ways they sign in, and a tombstone once they are gone."""

from app.edge.changes import announce
from app.edge.database import Connection, Transaction
from app.errors import Conflict, NotFound, Unauthenticated
from app.identity import queries
from app.identity.ids import new_id
from app.identity.principal import Account
from app.identity.queries import UserRow

TOPIC = "user"
DEV_USER = "dev-user"


def ensure_user(tx: Transaction, provider: str, subject: str, now: int) -> Account:
    """The account behind a provider's id, made when it is new. Unauthenticated once it was deleted."""
    account = queries.find_account_by_subject(tx, provider, subject)
    if account is not None:
        return account
    if queries.has_tombstone(tx, provider, subject):
        raise Unauthenticated("Invalid token")
    user_id = new_id("usr")
    queries.insert_user(tx, user_id, now=now)
    queries.insert_identity(tx, provider, subject, user_id)
    made = queries.find_account(tx, user_id)
    assert made is not None
    return made


def ensure_dev_user(tx: Transaction, now: int) -> None:
    """The row that answers for missing credentials in development: plan `premium`, no operator."""
    if queries.find_account(tx, DEV_USER) is None:
        queries.insert_user(tx, DEV_USER, email="dev@localhost", plan="premium", now=now)


def delete(tx: Transaction, user_id: str, now: int) -> bool:
    """Remove a user and what it owns; its ledger rows stay and name nobody. False when there was none."""
    for provider, subject in queries.list_subjects(tx, user_id):
        queries.insert_tombstone(tx, provider, subject, now)
    announce(tx, TOPIC, user_id)
    return queries.delete_user(tx, user_id) > 0


def create(tx: Transaction, clerk_id: str | None, email: str | None, now: int) -> UserRow:
    """A user that an operator announces. Conflict when that Clerk id is taken, or was deleted."""
    user_id = new_id("usr")
    if clerk_id is not None:
        if queries.find_user_id(tx, clerk_id) is not None:
            raise Conflict(f"There is a user {clerk_id} already")
        if queries.has_tombstone(tx, queries.CLERK, clerk_id):
            raise Conflict(f"{clerk_id} was deleted and cannot come back")
    queries.insert_user(tx, user_id, email=email, now=now)
    if clerk_id is not None:
        queries.insert_identity(tx, queries.CLERK, clerk_id, user_id)
    return get(tx, user_id)


def get(connection: Connection, any_id: str) -> UserRow:
    """By our id or Clerk's. NotFound."""
    user_id = queries.find_user_id(connection, any_id)
    user = queries.find_user(connection, user_id) if user_id else None
    if user is None:
        raise NotFound(f"User not found: {any_id}")
    return user


def change_plan(tx: Transaction, any_id: str, plan: str, now: int) -> UserRow:
    """Put a user on a plan; what was used stays used. NotFound for either."""
    user = get(tx, any_id)
    if queries.find_plan_name(tx, plan) is None:
        raise NotFound(f"Plan not found: {plan}")
    announce(tx, TOPIC, user.id)
    queries.update_plan(tx, user.id, plan, now)
    return user._replace(plan=plan)


def change_quota(tx: Transaction, any_id: str, quota: int | None, now: int) -> UserRow:
    """Override the plan's tokens, -1 for unlimited, None for what the plan says. NotFound."""
    user = get(tx, any_id)
    announce(tx, TOPIC, user.id)
    queries.update_token_quota(tx, user.id, quota, now)
    return user._replace(token_quota=quota)


def suspend(tx: Transaction, any_id: str, suspended: bool, now: int) -> UserRow:
    """Refuse a user's tokens and keys, or take them again. NotFound."""
    user = get(tx, any_id)
    announce(tx, TOPIC, user.id)
    queries.update_suspended(tx, user.id, suspended, now)
    return user._replace(suspended=suspended)
