"""Origins: the rows that list who may call from a browser, changed by an operator without a deploy."""

import re

from app.edge.changes import announce
from app.edge.clock import now_ms, sql_text
from app.edge.database import Connection, Transaction
from app.errors import Invalid

TOPIC = "origin"
_NAME = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_FORMS = re.compile(
    rf"""file://
       | chrome-extension://[a-p]{{32}}
       | https?://\*(?:\.{_NAME}){{2,}}(?::\d{{1,5}})?
       | http://(?:\*\.)?localhost(?::(?:\d{{1,5}}|\*))?
       | (?!chrome-extension)[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:]+\]|{_NAME}(?:\.{_NAME})*)(?::\d{{1,5}})?""",
    re.VERBOSE,
)


def check(origin: str) -> None:
    """Invalid unless `origin` is one a browser sends, or has its star where one may stand (see `cors.pattern`)."""
    if not _FORMS.fullmatch(origin):
        raise Invalid(
            f"{origin!r} is not an origin such as https://app.example.com, https://*.example.com, "
            "http://localhost:*, file:// or chrome-extension:// and an extension's id"
        )


def list_origins(connection: Connection) -> list[str]:
    return [row[0] for row in connection.fetch("SELECT origin FROM origins ORDER BY origin")]


def add(tx: Transaction, origin: str) -> bool:
    """False when it was listed already."""
    announce(tx, TOPIC, origin)
    return (
        tx.execute(
            "INSERT INTO origins (origin, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
            origin,
            sql_text(now_ms()),
        )
        > 0
    )


def remove(tx: Transaction, origin: str) -> bool:
    """False when it was not listed."""
    announce(tx, TOPIC, origin)
    return tx.execute("DELETE FROM origins WHERE origin = ?", origin) > 0
