"""A principal: who asks, and what they may do."""

from enum import Enum
from typing import NamedTuple

from app.edge.limiter import Rate
from app.errors import Forbidden


class Kind(Enum):
    USER = "user"
    KEY = "key"
    OPERATOR = "operator"
    DELEGATE = "delegate"
    ANONYMOUS = "anonymous"


class Account(NamedTuple):
    """What every request of a user needs to know of its row and its plan."""

    user_id: str
    clerk_id: str | None
    suspended: bool
    rate: Rate

    @property
    def public_id(self) -> str:
        """The id that answers give: the Clerk id where there is one."""
        return self.clerk_id or self.user_id


class ApiKey(NamedTuple):
    """A key as it is used; its secret is known only as a hash.

    An `ak_` key is narrowed by `scopes`, an `mc_live_` key by `permissions` and by the one project or instance of
    its `scope_type` and `scope_id`.
    """

    id: str
    user_id: str
    scopes: frozenset[str]
    by_operator: bool
    rate_limit: int
    status: str
    expires_at_ms: int | None
    live: bool
    scope_type: str = "account"
    scope_id: str | None = None
    permissions: frozenset[str] = frozenset()


class Delegate(NamedTuple):
    """A machine identity of a user's, let in by one of its secrets."""

    id: str
    user_id: str
    secret_id: str
    name: str


class Principal(NamedTuple):
    """`account` is None for an operator who came with an admin header, for a delegate and for nobody."""

    kind: Kind
    account: Account | None
    key: ApiKey | None = None
    is_operator: bool = False
    delegate: Delegate | None = None

    @property
    def id(self) -> str:
        """What answers and limits are kept under."""
        if self.key is not None:
            return self.key.id
        if self.delegate is not None:
            return self.delegate.id
        return self.account.user_id if self.account else self.kind.value


def account_of(principal: Principal) -> Account:
    """The user behind a principal of a route that takes no admin header."""
    if principal.account is None:
        raise Forbidden("This needs a user", certain=True)
    return principal.account
