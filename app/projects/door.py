"""The door of projects and instances: who asks, also when it is a delegate, or nobody."""

from starlette.requests import Request

from app.edge.clock import now_ms
from app.edge.database import Database
from app.errors import Forbidden, Unauthenticated
from app.identity import api_keys
from app.identity.api_keys import READ_INSTANCES, Uses
from app.identity.authenticator import Authenticator
from app.identity.credential import DELEGATE_PREFIX, read_presented
from app.identity.door import MINDCACHE
from app.identity.principal import Account, Kind, Principal, account_of
from app.projects import delegates
from app.projects.access import Level, cap_of

NOBODY = Principal(Kind.ANONYMOUS, None)


class Entrance:
    """One for the process. `secret_uses` are the secrets of delegates that were used and not yet written."""

    def __init__(self, db: Database, authenticator: Authenticator) -> None:
        self._db = db
        self._authenticator = authenticator
        self.secret_uses = Uses()

    async def enter(self, request: Request, scope: str) -> Principal:
        """Who asks. Without a credential that is NOBODY where it suffices to read; else Unauthenticated."""
        presented = read_presented(request)
        if presented.delegate is not None and not self._authenticator.is_operator(request):
            principal = await self._identify_delegate(presented.delegate)
            if principal.delegate is not None:
                self._authenticator.limit_user(request, MINDCACHE, principal.delegate.user_id)
            return principal
        if presented.is_empty and scope == READ_INSTANCES and not self._authenticator.answers_nobody(MINDCACHE):
            self._authenticator.limit_address(request, MINDCACHE)
            return NOBODY
        return await self._authenticator.authenticate(request, MINDCACHE, scope, operators=True)

    async def admit(self, request: Request) -> Principal:
        """Who brings a header to a handshake, which no rate counts. Unauthenticated, Forbidden."""
        if self._authenticator.is_operator(request):
            return Principal(Kind.OPERATOR, None, is_operator=True)
        presented = read_presented(request)
        if presented.delegate is not None:
            return await self._identify_delegate(presented.delegate)
        return await self.identify(presented.bearer)

    async def identify(self, credential: str | None) -> Principal:
        """Whose credential this is, where it came in a frame or in a query. Unauthenticated, Forbidden."""
        if credential is not None and credential.startswith(DELEGATE_PREFIX):
            return await self._identify_delegate(credential)
        principal = await self._authenticator.identify(credential, MINDCACHE)
        if principal.key is not None:
            api_keys.check_scope(principal.key, READ_INSTANCES)
        return principal

    async def _identify_delegate(self, credential: str) -> Principal:
        now = now_ms()
        delegate = await self._db.read(delegates.identify, credential, now)
        self.secret_uses.note(delegate.secret_id, now)
        return Principal(Kind.DELEGATE, None, delegate=delegate)


async def enter(request: Request, scope: str = READ_INSTANCES) -> Principal:
    """`Entrance.enter` of this process."""
    entrance: Entrance = request.scope["state"]["entrance"]
    return await entrance.enter(request, scope)


def user_of(principal: Principal, least: Level) -> Account:
    """The user of a route that belongs to no project. Unauthenticated for nobody, Forbidden for a delegate, and for
    a key that is narrowed to a project or an instance, or may do less than `least`."""
    if principal.kind is Kind.ANONYMOUS:
        raise Unauthenticated(MINDCACHE.missing, certain=True)
    account, key = account_of(principal), principal.key
    if key is not None and key.scope_type != "account":
        raise Forbidden(f"This key is limited to one {key.scope_type}")
    if key is not None and cap_of(key) < least:
        raise Forbidden("Write permission required" if least <= Level.WRITE else "Admin permission required")
    return account
