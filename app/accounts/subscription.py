"""The subscription: the plan that a provider says a user has."""

from app.accounts import queries
from app.edge.changes import announce
from app.edge.database import Transaction
from app.identity import queries as identity_queries
from app.identity import users
from app.usage.plans import read_slug

SLUG_CHARACTERS = 100


def put_on_plan(tx: Transaction, user_id: str, slug: str, now: int) -> str:
    """Move a user to the plan of a slug; usage stays as it is. What was done, in words for the log."""
    plan = read_slug(slug)
    if not queries.has_plan(tx, plan):
        return f"unknown plan {plan[:SLUG_CHARACTERS]!r}: kept"
    user = queries.find_user(tx, user_id)
    if user is not None and user.plan != plan:
        identity_queries.update_plan(tx, user_id, plan, now)
        announce(tx, users.TOPIC, user_id)
    return f"plan {plan}"
