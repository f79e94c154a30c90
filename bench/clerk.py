"""Clerk's side: session tokens and signed webhooks, from keys made for this run."""

import base64
import secrets
import time
from datetime import UTC, datetime

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from standardwebhooks import Webhook

from bench import messages

RSA_BITS = 2_048
TOKEN_SECONDS = 3_600


class Clerk:
    """`public_pem` and `webhook_secret` are what a server is told of it."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65_537, key_size=RSA_BITS)
        self.public_pem = (
            self._key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )
        self.webhook_secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()

    def token(self, user: str) -> str:
        """A session token that nobody has seen before."""
        now = int(time.time())
        claims = {
            "sub": user,
            "sid": f"sess_{secrets.token_hex(8)}",
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_SECONDS,
        }
        return jwt.encode(claims, self._key, "RS256", {"kid": "ins_bench", "typ": "JWT"})

    def webhook(self) -> bytes:
        """A POST that announces a user."""
        now = datetime.now(UTC)
        at = int(now.timestamp() * 1000)
        address = {"id": "idn_1", "email_address": "ada@example.com"}
        user = {
            "id": "user_announced",
            "first_name": "Ada",
            "last_name": "Lovelace",
            "image_url": "https://img.example.com/ada.png",
            "email_addresses": [address],
            "primary_email_address_id": "idn_1",
            "public_metadata": {},
            "created_at": at,
            "updated_at": at,
        }
        body = msgspec.json.encode({"type": "user.created", "object": "event", "data": user})
        event_id = f"msg_{secrets.token_hex(12)}"
        signature = Webhook(self.webhook_secret).sign(event_id, now, body.decode())
        signed = {"svix-id": event_id, "svix-timestamp": str(int(now.timestamp())), "svix-signature": signature}
        return messages.post(messages.WEBHOOK, body, signed)
