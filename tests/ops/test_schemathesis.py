"""Every operation of the document, with generated input that fits it and that does not: nothing is answered 5xx,
and nothing with a status that the document does not name."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode

from tests.conftest import ADMIN_TOKEN, Server, serving
from tests.fakes.clerk import SigningKey, fake_clerk

EXAMPLES = 20
CALL_SECONDS = 10.0

BOUNDED = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with fake_clerk(SigningKey()) as clerk:
        told = {"CLERK_SECRET_KEY": clerk.secret, "CLERK_API_URL": clerk.url, "DEV_USER": "1"}
        with serving(tmp_path_factory.mktemp("generated"), **told) as running:
            yield running


@pytest.fixture(scope="module")
def credentials(server: Server) -> dict[str, dict[str, str]]:
    """The headers of nobody, of a key that may do all that a key may, and of an operator."""
    scopes = ("--scope", "write:usage", "--scope", "admin:all")
    made = server.command("keys", "create", "--user", "dev-user", "--name", "generated", *scopes, "--json")
    key = json.loads(made.stdout)["key"]
    return {"nothing": {}, "key": {"X-API-Key": key}, "operator": {"X-Admin-Token": ADMIN_TOKEN}}


@pytest.mark.parametrize("credential", ["nothing", "key", "operator"])
def test_no_generated_request_is_answered_5xx_or_undescribed(
    server: Server, credentials: dict[str, dict[str, str]], credential: str
) -> None:
    with server.client() as client:
        described = client.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(described)
    operations = [found.ok() for found in schema.get_all_operations()]
    answered: Counter[tuple[str, int]] = Counter()
    with requests.Session() as session:
        session.trust_env = False
        for operation in operations:
            for mode in GenerationMode:
                # An operation that takes nothing cannot be given anything wrong.
                with suppress(Unsatisfiable):
                    call_all(server, session, operation.as_strategy(mode), credentials[credential], answered)
    assert {label for label, _ in answered} == {operation.label for operation in operations}
    assert undeclared(described, answered) == []
    assert '"unexpected"' not in server.log()
    if credential == "key":
        assert answered["POST /api/usage/events", 200] > 0
        assert answered["GET /api/usage/quota", 200] > 0


def call_all(
    server: Server,
    session: requests.Session,
    cases: Any,
    headers: dict[str, str],
    answered: "Counter[tuple[str, int]]",
) -> None:
    @BOUNDED
    @given(case=cases)
    def call(case: Case) -> None:
        answer = case.call(base_url=server.url, session=session, headers=headers, timeout=CALL_SECONDS)
        answered[case.operation.label, answer.status_code] += 1
        assert answer.status_code < 500, f"{answer.status_code} {answer.text}\n{case.as_curl_command(headers)}"

    call()


def undeclared(described: dict[str, Any], answered: "Counter[tuple[str, int]]") -> list[tuple[str, int]]:
    """The answers that the document does not know of."""
    declared = {
        (f"{method.upper()} {path}", int(status))
        for path, methods in described["paths"].items()
        for method, node in methods.items()
        for status in node["responses"]
    }
    return sorted(answered.keys() - declared)
