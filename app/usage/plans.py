"""Plans: rows that an operator may add to; what each allows a month, and how fast."""

UNLIMITED = -1
NEW_USERS = "free"
TOPIC = "plan"


def read_slug(slug: str) -> str:
    """The plan that a slug names: Clerk writes `starter_plan` for `starter`."""
    return slug.strip().removesuffix("_plan")


def monthly_tokens(plan_tokens: int, override: int | None) -> int:
    """What a user may spend: the override of the user's row goes before the plan's. UNLIMITED is -1."""
    return plan_tokens if override is None else override
