"""A fake Clerk: its JWKS, its users over the Backend API, and the session tokens that it signs."""

import asyncio
import base64
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes.serving import served

SECRET = "sk_test_fake"
SESSION_CATEGORY = "cl_B7d4PD111AAA"
SESSION_SECONDS = 60
HOLD_SECONDS = 20.0
LIST_LIMIT = 500

Json = dict[str, Any]


class SigningKey:
    """An RSA pair as an instance of Clerk has it."""

    def __init__(self, kid: str = "ins_fake", bits: int = 2048) -> None:
        self.kid = kid
        self.private = rsa.generate_private_key(65537, bits)

    @property
    def pem(self) -> str:
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def jwk(self) -> Json:
        public: Json = jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {"use": "sig", "kty": "RSA", "kid": self.kid, "alg": "RS256", "n": public["n"], "e": public["e"]}

    def sign(self, claims: Json, header: Json | None = None, algorithm: str = "RS256") -> str:
        """A token of these claims; None in `header` takes one of the usual fields away."""
        return self.sign_bytes(json.dumps(claims).encode(), header, algorithm)

    def sign_bytes(self, payload: bytes, header: Json | None = None, algorithm: str = "RS256") -> str:
        """A token of any payload and header, also of those that no library would write."""
        fields: Json = {"alg": algorithm, "cat": SESSION_CATEGORY, "kid": self.kid, "typ": "JWT"} | (header or {})
        head = encode_part(json.dumps({name: value for name, value in fields.items() if value is not None}).encode())
        signed = f"{head}.{encode_part(payload)}"
        signature = jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), self.private)
        return f"{signed}.{encode_part(signature)}"


def encode_part(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def session_claims(now: float, **changed: Any) -> Json:
    """What Clerk writes into a session token at `now`; a claim changed to None is left out."""
    at = int(now)
    claims: Json = {
        "azp": "https://app.example.com",
        "exp": at + SESSION_SECONDS,
        "fva": [0, -1],
        "iat": at,
        "iss": "https://clerk.example.com",
        "nbf": at - 10,
        "sid": "sess_2abc",
        "sts": "active",
        "sub": "user_2abc",
        "v": 2,
    }
    return {name: value for name, value in (claims | changed).items() if value is not None}


def user(user_id: str = "user_2abc", *emails: str, **changed: Any) -> Json:
    """A user as Clerk's Backend API and webhooks give it; the first address is the primary one."""
    addresses = [_email_address(f"idn_{user_id}_{number}", email) for number, email in enumerate(emails)]
    made: Json = {
        "id": user_id,
        "object": "user",
        "username": None,
        "first_name": "Ada",
        "last_name": "Lovelace",
        "locale": None,
        "image_url": f"https://img.clerk.com/{user_id}",
        "has_image": False,
        "primary_email_address_id": addresses[0]["id"] if addresses else None,
        "primary_phone_number_id": None,
        "primary_web3_wallet_id": None,
        "password_enabled": True,
        "two_factor_enabled": False,
        "totp_enabled": False,
        "backup_code_enabled": False,
        "email_addresses": addresses,
        "phone_numbers": [],
        "web3_wallets": [],
        "passkeys": [],
        "external_accounts": [],
        "saml_accounts": [],
        "enterprise_accounts": [],
        "organization_memberships": None,
        "password_last_updated_at": 1_764_547_200_000,
        "public_metadata": {},
        "private_metadata": {},
        "unsafe_metadata": {},
        "external_id": None,
        "last_sign_in_at": None,
        "banned": False,
        "locked": False,
        "lockout_expires_in_seconds": None,
        "verification_attempts_remaining": 100,
        "created_at": 1_764_547_200_000,
        "updated_at": 1_764_547_200_000,
        "delete_self_enabled": True,
        "create_organization_enabled": True,
        "create_organizations_limit": None,
        "last_active_at": None,
        "mfa_enabled_at": None,
        "mfa_disabled_at": None,
        "legal_accepted_at": None,
        "profile_image_url": f"https://img.clerk.com/{user_id}",
    }
    return made | changed


def _email_address(email_id: str, email: str) -> Json:
    return {
        "id": email_id,
        "object": "email_address",
        "email_address": email,
        "reserved": False,
        "verification": {
            "object": "verification_admin",
            "status": "verified",
            "strategy": "admin",
            "attempts": None,
            "expire_at": None,
        },
        "linked_to": [],
        "matches_sso_connection": False,
        "created_at": 1_764_547_200_000,
        "updated_at": 1_764_547_200_000,
    }


class FakeClerk:
    """What the fake publishes and how it behaves; a test changes it while it serves."""

    def __init__(self, *keys: SigningKey, secret: str = SECRET) -> None:
        self.keys = [key.jwk for key in keys]
        self.users: dict[str, Json] = {}
        self.secret = secret
        self.requests: Counter[str] = Counter()
        self.failing_with: int | None = None
        self.arrived = threading.Semaphore(0)
        self._open = threading.Event()
        self._open.set()
        self.url = ""
        self.app = Starlette(
            routes=[
                Route("/.well-known/jwks.json", self._public_jwks),
                Route("/v1/jwks", self._backend_jwks),
                Route("/v1/users", self._list_users),
                Route("/v1/users/{id}", self._get_user),
            ]
        )

    def add(self, *users: Json) -> None:
        self.users |= {made["id"]: made for made in users}

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Every answer waits until this ends, or for HOLD_SECONDS; `arrived` counts who asks."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    async def _public_jwks(self, request: Request) -> Response:
        return await self._hinder(request) or JSONResponse({"keys": self.keys})

    async def _backend_jwks(self, request: Request) -> Response:
        return await self._hinder(request) or self._forbid(request) or JSONResponse({"keys": self.keys})

    async def _get_user(self, request: Request) -> Response:
        refusal = await self._hinder(request) or self._forbid(request)
        if refusal is not None:
            return refusal
        found = self.users.get(request.path_params["id"])
        return JSONResponse(found) if found else _error(404, "resource_not_found", "not found")

    async def _list_users(self, request: Request) -> Response:
        refusal = await self._hinder(request) or self._forbid(request)
        if refusal is not None:
            return refusal
        limit, offset = (int(request.query_params.get(name, default)) for name, default in LIST_DEFAULTS)
        if not 1 <= limit <= LIST_LIMIT or offset < 0:
            return _error(422, "form_param_value_invalid", "limit or offset is out of range")
        newest_first = sorted(self.users.values(), key=lambda made: (-made["created_at"], made["id"]))
        return JSONResponse(newest_first[offset : offset + limit])

    async def _hinder(self, request: Request) -> Response | None:
        """Count the request, hold it while the fake is slow, and refuse it while it is failing."""
        self.requests[request.url.path] += 1
        self.arrived.release()
        if not self._open.is_set():
            await asyncio.to_thread(self._open.wait, HOLD_SECONDS)
        if self.failing_with is None:
            return None
        return _error(self.failing_with, "internal_clerk_error", "There was an internal error on our servers")

    def _forbid(self, request: Request) -> Response | None:
        if request.headers.get("authorization") == f"Bearer {self.secret}":
            return None
        return _error(401, "clerk_key_invalid", "The provided Clerk Secret Key is invalid")


LIST_DEFAULTS = (("limit", "10"), ("offset", "0"))


def _error(status: int, code: str, message: str) -> Response:
    error = {"message": message, "long_message": message, "code": code}
    return JSONResponse({"errors": [error], "clerk_trace_id": "fake"}, status)


@contextmanager
def fake_clerk(*keys: SigningKey, secret: str = SECRET) -> Iterator[FakeClerk]:
    """A fake Clerk on a socket of loopback, at `url`."""
    fake = FakeClerk(*keys, secret=secret)
    with served(fake.app) as fake.url:
        yield fake
