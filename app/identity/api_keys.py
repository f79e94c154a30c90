"""API keys: issued once in full, kept only as a hash, narrowed by scopes."""

import re

from app.edge.changes import announce
from app.edge.database import Transaction
from app.errors import Forbidden, Unauthenticated
from app.identity.principal import ApiKey

TOPIC = "key"
SCOPES = frozenset(
    [f"{verb}:{noun}" for verb in ("read", "write", "delete") for noun in ("benchmarks", "results", "api_keys")]
    + [f"{verb}:{noun}" for verb in ("read", "write") for noun in ("profile", "usage", "instances", "chats", "tests")]
    + ["admin:all"]
)
_FORMAT = re.compile(r"mc_live_[A-Za-z0-9]{32}|ak_[0-9a-f]{48}")


def check_format(text: str) -> None:
    """Unauthenticated, in the words of the door that the key claims to come from."""
    if not _FORMAT.fullmatch(text):
        raise Unauthenticated("Invalid API key format" if text.startswith("ak_") else "Invalid API key")


def check_usable(key: ApiKey, now: int) -> None:
    if key.status != "active":
        raise Unauthenticated("API key is revoked" if key.status == "revoked" else "Invalid API key")
    if key.expires_at_ms is not None and key.expires_at_ms <= now:
        raise Unauthenticated("API key has expired")


def check_scope(key: ApiKey, scope: str | None) -> None:
    """Forbidden when the key does not carry `scope`; a route without one takes no key at all."""
    if scope is None or not (scope in key.scopes or "admin:all" in key.scopes):
        raise Forbidden(f"API key lacks scope {scope}" if scope else "An API key cannot be used here")


class Uses:
    """When each key was last used, gathered in memory and written in batches."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def note(self, key_id: str, now: int) -> None:
        self._last[key_id] = now

    def take(self) -> list[tuple[int, str]]:
        """What is to be written, handed over."""
        taken, self._last = self._last, {}
        return [(at, key_id) for key_id, at in taken.items()]


def write_uses(tx: Transaction, uses: list[tuple[int, str]]) -> None:
    tx.executemany("UPDATE api_keys SET last_used_at_ms = ? WHERE id = ?", uses)


def revoke(tx: Transaction, key_id: str, user_id: str) -> bool:
    """Delete a key of this user's. False when it has none with this id."""
    announce(tx, TOPIC, key_id)
    return tx.execute("DELETE FROM api_keys WHERE id = ? AND user_id = ?", key_id, user_id) > 0
