"""litehouse doctor: what it finds, beside a running server and without one."""

import asyncio
import json
from pathlib import Path
from typing import Any

from app.edge import sqlite
from tests.cli.conftest import run
from tests.conftest import Server
from tests.usage.books import Books, line, old


def wrong(server: Server) -> dict[str, str]:
    """What the doctor finds wrong; it must exit 1."""
    done = server.command("doctor", "--json")
    assert done.returncode == 1
    findings: list[dict[str, Any]] = json.loads(done.stdout)
    return {finding["check"]: finding["detail"] for finding in findings if not finding["ok"]}


def change(server: Server, *statements: str) -> None:
    raw = sqlite.connect(server.data_dir / "core.db")
    raw.execute("PRAGMA foreign_keys = OFF")
    for statement in statements:
        raw.execute(statement)
    raw.close()


def test_a_running_server_is_well(server: Server) -> None:
    findings = run(server, "doctor")
    assert [finding["check"] for finding in findings] == [
        "sqlite",
        "settings",
        "role",
        "lag",
        "litefs port",
        "database",
        "mount",
        "schema",
        "integrity",
        "foreign keys",
        "wal",
        "clock",
        "archive",
        "ledger",
        "disk",
        "litestream",
        "left behind",
        "certificates",
        "leftovers",
        "old epochs",
        "secret files",
    ]
    assert all(finding["ok"] for finding in findings)


def test_settings_that_are_missing_are_named_all_at_once(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", ENVIRONMENT="production", ADMIN_TOKEN="")
    run(server, "migrate")
    assert wrong(server) == {"settings": "JWT_SECRET is required; ADMIN_TOKEN is required"}


def test_a_secret_file_that_others_can_read_is_found(server: Server) -> None:
    (server.data_dir / "demo-key").chmod(0o644)
    assert wrong(server) == {"secret files": f"others can read {server.data_dir / 'demo-key'}: chmod 600"}


def test_a_row_that_points_at_nothing_is_found(server: Server) -> None:
    change(server, "INSERT INTO identities (provider, subject, user_id) VALUES ('clerk', 'user_2x', 'nobody')")
    assert wrong(server) == {"foreign keys": "1 rows of identities point at no row of users"}


def test_a_row_that_breaks_a_rule_is_found(server: Server) -> None:
    change(
        server,
        "PRAGMA ignore_check_constraints = ON",
        "UPDATE plans SET monthly_tokens = -7 WHERE name = 'basic'",
    )
    assert wrong(server) == {"integrity": "CHECK constraint failed in plans"}


def test_a_clock_that_went_back_is_found(server: Server) -> None:
    key = (server.data_dir / "demo-key").read_text().strip()
    with server.client(authorization=f"Bearer {key}") as relay:
        event = {"userId": "dev-user", "id": "resp_1", "totalTokens": 1}
        assert relay.post("/api/usage/events", json=event).status_code == 200
    change(server, "UPDATE usage_logs SET received_at_ms = received_at_ms + 3600000")
    assert list(wrong(server)) == ["clock"]


def test_a_folder_without_a_database_is_not_made(tmp_path: Path) -> None:
    assert list(wrong(Server(tmp_path / "data"))) == ["database"]
    assert not (tmp_path / "data").exists()


def test_an_older_schema_is_found(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    run(server, "migrate")
    change(server, "UPDATE schema SET version = 0")
    assert wrong(server)["schema"].endswith("litehouse migrate")


def test_an_archive_that_is_missing_or_damaged_is_found(tmp_path: Path) -> None:
    async def write() -> None:
        books = Books(tmp_path)
        ann = await books.user("user_ann")
        await books.record(old(ann, "gone"), line(ann, "here"))
        assert await books.move() == 1
        await books.close()

    asyncio.run(write())
    server, ledger = Server(tmp_path), tmp_path / "ledger.db"
    (said,) = (found["detail"] for found in run(server, "doctor") if found["check"] == "archive")
    assert said == f"{ledger}, relied on up to commit 1"
    ledger.rename(tmp_path / "aside.db")
    assert wrong(server) == {"archive": "ledger.db is missing"}
    server.environ |= {"REPLICATION": "litefs", "PRIMARY_REGION": "fra", "FLY_REGION": "ams"}
    assert "archive" not in wrong(server), "at a replica there is none"
    server.environ["FLY_REGION"] = "fra"
    assert "archive" in wrong(server)
    del server.environ["REPLICATION"]
    (tmp_path / "aside.db").rename(ledger)
    raw = sqlite.connect(ledger)
    (root,) = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'usage_logs_identity'").fetchone()
    raw.close()
    with ledger.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    assert "archive" in wrong(server)
