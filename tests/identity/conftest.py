"""The cast of identity: an instance of Clerk with its key, and a verifier of its tokens."""

from collections.abc import AsyncIterator, Iterator

import pytest

from app.edge.outbound import Outbound
from app.identity.clerk import BadToken, Claims, ClerkTokens
from app.settings import Clerk
from tests.fakes.clerk import FakeClerk, SigningKey, fake_clerk, session_claims

NOW = 1_764_547_200


@pytest.fixture(scope="session")
def signing_key() -> SigningKey:
    return SigningKey("ins_first")


@pytest.fixture(scope="session")
def other_key() -> SigningKey:
    return SigningKey("ins_second")


@pytest.fixture
def clerk(signing_key: SigningKey) -> Iterator[FakeClerk]:
    """Publishes `signing_key`."""
    with fake_clerk(signing_key) as fake:
        yield fake


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    client = Outbound()
    yield client
    await client.close()


class Verifier:
    """`ClerkTokens` with a PEM, a clock that stands still, and a key to sign with."""

    def __init__(self, key: SigningKey, outbound: Outbound, **settings: object) -> None:
        self.now: float = NOW
        self.key = key
        clerk = Clerk(**({"jwt_key": key.pem} | settings))  # type: ignore[arg-type]
        self.tokens = ClerkTokens(clerk, outbound, lambda: self.now)

    async def verify(self, token: str | None = None, **changed: object) -> Claims:
        return await self.tokens.verify(token or self.key.sign(session_claims(NOW, **changed)))

    async def refusal(self, token: str | None = None, **changed: object) -> BadToken:
        with pytest.raises(BadToken) as refused:
            await self.verify(token, **changed)
        return refused.value


@pytest.fixture
def verifier(signing_key: SigningKey, outbound: Outbound) -> Verifier:
    return Verifier(signing_key, outbound)
