"""The cast of metering: a server with a relay's key, and as many users as a test asks for."""

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app.edge import sqlite
from app.edge.changes import announce
from app.edge.clock import now_ms, sql_text
from app.edge.database import Transaction
from app.identity import api_keys, queries, users
from app.identity.ids import Secret, new_ak_key, new_id
from app.identity.queries import KeyRow
from app.usage import plan_queries, plans
from app.usage.plan_queries import Plan
from tests.conftest import Beside, Server

EVENTS = "/api/usage/events"
QUOTA = "/api/usage/quota"
HISTORY = "/api/usage/history"
EXPORT = "/api/usage/export"
RESERVATIONS = "/api/usage/reservations"

# A plan of a million tokens whose rate no test meets, so that only the tests of rates do.
ROOMY = Plan("roomy", 1_000_000, 0, 0, None)
ADMIN = "user_who_is_an_operator"
READ_WRITE = ("read:usage", "write:usage")
# What the server's feed of changes promises of a change made by another process.
SEEN_SECONDS = 0.3
_numbers = itertools.count(1)

Event = dict[str, Any]


class Person(NamedTuple):
    """A user; `key` is one that the user made, with both usage scopes."""

    id: str
    clerk_id: str
    key: str


class Relay(Beside):
    """What stands in front of the server: its keys, its users, and a view of its database."""

    def __init__(self, data_dir: Path, **environ: str) -> None:
        self._signing_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.server = Server(data_dir, CLERK_JWT_KEY=self._public_pem(), **environ)
        super().__init__(data_dir)
        self.beside(plan_queries.upsert_plan, ROOMY, now_ms())
        self.owner = self.person("unlimited")
        self.key = self.new_key(self.owner.id, READ_WRITE, by_operator=True)
        self.bare_key = self.new_key(self.owner.id, (), by_operator=False)
        self.alice = self.person("free", "user_alice")
        self.bob = self.person("basic", "user_bob")
        self.client = self.server.client()

    def close(self) -> None:
        """Close the client and stop the server, where it runs."""
        self.client.close()
        self.server.close()

    # -- beside the server, as a command would --------------------------------------------------------

    def person(self, plan: str = ROOMY.name, clerk_id: str | None = None) -> Person:
        """A new user with a Clerk identity and a key of its own."""
        made = Person(new_id("usr"), clerk_id or f"user_{next(_numbers)}", "")
        secret = new_ak_key()
        self.beside(_add_person, made, plan, secret)
        return made._replace(key=secret.text)

    def new_key(self, user_id: str, scopes: tuple[str, ...], *, by_operator: bool, rate_limit: int = 0) -> str:
        secret = new_ak_key()
        self.beside(api_keys.issue, secret, _key(secret, user_id, scopes, by_operator, rate_limit))
        return secret.text

    def change_plan(self, person: Person, plan: str) -> None:
        self.beside(_change_plan, person.id, plan)

    def delete(self, person: Person) -> None:
        self.beside(users.delete, person.id, now_ms())

    def ledger(self, person: Person) -> list[dict[str, Any]]:
        """A user's rows of the ledger, oldest first."""
        names = [row[1] for row in self.rows("PRAGMA table_info(usage_logs)")]
        rows = self.rows("SELECT * FROM usage_logs WHERE user_id = ? ORDER BY id", person.id)
        return [dict(zip(names, row, strict=True)) for row in rows]

    # -- through the door ------------------------------------------------------------------------------

    def post(self, events: Any, *, key: str | None = None, url: str = EVENTS, **headers: str) -> httpx.Response:
        """POST JSON with the relay's key; `_` in a header's name stands for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(url, json=events, headers={**bearer(key or self.key), **sent})

    def send(self, body: bytes, media: str = "application/json", url: str = EVENTS, **headers: str) -> httpx.Response:
        """POST bytes with the relay's key."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(url, content=body, headers={**bearer(self.key), "Content-Type": media, **sent})

    def accept(self, *events: Event) -> None:
        """Post events that must be accepted."""
        answer = self.post(list(events))
        assert answer.status_code == 200, answer.text
        assert answer.json()["accepted"] == len(events), answer.text

    def get(self, url: str, key: str, **query: str) -> httpx.Response:
        return self.client.get(url, params=query, headers=bearer(key))

    def quota(self, person: Person) -> dict[str, Any]:
        answer = self.get(QUOTA, person.key)
        assert answer.status_code == 200, answer.text
        quota: dict[str, Any] = answer.json()
        return quota

    def reserve(self, person: Person, tokens: int, **more: Any) -> httpx.Response:
        return self.post({"userId": person.id, "maxTokens": tokens, **more}, url=RESERVATIONS)

    def token(self, subject: str) -> str:
        """A session token as Clerk signs it."""
        now = int(time.time())
        claims = {"sub": subject, "sid": "sess_1", "iat": now, "nbf": now, "exp": now + 600}
        return jwt.encode(claims, self._signing_key, algorithm="RS256", headers={"kid": "ins_1"})

    def _public_pem(self) -> str:
        form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self._signing_key.public_key().public_bytes(*form).decode()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def native(person: Person, total: int = 10, **more: Any) -> Event:
    """A native event; without an id of its own it gets a new one."""
    return {"id": new_id("evt"), "userId": person.id, "totalTokens": total} | more


def response_done(person: Person, **more: Any) -> Event:
    """`response.done` as OpenAI's Realtime API sends it, with what a relay adds."""
    usage = {
        "total_tokens": 253,
        "input_tokens": 132,
        "output_tokens": 121,
        "input_token_details": {
            "text_tokens": 119,
            "audio_tokens": 13,
            "image_tokens": 0,
            "cached_tokens": 64,
            "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0},
        },
        "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
    }
    number = next(_numbers)
    response = {"object": "realtime.response", "id": f"resp_{number}", "status": "completed", "usage": usage}
    event = {"event_id": f"event_{number}", "type": "response.done", "response": response}
    return {"userId": person.id, "sessionId": "sess_relay"} | event | more


def transcribed(person: Person, usage: dict[str, Any]) -> Event:
    return {
        "userId": person.id,
        "event_id": f"event_{next(_numbers)}",
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "item_1",
        "content_index": 0,
        "transcript": "a secret between friends",
        "usage": usage,
    }


def cloud(data: Any, **more: Any) -> Event:
    """A CloudEvent around `data`."""
    attributes = {"specversion": "1.0", "id": new_id("ce"), "source": "/relay/1", "type": "com.example.usage"}
    return attributes | more | {"data": data}


def lines(*items: Any) -> bytes:
    return b"".join(msgspec.json.encode(item) + b"\n" for item in items)


def first(answer: httpx.Response) -> dict[str, Any]:
    """What became of the only item."""
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    made: dict[str, Any] = result
    return made


def add_plan(tx: Transaction, plan: Plan) -> None:
    announce(tx, plans.TOPIC, plan.name)
    plan_queries.upsert_plan(tx, plan, now_ms())


def differences(path: Path) -> list[tuple[Any, ...]]:
    """Where counters and roll-ups are not what the ledger sums up to, summed here in other words."""
    raw = sqlite.connect(path, read_only=True)
    try:
        rows: list[tuple[Any, ...]] = raw.execute(
            """WITH ledger AS (
                   SELECT user_id, strftime('%Y-%m', occurred_at_ms / 1000, 'unixepoch') AS month,
                          sum(total_tokens) AS tokens, count(*) AS events
                   FROM usage_logs GROUP BY 1, 2),
               counted AS (
                   SELECT user_id, strftime('%Y-%m', period_start_ms / 1000, 'unixepoch') AS month,
                          total_tokens AS tokens, events FROM usage_periods),
               rolled AS (
                   SELECT user_id, strftime('%Y-%m', day_start_ms / 1000, 'unixepoch') AS month,
                          sum(total_tokens) AS tokens, sum(events) AS events FROM usage_rollups GROUP BY 1, 2)
               SELECT 'not counted', * FROM (SELECT * FROM ledger EXCEPT SELECT * FROM counted)
               UNION ALL SELECT 'counted only', * FROM (SELECT * FROM counted EXCEPT SELECT * FROM ledger)
               UNION ALL SELECT 'not rolled up', * FROM (SELECT * FROM ledger EXCEPT SELECT * FROM rolled)
               UNION ALL SELECT 'rolled up only', * FROM (SELECT * FROM rolled EXCEPT SELECT * FROM ledger)"""
        ).fetchall()
        return rows
    finally:
        raw.close()


def _add_person(tx: Transaction, person: Person, plan: str, secret: Secret) -> None:
    queries.insert_user(tx, person.id, plan=plan, now=now_ms())
    queries.insert_identity(tx, queries.CLERK, person.clerk_id, person.id)
    api_keys.issue(tx, secret, _key(secret, person.id, READ_WRITE, False, 0))


def _change_plan(tx: Transaction, user_id: str, plan: str) -> None:
    queries.update_plan(tx, user_id, plan, now_ms())
    announce(tx, users.TOPIC, user_id)


def _key(secret: Secret, user_id: str, scopes: tuple[str, ...], by_operator: bool, rate_limit: int) -> KeyRow:
    return KeyRow(
        id=new_id("key"),
        name="a test's",
        key_prefix=secret.prefix,
        scope_type="account",
        scope_id=None,
        permissions="[]",
        scopes=msgspec.json.encode(scopes).decode(),
        by_operator=by_operator,
        rate_limit=rate_limit,
        status="active",
        expires_at_ms=None,
        last_used_at_ms=None,
        created_at=sql_text(now_ms()),
        user_id=user_id,
    )


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One server for a module; each test brings users of its own."""
    made = Relay(tmp_path_factory.mktemp("relay") / "data", ADMIN_USER_IDS=ADMIN)
    try:
        made.server.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def person(relay: Relay) -> Person:
    """A user on the plan of a million tokens, with no usage."""
    return relay.person()


def write_events(path: Path, lines: int, occurred: str = "2026-03-01T00:00:00Z") -> None:
    """A file of events of dev-user's, three tokens each."""
    with path.open("w") as file:
        for number in range(lines):
            event = {"userId": "dev-user", "id": f"e{number}", "totalTokens": 3, "occurredAt": occurred}
            file.write(json.dumps(event) + "\n")


def import_file(server: Server, path: Path) -> dict[str, object]:
    """What became of the lines of a file that must be taken."""
    done = server.command("usage", "import", str(path), "--json")
    assert done.returncode == 0, done.stderr
    imported: dict[str, object] = json.loads(done.stdout)["imported"][0]
    return imported
