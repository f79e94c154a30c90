"""The messages: the bytes of each request that is measured, the same for litehouse and for its baselines."""

import msgspec

EVENTS = "/api/usage/events"
QUOTA = "/api/usage/quota"
PROFILE = "/api/user/profile"
WEBHOOK = "/webhooks/clerk"

USERS = 100
MODELS = ("gpt-realtime", "gpt-realtime-mini", "gpt-4o-mini-transcribe")
BATCH_EVENTS = 100
# Of these the ids of events are made; as wide as any number of one run, so that Content-Length never changes.
NUMBER = "resp_%012d"


def get(target: str, token: str) -> bytes:
    return _head("GET", target, {"Authorization": f"Bearer {token}"})


def post(target: str, body: bytes, headers: dict[str, str], *, numbers: int = 0) -> bytes:
    """A POST of JSON; with `numbers`, a template with that many of them to fill in."""
    length = len(body % tuple(range(numbers))) if numbers else len(body)
    said = {**headers, "Content-Type": "application/json", "Content-Length": str(length)}
    return _head("POST", target, said) + body


def one_event(token: str) -> tuple[bytes, ...]:
    """Templates of POSTs of a single event, one for each user."""
    bodies = (msgspec.json.encode(event(user)) for user in range(USERS))
    return tuple(post(EVENTS, body, _bearer(token), numbers=1) for body in bodies)


def batch(token: str) -> tuple[bytes, ...]:
    """Templates of POSTs of BATCH_EVENTS events of as many users, beginning with another one each."""
    bodies = (
        msgspec.json.encode([event((first + step) % USERS) for step in range(BATCH_EVENTS)]) for first in range(USERS)
    )
    return tuple(post(EVENTS, body, _bearer(token), numbers=BATCH_EVENTS) for body in bodies)


def event(user: int) -> dict[str, object]:
    """A realtime response's usage as a relay sends it; its id is still to be filled in."""
    return {
        "userId": user_name(user),
        "sessionId": session_name(user),
        "responseId": NUMBER,
        "model": MODELS[user % len(MODELS)],
        "provider": "openai",
        "totalTokens": 1_234,
        "inputTokens": 1_000,
        "outputTokens": 234,
        "inputTokenDetails": {"textTokens": 200, "audioTokens": 800, "cachedTokens": 640},
        "outputTokenDetails": {"textTokens": 34, "audioTokens": 200},
    }


def user_name(user: int) -> str:
    return f"user_bench{user:04d}"


def session_name(user: int) -> str:
    return f"sess_bench{user:04d}"


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _head(method: str, target: str, headers: dict[str, str]) -> bytes:
    always = {"Host": "127.0.0.1", "User-Agent": "litehouse-bench", "Accept": "application/json"}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in {**always, **headers}.items())]
    return "\r\n".join([*lines, "", ""]).encode()
