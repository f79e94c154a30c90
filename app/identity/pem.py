"""A PEM: the one public key that settings hold, so that no token needs the network."""

import asyncio
import base64
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from app.errors import Unavailable
from app.identity.jwks import KEY_BITS

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

_ARMOUR = re.compile(r"-----[A-Z ]+-----|\s")

log = structlog.get_logger("identity")


class Pem:
    def __init__(self, text: str) -> None:
        self._text = text
        self._key: RSAPublicKey | None = None

    async def find(self, kid: str | None) -> "RSAPublicKey":
        """The key, whatever a token calls it. Unavailable when the settings hold none."""
        if self._key is None:
            try:
                # On a thread, because the first call loads cryptography.
                self._key = await asyncio.to_thread(read_pem, self._text)
            except ValueError as error:
                log.error("pem_not_read", error=str(error))
                raise Unavailable("Sign-in is not set up") from error
        return self._key

    async def warm(self) -> None:
        """Read the key; what is wrong with it is said again to the first token."""
        with suppress(Unavailable):
            await self.find(None)

    async def close(self) -> None:
        """Nothing is open."""


def read_pem(text: str) -> "RSAPublicKey":
    """The RSA key of a PEM, also of one whose lines a secret store has folded into one. Raises ValueError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        key = load_der_public_key(base64.b64decode(_ARMOUR.sub("", text), validate=True))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("CLERK_JWT_KEY is not the PEM of a public key") from error
    if not isinstance(key, RSAPublicKey) or key.key_size < KEY_BITS:
        raise ValueError(f"CLERK_JWT_KEY is not an RSA key of at least {KEY_BITS} bits")
    return key
