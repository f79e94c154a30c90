"""Users: one row each, however many ways they sign in, and a tombstone once they are gone."""

from app.edge.changes import announce
from app.edge.database import Transaction
from app.errors import Unauthenticated
from app.identity import queries
from app.identity.ids import new_id
from app.identity.principal import Account

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
