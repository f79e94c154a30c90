"""Ids and secrets: the one place that makes them."""

import hashlib
import secrets
from typing import NamedTuple

KEY_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
LIVE, OPERATOR_DOOR = "mc_live_", "ak_"
LIVE_CHARACTERS = 32
LIVE_PREFIX = 12
AK_BYTES = 24
AK_PREFIX = 11


class Secret(NamedTuple):
    """A key in full, shown once, and what is kept of it."""

    text: str
    prefix: str
    hash: bytes


def new_id(kind: str) -> str:
    """`usr_…`, `key_…`: 120 random bits behind the kind."""
    return f"{kind}_{secrets.token_hex(15)}"


def new_live_key() -> Secret:
    """`mc_live_` and 32 characters; its prefix is the first 12."""
    text = LIVE + "".join(secrets.choice(KEY_ALPHABET) for _ in range(LIVE_CHARACTERS))
    return Secret(text, text[:LIVE_PREFIX], hash_secret(text))


def new_ak_key() -> Secret:
    """`ak_` and 48 hex digits; its prefix is `ak_` and 8."""
    text = OPERATOR_DOOR + secrets.token_hex(AK_BYTES)
    return Secret(text, text[:AK_PREFIX], hash_secret(text))


def hash_secret(text: str) -> bytes:
    """SHA-256: enough for 190 random bits, which nobody can guess from a hash."""
    return hashlib.sha256(text.encode()).digest()
