"""The authenticator: from a request's headers to a principal, with verified tokens and keys remembered.

What is remembered is bounded, never outlives a token's `exp`, and is forgotten when the feed of changes
says that a user, key or plan has changed.
"""

import time

import structlog
from starlette.requests import Request

from app.edge.changes import Changes
from app.edge.clock import now_ms
from app.edge.database import Database
from app.edge.http import client_address
from app.edge.limiter import Buckets, Rate, RollingHours, too_many
from app.errors import Forbidden, Unauthenticated
from app.identity import api_keys, queries, users
from app.identity.clerk import BadToken, Claims, ClerkTokens
from app.identity.credential import Presented, is_delegate, is_jwt, is_key, is_same, read_presented
from app.identity.door import WITH_CREDENTIAL, WITHOUT_CREDENTIAL, Door
from app.identity.ids import hash_secret
from app.identity.newcomers import Newcomers
from app.identity.principal import Account, ApiKey, Kind, Principal
from app.settings import Settings

REMEMBERED = 10_000

log = structlog.get_logger("identity")


class Authenticator:
    """One for the process. `newcomers` are the users that a token announces before there is a row."""

    def __init__(self, db: Database, settings: Settings, tokens: ClerkTokens, newcomers: Newcomers) -> None:
        self._db = db
        self._settings = settings
        self._tokens = tokens
        self._newcomers = newcomers
        self._accounts: dict[str, Account] = {}
        self._keys: dict[str, ApiKey] = {}
        self._told = 0
        self._buckets = Buckets()
        self._hours = RollingHours()
        self.uses = api_keys.Uses()

    def listen(self, changes: Changes) -> None:
        changes.listen(users.TOPIC, self._forget_user)
        changes.listen(api_keys.TOPIC, lambda key: self._forget_keys())
        changes.listen("plan", lambda key: self._forget_accounts())

    async def authenticate(
        self, request: Request, door: Door, scope: str | None = None, *, operators: bool = False
    ) -> Principal:
        """Who asks, let in at the door's rate.

        Unauthenticated in the door's words, Forbidden when a key lacks `scope`, RateLimited. With
        `operators` an admin header is a credential too; its principal has no account.
        """
        presented = read_presented(request)
        if operators and self._is_admin(presented):
            return Principal(Kind.OPERATOR, None, is_operator=True)
        # A guess at an admin secret is counted, whatever is presented beside it.
        if (presented.bearer is None and not self.answers_nobody(door)) or (operators and presented.claims_admin):
            self.limit_address(request, door)
        principal = await self.identify(presented.bearer, door)
        if principal.key is not None:
            api_keys.check_scope(principal.key, scope)
        self._limit(request, principal, door)
        return principal

    def answers_nobody(self, door: Door) -> bool:
        """Whether `dev-user` answers at this door for a request without a credential."""
        return self._settings.dev_user and door.dev_user

    async def authenticate_operator(self, request: Request) -> Principal:
        """An admin header, or a token of a user named in ADMIN_USER_IDS. Unauthenticated otherwise.

        A right admin header is not counted; a wrong one is, as a caller without a credential.
        """
        presented = read_presented(request)
        if self._is_admin(presented):
            return Principal(Kind.OPERATOR, None, is_operator=True)
        credential = presented.bearer
        if credential is None or presented.claims_admin:
            self.limit_address(request, _OPERATORS)
        if credential is None or is_key(credential) or not is_jwt(credential):
            raise Unauthenticated("Unauthorized", certain=True)
        principal = await self._identify_token(credential, _OPERATORS)
        self._limit(request, principal, _OPERATORS)
        if not principal.is_operator:
            raise Forbidden("Admin permission required")
        return principal

    def is_operator(self, request: Request) -> bool:
        """Whether an admin header of this request holds an admin secret."""
        return self._is_admin(read_presented(request))

    def _is_admin(self, presented: Presented) -> bool:
        token, key, settings = presented.admin_token, presented.admin_key, self._settings
        return (
            is_same(token, settings.admin_token)
            or is_same(key, settings.admin_token)
            or is_same(key, settings.admin_key)
        )

    async def identify(self, credential: str | None, door: Door) -> Principal:
        """Whose credential this is, whatever it may open. Unauthenticated in the door's words."""
        if credential is not None and is_key(credential):
            return await self._identify_key(credential)
        if credential is not None and is_jwt(credential):
            return await self._identify_token(credential, door)
        if self.answers_nobody(door) and not (credential is not None and is_delegate(credential)):
            dev = self._accounts.get(users.DEV_USER) or await self._account(users.DEV_USER, door)
            return Principal(Kind.USER, dev)
        raise Unauthenticated(door.missing if credential is None else door.invalid, certain=True)

    async def _identify_token(self, token: str, door: Door) -> Principal:
        try:
            claims = await self._tokens.verify(token)
        except BadToken as bad:
            raise Unauthenticated(door.expired if bad.expired else door.invalid, certain=True) from bad
        account = self._accounts.get(claims.sub) or await self._account_of_subject(claims)
        if account.suspended:
            raise Unauthenticated(door.invalid)
        admins = self._settings.admin_user_ids
        return Principal(Kind.USER, account, is_operator=claims.sub in admins or account.user_id in admins)

    async def _account_of_subject(self, claims: Claims) -> Account:
        told = self._told
        account = await self._db.read(queries.find_account_by_subject, queries.CLERK, claims.sub)
        if account is not None:
            return self._remember(claims.sub, account, told)
        # Not remembered: a commit that suspends it may have been told of before this line runs.
        return await self._newcomers.welcome(claims.sub)

    async def _identify_key(self, text: str) -> Principal:
        key = self._keys.get(text)
        if key is None:
            api_keys.check_format(text)
            told = self._told
            key = await self._db.read(queries.find_key_by_hash, hash_secret(text))
            if key is None:
                raise Unauthenticated("Invalid API key")
            if told == self._told:
                _bound(self._keys)
                self._keys[text] = key
        now = now_ms()
        api_keys.check_usable(key, now)
        account = self._accounts.get(key.user_id) or await self._account(key.user_id, _KEYS)
        if account.suspended:
            raise Unauthenticated("Invalid API key")
        self.uses.note(key.id, now)
        return Principal(Kind.KEY, account, key)

    async def _account(self, user_id: str, door: Door) -> Account:
        told = self._told
        account = await self._db.read(queries.find_account, user_id)
        if account is None:
            raise Unauthenticated(door.invalid)
        return self._remember(user_id, account, told)

    def _remember(self, asked: str, account: Account, told: int) -> Account:
        """Keep what was read, unless a change has been told of meanwhile: nobody would tell of it again."""
        if told == self._told:
            _bound(self._accounts)
            self._accounts[asked] = account
        return account

    def _forget_keys(self) -> None:
        self._told += 1
        self._keys.clear()

    def _forget_accounts(self) -> None:
        self._told += 1
        self._accounts.clear()

    def _forget_user(self, user_id: str) -> None:
        self._told += 1
        account = self._accounts.pop(user_id, None)
        for asked in [asked for asked, held in self._accounts.items() if held.user_id == user_id]:
            account = self._accounts.pop(asked)
        if account is not None:
            self._keys = {text: key for text, key in self._keys.items() if key.user_id != user_id}

    def _limit(self, request: Request, principal: Principal, door: Door) -> None:
        account, key = principal.account, principal.key
        if account is None or (key is not None and key.by_operator and door.name == "ingestion"):
            rate = None
        else:
            rate = door.rate or account.rate
        now = time.monotonic()
        if key is not None and key.rate_limit:
            wait = self._hours.take(key.id, key.rate_limit, now)
            if wait:
                raise too_many(wait, key.rate_limit, key.rate_limit + 1)
        if account is not None and rate is not None:
            self._take_of_user(request, door, account.user_id, rate, now)

    def limit_user(self, request: Request, door: Door, user_id: str) -> None:
        """Take a token of a user's bucket at a door with a rate of its own, for who acts for that user."""
        if door.rate is not None:
            self._take_of_user(request, door, user_id, door.rate, time.monotonic())

    def _take_of_user(self, request: Request, door: Door, user_id: str, rate: Rate, now: float) -> None:
        if rate.per_minute:
            # What goes by the plan's rate is one bucket, whichever door it comes through.
            bucket = door.name if door.rate else "plan"
            self._take(request, f"{bucket} {user_id}", rate, now)

    def limit_address(self, request: Request, door: Door) -> None:
        if door.rate is not None:
            self._take(request, f"{door.name} @{client_address(request)}", WITHOUT_CREDENTIAL, time.monotonic())

    def _take(self, request: Request, bucket: str, rate: Rate, now: float) -> None:
        decision = self._buckets.take(bucket, rate, now)
        request.scope["rate_headers"] = decision.headers(time.time())
        if not decision.allowed:
            raise too_many(decision.retry_after, rate.per_minute, rate.per_minute + 1)


_OPERATORS = Door("operators", "Unauthorized", "Unauthorized", "Unauthorized", WITH_CREDENTIAL)
_KEYS = Door("keys", "Invalid API key", "Invalid API key", "Invalid API key", None)


async def authenticate(request: Request, door: Door, scope: str | None = None, *, operators: bool = False) -> Principal:
    """`Authenticator.authenticate` of this process."""
    return await authenticator_of(request).authenticate(request, door, scope, operators=operators)


async def authenticate_operator(request: Request) -> Principal:
    return await authenticator_of(request).authenticate_operator(request)


def authenticator_of(request: Request) -> Authenticator:
    authenticator: Authenticator = request.scope["state"]["authenticator"]
    return authenticator


def _bound(cache: "dict[str, Account] | dict[str, ApiKey]") -> None:
    if len(cache) >= REMEMBERED:
        del cache[next(iter(cache))]
