"""The cast of projects: a server that knows Clerk's key, people with sessions, and what they make."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from app.edge.clock import now_ms, sql_text
from app.edge.database import Transaction
from app.edge.http import encode_json
from app.identity import api_keys, queries, users
from app.identity.ids import new_ak_key, new_id, new_live_key
from app.identity.queries import KeyRow
from tests.conftest import ADMIN_TOKEN, Beside, Server
from tests.fakes.clerk import SigningKey, session_claims

TOKEN_SECONDS = 600
OPERATOR = {"X-Admin-Token": ADMIN_TOKEN}
_numbers = itertools.count(1)

Json = dict[str, Any]


class Person(NamedTuple):
    """A user who signed in; `id` is ours, `clerk_id` what answers show."""

    id: str
    clerk_id: str
    email: str
    headers: dict[str, str]


class Cast(Beside):
    """A server, and whoever a test asks for."""

    def __init__(self, data_dir: Path) -> None:
        self.signing_key = SigningKey()
        self.server = Server(data_dir, CLERK_JWT_KEY=self.signing_key.pem)
        super().__init__(data_dir)
        self.client = self.server.client()

    def close(self) -> None:
        self.client.close()
        self.server.close()

    def person(self, email: str | None = None) -> Person:
        number = next(_numbers)
        made = Person(new_id("usr"), f"user_{number}", email or f"{number}@example.com", {})
        self.beside(add_person, made)
        return made._replace(headers=self.session(made))

    def session(self, person: Person) -> dict[str, str]:
        at = int(time.time())
        claims = session_claims(at, sub=person.clerk_id, exp=at + TOKEN_SECONDS)
        return {"Authorization": f"Bearer {self.signing_key.sign(claims)}"}

    def delete(self, person: Person) -> None:
        self.beside(users.delete, person.id, now_ms())

    def key(self, person: Person, *permissions: str, scope: tuple[str, str] | None = None) -> "Key":
        """An `mc_live_` key; `scope` is `(project or instance, id)`."""
        key_id, text = self.beside(add_live_key, person.id, permissions, scope)
        return Key(key_id, {"X-API-Key": text})

    def ak_key(self, person: Person, *scopes: str) -> "Key":
        secret = new_ak_key()
        row = api_keys.operator_key(new_id("key"), secret, person.id, "a test's", scopes, now_ms())
        self.beside(api_keys.issue, secret, row._replace(by_operator=False))
        return Key(row.id, {"X-API-Key": secret.text})

    # -- through the door -------------------------------------------------------------------------------

    def call(
        self, who: "Person | Key | None", method: str, path: str, body: Any = None, **headers: str
    ) -> httpx.Response:
        """A request of somebody's; `_` in a header's name stands for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        known = {} if who is None else who.headers
        return self.client.request(method, path, json=body, headers={**known, **sent})

    def get(self, who: "Person | Key | None", path: str) -> Any:
        """The answer to a GET that must succeed."""
        answer = self.call(who, "GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def make(self, who: "Person | Key", path: str, body: Any) -> Json:
        """What a POST that must succeed has made."""
        answer = self.call(who, "POST", path, body)
        assert answer.status_code in (200, 201), answer.text
        made: Json = answer.json()
        return made

    def project(self, who: "Person | Key", name: str = "garden") -> Json:
        return self.make(who, "/api/projects", {"name": name})

    def instance(self, who: "Person | Key", project: Json, name: str = "draft") -> Json:
        return self.make(who, f"/api/projects/{project['id']}/instances", {"name": name})

    def share(self, who: "Person | Key", place: str, permission: str, person: Person | None = None) -> Json:
        """Share `projects/<id>` or `instances/<id>` with a person, or with everybody."""
        target = {"targetType": "user", "targetId": person.id} if person else {"targetType": "public"}
        return self.make(who, f"/api/{place}/shares", {**target, "permission": permission})

    def role(self, who: "Person | Key | None", path: str) -> str | int:
        """The role that an answer gives, or the status of a refusal."""
        answer = self.call(who, "GET", path)
        role: str | int = answer.json()["role"] if answer.status_code == 200 else answer.status_code
        return role

    def announced(self, topic: str) -> list[str]:
        """The keys under a topic of the feed, oldest first."""
        return [row[0] for row in self.rows("SELECT key FROM changes WHERE topic = ? ORDER BY sequence", topic)]


class Key(NamedTuple):
    """An API key, or a delegate with a secret."""

    id: str
    headers: dict[str, str]


def delegate(cast: Cast, owner: Person, **flags: bool) -> Key:
    """A delegate with a secret, and what its flags say."""
    made = cast.make(owner, "/api/delegates", {"name": "sensor", "keyPermissions": flags})
    return with_secret(cast, owner, made["delegate_id"])


def with_secret(cast: Cast, owner: Person, delegate_id: str) -> Key:
    secret = cast.make(owner, f"/api/delegates/{delegate_id}/secrets", {"name": "first"})["delegateSecret"]
    return Key(delegate_id, {"Authorization": f"ApiKey {delegate_id}:{secret}"})


def grant(cast: Cast, owner: Person, key: Key, instance_id: str, permission: str) -> None:
    cast.make(owner, f"/api/delegates/{key.id}/grants", {"instanceId": instance_id, "permission": permission})


def add_person(tx: Transaction, person: Person) -> None:
    queries.insert_user(tx, person.id, email=person.email, now=now_ms())
    queries.insert_identity(tx, queries.CLERK, person.clerk_id, person.id)


def add_live_key(
    tx: Transaction, user_id: str, permissions: tuple[str, ...], scope: tuple[str, str] | None
) -> tuple[str, str]:
    """Its id and its text."""
    secret = new_live_key()
    row = KeyRow(
        id=new_id("key"),
        name="a test's",
        key_prefix=secret.prefix,
        scope_type=scope[0] if scope else "account",
        scope_id=scope[1] if scope else None,
        permissions=encode_json(permissions).decode(),
        scopes="[]",
        by_operator=False,
        rate_limit=0,
        status="active",
        expires_at_ms=None,
        last_used_at_ms=None,
        created_at=sql_text(now_ms()),
        user_id=user_id,
    )
    api_keys.issue(tx, secret, row)
    return row.id, secret.text


def refused(answer: httpx.Response) -> tuple[int, str]:
    """The status and the sentence of a refusal."""
    return answer.status_code, answer.json()["error"]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    """One server for this folder: each test brings people of its own."""
    made = Cast(tmp_path_factory.mktemp("projects") / "data")
    made.server.start()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def cast(served: Cast) -> Cast:
    return served


@pytest.fixture
def alice(cast: Cast) -> Person:
    return cast.person()


@pytest.fixture
def bob(cast: Cast) -> Person:
    return cast.person()
