"""The welcome: where the server listens, and in development three calls that work as they are printed."""

import contextlib
import shlex

import click
import msgspec

from app.edge import folder
from app.edge.console import Record, align, encode
from app.identity.demo import RELAY_USER, Demo
from app.settings import Settings

TOKENS_IN, TOKENS_OUT = 900, 300


def print_welcome(settings: Settings, port: int, demo: Demo | None, as_json: bool) -> None:
    # Nobody may be listening: that must not end a server.
    with contextlib.suppress(BrokenPipeError):
        click.echo(encode(describe(settings, port, demo)) if as_json else _text(settings, port, demo))


def _text(settings: Settings, port: int, demo: Demo | None) -> str:
    url = address(settings, port)
    said = f"litehouse serves {url} ({settings.environment}, data in {settings.data_dir})"
    if demo is None:
        return said
    calls = "\n".join(f"  {line}" for line in curl_lines(settings, url, demo))
    return f"{said}\n{_introduce(settings, demo)}\n\nTry:\n{calls}"


def describe(settings: Settings, port: int, demo: Demo | None) -> Record:
    record: Record = {
        "address": address(settings, port),
        "environment": settings.environment,
        "data": str(settings.data_dir),
    }
    if demo is not None:
        record |= {"demoKey": demo.key, "demoKeyFile": str(demo.key_path), "demoUser": demo.user}
    return record


def address(settings: Settings, port: int) -> str:
    """The URL to call: one that listens everywhere is called on loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def curl_lines(settings: Settings, url: str, demo: Demo) -> list[str]:
    """Post a demo user's usage as a relay does, read its quota as an operator, read dev-user's as a client."""
    lines = [
        f"curl -s '{url}/api/usage/quota?userId={demo.user}' -H {_admin_header(settings)}",
        f"curl -s {url}/api/usage/quota" if settings.dev_user else f"curl -s {url}/api/health",
    ]
    return [_ingest_line(url, demo, demo.key), *lines] if demo.key else lines


def _ingest_line(url: str, demo: Demo, key: str) -> str:
    event = {
        "clerkId": demo.user,
        "responseId": "resp_welcome_1",
        "model": "gpt-realtime",
        "provider": "openai",
        "inputTokens": TOKENS_IN,
        "outputTokens": TOKENS_OUT,
        "totalTokens": TOKENS_IN + TOKENS_OUT,
    }
    body = shlex.quote(msgspec.json.encode(event).decode())
    headers = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    return f"curl -s {url}/api/usage/events {headers} -d {body}"


def _admin_header(settings: Settings) -> str:
    """Where the shell finds the token, so that it stands in no terminal and no history."""
    kept = settings.data_dir / folder.ADMIN_TOKEN_FILE
    if folder.find_secret(kept) == settings.admin_token:
        return f'"X-Admin-Token: $(cat {shlex.quote(str(kept.absolute()))})"'
    return '"X-Admin-Token: $ADMIN_TOKEN"'


def _introduce(settings: Settings, demo: Demo) -> str:
    lost = f"none: litehouse keys create --user {RELAY_USER} --scope write:usage --name relay"
    rows = [
        ["  demo key", f"{demo.key} (in {demo.key_path})" if demo.key else lost],
        ["  demo user", f"{demo.user} (plan {demo.plan})"],
    ]
    if settings.dev_user:
        rows.append(["  no credential", "is dev-user (plan premium)"])
    return align(rows)
