"""The cast of accounts: Clerk, whose events `svix` signs, and a server that knows its secret and its key."""

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from svix.webhooks import Webhook

from app.edge import sqlite
from tests.conftest import ADMIN_TOKEN, Server, serving
from tests.fakes.clerk import SigningKey, session_claims

WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OPERATOR = {"X-Admin-Token": ADMIN_TOKEN}

_numbers = itertools.count(1)


class ClerkServer:
    """A server, and the three who talk to it: Clerk, a user with a session, an operator."""

    def __init__(self, server: Server, key: SigningKey) -> None:
        self.server = server
        self.key = key
        self.client = server.client()

    def send(
        self, kind: str, data: dict[str, Any], *, event_id: str | None = None, path: str = "/webhooks/clerk"
    ) -> httpx.Response:
        """A signed event of Clerk's."""
        body = json.dumps({"type": kind, "object": "event", "data": data})
        return self.client.post(path, content=body, headers=signed(body, event_id or new_event_id()))

    def profile(self, clerk_id: str) -> httpx.Response:
        """`/api/user/profile` with a fresh session token of this user."""
        return self.client.get("/api/user/profile", headers=self.session(clerk_id))

    def session(self, clerk_id: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key.sign(session_claims(time.time(), sub=clerk_id))}"}

    def operator(self, method: str, path: str, **params: Any) -> httpx.Response:
        return self.client.request(method, path, headers=OPERATOR, params=params or None)

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement beside the server, as an operator's shell would."""
        raw = sqlite.connect(self.server.data_dir / "core.db")
        try:
            return list(raw.execute(sql, values).fetchall())
        finally:
            raw.close()


def new_event_id() -> str:
    return f"msg_{next(_numbers)}"


def new_clerk_id() -> str:
    return f"user_{next(_numbers)}"


def signed(body: str, event_id: str, at: float | None = None, secret: str = WEBHOOK_SECRET) -> dict[str, str]:
    """Svix's headers for a body, signed `at` some time."""
    seconds = int(time.time() if at is None else at)
    signature = Webhook(secret).sign(event_id, datetime.fromtimestamp(seconds, UTC), body)
    return {"svix-id": event_id, "svix-timestamp": str(seconds), "svix-signature": signature}


@contextmanager
def serving_clerk(data_dir: Path, key: SigningKey, **environ: str) -> Iterator[ClerkServer]:
    known = {"CLERK_WEBHOOK_SECRET": WEBHOOK_SECRET, "CLERK_JWT_KEY": key.pem}
    with serving(data_dir, **known, **environ) as server:
        served = ClerkServer(server, key)
        with served.client:
            yield served


@pytest.fixture(scope="session")
def signing_key() -> SigningKey:
    return SigningKey()


@pytest.fixture(scope="module")
def clerk(tmp_path_factory: pytest.TempPathFactory, signing_key: SigningKey) -> Iterator[ClerkServer]:
    """One server for a file's tests: each uses users of its own."""
    with serving_clerk(tmp_path_factory.mktemp("clerk") / "data", signing_key) as served:
        yield served
